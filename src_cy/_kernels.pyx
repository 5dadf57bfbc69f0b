"""The compiled kernels as functions of arrays: calls, and blocks of their rows.

What a block is computed by stands in a table of the CPU level in use (call.h), chosen when the package is imported.
"""

cimport cython
cimport numpy as cnp
from libc.math cimport INFINITY, NAN
from libc.stdint cimport uint8_t, uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np

cdef extern from "Python.h":
    long PyLong_AsLongAndOverflow(object, int*) noexcept
    int PyErr_CheckSignals() noexcept

cnp.import_array()

cdef extern from "stored.h" nogil:
    ctypedef enum type_t "enum type":
        FLOAT64
        FLOAT32
        FLOAT16
        BFLOAT16
        BOOL
        INT8
        INT16
        INT32
        INT64
        UINT8
        UINT16
        UINT32
        UINT64
    const int MOST_AXES
    bint is_short(Py_ssize_t n, Py_ssize_t itemsize)

    ctypedef struct Axes:
        Py_ssize_t ndim, count

    ctypedef struct Layout:
        Py_ssize_t outer, n, inner, outer_stride, n_stride

    ctypedef struct Stored:
        char* at
        type_t type
        bint is_ready
        Axes outer, n, inner, row

    void add_axis(Axes*, Py_ssize_t length, Py_ssize_t stride)
    void set_layout(Stored*, Layout*, type_t, bint is_written)

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
        SOFTMAX_JACOBIAN_DIAGONAL
        LOG_SOFTMAX_JACOBIAN
        LOG_SOFTMAX_JACOBIAN_DIAGONAL
        SOFT_CROSS_ENTROPY
        SOFTMAX_SOLVE
        WEIGHTED_LOGSUMEXP
    bint is_square(op_t)
    const int TILE

    ctypedef struct Target:
        const void* weight
        const void* everywhere
        double at_label, total, scale

    ctypedef struct Conversion:
        Stored a, b, out, mask
        double fill
        uint16_t* halves
        bint along_inner
        char* room
        Py_ssize_t room_bytes
        int* taken

    ctypedef struct Call:
        op_t op
        void* a
        void* b
        void* out
        void* results
        Py_ssize_t* labels
        const void* samples
        Layout s, sb, so
        Py_ssize_t results_stride, labels_stride, samples_stride
        Target target
        double ridge
        const int* given_up
        bint single
        const Conversion* conversion
        Py_ssize_t first, ahead
        const Py_ssize_t* segments

    ctypedef struct Kernels:
        Py_ssize_t vector_bytes
        void (*run)(const Call*) noexcept nogil
        double (*exact_sum_f32)(const float*, Py_ssize_t n) noexcept nogil
        double (*exact_sum_f64)(const double*, Py_ssize_t n) noexcept nogil
        Py_ssize_t (*room_bytes)(const Call*) noexcept nogil
        void (*widen)(const uint16_t*, float*, Py_ssize_t n, type_t) noexcept nogil
        void (*narrow)(const float*, uint16_t*, Py_ssize_t n, type_t) noexcept nogil
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


cdef const Kernels* kernels = NULL  # of the level in use, which fastsoftmax/_isa.py chooses


def use_level(str name not None):
    """Run on the kernels of that level from now on; whether there are any."""
    global kernels
    cdef const Kernels* found = kernels_of(name.encode())
    if found != NULL:
        kernels = found
    return found != NULL


cdef void run_part(const void* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Rows of a call from start to stop: along outer, or along inner where outer is 1."""
    cdef Call c = (<const Call*>call)[0]
    cdef Py_ssize_t itemsize = sizeof(float) if c.single else sizeof(double)
    if c.s.outer > 1:
        c.s.outer = stop - start
    else:
        c.s.inner = stop - start
        c.s.outer_stride = c.sb.outer_stride = c.so.outer_stride = c.results_stride = 1
        c.labels_stride = c.samples_stride = 1
    if c.conversion:
        c.first += start
    else:
        c.a = <char*>c.a + start * c.s.outer_stride * itemsize
        if c.b:
            c.b = <char*>c.b + start * c.sb.outer_stride * itemsize
        if c.out:
            c.out = <char*>c.out + start * c.so.outer_stride * itemsize
    if c.results:
        c.results = <char*>c.results + start * c.results_stride * itemsize
    if c.labels:
        c.labels += start * c.labels_stride
    if c.samples:
        c.samples = <const char*>c.samples + start * c.samples_stride * itemsize
    kernels.run(&c)


cdef void run_segments(const void* call, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """Of a call the segments that begin in places from start to stop (`place_of`)."""
    cdef Call c = (<const Call*>call)[0]
    cdef Py_ssize_t first = segment_from(&c, start)
    c.s.outer = segment_from(&c, stop) - first
    c.segments += first
    if c.results:
        c.results = <char*>c.results + first * (sizeof(float) if c.single else sizeof(double))
    kernels.run(&c)


cdef Py_ssize_t place_of(const Call* c, Py_ssize_t k) noexcept nogil:
    """Of a segment, where threads share out work by entries: an empty one has a place too."""
    return c.segments[k] - c.segments[0] + k


cdef Py_ssize_t segment_from(const Call* c, Py_ssize_t place) noexcept nogil:
    """The first that begins there or later."""
    cdef Py_ssize_t low = 0, high = c.s.outer, middle
    while low < high:
        middle = (low + high) // 2
        if place_of(c, middle) < place:
            low = middle + 1
        else:
            high = middle
    return low


cdef Py_ssize_t longest_segment(const Call* c) noexcept nogil:
    cdef Py_ssize_t k, longest = 0
    for k in range(c.s.outer):
        longest = max(longest, c.segments[k + 1] - c.segments[k])
    return longest


cdef Py_ssize_t rows_of(const Call* c) noexcept nogil:
    if c.segments:
        return place_of(c, c.s.outer)
    return c.s.outer if c.s.outer > 1 else c.s.inner


cdef Py_ssize_t elements_a_row(const Call* c) noexcept nogil:
    return c.s.n * (c.s.n if is_square(c.op) else c.s.inner if c.s.outer > 1 else 1)


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
    if c.segments:
        w.run, is_long = run_segments, w.rows > UNINTERRUPTED and longest_segment(c) > UNINTERRUPTED
    if is_long:
        c.given_up = &w.given_up
    helped = (threads > 1 or is_long) and ask_for_help(&w, threads if is_long else threads - 1)
    while is_long and helped and not w.given_up and forks == forks_before and not wait_awhile(&w):
        look_for_signals(&w)
    while take_block(&w, &start, &end):
        w.run(c, start, end)
        elements += (end - start) * a_row
        if elements + w.step * a_row > UNINTERRUPTED:  # with the next: a block may fall short of them by a row
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
    """Run a call, with room for what it converts on each thread, one of which may wait for the others."""
    cdef Conversion* v = <Conversion*>c.conversion
    if v == NULL:
        return run_as_it_is(c, threads)
    v.room_bytes = kernels.room_bytes(c)
    v.room = <char*>malloc((threads + 1) * (v.room_bytes + sizeof(int)))
    if v.room == NULL:
        raise MemoryError
    v.taken = <int*>(v.room + (threads + 1) * v.room_bytes)
    memset(v.taken, 0, (threads + 1) * sizeof(int))
    try:
        return run_as_it_is(c, threads)
    finally:
        free(v.room)


cdef int run_as_it_is(Call* c, int threads) except -1:
    """Without the GIL unless it is over at once."""
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


cdef void set_call(Call* c, Conversion* v, op_t op, cnp.ndarray a, cnp.ndarray b, cnp.ndarray mask, cnp.ndarray out,
                   const Along* along, int times):
    """A call on arrays along some of their axes; those it has none of are None, labels and losses come later.

    ``out`` has the axes that are gone along so many ``times``; without them it is one a row.
    """
    cdef int type = type_of(a)
    cdef type_t real = FLOAT32 if is_single(type) else FLOAT64
    cdef bint rows_last = not along.adjacent or times == 2, is_ready
    c.op, c.single, c.conversion, c.given_up, c.first, c.ahead = op, is_single(type), NULL, NULL, 0, 0
    c.a = c.b = c.out = c.results = NULL
    c.labels, c.samples, c.segments = NULL, NULL, NULL
    v.halves, v.mask.at, v.fill = NULL, NULL, 0
    set_stored(&v.a, a, type, a, along, rows_last)
    set_layout(&v.a, &c.s, real, False)
    if times == 2 and c.s.outer_stride != c.s.n:
        v.a.is_ready = False
    is_ready = v.a.is_ready
    c.a, c.results_stride = v.a.at, c.s.inner
    c.labels_stride = c.samples_stride = c.s.inner
    c.sb.outer_stride = c.sb.n_stride = c.so.outer_stride = c.so.n_stride = 0  # kernels move these pointers too
    if b is not None:
        set_stored(&v.b, b, type_of(b), a, along, rows_last)
        set_layout(&v.b, &c.sb, real, False)
        is_ready, c.b = is_ready and v.b.is_ready, v.b.at
    if mask is not None:
        set_stored(&v.mask, mask, BOOL, a, along, rows_last)
        is_ready = False
    if out is not None and times == 0:
        c.results = cnp.PyArray_DATA(out)
        if is_half(type):
            c.results, v.halves = NULL, <uint16_t*>cnp.PyArray_DATA(out)
    elif out is not None:
        set_stored_result(&v.out, out, along, rows_last, times)
        set_layout(&v.out, &c.so, real, True)
        is_ready, c.out = is_ready and v.out.is_ready, v.out.at
    if not is_ready:
        c.conversion, v.along_inner = v, c.s.outer == 1 and c.s.inner > 1


cdef void run_canonical(op_t op, cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, int times, int threads,
                        double ridge=0) except *:
    """A call on canonical arrays."""
    cdef Call c
    cdef Conversion v
    cdef Along along
    set_along(&along, 1, 3)
    set_call(&c, &v, op, a, b, None, out, &along, times)
    c.ridge = ridge
    if times == 0:
        c.results_stride = out.strides[0] // out.itemsize
    run(&c, threads)


def softmax(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(SOFTMAX, x, None, out, 1, num_threads)


def log_softmax(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOG_SOFTMAX, x, None, out, 1, num_threads)


def logsumexp(cnp.ndarray x not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOGSUMEXP, x, None, out, 0, num_threads)


def softmax_vjp(cnp.ndarray y not None, cnp.ndarray g not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(SOFTMAX_VJP, y, g, out, 1, num_threads)


def log_softmax_vjp(cnp.ndarray logy not None, cnp.ndarray g not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOG_SOFTMAX_VJP, logy, g, out, 1, num_threads)


def log_softmax_jvp(cnp.ndarray logy not None, cnp.ndarray t not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOG_SOFTMAX_JVP, logy, t, out, 1, num_threads)


def softmax_jacobian(cnp.ndarray y not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(SOFTMAX_JACOBIAN, y, None, out, 2, num_threads)


cdef void cross_entropies(op_t op, cnp.ndarray x, cnp.ndarray labels, cnp.ndarray weight, cnp.ndarray samples,
                          double smoothing, double scale, cnp.ndarray loss, cnp.ndarray out, int threads) except *:
    cdef Call c
    cdef Conversion v
    cdef Along along
    set_along(&along, 1, 3)
    set_call(&c, &v, op, x, None if op == CROSS_ENTROPY else labels, None, out, &along, 1)
    if op == CROSS_ENTROPY:
        c.labels, c.labels_stride = <Py_ssize_t*>cnp.PyArray_DATA(labels), labels.strides[0] // labels.itemsize
    if samples is not None:
        c.samples, c.samples_stride = cnp.PyArray_DATA(samples), samples.strides[0] // samples.itemsize
    c.results, c.results_stride = cnp.PyArray_DATA(loss), loss.strides[0] // loss.itemsize
    _everywhere = set_target(&c, weight, smoothing, scale)  # kept to the end
    run(&c, threads)


def cross_entropy(cnp.ndarray x not None, cnp.ndarray labels not None, weight, sample_weight, double smoothing,
                  cnp.ndarray loss not None, *, int num_threads=1):
    cross_entropies(CROSS_ENTROPY, x, labels, weight, sample_weight, smoothing, 1.0, loss, None, num_threads)


def cross_entropy_with_grad(cnp.ndarray x not None, cnp.ndarray labels not None, weight, sample_weight,
                            double smoothing, double scale, cnp.ndarray loss not None, cnp.ndarray out not None, *,
                            int num_threads=1):
    cross_entropies(CROSS_ENTROPY, x, labels, weight, sample_weight, smoothing, scale, loss, out, num_threads)


def softmax_jacobian_diagonal(cnp.ndarray y not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(SOFTMAX_JACOBIAN_DIAGONAL, y, None, out, 1, num_threads)


def log_softmax_jacobian(cnp.ndarray logy not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOG_SOFTMAX_JACOBIAN, logy, None, out, 2, num_threads)


def log_softmax_jacobian_diagonal(cnp.ndarray logy not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(LOG_SOFTMAX_JACOBIAN_DIAGONAL, logy, None, out, 1, num_threads)


def soft_cross_entropy(cnp.ndarray x not None, cnp.ndarray labels not None, weight, sample_weight, double smoothing,
                       cnp.ndarray loss not None, *, int num_threads=1):
    cross_entropies(SOFT_CROSS_ENTROPY, x, labels, weight, sample_weight, smoothing, 1.0, loss, None, num_threads)


def soft_cross_entropy_with_grad(cnp.ndarray x not None, cnp.ndarray labels not None, weight, sample_weight,
                                 double smoothing, double scale, cnp.ndarray loss not None, cnp.ndarray out not None,
                                 *, int num_threads=1):
    cross_entropies(SOFT_CROSS_ENTROPY, x, labels, weight, sample_weight, smoothing, scale, loss, out, num_threads)


cdef void run_ragged(op_t op, cnp.ndarray a, cnp.ndarray b, cnp.ndarray ptr, cnp.ndarray out, int times,
                     int threads) except *:
    """An op on each segment of arrays that are canonical as one row."""
    cdef Call c
    cdef Conversion v
    cdef Along along
    set_along(&along, 1, 3)
    set_call(&c, &v, op, a, b, None, out, &along, times)
    c.segments, c.s.outer, c.s.n = <const Py_ssize_t*>cnp.PyArray_DATA(ptr), ptr.shape[0] - 1, 1
    run(&c, threads)


def segment_softmax(cnp.ndarray x not None, cnp.ndarray ptr not None, cnp.ndarray out not None, *, int num_threads=1):
    run_ragged(SOFTMAX, x, None, ptr, out, 1, num_threads)


def segment_log_softmax(cnp.ndarray x not None, cnp.ndarray ptr not None, cnp.ndarray out not None, *,
                        int num_threads=1):
    run_ragged(LOG_SOFTMAX, x, None, ptr, out, 1, num_threads)


def segment_logsumexp(cnp.ndarray x not None, cnp.ndarray ptr not None, cnp.ndarray out not None, *,
                      int num_threads=1):
    run_ragged(LOGSUMEXP, x, None, ptr, out, 0, num_threads)


def segment_softmax_vjp(cnp.ndarray y not None, cnp.ndarray g not None, cnp.ndarray ptr not None,
                        cnp.ndarray out not None, *, int num_threads=1):
    run_ragged(SOFTMAX_VJP, y, g, ptr, out, 1, num_threads)


def softmax_solve(cnp.ndarray y not None, cnp.ndarray b not None, double ridge, cnp.ndarray out not None, *,
                  int num_threads=1):
    run_canonical(SOFTMAX_SOLVE, y, b, out, 1, num_threads, ridge)


def weighted_logsumexp(cnp.ndarray x not None, cnp.ndarray b not None, cnp.ndarray out not None, *, int num_threads=1):
    run_canonical(WEIGHTED_LOGSUMEXP, x, b, out, 0, num_threads)


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
    if op.startswith("segment_"):
        return "segments"
    if op in ("softmax_jacobian", "log_softmax_jacobian"):
        return "rows"
    return "columns" if inner > 1 else "panels" if is_short(n, itemsize) else "rows"


share = SHARE  # for the long way

include "arrays.pxi"
include "losses.pxi"
include "blocks.pxi"
include "front_door.pxi"
include "c_api.pxi"
