"""Arrays as calls have them, along some of their axes, and new ones for what they make."""


cdef int type_of(cnp.ndarray a):
    """What kernels or conversions know its numbers as, or -1."""
    cdef int number = cnp.PyArray_TYPE(a), size = cnp.PyArray_ITEMSIZE(a)
    if number == cnp.NPY_FLOAT64:
        return FLOAT64
    if number == cnp.NPY_FLOAT32:
        return FLOAT32
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
    if number == cnp.NPY_BOOL:
        return BOOL
    if cnp.PyTypeNum_ISSIGNED(number):
        return INT8 if size == 1 else INT16 if size == 2 else INT32 if size == 4 else INT64
    if cnp.PyTypeNum_ISUNSIGNED(number):
        return UINT8 if size == 1 else UINT16 if size == 2 else UINT32 if size == 4 else UINT64
    if size == 2 and cnp.PyTypeNum_ISUSERDEF(number) and a.dtype.type.__name__ == "bfloat16":
        return BFLOAT16
    return -1


cdef bint is_single(int type) noexcept:
    """Whether its numbers are computed with as floats."""
    return type == FLOAT32 or type == FLOAT16 or type == BFLOAT16


cdef bint is_half(int type) noexcept:
    return type == FLOAT16 or type == BFLOAT16


cdef bint is_real(int type) noexcept:
    """Of a type that results have too."""
    return type == FLOAT64 or is_single(type)


cdef bint is_array(object value) noexcept:
    """An aligned ndarray in native order with entries in it."""
    if type(value) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = value
    return cnp.PyArray_ISBEHAVED_RO(a) and 0 < cnp.PyArray_NDIM(a) <= MOST_AXES and cnp.PyArray_SIZE(a) > 0


cdef bint holds_numbers(list values) noexcept:
    """And nothing else, in lists perhaps."""
    for value in values:
        if type(value) is not float and type(value) is not int and not (type(value) is list and holds_numbers(value)):
            return False
    return True


cdef bint is_like(object value, cnp.ndarray a) noexcept:
    """An array of the shape and dtype of ``a``."""
    if not is_array(value):
        return False
    cdef cnp.ndarray b = value
    return cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and cnp.PyArray_SAMESHAPE(a, b)


cdef bint is_beside_of(object value, cnp.ndarray a, int number) noexcept:
    """An array of a type that broadcasts to ``a``."""
    cdef int k, more
    if not is_array(value) or cnp.PyArray_TYPE(<cnp.ndarray>value) != number:
        return False
    more = cnp.PyArray_NDIM(a) - cnp.PyArray_NDIM(<cnp.ndarray>value)
    for k in range(-more, cnp.PyArray_NDIM(<cnp.ndarray>value)):
        if more < 0 or (k >= 0 and cnp.PyArray_DIM(<cnp.ndarray>value, k) not in (1, cnp.PyArray_DIM(a, k + more))):
            return False
    return True


cdef void extent_of(cnp.ndarray a, char** start, char** stop) noexcept:
    """The memory from its first byte to its last."""
    cdef int k
    cdef Py_ssize_t span
    start[0] = cnp.PyArray_BYTES(a)
    stop[0] = start[0] + cnp.PyArray_ITEMSIZE(a)
    for k in range(cnp.PyArray_NDIM(a)):
        span = (cnp.PyArray_DIM(a, k) - 1) * cnp.PyArray_STRIDE(a, k)
        if span < 0:
            start[0] += span
        else:
            stop[0] += span


cdef bint are_apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether they surely share no memory."""
    cdef char* start
    cdef char* stop
    cdef char* from_
    cdef char* to
    extent_of(a, &start, &stop)
    extent_of(b, &from_, &to)
    return stop <= from_ or to <= start


cdef bint are_same(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether arrays of one shape are the same memory, entry by entry."""
    cdef int k
    for k in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, k) != cnp.PyArray_STRIDE(b, k):
            return False
    return cnp.PyArray_DATA(a) == cnp.PyArray_DATA(b) and cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b)


cdef bint overlaps_itself(cnp.ndarray a) noexcept:
    """Whether two of its entries may share memory; exact for the strides that views make."""
    cdef Py_ssize_t span = cnp.PyArray_ITEMSIZE(a), stride, least
    cdef int k, i, next_, ndim = cnp.PyArray_NDIM(a)
    cdef bint[MOST_AXES] done
    if cnp.PyArray_IS_C_CONTIGUOUS(a):
        return False
    for k in range(ndim):
        done[k] = cnp.PyArray_DIM(a, k) == 1
    for i in range(ndim):
        next_ = -1
        for k in range(ndim):
            stride = abs(cnp.PyArray_STRIDE(a, k))
            if not done[k] and (next_ < 0 or stride < least):
                next_, least = k, stride
        if next_ < 0:
            return False
        if least < span:
            return True
        done[next_] = True
        span += least * (cnp.PyArray_DIM(a, next_) - 1)
    return False


cdef struct Along:
    # The axes that a call goes along, from `first` to before `last` if they are adjacent.
    int ndim, first, last
    bint adjacent
    unsigned axes  # a bit each


cdef bint set_along(Along* p, object axis, int ndim):
    """From an int, a tuple of them or None; False where it is none of them, empty or wrong."""
    cdef int count = 0
    p.ndim, p.first, p.last, p.axes, p.adjacent = ndim, ndim, 0, 0, True
    if type(axis) is int:
        return add_along(p, axis)
    for i in range(ndim) if axis is None else axis if type(axis) is tuple else ():
        if type(i) is not int or not add_along(p, i):
            return False
        count += 1
    p.adjacent = p.last - p.first == count
    return count > 0


cdef bint add_along(Along* p, object axis) noexcept:
    """One axis more; False where it is out of range or there already."""
    cdef int overflows = 0
    cdef long k = PyLong_AsLongAndOverflow(axis, &overflows)  # without comparisons of Python's ints
    k += p.ndim if k < 0 else 0
    if overflows or not 0 <= k < p.ndim or is_along(p, k):
        return False
    p.axes |= <unsigned>1 << k
    p.first, p.last = min(p.first, k), max(p.last, k + 1)
    return True


cdef inline bint is_along(const Along* p, int k) noexcept:
    return p.axes >> k & 1


cdef void set_stored(Stored* x, cnp.ndarray a, int type, cnp.ndarray shape, const Along* p, bint rows_last) noexcept:
    """How an array lies that is broadcast to another's shape; ``rows_last`` has no axes after those of rows."""
    cdef int k, own, more = cnp.PyArray_NDIM(shape) - cnp.PyArray_NDIM(a)
    cdef Py_ssize_t length, stride
    x.at, x.type = cnp.PyArray_BYTES(a), <type_t>type
    x.outer.ndim = x.n.ndim = x.inner.ndim = x.row.ndim = 0
    x.outer.count = x.n.count = x.inner.count = x.row.count = 1
    for k in range(p.ndim):
        own = k - more
        length = cnp.PyArray_DIM(shape, k)
        stride = 0 if own < 0 or cnp.PyArray_DIM(a, own) != length else cnp.PyArray_STRIDE(a, own)
        if is_along(p, k):
            add_axis(&x.n, length, stride)
            add_axis(&x.row, length, stride)
        elif rows_last or k < p.first:
            add_axis(&x.outer, length, stride)
        else:
            add_axis(&x.inner, length, stride)
            add_axis(&x.row, length, stride)


cdef cnp.ndarray shaped(cnp.ndarray a, Py_ssize_t first, Py_ssize_t second, Py_ssize_t third):
    """A view of a contiguous array; of two axes if the third is 0."""
    cdef cnp.npy_intp[3] lengths
    cdef cnp.PyArray_Dims dims
    lengths[0], lengths[1], lengths[2] = first, second, third
    dims.ptr, dims.len = lengths, 3 if third else 2
    return cnp.PyArray_Newshape(a, &dims, cnp.NPY_CORDER)


cdef void set_stored_result(Stored* x, cnp.ndarray out, const Along* p, bint rows_last, int times) noexcept:
    """The same of an array for results, with the axes that are gone along twice at the end if ``times`` is 2."""
    cdef Along last
    if times == 2:
        last.ndim = last.last = cnp.PyArray_NDIM(out)
        last.first, last.adjacent, last.axes = last.ndim - 2, True, <unsigned>3 << last.ndim - 2
        set_stored(x, out, type_of(out), out, &last, rows_last)
    else:
        set_stored(x, out, type_of(out), out, p, rows_last)


cdef Py_ssize_t entries_along(cnp.ndarray a, const Along* p) noexcept:
    cdef Py_ssize_t n = 1
    cdef int k
    for k in range(p.ndim):
        if is_along(p, k):
            n *= cnp.PyArray_DIM(a, k)
    return n


cdef object new_array(cnp.ndarray like, int number, const Along* p, int times, bint keepdims=False):
    """Of the shape of ``like`` with the axes that are gone along, without them (or as ones), or with two of all."""
    cdef cnp.npy_intp dims[MOST_AXES + 1]
    cdef int i, ndim = 0
    for i in range(p.ndim):
        if times == 1 or keepdims or not is_along(p, i):
            dims[ndim] = 1 if times == 0 and is_along(p, i) else cnp.PyArray_DIM(like, i)
            ndim += 1
    if times == 2:
        dims[ndim] = dims[ndim + 1] = entries_along(like, p)
        ndim += 2
    return cnp.PyArray_EMPTY(ndim, dims, number, 0)
