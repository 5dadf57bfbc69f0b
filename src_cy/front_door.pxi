"""The short way: from the public name to the kernel in one C function.

The Python layer takes 9-40 us, as much as the softmax of a (1000, 5) array, and 70 us where a large one has
swept it out of the caches; this takes 0.3 us at (1, 10). The bits are the same: it runs the same kernel. The
long way is for other backends, for what becomes an array first (but lists of numbers), for Jacobians that are no
blocks, for `out` of ops whose result has another shape, and for what is wrong.
"""

from types import MethodType

cdef extern from *:
    """
    static _Atomic int doors_open; /* read by calls of any thread while another changes it */
    static PyObject *context_value(PyObject *variable) {
        PyObject *value = NULL;
        return PyContextVar_Get(variable, NULL, &value) < 0 ? NULL : value;
    }
    """
    bint doors_open
    object context_value(object variable)

cdef object LEAST = -(2**62)  # ignore_index
cdef object MOST = 2**62

cdef object doors_context = None  # these are said once, before the first call
cdef object doors_threads = None
cdef object doors_kernel = None
cdef object doors_run = None

cdef dict OPS = {  # the number of arrays each takes, and how many times its array of results has their axis
    "softmax": (SOFTMAX, 1, 1),
    "log_softmax": (LOG_SOFTMAX, 1, 1),
    "logsumexp": (LOGSUMEXP, 1, 0),
    "softmax_vjp": (SOFTMAX_VJP, 2, 1),
    "softmax_jvp": (SOFTMAX_VJP, 2, 1),
    "log_softmax_vjp": (LOG_SOFTMAX_VJP, 2, 1),
    "log_softmax_jvp": (LOG_SOFTMAX_JVP, 2, 1),
    "softmax_solve": (SOFTMAX_SOLVE, 2, 1),
    "softmax_jacobian": (SOFTMAX_JACOBIAN, 1, 2),
    "log_softmax_jacobian": (LOG_SOFTMAX_JACOBIAN, 1, 2),
    "cross_entropy": (CROSS_ENTROPY, 2, 0),
    "cross_entropy_with_grad": (CROSS_ENTROPY, 2, 1),
}


def fit_front_doors(context, threads, kernel, run):
    """Say what is behind them: once, for calls take it without a lock.

    ``context`` holds another backend than the one of calls that name none, or nothing; ``threads(n)`` is how many
    threads a large array may use if ``n`` are asked for, or None; ``kernel(op, backend)`` is that of another backend,
    and ``run(kernel, canonical, args, num_threads)`` calls it.
    """
    global doors_context, doors_threads, doors_kernel, doors_run
    doors_context, doors_threads, doors_kernel, doors_run = context, threads, kernel, run


def set_front_doors(bint open_):
    """Open them while calls that name no backend run on these kernels."""
    global doors_open
    doors_open = open_


cdef bint runs_here(object backend) except -1:
    """Whether a call that asks for this backend, or none, runs on these kernels."""
    if backend is None:
        backend = context_value(doors_context)
    return doors_open if backend is None else type(backend) is str and backend == "cython"


cdef int threads_for(const Call* c, object num_threads) except -1:
    """One for each full share of the elements, as far as they are allowed (as fastsoftmax/_threads.py has it)."""
    cdef Py_ssize_t shares = rows_of(c) * elements_a_row(c) // SHARE
    if shares < 2 or rows_of(c) < 2:
        return 1
    cdef Py_ssize_t allowed = doors_threads(num_threads)
    return min(shares, allowed, rows_of(c))


cdef bint can_fill(object out, cnp.ndarray a, int number, cnp.ndarray b, object beside, object besides):
    """Whether a result of the shape of ``a`` may be written there while the arrays are read."""
    if not is_array(out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
        return False
    if cnp.PyArray_TYPE(<cnp.ndarray>out) != number or not cnp.PyArray_SAMESHAPE(out, a) or overlaps_itself(out):
        return False
    # Entries of these are read along with what is written.
    if not (are_same(a, out) or are_apart(a, out)) or not (b is None or are_same(b, out) or are_apart(b, out)):
        return False
    return is_beside(beside, out) and is_beside(besides, out)


cdef bint is_ridge(double ridge, cnp.ndarray y) noexcept:
    """Whether it is positive and finite in what is computed with: without one ``b`` is to be looked at."""
    if is_single(type_of(y)):
        ridge = <float>ridge
    return 0 < ridge < INFINITY


cdef bint is_beside(object read, cnp.ndarray out) noexcept:
    return read is None or (type(read) is cnp.ndarray and are_apart(read, out))


@cython.final
@cython.freelist(4)
cdef class Options:
    """What is said beside the arrays, as the short way takes it; a ``reduction`` of None is the mean."""
    cdef object axis, out, where, b, backend, num_threads, weight, sample_weight, ignore_index, reduction
    cdef double smoothing, ridge
    cdef bint keepdims


cdef Options no_options():
    cdef Options said = Options.__new__(Options)
    said.axis = -1
    return said


cdef Options SAID_NOTHING = no_options()


cdef class FrontDoor:
    """A public op: what the short way takes goes straight to the kernel, the rest to the function."""
    cdef dict __dict__
    cdef object __weakref__
    cdef object function
    cdef op_t op
    cdef int arity, times

    def __init__(self, function):
        self.function = function
        self.op, self.arity, self.times = OPS[function.__name__]

    def __call__(self, *args, **kwargs):
        if len(args) >= self.arity:
            result = self.run_short(args, kwargs)
            if result is not None:
                return result
        return self.function(*args, **kwargs)

    cdef object run_short(self, tuple args, dict kwargs):
        """The result, or None where the call has to go the long way."""
        cdef Options said = SAID_NOTHING
        cdef Along along
        if type(args[0]) is list and holds_numbers(args[0]):
            args = (cnp.PyArray_FROM_O(args[0]), *args[1:])
        if not is_array(args[0]):
            return None
        cdef cnp.ndarray a = args[0], b = None
        if len(args) > self.arity or kwargs:
            said = self.options_of(args, kwargs)
            if said is None:
                return None
        if not set_along(&along, said.axis, cnp.PyArray_NDIM(a)):
            return None
        cdef bint is_here = runs_here(said.backend)
        if self.op == CROSS_ENTROPY:
            return self.losses(a, args[1], &along, said) if is_here else None
        if self.arity == 2:
            if not is_like(args[1], a):
                return None
            b = args[1]
        if said.b is not None:
            if said.where is not None or not is_beside_of(said.b, a, cnp.PyArray_TYPE(a)):
                return None
            b = said.b
        if self.op == SOFTMAX_SOLVE and not is_ridge(said.ridge, a):
            return None
        return self.array(a, b, &along, said) if is_here else self.array_elsewhere(a, b, &along, said)

    cdef Options options_of(self, tuple args, dict kwargs):
        """None where something is said that the short way does not know."""
        cdef Options said = no_options()
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
            elif is_loss and name == "weight":
                said.weight = value
            elif is_loss and name == "sample_weight":
                said.sample_weight = value
            elif is_loss and name == "ignore_index":
                said.ignore_index = value
            elif is_loss and name == "reduction" and type(value) is str and value in ("mean", "sum", "none"):
                said.reduction = None if value == "mean" else value
            elif is_loss and name == "label_smoothing" and type(value) is float and 0 <= value <= 1:
                said.smoothing = value
            elif name == "backend":
                said.backend = value
            elif name == "num_threads":
                said.num_threads = value
            elif name == "where" and not is_loss and self.arity == 1 and self.times < 2:
                said.where = value
            elif name == "keepdims" and self.op == LOGSUMEXP and type(value) is bool:
                said.keepdims = value
            elif name == "b" and self.op == LOGSUMEXP:
                said.b = value
            elif name == "ridge" and self.op == SOFTMAX_SOLVE and type(value) is float:
                said.ridge = value
            else:
                return None
        if said.num_threads is not None and (type(said.num_threads) is not int or said.num_threads < 1):
            return None
        if said.ignore_index is not None:
            if type(said.ignore_index) is not int or not LEAST <= said.ignore_index <= MOST:
                return None
        return said

    cdef object array(self, cnp.ndarray a, cnp.ndarray b, const Along* along, Options said):
        cdef int type = type_of(a), number
        if type < 0 or not (said.where is None or is_beside_of(said.where, a, cnp.NPY_BOOL)):
            return None
        number = cnp.PyArray_TYPE(a) if is_real(type) else cnp.NPY_FLOAT64
        if said.out is None:
            out = new_array(a, number, along, self.times, said.keepdims)
        elif can_fill(said.out, a, number, b, said.where, None):
            out = said.out
        else:
            return None
        cdef Call c
        cdef Conversion v
        set_call(&c, &v, self.op if said.b is None else WEIGHTED_LOGSUMEXP, a, b, said.where, out, along, self.times)
        v.fill = -INFINITY if self.op == LOG_SOFTMAX else 0  # where masked out
        c.ridge = said.ridge
        run(&c, threads_for(&c, said.num_threads))
        return out[()] if cnp.PyArray_NDIM(<cnp.ndarray>out) == 0 else out

    cdef object array_elsewhere(self, cnp.ndarray a, cnp.ndarray b, const Along* along, Options said):
        """The same by another backend's kernel, of plain arrays."""
        cdef Stored x
        cdef int type = type_of(a)
        if said.where is not None or not (type == FLOAT32 or type == FLOAT64):
            return None
        if said.out is not None and not (can_fill(said.out, a, cnp.PyArray_TYPE(a), b, None, None)
                                         and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>said.out)):
            return None
        if not (along.adjacent and (self.times < 2 or along.last == along.ndim) and cnp.PyArray_IS_C_CONTIGUOUS(a)
                and (b is None or (cnp.PyArray_IS_C_CONTIGUOUS(b) and cnp.PyArray_SAMESHAPE(a, b)))):
            return None
        set_stored(&x, a, type, a, along, False)
        cdef Py_ssize_t outer = x.outer.count, n = x.n.count, inner = x.inner.count
        name = "softmax_vjp" if self.op == SOFTMAX_VJP else self.function.__name__
        kernel = doors_kernel(name if said.b is None else "weighted_logsumexp", said.backend)
        out = said.out
        if out is None:
            out = new_array(a, cnp.PyArray_TYPE(a), along, self.times, said.keepdims)
        arrays = [shaped(a, outer, n, inner)] if b is None else [shaped(a, outer, n, inner), shaped(b, outer, n, inner)]
        if self.op == SOFTMAX_SOLVE:
            arrays.append(<float>said.ridge if type == FLOAT32 else said.ridge)
        if self.times == 0:
            arrays.append(shaped(out, outer, inner, 0))
        else:
            arrays.append(shaped(out, outer, n, inner if self.times == 1 else n))
        doors_run(kernel, (outer, n, inner), arrays, said.num_threads)
        return out[()] if cnp.PyArray_NDIM(<cnp.ndarray>out) == 0 else out

    cdef object losses(self, cnp.ndarray x, object given, const Along* along, Options said):
        """The loss, and the gradient if that is wanted."""
        cdef Py_ssize_t taking_part
        cdef int type = type_of(x), number
        cdef bint soft = is_soft(given, x) and said.ignore_index is None
        cdef cnp.ndarray labels = None
        if not soft:
            labels = labels_of(given, x, along, said.ignore_index, &taking_part)
        if (labels is None and not soft) or type < 0 or cnp.PyArray_SIZE(x) == 0:
            return None
        number = cnp.PyArray_TYPE(x) if is_real(type) else cnp.NPY_FLOAT64
        if not (said.weight is None or is_weight(said.weight, x, along)):
            return None
        if not (said.sample_weight is None or is_sample_weight(said.sample_weight, x, along)):
            return None
        loss = new_array(x, cnp.NPY_FLOAT32 if is_single(type) else cnp.NPY_FLOAT64, along, 0)
        dx = said.out
        if dx is None and self.times == 1:
            dx = new_array(x, number, along, 1)
        elif dx is not None and not (can_fill(dx, x, number, None, given, said.weight)
                                     and is_beside(said.sample_weight, dx)):
            return None
        cdef double total = cnp.PyArray_SIZE(loss) if soft else taking_part
        cdef bint is_mean = said.reduction is None
        if said.sample_weight is not None or not (soft or said.weight is None):
            total = sum_of_weights(cnp.PyArray_SIZE(loss), labels, said.weight, said.sample_weight)
            if is_mean and not abs(total) > 0:
                return None
        cdef Call c
        cdef Conversion v
        if soft:
            set_call(&c, &v, SOFT_CROSS_ENTROPY, x, given, None, dx, along, 1)
        else:
            set_call(&c, &v, CROSS_ENTROPY, x, None, None, dx, along, 1)
            c.labels = <Py_ssize_t*>cnp.PyArray_DATA(labels)
        if said.sample_weight is not None:
            c.samples = cnp.PyArray_DATA(<cnp.ndarray>said.sample_weight)
        c.results = cnp.PyArray_DATA(<cnp.ndarray>loss)
        cdef unsigned mode = take_mode()
        try:
            scale = 1 / (total or 1) if is_mean else 1
            _everywhere = set_target(&c, said.weight, said.smoothing, scale)  # kept to the end
            run(&c, threads_for(&c, said.num_threads))
            if said.reduction == "none":
                value = losses_like(loss, x, along)
            else:
                value = scalar_like(sum_of(loss) / (total if is_mean else 1), loss, x)
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
