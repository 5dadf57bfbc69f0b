"""What a cross-entropy has beside the logits: labels or probabilities, weights, and the sum or mean of its losses.

As fastsoftmax/_targets.py has it for the long way.
"""

cdef bint is_soft(object labels, cnp.ndarray x):
    """Whether they are probabilities, one for each logit, that become what is computed with."""
    if not is_array(labels) or not cnp.PyArray_SAMESHAPE(<cnp.ndarray>labels, x):
        return False
    cdef int type_ = type_of(labels)
    return is_real(type_) and is_single(type_) == is_single(type_of(x))


cdef bint is_weight(object value, cnp.ndarray x, const Along* along):
    """A contiguous array of what is computed with, one entry for each class."""
    if not is_array(value) or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>value):
        return False
    cdef cnp.ndarray w = value
    return (cnp.PyArray_NDIM(w) == 1 and cnp.PyArray_SIZE(w) == entries_along(x, along)
            and type_of(w) == <int>(FLOAT32 if is_single(type_of(x)) else FLOAT64))


cdef bint is_sample_weight(object value, cnp.ndarray x, const Along* along):
    """The same with one entry for each row."""
    if not is_array(value) or not cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray>value):
        return False
    return (is_one_a_row(value, x, along)
            and type_of(value) == <int>(FLOAT32 if is_single(type_of(x)) else FLOAT64))


cdef bint is_one_a_row(cnp.ndarray a, cnp.ndarray x, const Along* along) noexcept:
    cdef int k, kept = 0
    for k in range(along.ndim):
        if not is_along(along, k):
            if kept == cnp.PyArray_NDIM(a) or cnp.PyArray_DIM(a, kept) != cnp.PyArray_DIM(x, k):
                return False
            kept += 1
    return kept == cnp.PyArray_NDIM(a)


cdef cnp.ndarray labels_of(object value, cnp.ndarray x, const Along* along, object ignore_index,
                           Py_ssize_t* taking_part):
    """Native int64 labels, one for each row of ``x``, ignored ones -1; None where they are not such or not in range."""
    if type(value) is not cnp.ndarray:
        return None
    cdef cnp.ndarray labels = value
    if not cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(labels)):
        return None
    if cnp.PyTypeNum_ISUNSIGNED(cnp.PyArray_TYPE(labels)) and cnp.PyArray_ITEMSIZE(labels) == sizeof(cnp.npy_intp):
        return None  # the largest would become negative
    if not is_one_a_row(labels, x, along):
        return None
    if ignore_index is not None or cnp.PyArray_TYPE(labels) != cnp.NPY_INTP or not cnp.PyArray_ISCARRAY_RO(labels):
        labels = cnp.PyArray_Cast(labels, cnp.NPY_INTP)
    taking_part[0] = cnp.PyArray_SIZE(labels)
    cdef Py_ssize_t* at = <Py_ssize_t*>cnp.PyArray_DATA(labels)
    cdef Py_ssize_t i, ignored = 0 if ignore_index is None else ignore_index
    cdef size_t last = entries_along(x, along) - 1, signs = 0  # of a label and of what it lacks of the last
    if ignore_index is not None:
        for i in range(cnp.PyArray_SIZE(labels)):
            if at[i] == ignored:
                at[i] = -1
                taking_part[0] -= 1
            else:
                signs |= <size_t>at[i] | (last - <size_t>at[i])
    else:
        for i in range(cnp.PyArray_SIZE(labels)):
            signs |= <size_t>at[i] | (last - <size_t>at[i])
    return labels if <Py_ssize_t>signs >= 0 else None


cdef double sum_of_weights(cnp.npy_intp rows, cnp.ndarray labels, cnp.ndarray weight, cnp.ndarray samples) except *:
    """Those of the rows' labels, times those of the rows, as good as rounded once; rows left out count 0.

    Without labels, as probabilities are, rows have no weight of a class. NaN if one is far from 1.
    """
    cdef cnp.npy_intp i
    cdef bint are_near = True
    cdef cnp.ndarray taken = cnp.PyArray_EMPTY(1, &rows, cnp.NPY_FLOAT64, 0)
    cdef Py_ssize_t* at = NULL if labels is None else <Py_ssize_t*>cnp.PyArray_DATA(labels)
    cdef double* to = <double*>cnp.PyArray_DATA(taken)
    cdef double sample, of_class
    for i in range(rows):
        sample = 1 if samples is None else entry_of(samples, i)
        of_class = 1 if at == NULL or weight is None or at[i] < 0 else entry_of(weight, at[i])
        to[i] = 0 if sample == 0 or at != NULL and at[i] < 0 else of_class * sample
        are_near &= is_near_one(sample) and is_near_one(of_class)
    return sum_of(taken) if are_near else NAN


cdef bint is_near_one(double weight) noexcept:
    """Or 0: of such a row no product leaves the range, whatever is computed with."""
    return weight == 0 or 2.0 ** -30 <= abs(weight) <= 2.0 ** 30


cdef double entry_of(cnp.ndarray a, Py_ssize_t i) noexcept:
    if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32:
        return (<const float*>cnp.PyArray_DATA(a))[i]
    return (<const double*>cnp.PyArray_DATA(a))[i]


cdef double sum_of(cnp.ndarray losses) noexcept:
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(losses)
    if cnp.PyArray_TYPE(losses) == cnp.NPY_FLOAT32:
        return kernels.exact_sum_f32(<const float*>cnp.PyArray_DATA(losses), rows)
    return kernels.exact_sum_f64(<const double*>cnp.PyArray_DATA(losses), rows)


def exact_sum(cnp.ndarray losses not None):
    """The sum of a contiguous array, in float64."""
    return sum_of(losses)


cdef object scalar_like(double wide, cnp.ndarray losses, cnp.ndarray x):
    """Of the dtype of ``x``, or of ``losses`` where that is no float."""
    cdef float narrow = <float>wide
    cdef bint single = cnp.PyArray_TYPE(losses) == cnp.NPY_FLOAT32
    if is_half(type_of(x)):
        with np.errstate(all="ignore"):
            return np.float64(wide).astype(x.dtype)
    return cnp.PyArray_ToScalar(<void*>&narrow if single else <void*>&wide, losses)


cdef object losses_like(cnp.ndarray losses, cnp.ndarray x, const Along* along):
    """The same for one a row."""
    if not is_half(type_of(x)):
        return losses[()]
    halves = new_array(x, cnp.PyArray_TYPE(x), along, 0)
    convert(halves, losses, False)
    return halves[()]


cdef cnp.ndarray set_target(Call* c, cnp.ndarray weight, double smoothing, double scale):
    """Say how a cross-entropy's terms are weighed; returns what smoothing needs, which is to outlive the call."""
    cdef cnp.npy_intp n = c.s.n
    cdef cnp.ndarray everywhere = None
    c.target.weight = NULL if weight is None else cnp.PyArray_DATA(weight)
    c.target.everywhere, c.target.total = NULL, 0
    c.target.at_label, c.target.scale = 1 - smoothing, scale
    if smoothing:
        everywhere = cnp.PyArray_EMPTY(1, &n, cnp.NPY_FLOAT32 if c.single else cnp.NPY_FLOAT64, 0)
        if c.single:
            spread(<float*>cnp.PyArray_DATA(everywhere), <const float*>c.target.weight, n, <float>(smoothing / n))
        else:
            spread(<double*>cnp.PyArray_DATA(everywhere), <const double*>c.target.weight, n, smoothing / n)
        c.target.everywhere, c.target.total = cnp.PyArray_DATA(everywhere), sum_of(everywhere)
    return everywhere


cdef void spread(cython.floating* everywhere, const cython.floating* weight, Py_ssize_t n,
                 cython.floating share) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(n):
        everywhere[j] = share if weight == NULL else share * weight[j]
