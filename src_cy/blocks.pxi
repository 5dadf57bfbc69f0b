"""Blocks of what kernels do not read: halves made floats and back, and masks (fastsoftmax/_converted.py)."""

cdef void convert(cnp.ndarray half, cnp.ndarray single, bint to_single) noexcept:
    """Between halves, contiguous or canonical, and as many contiguous floats: by lines, or all at once."""
    cdef type_t kind = FLOAT16 if cnp.PyArray_TYPE(half) == cnp.NPY_FLOAT16 else BFLOAT16
    cdef char* a = cnp.PyArray_BYTES(half)
    cdef float* b = <float*>cnp.PyArray_DATA(single)
    cdef Py_ssize_t i, j, outer = 1, n = 1, inner = cnp.PyArray_SIZE(half), outer_stride = 0, n_stride = 0
    if not cnp.PyArray_IS_C_CONTIGUOUS(half):
        outer, n, inner = half.shape[0], half.shape[1], half.shape[2]
        outer_stride, n_stride = half.strides[0], half.strides[1]
    cdef uint16_t* line
    cdef unsigned mode
    with nogil:
        mode = take_mode()
        for i in range(outer):
            for j in range(n):
                line = <uint16_t*>(a + i * outer_stride + j * n_stride)
                if to_single:
                    kernels.widen(line, b, inner, kind)
                else:
                    kernels.narrow(b, line, inner, kind)
                b += inner
        restore_mode(mode)


def widen(cnp.ndarray half not None, cnp.ndarray single not None):
    """Copy float16 or bfloat16 into float32."""
    convert(half, single, True)


def narrow(cnp.ndarray single not None, cnp.ndarray half not None):
    """And back, rounded to nearest."""
    convert(half, single, False)


cdef bint has_lines(cnp.ndarray a, bint of_rows) noexcept:
    """Whether neither an inner axis nor, ``of_rows``, a whole row of a canonical array has gaps."""
    cdef Py_ssize_t itemsize = cnp.PyArray_ITEMSIZE(a)
    return ((a.shape[2] == 1 or a.strides[2] == itemsize)
            and (not of_rows or a.shape[1] == 1 or a.strides[1] == a.shape[2] * itemsize))


def blend(cnp.ndarray x not None, cnp.ndarray mask not None, double fill, cnp.ndarray out not None):
    """Put ``x`` where the mask holds, else ``fill``, into ``out``; whether canonical arrays lie so that it was done."""
    cdef bint of_rows = has_lines(x, True) and has_lines(mask, True) and has_lines(out, True)
    if not (of_rows or (has_lines(x, False) and has_lines(mask, False) and has_lines(out, False))):
        return False
    cdef Py_ssize_t o, j, lines = 1 if of_rows else x.shape[1], length = x.shape[2] * (x.shape[1] if of_rows else 1)
    cdef bint single = cnp.PyArray_TYPE(x) == cnp.NPY_FLOAT32
    cdef char* a = cnp.PyArray_BYTES(x)
    cdef char* m = cnp.PyArray_BYTES(mask)
    cdef char* b = cnp.PyArray_BYTES(out)
    cdef char *p
    cdef char *q
    cdef const uint8_t* of
    with nogil:
        for o in range(x.shape[0]):
            for j in range(lines):
                p, q = a + o * x.strides[0] + j * x.strides[1], b + o * out.strides[0] + j * out.strides[1]
                of = <const uint8_t*>(m + o * mask.strides[0] + j * mask.strides[1])
                if single:
                    kernels.blend_f32(<const float*>p, of, <float*>q, length, fill)
                else:
                    kernels.blend_f64(<const double*>p, of, <double*>q, length, fill)
    return True
