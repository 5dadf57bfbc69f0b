"""The short way for plain calls: from the public name to the kernel in one C function.

The Python layer takes 9-40 us, as much as the softmax of a (1000, 5) array, and 70 us where a large one has
swept it out of the caches; this takes 0.6 us at (1, 10). The bits are the same: it runs the same kernel. What is not
plain goes the long way: anything but C-contiguous native arrays, other arguments than one ``axis`` and ``out=``,
wrong labels, a number of threads.
"""

from types import MethodType

cdef extern from *:
    """
    static PyObject *context_value(PyObject *variable) {
        PyObject *value = NULL;
        return PyContextVar_Get(variable, NULL, &value) < 0 ? NULL : value;
    }
    """
    object context_value(object variable)

cdef enum:
    MOST_AXES = 30

cdef bint doors_open = False
cdef object doors_context = None
cdef object doors_threads = None

cdef dict OPS = {  # the number of arrays each takes, and how many times its array of results has their axis
    "softmax": (SOFTMAX, 1, 1),
    "log_softmax": (LOG_SOFTMAX, 1, 1),
    "logsumexp": (LOGSUMEXP, 1, 0),
    "softmax_vjp": (SOFTMAX_VJP, 2, 1),
    "softmax_jvp": (SOFTMAX_VJP, 2, 1),
    "log_softmax_vjp": (LOG_SOFTMAX_VJP, 2, 1),
    "log_softmax_jvp": (LOG_SOFTMAX_JVP, 2, 1),
    "softmax_jacobian": (SOFTMAX_JACOBIAN, 1, 2),
    "cross_entropy": (CROSS_ENTROPY, 2, 0),
    "cross_entropy_with_grad": (CROSS_ENTROPY, 2, 1),
}


def set_front_doors(bint open_, context, threads):
    """Open them while calls that name no backend run on these kernels, unless ``context`` holds another backend.

    ``threads()`` is how many threads large arrays may use.
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


cdef bint is_like(object value, cnp.ndarray a) noexcept:
    """A plain array of the shape and dtype of ``a``."""
    if not is_plain(value):
        return False
    cdef cnp.ndarray b = value
    return cnp.PyArray_TYPE(a) == cnp.PyArray_TYPE(b) and cnp.PyArray_SAMESHAPE(a, b)


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two plain arrays share no memory, or are the same."""
    cdef char* p = <char*>cnp.PyArray_DATA(a)
    cdef char* q = <char*>cnp.PyArray_DATA(b)
    return p == q or p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p


cdef bint are_labels(object value, cnp.ndarray x, int axis) noexcept:
    """A plain array of native int64, one for each row of ``x`` and all in range."""
    if type(value) is not cnp.ndarray:
        return False
    cdef cnp.ndarray labels = value
    cdef int k, ndim = cnp.PyArray_NDIM(x) - 1
    if not (cnp.PyArray_ISCARRAY_RO(labels) and cnp.PyArray_TYPE(labels) == cnp.NPY_INTP
            and cnp.PyArray_NDIM(labels) == ndim):
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(labels, k) != cnp.PyArray_DIM(x, k + (k >= axis)):
            return False
    cdef const Py_ssize_t* at = <const Py_ssize_t*>cnp.PyArray_DATA(labels)
    cdef Py_ssize_t i, n = cnp.PyArray_DIM(x, axis)
    cdef size_t largest = 0
    for i in range(cnp.PyArray_SIZE(labels)):
        largest = max(largest, <size_t>at[i])  # a negative one is the largest of all
    return largest < <size_t>n


cdef object new_array(cnp.ndarray like, int axis, int times):
    """Of the shape of ``like``, but with ``axis`` none, one or two ``times``."""
    cdef cnp.npy_intp dims[MOST_AXES + 1]
    cdef int i, k, ndim = 0
    for i in range(cnp.PyArray_NDIM(like)):
        for k in range(times if i == axis else 1):
            dims[ndim] = cnp.PyArray_DIM(like, i)
            ndim += 1
    return cnp.PyArray_EMPTY(ndim, dims, cnp.PyArray_TYPE(like), 0)


cdef void set_plain(Call* c, op_t op, cnp.ndarray a, int axis, object out, object results) noexcept:
    """Make ``c`` a call on arrays of the shape of ``a``, along an axis."""
    cdef int i
    c.op, c.a, c.b, c.labels, c.given_up = op, cnp.PyArray_DATA(a), NULL, NULL, NULL
    c.single = cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    c.out = NULL if out is None else cnp.PyArray_DATA(<cnp.ndarray>out)
    c.results = NULL if results is None else cnp.PyArray_DATA(<cnp.ndarray>results)
    c.s.n, c.s.inner = cnp.PyArray_DIM(a, axis), 1
    for i in range(axis + 1, cnp.PyArray_NDIM(a)):
        c.s.inner *= cnp.PyArray_DIM(a, i)
    c.s.n_stride, c.s.outer_stride = c.s.inner, c.s.n * c.s.inner
    c.s.outer = cnp.PyArray_SIZE(a) // c.s.outer_stride
    c.sb = c.so = c.s
    if op == SOFTMAX_JACOBIAN:
        c.so.outer_stride *= c.s.n
    c.results_stride = c.labels_stride = c.s.inner


cdef int threads_for(const Call* c) except -1:
    """One for each full share of the elements, as far as they are allowed (as fastsoftmax/_threads.py has it)."""
    cdef Py_ssize_t shares = rows_of(c) * elements_a_row(c) // SHARE
    if shares < 2 or rows_of(c) < 2:
        return 1
    cdef Py_ssize_t allowed = doors_threads()
    return min(shares, allowed, rows_of(c))


cdef double sum_of(cnp.ndarray losses) noexcept:
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(losses)
    if cnp.PyArray_TYPE(losses) == cnp.NPY_FLOAT32:
        return kernels.exact_sum_f32(<const float*>cnp.PyArray_DATA(losses), rows)
    return kernels.exact_sum_f64(<const double*>cnp.PyArray_DATA(losses), rows)


def exact_sum(cnp.ndarray losses not None):
    """The sum of a contiguous array, in float64."""
    return sum_of(losses)


cdef object mean(cnp.ndarray losses):
    """Of the losses, as the long way forms it."""
    cdef double wide = sum_of(losses) / cnp.PyArray_SIZE(losses)
    cdef float narrow = <float>wide
    cdef bint single = cnp.PyArray_TYPE(losses) == cnp.NPY_FLOAT32
    return cnp.PyArray_ToScalar(<void*>&narrow if single else <void*>&wide, losses)


cdef class FrontDoor:
    """A public op: plain calls go straight to the kernel, the rest to the function."""
    cdef dict __dict__
    cdef object __weakref__
    cdef object function
    cdef op_t op
    cdef int arity, times

    def __init__(self, function):
        self.function = function
        self.op, self.arity, self.times = OPS[function.__name__]

    def __call__(self, *args, **kwargs):
        if doors_open and len(args) >= self.arity and is_plain(args[0]) and context_value(doors_context) is None:
            result = self.run_plain(args, kwargs)
            if result is not None:
                return result
        return self.function(*args, **kwargs)

    cdef object run_plain(self, tuple args, dict kwargs):
        """The result, or None where the call is not plain after all."""
        cdef cnp.ndarray a = args[0]
        cdef int axis = cnp.PyArray_NDIM(a) - 1
        cdef object out = None
        if len(args) > self.arity or kwargs:
            out = kwargs.get("out")
            axis = self.axis_of(a, args, kwargs)
            if axis < 0 or (out is not None and not self.can_fill(out, args)):
                return None
        if self.op == CROSS_ENTROPY:
            return self.losses(a, args[1], axis)
        if self.arity == 2 and not is_like(args[1], a):
            return None
        return self.array(a, args[1] if self.arity == 2 else None, axis, out)

    cdef int axis_of(self, cnp.ndarray a, tuple args, dict kwargs) except -2:
        """The one axis; -1 where more than it, and perhaps ``out``, is given beside the arrays."""
        cdef bint has_out = self.op != CROSS_ENTROPY or self.times > 0
        cdef Py_ssize_t given = len(args) - self.arity + len(kwargs) - (has_out and "out" in kwargs)
        cdef int along, ndim = cnp.PyArray_NDIM(a)
        if given == 0:
            return ndim - 1
        axis = args[self.arity] if len(args) > self.arity else kwargs.get("axis")
        if given > 1 or type(axis) is not int or not -ndim <= axis < ndim:
            return -1
        along = axis if axis >= 0 else axis + ndim
        return along if along == ndim - 1 or self.times < 2 else -1

    cdef bint can_fill(self, object out, tuple args):
        """Whether a kernel may write into ``out`` as it reads the arrays."""
        return (self.times == 1 and self.op != CROSS_ENTROPY and is_like(out, args[0])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) and apart(args[0], out)
                and (self.arity == 1 or (is_like(args[1], out) and apart(args[1], out))))

    cdef object array(self, cnp.ndarray a, object b, int axis, object out):
        cdef bint per_row = self.times == 0
        if out is None:
            out = new_array(a, axis, self.times)
        cdef Call c
        set_plain(&c, self.op, a, axis, None if per_row else out, out if per_row else None)
        if b is not None:
            c.b = cnp.PyArray_DATA(<cnp.ndarray>b)
        run(&c, threads_for(&c))
        return out[()] if per_row and cnp.PyArray_NDIM(a) == 1 else out

    cdef object losses(self, cnp.ndarray x, object labels, int axis):
        """The mean loss, and the gradient if that is wanted."""
        if not are_labels(labels, x, axis):
            return None
        cdef cnp.npy_intp rows = cnp.PyArray_SIZE(<cnp.ndarray>labels)
        cdef cnp.ndarray loss = cnp.PyArray_EMPTY(1, &rows, cnp.PyArray_TYPE(x), 0)
        dx = new_array(x, axis, 1) if self.times else None
        cdef unsigned mode = take_mode()
        try:
            self.run_losses(x, labels, axis, loss, dx)
            value = mean(loss)
        finally:
            restore_mode(mode)
        return value if dx is None else (value, dx)

    cdef int run_losses(self, cnp.ndarray x, cnp.ndarray labels, int axis, cnp.ndarray loss, object dx) except -1:
        cdef Call c
        set_plain(&c, CROSS_ENTROPY, x, axis, dx, loss)
        c.labels = <Py_ssize_t*>cnp.PyArray_DATA(labels)
        c.target = unweighted(0, 1 / <double>cnp.PyArray_SIZE(labels))
        return run(&c, threads_for(&c))

    def __get__(self, instance, owner):
        """As a function in a class is bound; and what has this is a routine to `inspect`, `help()` and Sphinx."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self):
        return self.__name__

    def __repr__(self):
        return f"<fastsoftmax op {self.__name__}>"
