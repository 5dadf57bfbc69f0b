# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""A user's module: softmax of rows again and again, by a kernel that is cimported and by a loop."""

from libc.math cimport INFINITY, exp

from fastsoftmax.cython_kernels cimport softmax_f64


def ours(const double[:, ::1] x, double[:, ::1] out, int calls):
    with nogil:
        for _ in range(calls):
            softmax_f64(&x[0, 0], &out[0, 0], x.shape[0], x.shape[1])


def by_hand(const double[:, ::1] x, double[:, ::1] out, int calls):
    cdef Py_ssize_t i, j
    cdef double most, total
    with nogil:
        for _ in range(calls):
            for i in range(x.shape[0]):
                most, total = -INFINITY, 0
                for j in range(x.shape[1]):
                    most = max(most, x[i, j])
                for j in range(x.shape[1]):
                    out[i, j] = exp(x[i, j] - most)
                    total += out[i, j]
                for j in range(x.shape[1]):
                    out[i, j] /= total
