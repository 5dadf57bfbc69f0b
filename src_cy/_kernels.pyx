"""The compiled kernels as functions of arrays: calls, and blocks of their rows.

What a block is computed by stands in a table of the CPU level in use (call.h), chosen when the package is imported.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t, uint16_t

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept

cnp.import_array()

cdef extern from "call.h" nogil:
    ctypedef enum op_t "enum op":
        SOFTMAX
        LOG_SOFTMAX
        LOGSUMEXP
        SOFTMAX_VJP
        LOG_SOFTMAX_VJP
        LOG_SOFTMAX_JVP
        SOFTMAX_JACOBIAN
        CROSS_ENTROPY
    ctypedef enum half_t "enum half":
        FLOAT16
        BFLOAT16
    const int TILE
    bint is_short(Py_ssize_t n, Py_ssize_t itemsize)

    ctypedef struct Target:
        const void* weight
        const void* everywhere
        double at_label, total, scale

    ctypedef struct Layout:
        Py_ssize_t outer, n, inner, outer_stride, n_stride

    ctypedef struct Call:
        op_t op
        void* a
        void* b
        void* out
        void* results
        Py_ssize_t* labels
        Layout s, sb, so
        Py_ssize_t results_stride, labels_stride
        Target target
        const int* given_up
        bint single

    ctypedef struct Kernels:
        Py_ssize_t vector_bytes
        void (*run)(const Call*) noexcept nogil
        double (*exact_sum_f32)(const float*, Py_ssize_t n) noexcept nogil
        double (*exact_sum_f64)(const double*, Py_ssize_t n) noexcept nogil
        void (*widen)(const uint16_t*, float*, Py_ssize_t n, half_t) noexcept nogil
        void (*narrow)(const float*, uint16_t*, Py_ssize_t n, half_t) noexcept nogil
        void (*blend_f32)(const float*, const uint8_t* mask, float*, Py_ssize_t n, double fill) noexcept nogil
        void (*blend_f64)(const double*, const uint8_t* mask, double*, Py_ssize_t n, double fill) noexcept nogil

cdef extern from "levels.h" nogil:
    const Kernels* kernels_of(const char* level)

cdef extern from "mode.h" nogil:
    unsigned take_mode()
    void restore_mode(unsigned)

cdef extern from "pool.h" nogil:
    ctypedef struct Work:
        void (*run)(const void*, Py_ssize_t start, Py_ssize_t stop) noexcept nogil
        const void* call
        Py_ssize_t rows, step, next
        int given_up
    bint ask_for_help(Work*, int helpers)
    bint take_block(Work*, Py_ssize_t* start, Py_ssize_t* stop)
    void give_up(Work*)
    bint wait_awhile(Work*)
    void wait_for_helpers()
    int renew_pool_in_children()
    unsigned forks

if renew_pool_in_children():
    raise MemoryError("no room for a handler of forks")

cdef enum:
    KEEP_GIL = 4096  # below this many elements letting go of it costs more than it could give
    SHARE = 32 * 1024  # a second thread pays from about this many elements each
    BLOCK = 8 * 1024  # elements that one of several threads takes at a time, at least,
    BLOCKS = 16  # and at most so many times: a small block ends soon, a large one shares fewer pages
    UNINTERRUPTED = 16 * 1024 * 1024  # elements in some 50 ms: then Ctrl-C is looked for


cdef const Kernels* kernels = NULL  # of the level in use


def use_level(str name not None):
    """Run on the kernels of that level from now on; whether there are any."""
    global kernels
    cdef const Kernels* found = kernels_of(name.encode())
    if found != NULL:
        kernels = found
    return found != NULL


cdef Layout layout_of(cnp.ndarray a) noexcept:
    cdef Layout s
    s.outer, s.n, s.inner = a.shape[0], a.shape[1], a.shape[2]
    s.outer_stride, s.n_stride = a.strides[0] // a.itemsize, a.strides[1] // a.itemsize
    return s


cdef void run_part(const void* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Rows of a call from start to stop: along outer, or along inner where outer is 1."""
    cdef Call c = (<const Call*>call)[0]
    cdef Py_ssize_t itemsize = sizeof(float) if c.single else sizeof(double)
    if c.s.outer > 1:
        c.s.outer = stop - start
    else:
        c.s.inner = stop - start
        c.s.outer_stride = c.sb.outer_stride = c.so.outer_stride = c.results_stride = c.labels_stride = 1
    c.a = <char*>c.a + start * c.s.outer_stride * itemsize
    if c.b:
        c.b = <char*>c.b + start * c.sb.outer_stride * itemsize
    if c.out:
        c.out = <char*>c.out + start * c.so.outer_stride * itemsize
    if c.results:
        c.results = <char*>c.results + start * c.results_stride * itemsize
    if c.labels:
        c.labels += start * c.labels_stride
    kernels.run(&c)


cdef Py_ssize_t rows_of(const Call* c) noexcept nogil:
    return c.s.outer if c.s.outer > 1 else c.s.inner


cdef Py_ssize_t elements_a_row(const Call* c) noexcept nogil:
    return c.s.n * (c.s.n if c.op == SOFTMAX_JACOBIAN else c.s.inner if c.s.outer > 1 else 1)


cdef Py_ssize_t block_rows(const Call* c, int threads) noexcept nogil:
    """How many rows a thread takes at a time: whole panels, or an equal share of a strip in whole tiles."""
    cdef Py_ssize_t tile = TILE * kernels.vector_bytes // <Py_ssize_t>sizeof(float)
    cdef Py_ssize_t a_row = elements_a_row(c), share = (rows_of(c) + threads - 1) // threads
    cdef Py_ssize_t block = min(UNINTERRUPTED // a_row, share)
    if threads > 1 and c.s.outer > 1:
        block = min(block, max(BLOCK // a_row, share // BLOCKS))
    if c.s.outer == 1 or is_short(c.s.n * c.s.inner, sizeof(float)):
        block = (block + tile - 1) // tile * tile
    return max(block, 1)


cdef int run_blocks(Call* c, int threads) except -1 nogil:
    """Run a call in blocks of rows, with the help of other threads if it may have more than one; or until Ctrl-C.

    Blocks that take long are left to others, and this thread looks for signals meanwhile.
    """
    cdef Work w
    cdef Py_ssize_t start, end, elements = 0, a_row = elements_a_row(c)
    cdef unsigned forks_before = forks
    cdef bint is_long, helped
    w.run, w.call, w.rows, w.step, w.next, w.given_up = run_part, c, rows_of(c), block_rows(c, threads), 0, False
    is_long = min(w.step, w.rows) * a_row > UNINTERRUPTED
    if is_long:
        c.given_up = &w.given_up
    helped = (threads > 1 or is_long) and ask_for_help(&w, threads if is_long else threads - 1)
    while is_long and helped and not w.given_up and forks == forks_before and not wait_awhile(&w):
        look_for_signals(&w)
    while take_block(&w, &start, &end):
        run_part(c, start, end)
        elements += (end - start) * a_row
        if elements >= UNINTERRUPTED:
            elements = 0
            look_for_signals(&w)
    if helped:
        wait_for_helpers()
        if forks != forks_before and not w.given_up:
            with gil:
                raise RuntimeError("forked in the middle of a parallel call: its result is incomplete in this process")
    return -1 if w.given_up else 0


cdef void look_for_signals(Work* w) noexcept nogil:
    """Have their handlers run, and give up if one raises."""
    cdef bint raised
    with gil:
        raised = PyErr_CheckSignals() < 0
    if raised:
        give_up(w)


cdef int run(Call* c, int threads=1) except -1:
    """Run a call, without the GIL unless it is over at once."""
    cdef Py_ssize_t elements = rows_of(c) * elements_a_row(c)
    if elements < KEEP_GIL:
        kernels.run(c)
    elif threads == 1 and elements <= UNINTERRUPTED:
        with nogil:
            kernels.run(c)
    else:
        with nogil:
            run_blocks(c, threads)
    return 0


cdef Call call_of(op_t op, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, cnp.ndarray results):
    """A call on canonical arrays; those it has none of are None."""
    cdef Call c
    c.op, c.a, c.s, c.single = op, cnp.PyArray_DATA(a), layout_of(a), cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    c.b, c.out, c.results, c.labels, c.given_up = NULL, NULL, NULL, NULL, NULL
    c.sb = c.so = c.s  # of arrays that there are not too: kernels compute where rows of them would be
    c.results_stride = c.labels_stride = 0
    if b is not None:
        c.b, c.sb = cnp.PyArray_DATA(b), layout_of(b)
    if out is not None:
        c.out, c.so = cnp.PyArray_DATA(out), layout_of(out)
    if results is not None:
        c.results, c.results_stride = cnp.PyArray_DATA(results), results.strides[0] // results.itemsize
    return c


def softmax(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(SOFTMAX, x, None, out, None)
    run(&c, num_threads)


def log_softmax(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(LOG_SOFTMAX, x, None, out, None)
    run(&c, num_threads)


def logsumexp(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(LOGSUMEXP, x, None, None, out)
    run(&c, num_threads)


def softmax_vjp(cnp.ndarray y not None, cnp.ndarray g not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(SOFTMAX_VJP, y, g, out, None)
    run(&c, num_threads)


def log_softmax_vjp(cnp.ndarray logy not None, cnp.ndarray g not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(LOG_SOFTMAX_VJP, logy, g, out, None)
    run(&c, num_threads)


def log_softmax_jvp(cnp.ndarray logy not None, cnp.ndarray t not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(LOG_SOFTMAX_JVP, logy, t, out, None)
    run(&c, num_threads)


def softmax_jacobian(cnp.ndarray y not None, cnp.ndarray out not None, *, int num_threads=1):
    cdef Call c = call_of(SOFTMAX_JACOBIAN, y, None, out, None)
    run(&c, num_threads)


cdef cross_entropies(cnp.ndarray x, cnp.ndarray labels, cnp.ndarray weight, double smoothing, double scale,
                     cnp.ndarray loss, cnp.ndarray out, int threads):
    cdef Call c = call_of(CROSS_ENTROPY, x, None, out, loss)
    c.labels, c.labels_stride = <Py_ssize_t*>cnp.PyArray_DATA(labels), labels.strides[0] // labels.itemsize
    _everywhere = set_target(&c, weight, smoothing, scale)  # kept to the end
    run(&c, threads)


def cross_entropy(cnp.ndarray x not None, cnp.ndarray labels not None, weight, double smoothing,
                  cnp.ndarray loss not None, *, int num_threads=1):
    cross_entropies(x, labels, weight, smoothing, 1.0, loss, None, num_threads)


def cross_entropy_with_grad(cnp.ndarray x not None, cnp.ndarray labels not None, weight, double smoothing,
                            double scale, cnp.ndarray loss not None, cnp.ndarray out not None, *,
                            int num_threads=1):
    cross_entropies(x, labels, weight, smoothing, scale, loss, out, num_threads)


cdef class FloatingPointMode:
    """``with FloatingPointMode():`` this thread has the mode that kernels need (mode.h), and then its own again."""
    cdef unsigned before

    def __enter__(self):
        self.before = take_mode()

    def __exit__(self, *error):
        restore_mode(self.before)


def regime(op, Py_ssize_t itemsize, tuple canonical):
    """Which of the three regimes an op takes for rows of this canonical shape."""
    _, n, inner = canonical
    if op == "softmax_jacobian":
        return "rows"
    return "columns" if inner > 1 else "panels" if is_short(n, itemsize) else "rows"


share = SHARE  # for the long way

include "plain.pxi"
include "losses.pxi"
include "blocks.pxi"
include "front_door.pxi"
