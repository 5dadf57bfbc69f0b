"""The compiled kernels: loops over rows, and over panels of rows, around the C functions of kernels.h.

Three regimes, chosen by n and inner alone, so that a row has the same bits alone and in a batch:

* rows:    inner == 1 and a row of more than SHORT_BYTES: one at a time, vectorised along the row;
* panels:  inner == 1 and shorter rows: a row in each vector lane, transposed in and out;
* columns: inner > 1: a row in each vector lane, as memory lies.
"""

cimport numpy as cnp
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc

cnp.import_array()

cdef extern from "kernels.h" nogil:
    const Py_ssize_t VECTOR_BYTES

    enum elementwise:
        SOFTMAX
        LOG_SOFTMAX
        SOFTMAX_VJP  # this and the following take two arrays
        LOG_SOFTMAX_VJP
        LOG_SOFTMAX_JVP

    # Macros over the functions for float and double: void stands for either.
    void columns_to_panels(const void*, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t count, void* panels)
    void panels_to_columns(const void*, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t count, void* out)
    void rows_to_panel(const void*, Py_ssize_t n, Py_ssize_t count, void* panel)
    void panel_to_rows(const void*, Py_ssize_t n, Py_ssize_t count, void* out)
    void elementwise_row(const void*, const void*, void* out, Py_ssize_t n, elementwise)
    void elementwise_panel(void*, const void*, Py_ssize_t n, elementwise)
    double logsumexp_row(const void*, Py_ssize_t n)
    void logsumexp_panel(const void*, Py_ssize_t n, void* out)
    void softmax_jacobian_row(const void*, void* out, Py_ssize_t n)
    double cross_entropy_row(const void*, void* out, Py_ssize_t n, Py_ssize_t label, double at_label,
                             const void* everywhere, double total, double scale)
    void cross_entropy_panel(void*, void* losses, Py_ssize_t n, const Py_ssize_t* labels, const void* at_label,
                             const void* everywhere, double total, double scale, int grad)

ctypedef fused real:
    float
    double

cdef enum:
    SHORT_BYTES = 512  # rows up to this size are faster one a lane than one at a time (docs/performance.md)
    MAX_PANEL = 128 * 16  # entries of the largest panel of short rows: floats in 64-byte vectors
    MAX_LANES = 16
    PANELS_BYTES = 512 * 1024  # a group of panels stays in the L2 cache while it is worked on
    KEEP_GIL = 4096  # below this many elements letting go of it costs more than it could give


cdef struct Layout:
    # Of one canonical array, in elements; the stride of `inner` is 1.
    Py_ssize_t outer, n, inner, outer_stride, n_stride


cdef Layout layout_of(cnp.ndarray a) noexcept:
    cdef Layout s
    s.outer, s.n, s.inner = a.shape[0], a.shape[1], a.shape[2]
    s.outer_stride, s.n_stride = a.strides[0] // a.itemsize, a.strides[1] // a.itemsize
    return s


cdef bint is_short(Py_ssize_t n, Py_ssize_t itemsize) noexcept nogil:
    return n * itemsize <= SHORT_BYTES


cdef bint in_columns(Layout s) noexcept nogil:
    return s.inner > 1 or (s.n > 1 and s.n_stride > 1)


cdef class Scratch:
    """Memory aligned to a vector."""
    cdef void* memory
    cdef void* start

    def __cinit__(self, size_t nbytes):
        self.memory = malloc(nbytes + 64)
        if self.memory == NULL:
            raise MemoryError(f"cannot allocate {nbytes:,} bytes of scratch")
        self.start = <void*>((<uintptr_t>self.memory + 63) // 64 * 64)

    def __dealloc__(self):
        free(self.memory)


cdef Py_ssize_t lanes(real* unused) noexcept nogil:
    return VECTOR_BYTES // <Py_ssize_t>sizeof(real)


cdef Py_ssize_t blocks(Py_ssize_t total, Py_ssize_t step) noexcept nogil:
    return (total + step - 1) // step


cdef Py_ssize_t panels_width(real* unused, Layout s) noexcept nogil:
    """How many columns are worked on together: whole cache lines of memory, within PANELS_BYTES."""
    cdef Py_ssize_t line = 64 // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t fit = PANELS_BYTES // (s.n * <Py_ssize_t>sizeof(real)) // line * line
    return min(max(fit, line), 8 * line)


# The ops of one or two arrays whose result has their shape.

cdef void elementwise_rows(const real* a, const real* b, real* out, Layout s, elementwise op) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(s.outer):
        elementwise_row(a + i * s.n, b + i * s.n, out + i * s.n, s.n, op)


cdef void elementwise_panels(const real* a, const real* b, real* out, Layout s, elementwise op) noexcept nogil:
    cdef real p[MAX_PANEL]
    cdef real q[MAX_PANEL]
    cdef Py_ssize_t width = lanes(&p[0]), i_, i, count
    for i_ in range(blocks(s.outer, width)):
        i = i_ * width
        count = min(width, s.outer - i)
        rows_to_panel(a + i * s.n, s.n, count, &p[0])
        if op >= SOFTMAX_VJP:
            rows_to_panel(b + i * s.n, s.n, count, &q[0])
        elementwise_panel(&p[0], <const real*>&q[0], s.n, op)
        panel_to_rows(<const real*>&p[0], s.n, count, out + i * s.n)


cdef void elementwise_columns(const real* a, const real* b, real* out, Layout s, Layout sb, Layout so,
                              elementwise op, real* p) noexcept nogil:
    cdef Py_ssize_t width = panels_width(p, s), step = lanes(p), o, i_, i, c_, c, count
    cdef real* q = p + width * s.n
    for o in range(s.outer):
        for i_ in range(blocks(s.inner, width)):
            i = i_ * width
            count = min(width, s.inner - i)
            columns_to_panels(a + o * s.outer_stride + i, s.n, s.n_stride, count, p)
            if op >= SOFTMAX_VJP:
                columns_to_panels(b + o * sb.outer_stride + i, s.n, sb.n_stride, count, q)
            for c_ in range(blocks(count, step)):
                c = c_ * step
                elementwise_panel(p + c * s.n, <const real*>(q + c * s.n), s.n, op)
            panels_to_columns(<const real*>p, s.n, so.n_stride, count, out + o * so.outer_stride + i)


cdef void elementwise_typed(real* a, real* b, real* out, Layout s, Layout sb, Layout so, elementwise op,
                            void* scratch) noexcept nogil:
    if in_columns(s):
        elementwise_columns(<const real*>a, <const real*>b, out, s, sb, so, op, <real*>scratch)
    elif is_short(s.n, sizeof(real)):
        elementwise_panels(<const real*>a, <const real*>b, out, s, op)
    else:
        elementwise_rows(<const real*>a, <const real*>b, out, s, op)


cdef size_t scratch_bytes(Layout s) noexcept:
    """For two groups of panels, where rows lie in columns."""
    return 2 * (PANELS_BYTES + 8 * 64 * s.n) if in_columns(s) else 0


cdef apply(cnp.ndarray a, cnp.ndarray b, cnp.ndarray out, elementwise op):
    cdef Layout s = layout_of(a), sb = layout_of(b), so = layout_of(out)
    cdef size_t nbytes = scratch_bytes(s)
    cdef Scratch holder = Scratch(nbytes) if nbytes else None
    cdef void* scratch = NULL if holder is None else holder.start
    cdef void* pa = cnp.PyArray_DATA(a)
    cdef void* pb = cnp.PyArray_DATA(b)
    cdef void* po = cnp.PyArray_DATA(out)
    cdef bint single = cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            elementwise_typed(<float*>pa, <float*>pb, <float*>po, s, sb, so, op, scratch)
        else:
            elementwise_typed(<double*>pa, <double*>pb, <double*>po, s, sb, so, op, scratch)


def softmax(cnp.ndarray x not None, cnp.ndarray out not None):
    apply(x, x, out, SOFTMAX)


def log_softmax(cnp.ndarray x not None, cnp.ndarray out not None):
    apply(x, x, out, LOG_SOFTMAX)


cdef void logsumexp_typed(real* x, real* out, Layout s, Py_ssize_t out_stride, real* p) noexcept nogil:
    cdef real panel[MAX_PANEL]
    cdef real result[MAX_LANES]
    cdef Py_ssize_t step = lanes(&result[0]), width, o, i_, i, c_, c, lane, count
    if in_columns(s):
        width = panels_width(p, s)
        for o in range(s.outer):
            for i_ in range(blocks(s.inner, width)):
                i = i_ * width
                count = min(width, s.inner - i)
                columns_to_panels(<const real*>x + o * s.outer_stride + i, s.n, s.n_stride, count, p)
                for c_ in range(blocks(count, step)):
                    c = c_ * step
                    logsumexp_panel(<const real*>(p + c * s.n), s.n, &result[0])
                    for lane in range(min(step, count - c)):
                        out[o * out_stride + i + c + lane] = result[lane]
    elif is_short(s.n, sizeof(real)):
        for i_ in range(blocks(s.outer, step)):
            i = i_ * step
            count = min(step, s.outer - i)
            rows_to_panel(<const real*>x + i * s.n, s.n, count, &panel[0])
            logsumexp_panel(<const real*>&panel[0], s.n, &result[0])
            for lane in range(count):
                out[i + lane] = result[lane]
    else:
        for i in range(s.outer):
            out[i] = <real>logsumexp_row(<const real*>x + i * s.n, s.n)


def logsumexp(cnp.ndarray x not None, cnp.ndarray out not None):
    cdef Layout s = layout_of(x)
    cdef Py_ssize_t out_stride = out.strides[0] // out.itemsize
    cdef size_t nbytes = scratch_bytes(s)
    cdef Scratch holder = Scratch(nbytes) if nbytes else None
    cdef void* scratch = NULL if holder is None else holder.start
    cdef void* px = cnp.PyArray_DATA(x)
    cdef void* po = cnp.PyArray_DATA(out)
    cdef bint single = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            logsumexp_typed(<float*>px, <float*>po, s, out_stride, <float*>scratch)
        else:
            logsumexp_typed(<double*>px, <double*>po, s, out_stride, <double*>scratch)


def softmax_vjp(cnp.ndarray y not None, cnp.ndarray g not None, cnp.ndarray out not None):
    apply(y, g, out, SOFTMAX_VJP)


def log_softmax_vjp(cnp.ndarray logy not None, cnp.ndarray g not None, cnp.ndarray out not None):
    apply(logy, g, out, LOG_SOFTMAX_VJP)


def log_softmax_jvp(cnp.ndarray logy not None, cnp.ndarray t not None, cnp.ndarray out not None):
    apply(logy, t, out, LOG_SOFTMAX_JVP)


cdef void jacobian_typed(const real* y, real* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(rows):
        softmax_jacobian_row(y + i * n, out + i * n * n, n)


def softmax_jacobian(cnp.ndarray y not None, cnp.ndarray out not None):
    cdef Py_ssize_t rows = y.shape[0], n = y.shape[1]
    cdef void* py = cnp.PyArray_DATA(y)
    cdef void* po = cnp.PyArray_DATA(out)
    cdef bint single = cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            jacobian_typed(<const float*>py, <float*>po, rows, n)
        else:
            jacobian_typed(<const double*>py, <double*>po, rows, n)


# Cross-entropy: `out` is NULL where only the loss is wanted.

cdef struct Labels:
    # Canonical (outer, inner), -1 where ignored, and what the loss weighs them with.
    const Py_ssize_t* at
    Py_ssize_t outer_stride
    double smoothing


cdef struct Target:
    const void* weight
    const void* everywhere
    double total, scale


cdef real at_label(Py_ssize_t label, real* weight, double smoothing) noexcept nogil:
    return <real>(1 - smoothing) if weight == NULL else <real>((1 - smoothing) * weight[label])


cdef void losses_of_panel(real* p, Layout s, const Py_ssize_t* labels, Py_ssize_t count, Labels how, Target t,
                          bint grad, real* loss) noexcept nogil:
    """One panel's losses, and in its place the gradients; ignored rows have neither."""
    cdef Py_ssize_t step = lanes(p), lane, j
    cdef Py_ssize_t label[MAX_LANES]
    cdef real at[MAX_LANES]
    cdef real losses[MAX_LANES]
    for lane in range(step):
        label[lane] = labels[lane] if lane < count and labels[lane] >= 0 else 0
        at[lane] = at_label(label[lane], <real*>t.weight, how.smoothing)
    cross_entropy_panel(p, &losses[0], s.n, &label[0], <const real*>&at[0], <const real*>t.everywhere,
                        t.total, t.scale, grad)
    for lane in range(count):
        loss[lane] = 0 if labels[lane] < 0 else losses[lane]
        if grad and labels[lane] < 0:
            for j in range(s.n):
                p[j * step + lane] = 0


cdef void cross_entropy_typed(real* x, real* out, real* loss, Layout s, Layout so, Py_ssize_t loss_stride,
                              Labels how, Target t, real* p) noexcept nogil:
    cdef real panel[MAX_PANEL]
    cdef Py_ssize_t step = lanes(&panel[0]), width, o, i_, i, c_, c, j, count
    cdef bint grad = out != NULL
    if in_columns(s):
        width = panels_width(p, s)
        for o in range(s.outer):
            for i_ in range(blocks(s.inner, width)):
                i = i_ * width
                count = min(width, s.inner - i)
                columns_to_panels(<const real*>x + o * s.outer_stride + i, s.n, s.n_stride, count, p)
                for c_ in range(blocks(count, step)):
                    c = c_ * step
                    losses_of_panel(p + c * s.n, s, how.at + o * how.outer_stride + i + c, min(step, count - c),
                                    how, t, grad, loss + o * loss_stride + i + c)
                if grad:
                    panels_to_columns(<const real*>p, s.n, so.n_stride, count, out + o * so.outer_stride + i)
    elif is_short(s.n, sizeof(real)):
        for i_ in range(blocks(s.outer, step)):
            i = i_ * step
            count = min(step, s.outer - i)
            rows_to_panel(<const real*>x + i * s.n, s.n, count, &panel[0])
            losses_of_panel(&panel[0], s, how.at + i, count, how, t, grad, loss + i)
            if grad:
                panel_to_rows(<const real*>&panel[0], s.n, count, out + i * s.n)
    else:
        for i in range(s.outer):
            if how.at[i] < 0:
                loss[i] = 0
                for j in range(s.n if grad else 0):
                    out[i * s.n + j] = 0
                continue
            loss[i] = <real>cross_entropy_row(
                <const real*>x + i * s.n, out + i * s.n if grad else NULL, s.n, how.at[i],
                at_label(how.at[i], <real*>t.weight, how.smoothing), <const real*>t.everywhere, t.total, t.scale)


cdef losses(cnp.ndarray x, cnp.ndarray labels, weight, double smoothing, double scale, cnp.ndarray loss, out):
    cdef Layout s = layout_of(x), so = s if out is None else layout_of(out)
    cdef Labels how
    cdef Target t
    cdef cnp.ndarray per_class, everywhere
    t.weight, t.everywhere, t.total, t.scale = NULL, NULL, 0, scale
    if weight is not None:
        per_class = weight
        t.weight = cnp.PyArray_DATA(per_class)
    if smoothing:
        everywhere = cnp.PyArray_EMPTY(1, x.shape + 1, cnp.PyArray_TYPE(x), 0)
        everywhere[:] = smoothing / s.n * (1.0 if weight is None else weight)
        t.everywhere = cnp.PyArray_DATA(everywhere)
        t.total = everywhere.sum(dtype="f8")
    how.at, how.outer_stride = <const Py_ssize_t*>cnp.PyArray_DATA(labels), labels.strides[0] // labels.itemsize
    how.smoothing = smoothing
    cdef size_t nbytes = scratch_bytes(s)
    cdef Scratch holder = Scratch(nbytes) if nbytes else None
    cdef void* scratch = NULL if holder is None else holder.start
    cdef void* px = cnp.PyArray_DATA(x)
    cdef void* po = NULL if out is None else cnp.PyArray_DATA(out)
    cdef void* pl = cnp.PyArray_DATA(loss)
    cdef Py_ssize_t loss_stride = loss.strides[0] // loss.itemsize
    cdef bint single = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            cross_entropy_typed(<float*>px, <float*>po, <float*>pl, s, so, loss_stride, how, t, <float*>scratch)
        else:
            cross_entropy_typed(<double*>px, <double*>po, <double*>pl, s, so, loss_stride, how, t, <double*>scratch)


def cross_entropy(cnp.ndarray x not None, cnp.ndarray labels not None, weight, double smoothing,
                  cnp.ndarray loss not None):
    losses(x, labels, weight, smoothing, 1.0, loss, None)


def cross_entropy_with_grad(cnp.ndarray x not None, cnp.ndarray labels not None, weight, double smoothing,
                            double scale, cnp.ndarray loss not None, cnp.ndarray out not None):
    losses(x, labels, weight, smoothing, scale, loss, out)


def regime(op, Py_ssize_t itemsize, tuple canonical):
    """Which of the three regimes an op takes for rows of this canonical shape."""
    _, n, inner = canonical
    if op == "softmax_jacobian":
        return "rows"
    return "columns" if inner > 1 else "panels" if is_short(n, itemsize) else "rows"


include "front_door.pxi"
