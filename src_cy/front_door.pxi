"""The short way for plain calls: from the public name to the kernel in one C function.

The Python layer takes 14-30 us, more than the softmax of a (1000, 5) array, and 70 us where a large one has
swept it out of the caches; this takes 0.6 us at (1, 10). The bits are the same: it runs the same kernel. What is not
plain goes the long way: anything but C-contiguous native arrays, other arguments than a last ``axis`` and
``out=``, wrong labels, several threads.
"""

cdef extern from *:
    """
    static PyObject *context_value(PyObject *variable) {
        PyObject *value = NULL;
        return PyContextVar_Get(variable, NULL, &value) < 0 ? NULL : value;
    }
    """
    object context_value(object variable)

cdef enum:
    ONE_THREAD = 128 * 1024 - 1  # elements that one thread takes in any case (fastsoftmax/_threads.py)
    ONE_BLOCK = 16 * 1024 * 1024  # and that it takes in one go
    MOST_AXES = 30

cdef bint doors_open = False
cdef object doors_context = None
cdef object doors_threads = None

cdef dict OPS = {  # and the number of arrays each takes
    "softmax": (SOFTMAX, 1),
    "log_softmax": (LOG_SOFTMAX, 1),
    "logsumexp": (LOGSUMEXP, 1),
    "softmax_vjp": (SOFTMAX_VJP, 2),
    "softmax_jvp": (SOFTMAX_VJP, 2),
    "log_softmax_vjp": (LOG_SOFTMAX_VJP, 2),
    "log_softmax_jvp": (LOG_SOFTMAX_JVP, 2),
    "softmax_jacobian": (SOFTMAX_JACOBIAN, 1),
    "cross_entropy": (CROSS_ENTROPY, 2),
    "cross_entropy_with_grad": (CROSS_ENTROPY, 2),
}


def set_front_doors(bint open_, context, threads):
    """Open them while calls that name no backend run on these kernels.

    Unless ``context`` holds another backend; and for large arrays, unless ``threads()`` allows more than one.
    """
    global doors_open, doors_context, doors_threads
    doors_open, doors_context, doors_threads = open_, context, threads


cdef bint is_plain(object value) noexcept:
    """An aligned, C-contiguous ndarray of native float64 or float32 with rows in it."""
    if type(value) is not cnp.ndarray:
        return False
    cdef cnp.ndarray a = value
    return (cnp.PyArray_ISCARRAY_RO(a)
            and (cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 or cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32)
            and 0 < cnp.PyArray_NDIM(a) <= MOST_AXES and cnp.PyArray_SIZE(a) > 0)


cdef bint same_dims(cnp.ndarray a, cnp.ndarray b, int ndim) noexcept:
    cdef int i
    for i in range(ndim):
        if cnp.PyArray_DIM(a, i) != cnp.PyArray_DIM(b, i):
            return False
    return True


cdef bint is_like(object value, cnp.ndarray a) noexcept:
    """A plain array of the shape and dtype of ``a``."""
    if not is_plain(value):
        return False
    cdef cnp.ndarray b = value
    return (cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and cnp.PyArray_NDIM(a) == cnp.PyArray_NDIM(b)
            and same_dims(a, b, cnp.PyArray_NDIM(a)))


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two plain arrays share no memory, or are the same."""
    cdef char* p = <char*>cnp.PyArray_DATA(a)
    cdef char* q = <char*>cnp.PyArray_DATA(b)
    return p == q or p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p


cdef bint are_labels(object value, cnp.ndarray x) noexcept:
    """A plain array of native int64, one for each row of ``x`` and all in range."""
    if type(value) is not cnp.ndarray:
        return False
    cdef cnp.ndarray labels = value
    cdef int ndim = cnp.PyArray_NDIM(x) - 1
    if not (cnp.PyArray_ISCARRAY_RO(labels) and cnp.PyArray_TYPE(labels) == cnp.NPY_INTP
            and cnp.PyArray_NDIM(labels) == ndim and same_dims(labels, x, ndim)):
        return False
    cdef const Py_ssize_t* at = <const Py_ssize_t*>cnp.PyArray_DATA(labels)
    cdef Py_ssize_t i, n = cnp.PyArray_DIM(x, ndim)
    cdef size_t largest = 0
    for i in range(cnp.PyArray_SIZE(labels)):
        largest = max(largest, <size_t>at[i])  # a negative one is the largest of all
    return largest < <size_t>n


cdef object new_array(cnp.ndarray like, int dropped, int added):
    """Of the shape of ``like`` without its last ``dropped`` axes and with the last ``added`` times more."""
    cdef cnp.npy_intp dims[MOST_AXES + 1]
    cdef int i, ndim = cnp.PyArray_NDIM(like)
    for i in range(ndim):
        dims[i] = cnp.PyArray_DIM(like, i)
    dims[ndim] = dims[ndim - 1]
    return cnp.PyArray_EMPTY(ndim - dropped + added, dims, cnp.PyArray_TYPE(like), 0)


cdef Call plain_call(op_t op, cnp.ndarray a, object out, object results):
    """A call along the last axis."""
    cdef Call c
    c.op, c.a, c.b, c.labels, c.single = op, cnp.PyArray_DATA(a), NULL, NULL, cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    c.out = NULL if out is None else cnp.PyArray_DATA(<cnp.ndarray>out)
    c.results = NULL if results is None else cnp.PyArray_DATA(<cnp.ndarray>results)
    c.s.n, c.s.inner, c.s.n_stride = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1), 1, 1
    c.s.outer_stride, c.s.outer = c.s.n, cnp.PyArray_SIZE(a) // c.s.n
    return c


cdef object mean(cnp.ndarray loss):
    """Of the losses, as the long way forms it; None if that might warn of an overflow."""
    cdef Py_ssize_t i, m = cnp.PyArray_SIZE(loss)
    cdef bint single = cnp.PyArray_TYPE(loss) == cnp.NPY_FLOAT32
    if not single:
        for i in range(m):
            if (<double*>cnp.PyArray_DATA(loss))[i] > 1e290:
                return None
    cdef double wide = cnp.PyArray_Sum(loss, 0, cnp.NPY_FLOAT64, <cnp.ndarray>NULL) / m
    cdef float narrow = <float>wide
    return cnp.PyArray_ToScalar(<void*>&narrow if single else <void*>&wide, loss)


cdef class FrontDoor:
    """A public op: plain calls go straight to the kernel, the rest to the function."""
    cdef dict __dict__
    cdef object function
    cdef op_t op
    cdef int arity
    cdef bint with_grad, takes_out

    def __init__(self, function):
        self.function = function
        self.op, self.arity = OPS[function.__name__]
        self.with_grad = function.__name__ == "cross_entropy_with_grad"
        self.takes_out = self.op not in (LOGSUMEXP, SOFTMAX_JACOBIAN, CROSS_ENTROPY)

    def __call__(self, *args, **kwargs):
        if doors_open and len(args) >= self.arity and is_plain(args[0]) and context_value(doors_context) is None:
            result = self.run_plain(args, kwargs)
            if result is not None:
                return result
        return self.function(*args, **kwargs)

    cdef object run_plain(self, tuple args, dict kwargs):
        """The result, or None where the call is not plain after all."""
        cdef cnp.ndarray a = args[0]
        cdef Py_ssize_t size = cnp.PyArray_SIZE(a)
        cdef object out = None
        if self.op == SOFTMAX_JACOBIAN:
            size *= cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
        if size > ONE_THREAD and (size > ONE_BLOCK or doors_threads() > 1):
            return None
        if len(args) > self.arity or kwargs:
            out = kwargs.get("out")
            if not self.is_along_last(a, args, kwargs) or (out is not None and not self.can_fill(out, args)):
                return None
        if self.op == CROSS_ENTROPY:
            return self.losses(a, args[1])
        if self.arity == 2 and not is_like(args[1], a):
            return None
        return self.array(a, args[1] if self.arity == 2 else None, out)

    cdef bint is_along_last(self, cnp.ndarray a, tuple args, dict kwargs):
        """Whether nothing but the last axis, and perhaps ``out``, is given beside the arrays."""
        cdef Py_ssize_t given = len(args) - self.arity + len(kwargs) - ("out" in kwargs)
        if given == 0:
            return True
        axis = args[self.arity] if len(args) > self.arity else kwargs.get("axis")
        return given == 1 and type(axis) is int and (axis == -1 or axis == cnp.PyArray_NDIM(a) - 1)

    cdef bint can_fill(self, object out, tuple args):
        """Whether a kernel may write into ``out`` as it reads the arrays."""
        return (self.takes_out and is_like(out, args[0]) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
                and apart(args[0], out) and (self.arity == 1 or (is_like(args[1], out) and apart(args[1], out))))

    cdef object array(self, cnp.ndarray a, object b, object out):
        cdef bint per_row = self.op == LOGSUMEXP
        if out is None:
            out = new_array(a, per_row, self.op == SOFTMAX_JACOBIAN)
        cdef Call c = plain_call(self.op, a, None if per_row else out, out if per_row else None)
        if b is not None:
            c.b = cnp.PyArray_DATA(<cnp.ndarray>b)
        run(&c)
        return out[()] if per_row and cnp.PyArray_NDIM(a) == 1 else out

    cdef object losses(self, cnp.ndarray x, object labels):
        """The mean loss, and the gradient if that is wanted."""
        if not are_labels(labels, x):
            return None
        cdef cnp.npy_intp rows = cnp.PyArray_SIZE(<cnp.ndarray>labels)
        cdef cnp.ndarray loss = cnp.PyArray_EMPTY(1, &rows, cnp.PyArray_TYPE(x), 0)
        dx = new_array(x, 0, 0) if self.with_grad else None
        cdef Call c = plain_call(CROSS_ENTROPY, x, dx, loss)
        c.labels = <Py_ssize_t*>cnp.PyArray_DATA(<cnp.ndarray>labels)
        c.target = unweighted(0, 1 / <double>c.s.outer)
        run(&c)
        result = mean(loss)
        return (result, dx) if self.with_grad and result is not None else result

    def __reduce__(self):
        return self.__name__

    def __repr__(self):
        return f"<fastsoftmax op {self.__name__}>"
