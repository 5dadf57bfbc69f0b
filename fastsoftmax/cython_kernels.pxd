# The compiled kernels for Cython: `from fastsoftmax.cython_kernels cimport softmax_f64`.
#
# A module that does needs neither NumPy's headers nor flags; where it is imported, so is fastsoftmax, which chooses
# the kernels of the CPU. Arrays are contiguous, as `&x[0, 0]` of a memoryview `x[:, ::1]`; results may take the place
# of inputs of their shape. On the caller's thread, without the GIL, without exceptions: nothing is checked.
#
#     softmax, log_softmax     rows of n entries, of `x` into `out`
#     logsumexp                of one row
#     logsumexp_rows           of each row, into `out` of `rows` entries
#     logsumexp_columns        of each column of n lines, into `out` of `columns` entries: a step of an HMM in one call
#     softmax_vjp              of y = softmax(x) and a cotangent g
#     cross_entropy            losses of the labels, -1 ignored; dx (or NULL) is the gradient of their sum times `scale`

from fastsoftmax._kernels cimport (
    cross_entropy_f32,
    cross_entropy_f64,
    log_softmax_f32,
    log_softmax_f64,
    logsumexp_columns_f32,
    logsumexp_columns_f64,
    logsumexp_f32,
    logsumexp_f64,
    logsumexp_rows_f32,
    logsumexp_rows_f64,
    softmax_f32,
    softmax_f64,
    softmax_vjp_f32,
    softmax_vjp_f64,
)
