"""Kernels for callers without Python: users' Cython (fastsoftmax/cython_kernels.pxd) and Numba's machine code.

Arrays are contiguous. They run on the caller's thread, without the GIL, and raise nothing.
"""

cdef void run_for_c(int op, bint single, const void* a, const void* b, void* out, void* results,
                    const Py_ssize_t* labels, const void* weight, const void* samples, const void* everywhere,
                    Py_ssize_t outer, Py_ssize_t n, Py_ssize_t inner, double smoothing, double scale) noexcept nogil:
    """Any op, on canonical arrays; those it has none of are NULL.

    ``everywhere`` is what smoothing adds to the weight of each class, and is not read where there is none. ``scale`` is
    the factor of a gradient, or the ridge of a solution.
    """
    cdef Call c
    cdef Py_ssize_t i
    if n == 0 and results != NULL:  # a sum of nothing
        for i in range(outer * inner):
            if single:
                (<float*>results)[i] = -INFINITY if op == LOGSUMEXP or op == WEIGHTED_LOGSUMEXP else 0
            else:
                (<double*>results)[i] = -INFINITY if op == LOGSUMEXP or op == WEIGHTED_LOGSUMEXP else 0
    if outer == 0 or n == 0 or inner == 0:
        return
    c.op, c.single, c.conversion, c.given_up, c.first, c.ahead = <op_t>op, single, NULL, NULL, 0, 0
    c.segments = NULL
    c.a, c.b, c.out, c.results, c.labels = <void*>a, <void*>b, out, results, <Py_ssize_t*>labels
    c.samples = samples
    c.s.outer, c.s.n, c.s.inner, c.s.outer_stride, c.s.n_stride = outer, n, inner, n * inner, inner
    c.sb = c.so = c.s
    c.results_stride = c.labels_stride = c.samples_stride = inner
    c.target.weight, c.target.everywhere = weight, everywhere if smoothing else NULL
    c.target.total = sum_for_c(single, everywhere, n) if smoothing else 0
    c.target.at_label, c.target.scale = 1 - smoothing, scale
    c.ridge = scale
    kernels.run(&c)


cdef void run_segments_for_c(int op, bint single, const void* a, const void* b, void* out, void* results,
                             const Py_ssize_t* ptr, Py_ssize_t segments) noexcept nogil:
    """An op of ragged rows, by the number of that of rows; empty ones may be all there is."""
    cdef Call c
    memset(&c, 0, sizeof(Call))
    c.op, c.single, c.a, c.b, c.out, c.results = <op_t>op, single, <void*>a, <void*>b, out, results
    c.segments, c.s.outer = ptr, segments
    kernels.run(&c)


cdef double sum_for_c(bint single, const void* values, Py_ssize_t n) noexcept nogil:
    """As good as rounded once."""
    cdef unsigned mode = take_mode()
    cdef double total
    if single:
        total = kernels.exact_sum_f32(<const float*>values, n)
    else:
        total = kernels.exact_sum_f64(<const double*>values, n)
    restore_mode(mode)
    return total


def c_entries():
    """The addresses of `run_for_c`, `run_segments_for_c` and `sum_for_c`."""
    return <Py_ssize_t>&run_for_c, <Py_ssize_t>&run_segments_for_c, <Py_ssize_t>&sum_for_c


cdef void softmax_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(SOFTMAX, False, x, NULL, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void softmax_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(SOFTMAX, True, x, NULL, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void log_softmax_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(LOG_SOFTMAX, False, x, NULL, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void log_softmax_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(LOG_SOFTMAX, True, x, NULL, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef double logsumexp_f64(const double* x, Py_ssize_t n) noexcept nogil:
    cdef double result
    run_for_c(LOGSUMEXP, False, x, NULL, NULL, &result, NULL, NULL, NULL, NULL, 1, n, 1, 0, 1)
    return result


cdef float logsumexp_f32(const float* x, Py_ssize_t n) noexcept nogil:
    cdef float result
    run_for_c(LOGSUMEXP, True, x, NULL, NULL, &result, NULL, NULL, NULL, NULL, 1, n, 1, 0, 1)
    return result


cdef void logsumexp_rows_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(LOGSUMEXP, False, x, NULL, NULL, out, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void logsumexp_rows_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(LOGSUMEXP, True, x, NULL, NULL, out, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void logsumexp_columns_f64(const double* x, double* out, Py_ssize_t n, Py_ssize_t columns) noexcept nogil:
    run_for_c(LOGSUMEXP, False, x, NULL, NULL, out, NULL, NULL, NULL, NULL, 1, n, columns, 0, 1)


cdef void logsumexp_columns_f32(const float* x, float* out, Py_ssize_t n, Py_ssize_t columns) noexcept nogil:
    run_for_c(LOGSUMEXP, True, x, NULL, NULL, out, NULL, NULL, NULL, NULL, 1, n, columns, 0, 1)


cdef void softmax_vjp_f64(const double* y, const double* g, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(SOFTMAX_VJP, False, y, g, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void softmax_vjp_f32(const float* y, const float* g, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    run_for_c(SOFTMAX_VJP, True, y, g, out, NULL, NULL, NULL, NULL, NULL, rows, n, 1, 0, 1)


cdef void cross_entropy_f64(const double* x, const Py_ssize_t* labels, double* losses, double* dx, Py_ssize_t rows,
                            Py_ssize_t n, double scale) noexcept nogil:
    run_for_c(CROSS_ENTROPY, False, x, NULL, dx, losses, labels, NULL, NULL, NULL, rows, n, 1, 0, scale)


cdef void cross_entropy_f32(const float* x, const Py_ssize_t* labels, float* losses, float* dx, Py_ssize_t rows,
                            Py_ssize_t n, double scale) noexcept nogil:
    run_for_c(CROSS_ENTROPY, True, x, NULL, dx, losses, labels, NULL, NULL, NULL, rows, n, 1, 0, scale)
