# What other compiled modules may take from this one; `cython_kernels.pxd` says what it does. Names and signatures
# stay as they are: more may come.

cdef void softmax_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void softmax_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void log_softmax_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void log_softmax_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef double logsumexp_f64(const double* x, Py_ssize_t n) noexcept nogil
cdef float logsumexp_f32(const float* x, Py_ssize_t n) noexcept nogil
cdef void logsumexp_rows_f64(const double* x, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void logsumexp_rows_f32(const float* x, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void logsumexp_columns_f64(const double* x, double* out, Py_ssize_t n, Py_ssize_t columns) noexcept nogil
cdef void logsumexp_columns_f32(const float* x, float* out, Py_ssize_t n, Py_ssize_t columns) noexcept nogil
cdef void softmax_vjp_f64(const double* y, const double* g, double* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void softmax_vjp_f32(const float* y, const float* g, float* out, Py_ssize_t rows, Py_ssize_t n) noexcept nogil
cdef void cross_entropy_f64(const double* x, const Py_ssize_t* labels, double* losses, double* dx, Py_ssize_t rows,
                            Py_ssize_t n, double scale) noexcept nogil
cdef void cross_entropy_f32(const float* x, const Py_ssize_t* labels, float* losses, float* dx, Py_ssize_t rows,
                            Py_ssize_t n, double scale) noexcept nogil
