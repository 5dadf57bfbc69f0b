"""The short way for plain calls: from the public name to the kernel in one C function.

The Python layer takes 9-40 us, as much as the softmax of a (1000, 5) array, and 70 us where a large one has
swept it out of the caches; this takes 0.6 us at (1, 10). The bits are the same: it runs the same kernel. What is not
plain goes the long way: anything but native arrays whose rows lie as kernels read them, masks, several axes, another
backend, what is wrong.
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

cdef object LEAST = -(2**62)  # ignore_index
cdef object MOST = 2**62

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

    ``threads(n)`` is how many threads a large array may use if ``n`` are asked for, or None.
    """
    global doors_open, doors_context, doors_threads
    doors_open, doors_context, doors_threads = open_, context, threads


cdef bint runs_here(object backend) except -1:
    """Whether a call that asks for this backend, or none, runs on these kernels."""
    if backend is None:
        backend = context_value(doors_context)
    return doors_open if backend is None else type(backend) is str and backend == "cython"


cdef bint set_plain(Call* c, op_t op, cnp.ndarray a, object b, int axis, object out, object results) noexcept:
    """Make ``c`` a call on arrays of the shape of ``a``, along an axis; False where they do not lie so."""
    if not set_layout(&c.s, a, axis) or not (b is None or set_layout(&c.sb, b, axis)):
        return False
    if b is None:
        c.sb = c.s
    c.op, c.a, c.labels, c.given_up = op, cnp.PyArray_DATA(a), NULL, NULL
    c.b = NULL if b is None else cnp.PyArray_DATA(<cnp.ndarray>b)
    c.single = cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    c.out = NULL if out is None else cnp.PyArray_DATA(<cnp.ndarray>out)
    c.results = NULL if results is None else cnp.PyArray_DATA(<cnp.ndarray>results)
    c.so = c.s
    c.so.n_stride, c.so.outer_stride = c.s.inner, c.s.n * c.s.inner
    if op == SOFTMAX_JACOBIAN:
        c.so.outer_stride *= c.s.n
    c.results_stride = c.labels_stride = c.s.inner
    return True


cdef int threads_for(const Call* c, object num_threads) except -1:
    """One for each full share of the elements, as far as they are allowed (as fastsoftmax/_threads.py has it)."""
    cdef Py_ssize_t shares = rows_of(c) * elements_a_row(c) // SHARE
    if shares < 2 or rows_of(c) < 2:
        return 1
    cdef Py_ssize_t allowed = doors_threads(num_threads)
    return min(shares, allowed, rows_of(c))


cdef class Options:
    """What is said beside the arrays, as plainly as the short way takes it."""
    cdef object axis, out, backend, num_threads, weight, ignore_index, reduction
    cdef double smoothing

    def __cinit__(self):
        self.axis, self.reduction, self.smoothing = -1, "mean", 0


cdef Options SAID_NOTHING = Options()


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
        if len(args) >= self.arity and is_float(args[0]):
            result = self.run_plain(args, kwargs)
            if result is not None:
                return result
        return self.function(*args, **kwargs)

    cdef object run_plain(self, tuple args, dict kwargs):
        """The result, or None where the call is not plain after all."""
        cdef cnp.ndarray a = args[0]
        cdef Options said = SAID_NOTHING
        if len(args) > self.arity or kwargs:
            said = self.options_of(args, kwargs)
            if said is None:
                return None
        if not runs_here(said.backend):
            return None
        cdef int axis, ndim = cnp.PyArray_NDIM(a)
        if type(said.axis) is not int or not -ndim <= said.axis < ndim:
            return None
        axis = said.axis
        axis += ndim if axis < 0 else 0
        if said.out is not None and not self.can_fill(said.out, args, said.weight):
            return None
        if self.op == CROSS_ENTROPY:
            return self.losses(a, args[1], axis, said)
        if self.arity == 2 and not is_like(args[1], a):
            return None
        if self.times == 2 and (axis != ndim - 1 or not is_plain(a)):
            return None
        return self.array(a, args[1] if self.arity == 2 else None, axis, said)

    cdef Options options_of(self, tuple args, dict kwargs):
        """None where something is said that the short way does not know."""
        cdef Options said = Options()
        cdef bint is_loss = self.op == CROSS_ENTROPY
        if len(args) > self.arity:
            if len(args) > self.arity + 1 or "axis" in kwargs:
                return None
            said.axis = args[self.arity]
        for name, value in kwargs.items():
            if name == "axis":
                said.axis = value
            elif name == "out" and self.times == 1:
                said.out = value
            elif name == "backend":
                said.backend = value
            elif name == "num_threads":
                said.num_threads = value
            elif is_loss and name == "weight":
                said.weight = value
            elif is_loss and name == "ignore_index":
                said.ignore_index = value
            elif is_loss and name == "reduction" and type(value) is str and value in ("mean", "sum", "none"):
                said.reduction = value
            elif is_loss and name == "label_smoothing" and type(value) is float and 0 <= value <= 1:
                said.smoothing = value
            else:
                return None
        if said.num_threads is not None and (type(said.num_threads) is not int or said.num_threads < 1):
            return None
        if said.ignore_index is not None:
            if type(said.ignore_index) is not int or not LEAST <= said.ignore_index <= MOST:
                return None
        return said

    cdef bint can_fill(self, object out, tuple args, object weight):
        """Whether a kernel may write into ``out`` as it reads the arrays."""
        if not (is_plain(args[0]) and is_plain(out) and is_like(out, args[0])
                and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out) and apart(args[0], out)):
            return False
        if self.op != CROSS_ENTROPY:
            return self.arity == 1 or (is_plain(args[1]) and is_like(args[1], out) and apart(args[1], out))
        return are_disjoint(args[1], out) and (weight is None or are_disjoint(weight, out))

    cdef object array(self, cnp.ndarray a, object b, int axis, Options said):
        cdef bint per_row = self.times == 0
        out = new_array(a, axis, self.times) if said.out is None else said.out
        cdef Call c
        if not set_plain(&c, self.op, a, b, axis, None if per_row else out, out if per_row else None):
            return None
        run(&c, threads_for(&c, said.num_threads))
        return out[()] if per_row and cnp.PyArray_NDIM(a) == 1 else out

    cdef object losses(self, cnp.ndarray x, object given, int axis, Options said):
        """The loss, and the gradient if that is wanted."""
        cdef Py_ssize_t taking_part
        cdef cnp.ndarray labels = labels_of(given, x, axis, said.ignore_index, &taking_part)
        if labels is None or not (said.weight is None or is_weight(said.weight, x, axis)):
            return None
        loss = new_array(x, axis, 0)
        dx = None if self.times == 0 else new_array(x, axis, 1) if said.out is None else said.out
        cdef double total = taking_part if said.weight is None else sum_of_weights(labels, said.weight)
        cdef bint is_mean = said.reduction == "mean"
        cdef Call c
        if not set_plain(&c, CROSS_ENTROPY, x, None, axis, dx, loss):
            return None
        c.labels = <Py_ssize_t*>cnp.PyArray_DATA(labels)
        cdef unsigned mode = take_mode()
        try:
            scale = 1 / (total or 1) if is_mean else 1
            _everywhere = set_target(&c, said.weight, said.smoothing, scale)  # kept to the end
            run(&c, threads_for(&c, said.num_threads))
            if said.reduction == "none":
                value = loss[()]
            else:
                value = scalar_like(sum_of(loss) / (total if is_mean else 1), loss)
        finally:
            restore_mode(mode)
        return value if dx is None else (value, dx)

    def __get__(self, instance, owner):
        """As a function in a class is bound; and what has this is a routine to `inspect`, `help()` and Sphinx."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self):
        return self.__name__

    def __repr__(self):
        return f"<fastsoftmax op {self.__name__}>"
