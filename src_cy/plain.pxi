"""Arrays that kernels read as they are, and new ones for what they make."""

cdef enum:
    MOST_AXES = 30

cdef bint is_float(object value) noexcept:
    """An aligned ndarray of native float64 or float32 with rows in it."""
    if type(value) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = value
    return (cnp.PyArray_ISBEHAVED_RO(a)
            and (cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 or cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32)
            and 0 < cnp.PyArray_NDIM(a) <= MOST_AXES and cnp.PyArray_SIZE(a) > 0)


cdef bint is_plain(object value) noexcept:
    """And contiguous."""
    return is_float(value) and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>value)


cdef bint is_like(object value, cnp.ndarray a) noexcept:
    """One of the shape and dtype of ``a``."""
    if not is_float(value):
        return False
    cdef cnp.ndarray b = value
    return cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and cnp.PyArray_SAMESHAPE(a, b)


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two plain arrays share no memory, or are the same."""
    cdef char* p = <char*>cnp.PyArray_DATA(a)
    cdef char* q = <char*>cnp.PyArray_DATA(b)
    return p == q or p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p


cdef bint are_disjoint(object a, cnp.ndarray b) noexcept:
    """Whether an array surely shares no memory with a plain one: of one that is not contiguous it is not known."""
    if type(a) is not cnp.ndarray or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>a):
        return False
    return apart(a, b) and cnp.PyArray_DATA(<cnp.ndarray>a) != cnp.PyArray_DATA(b)


cdef bint set_layout(Layout* s, cnp.ndarray a, int axis) noexcept:
    """How an array lies in memory along an axis; False where kernels do not read it so.

    Inner axes have no gaps, outer ones may, and along one without inner ones entries are neighbours.
    """
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(a), apart
    cdef int i
    s.outer = s.inner = 1
    for i in range(cnp.PyArray_NDIM(a) - 1, axis, -1):
        if cnp.PyArray_DIM(a, i) > 1 and cnp.PyArray_STRIDE(a, i) != s.inner * itemsize:
            return False
        s.inner *= cnp.PyArray_DIM(a, i)
    s.n, s.n_stride = cnp.PyArray_DIM(a, axis), s.inner
    if s.n > 1 and cnp.PyArray_STRIDE(a, axis) != s.n_stride * itemsize:
        if s.inner == 1 or cnp.PyArray_STRIDE(a, axis) % itemsize:
            return False
        s.n_stride = cnp.PyArray_STRIDE(a, axis) // itemsize
    s.outer_stride = s.n * s.inner
    for i in range(axis - 1, -1, -1):
        if cnp.PyArray_DIM(a, i) == 1:
            continue
        apart = cnp.PyArray_STRIDE(a, i)
        if s.outer == 1:
            if apart % itemsize:
                return False
            s.outer_stride = apart // itemsize
        elif apart != s.outer * s.outer_stride * itemsize:
            return False
        s.outer *= cnp.PyArray_DIM(a, i)
    return True


cdef object new_array(cnp.ndarray like, int axis, int times):
    """Of the shape of ``like``, but with ``axis`` none, one or two ``times``."""
    cdef cnp.npy_intp dims[MOST_AXES + 1]
    cdef int i, k, ndim = 0
    for i in range(cnp.PyArray_NDIM(like)):
        for k in range(times if i == axis else 1):
            dims[ndim] = cnp.PyArray_DIM(like, i)
            ndim += 1
    return cnp.PyArray_EMPTY(ndim, dims, cnp.PyArray_TYPE(like), 0)
