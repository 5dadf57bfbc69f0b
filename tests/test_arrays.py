"""Promise: any array or array-like in, a new array or `out` back, and clear errors before any work."""

import inspect
import tracemalloc
import warnings

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import registry
from fastsoftmax.backends import python as specification
from tests import checks, inputs, oracle

ALONG = [((4, 6), -1), ((4, 6), 0), ((3, 4, 5), 1), ((3, 4, 5), (0, 2)), ((40, 5), -1)]
ONE_ARRAY = (*oracle.FORWARD, *oracle.JACOBIANS)


def arguments(op, shape=(4, 6), axis=-1, dtype=np.float64):
    return oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)


def run(op, *args, **kwargs):
    return checks.as_tuple(getattr(fs, op)(*args, **kwargs))


def result_of(op, *args, **kwargs):
    """The one array that ``out=`` would hold."""
    return np.asarray(run(op, *args, **kwargs)[-1])


# ---- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
def test_float_dtypes_stay(op, backend, dtype):
    for result in run(op, *arguments(op, dtype=dtype), backend=backend):
        assert np.asarray(result).dtype == dtype


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("given", [np.bool_, np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_integers_become_float64(op, given, backend):
    """Before any subtraction: unsigned ones would wrap, int8 overflow."""
    info = np.iinfo(given) if given is not np.bool_ else None
    low, high = (0, 1) if info is None else (info.min, info.max)
    x = np.array([[low, high, low], [high, high, low]], given)
    (actual,) = checks.call(op, x, backend=backend)
    assert actual.dtype == np.float64
    checks.assert_same_bits(actual, checks.call(op, x.astype(np.float64), backend=backend)[0])


@pytest.mark.parametrize("op", oracle.PRODUCTS)
def test_two_dtypes_give_their_result_type(op, backend):
    y, v = arguments(op)
    for a, b in ((np.float32, np.float64), (np.float64, np.float32), (np.float32, np.float32)):
        expected = np.result_type(a, b)
        actual = result_of(op, y.astype(a), v.astype(b), backend=backend)
        same = result_of(op, y.astype(a).astype(expected), v.astype(b).astype(expected), backend=backend)
        checks.assert_same_bits(actual, same)
    assert result_of(op, y.astype(np.float32), np.ones(y.shape, int), backend=backend).dtype == np.float64


REFUSED = {
    "longdouble": np.ones(3, np.longdouble),
    "complex": np.ones(3, complex),
    "complex64": np.ones(3, np.complex64),
    "object": np.array([1.0, None, 2.0]),
    "str": np.array(["1", "2", "3"]),
    "bytes": np.array([b"1", b"2", b"3"]),
    "datetime": np.array([1, 2, 3], "M8[s]"),
    "timedelta": np.array([1, 2, 3], "m8[s]"),
    "structured": np.zeros(3, [("a", float)]),
}


@pytest.mark.skipif(
    np.dtype(np.longdouble) == np.float64, reason="longdouble is float64 on this platform, and accepted"
)
def test_longdouble_is_refused(backend):
    with pytest.raises(TypeError, match=r"longdouble|float128|float96"):
        fs.softmax(REFUSED["longdouble"], backend=backend)


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "longdouble"])
@pytest.mark.parametrize("op", oracle.OPS)
def test_other_dtypes_are_refused(op, kind, backend):
    """With what was given, what is expected, and what to do, and ``out`` untouched."""
    bad = REFUSED[kind]
    extra = {"cross_entropy": (1,), "cross_entropy_with_grad": (1,)}.get(op, ())
    args = (bad, np.ones(3)) if op in oracle.TWO_ARRAYS else (bad, *extra)
    with pytest.raises(TypeError, match=r"has dtype .*expected float64.*convert") as raised:
        getattr(fs, op)(*args, backend=backend)
    assert str(bad.dtype) in str(raised.value)
    if op in oracle.TWO_ARRAYS:
        with pytest.raises(TypeError, match=r"^[gtb] has dtype"):
            getattr(fs, op)(np.ones(3), bad, backend=backend)


@pytest.mark.parametrize("op", oracle.OPS)
def test_masked_arrays_are_refused(op, backend):
    args = arguments(op)
    with pytest.raises(TypeError, match="masked array"):
        getattr(fs, op)(np.ma.array(args[0]), *args[1:], backend=backend)


@pytest.mark.parametrize("op", oracle.OPS)
def test_sequences(op, backend):
    args = arguments(op)
    lists = [a.tolist() for a in args]
    checks.assert_same_bits(run(op, *lists, backend=backend), run(op, *args, backend=backend))
    tuples = [tuple(map(tuple, a.tolist())) if a.ndim > 1 else tuple(a.tolist()) for a in args]
    checks.assert_same_bits(run(op, *tuples, backend=backend), run(op, *args, backend=backend))


@pytest.mark.parametrize("op", oracle.OPS)
def test_array_interface(op, backend):
    """Anything `np.asarray` takes, a memoryview among them."""
    args = arguments(op)
    views = [memoryview(a) for a in args]
    checks.assert_same_bits(run(op, *views, backend=backend), run(op, *args, backend=backend))


# ---- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", inputs.LAYOUTS)
@pytest.mark.parametrize("op", oracle.OPS)
def test_layouts(op, layout, backend, dtype):
    """The bits of a contiguous copy, inputs not written, a new plain C-contiguous array back."""
    for shape, axis in ALONG:
        args = arguments(op, shape, axis, dtype)
        expected = run(op, *args, axis, backend=backend)
        given = [inputs.LAYOUTS[layout](a) for a in args]
        results = run(op, *given, axis, backend=backend)
        checks.assert_same_bits(results, expected)
        for a, b in zip(given, args, strict=True):
            np.testing.assert_array_equal(a, b)
        _assert_new(results[-1], given)


def _assert_new(result, given):
    if np.ndim(result) == 0:
        return
    assert type(result) is np.ndarray
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.flags.aligned
    assert result.dtype.isnative
    assert not any(np.shares_memory(result, a) for a in given)


@pytest.mark.parametrize("op", oracle.OPS)
def test_zero_strides(op, backend, dtype):
    """Broadcast arrays: along the axis, and along the rows."""
    for axis in (0, 1):
        for shape in ((1, 5), (4, 1)):
            x = np.broadcast_to(inputs.rng().normal(size=shape).astype(dtype), (4, 5))
            args = oracle.arguments(op, x.copy(), axis)
            args = [np.broadcast_to(a[:1], a.shape) if shape[0] == 1 and axis == 1 else a for a in args]
            expected = run(op, *[a.copy() for a in args], axis, backend=backend)
            checks.assert_same_bits(run(op, *args, axis, backend=backend), expected)


@pytest.mark.parametrize("op", ["softmax", "softmax_vjp", "softmax_jacobian"])
@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_results_are_new_for_every_axis(op, shape, axis, backend):
    args = arguments(op, shape, axis)
    _assert_new(result_of(op, *args, axis, backend=backend), args)


@pytest.mark.parametrize("op", oracle.OPS)
def test_inputs_may_be_the_same_array(op, backend):
    y = oracle.longdouble_forward("softmax", inputs.rng().normal(size=(4, 6))).astype(float)
    if op in oracle.PRODUCTS:
        checks.assert_same_bits(run(op, y, y, backend=backend), run(op, y, y.copy(), backend=backend))


# ---- axis --------------------------------------------------------------------------------------


class Index:
    def __index__(self):
        return 1


@pytest.mark.parametrize("op", oracle.OPS)
def test_anything_with_index_is_an_axis(op, backend):
    args = arguments(op, (4, 6, 3), 1)
    expected = run(op, *args, 1, backend=backend)
    for axis in (Index(), np.int8(1), np.uint64(1), np.array(1), (Index(),), -2, (-2,)):
        checks.assert_same_bits(run(op, *args, axis, backend=backend), expected)
    checks.assert_same_bits(run(op, *args, axis=1, backend=backend), expected)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("axis", [2, -3, 100, (0, 2), (-3,), 2**70])
def test_axis_out_of_range(op, axis, backend):
    args = arguments(op)
    with pytest.raises(np.exceptions.AxisError):
        getattr(fs, op)(*args, axis, backend=backend)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("axis", [(0, 0), (1, -1), (0, 1, 0), (-1, -1)])
def test_axis_twice(op, axis, backend):
    with pytest.raises(ValueError, match="twice") as raised:
        getattr(fs, op)(*arguments(op), axis, backend=backend)
    assert not isinstance(raised.value, np.exceptions.AxisError)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("axis", [1.0, "1", True, np.True_, (0, 1.0), (True,), b"0", [0, 1], {0}], ids=repr)
def test_axis_of_another_type(op, axis, backend):
    getattr(fs, op)(*arguments(op), 1, backend=backend)  # True is equal to 1, whose rows are remembered
    with pytest.raises(TypeError, match="axis must be"):
        getattr(fs, op)(*arguments(op), axis, backend=backend)


@pytest.mark.parametrize("axis", [1, -2, (0, 0)])
def test_axis_of_zero_dimensions(axis, backend):
    with pytest.raises(ValueError):  # noqa: PT011  AxisError is one; the messages differ
        fs.softmax(1.0, axis, backend=backend)


def test_axis_none_is_all_axes(backend, dtype):
    x = inputs.rng().normal(size=(3, 4, 5)).astype(dtype)
    for op in ("softmax", "log_softmax"):
        (whole,) = checks.call(op, x, None, backend=backend)
        checks.assert_same_bits(whole.ravel(), checks.call(op, x.ravel(), backend=backend)[0])
    checks.assert_same_bits(fs.logsumexp(x, None, backend=backend), fs.logsumexp(x.ravel(), backend=backend))


@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_keepdims(shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    plain, kept = (np.asarray(fs.logsumexp(x, axis, keepdims=k, backend=backend)) for k in (False, True))
    assert kept.shape == np.sum(x, axis=axis, keepdims=True).shape
    assert plain.shape == np.sum(x, axis=axis).shape
    checks.assert_same_bits(kept.ravel(), plain.ravel())
    out = checks.poisoned(kept.shape, dtype)
    assert fs.logsumexp(x, axis, keepdims=True, out=out, backend=backend) is out
    checks.assert_same_bits(out, kept)


def test_keepdims_is_true_or_false(backend):
    x = inputs.rng().normal(size=(2, 3))
    for keepdims in (True, 1, np.True_, np.int8(1)):
        assert fs.logsumexp(x, keepdims=keepdims, backend=backend).shape == (2, 1)
    for keepdims in (False, 0, np.False_):
        assert fs.logsumexp(x, keepdims=keepdims, backend=backend).shape == (2,)
    for keepdims in ("no", None, 2, 1.0, [], [True], np.array([True, False]), np.array([1])):
        with pytest.raises(TypeError, match=r"^keepdims must be True or False; got"):
            fs.logsumexp(x, keepdims=keepdims, backend=backend)


def test_keepdims_of_zero_dimensions(backend, dtype):
    """A scalar, as from NumPy's own reductions."""
    for keepdims in (False, True):
        result = fs.logsumexp(dtype.type(2.5), keepdims=keepdims, backend=backend)
        assert type(result) is dtype.type
        assert result == 2.5


@pytest.mark.parametrize("op", oracle.OPS)
def test_arrays_are_positional_only(op, backend):
    signature = inspect.signature(getattr(fs, op))
    names = [name for name, p in signature.parameters.items() if p.kind is p.POSITIONAL_ONLY]
    assert len(names) == len(arguments(op))
    with pytest.raises(TypeError, match="positional"):
        getattr(fs, op)(**dict(zip(names, arguments(op), strict=True)), backend=backend)


@pytest.mark.parametrize("op", oracle.PRODUCTS)
def test_two_shapes(op, backend):
    """No broadcasting: a gradient of another shape is a mistake."""
    for shape in ((6,), (1, 6), (4, 1), (6, 4)):
        with pytest.raises(ValueError, match=r"same shape; got .*\(4, 6\)"):
            getattr(fs, op)(np.ones((4, 6)), np.ones(shape), backend=backend)


# ---- out ---------------------------------------------------------------------------------------


def _outs(shape, dtype):
    """Places to write to: in memory of every kind, each with what must stay untouched around it."""
    yield checks.poisoned(shape, dtype)
    yield np.asfortranarray(checks.poisoned(shape, dtype))
    yield checks.poisoned([2 * s + 1 for s in shape], dtype)[(slice(1, None, 2),) * len(shape)]
    yield checks.poisoned([*shape[:-1], 2 * shape[-1] - 1], dtype)[..., ::2]  # nothing between the rows
    yield checks.poisoned(shape, dtype)[(slice(None, None, -1),) * len(shape)]
    yield checks.poisoned(shape[::-1], dtype).T
    raw = np.full(int(np.prod(shape)) * dtype.itemsize + 3, 255, np.uint8)
    yield raw[3:].view(dtype).reshape(shape)
    yield checks.poisoned(shape, dtype).view(inputs.Subclass)


@pytest.mark.parametrize("op", oracle.TAKE_OUT)
@pytest.mark.parametrize(("shape", "axis"), ALONG, ids=str)
def test_out_in_every_form(op, shape, axis, backend, dtype):
    args = arguments(op, shape, axis, dtype)
    expected = run(op, *args, axis, backend=backend)
    for out in _outs(np.shape(expected[-1]), dtype):
        results = run(op, *args, axis, out=out, backend=backend)
        assert results[-1] is out
        checks.assert_same_bits((*results[:-1], np.asarray(out)), expected)


@pytest.mark.parametrize("step", [1, 2])
def test_out_with_an_axis_of_one(step, backend):
    """Whatever the stride along it, which is 0 where NumPy made the axis."""
    out = checks.poisoned((4 * step,), np.float64)[::step, None]
    assert out.strides[1] == 0
    assert fs.softmax(np.zeros((4, 1)), out=out, backend=backend) is out
    np.testing.assert_array_equal(out, np.ones((4, 1)))


def test_out_leaves_its_surroundings(backend):
    whole = checks.poisoned((9, 13), np.float64)
    out = whole[1::2, 1::2]
    fs.softmax(np.zeros(out.shape), out=out, backend=backend)
    assert not np.isnan(out).any()
    assert np.count_nonzero(~np.isnan(whole)) == out.size


def _overlaps(a):
    """Views of the memory around a copy of ``a``: ``(input, out)`` that overlap in every way."""
    for shift_in, shift_out in ((0, 0), (0, 1), (1, 0), (0, a.shape[-1]), (5, 0), (3, 3)):
        memory = np.zeros(a.size + 16, a.dtype)
        x = memory[shift_in : shift_in + a.size].reshape(a.shape)
        x[...] = a
        yield x, memory[shift_out : shift_out + a.size].reshape(a.shape)
    x = a.copy()
    yield x, x[::-1]
    x = a.copy()
    yield x, x[..., ::-1]
    memory = np.zeros((a.shape[0], 2 * a.shape[1]), a.dtype)
    memory[:, ::2] = a
    yield memory[:, ::2], memory[:, : a.shape[1]]
    square = np.zeros((max(a.shape),) * 2, a.dtype)
    square[: a.shape[0], : a.shape[1]] = a
    yield square[: a.shape[0], : a.shape[1]], square.T[: a.shape[0], : a.shape[1]]


@pytest.mark.parametrize(
    "op", [op for op in oracle.TAKE_OUT if op not in (*oracle.ONE_A_ROW, *oracle.JACOBIANS)]
)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("which", [0, 1])
def test_out_overlaps_an_input(op, axis, which, backend, dtype):
    """Any input, in any way: itself, shifted, reversed, transposed, wider."""
    args = arguments(op, (7, 5), axis, dtype)
    if which >= len(args) or args[which].dtype != dtype:
        which = 0
    expected = run(op, *args, axis, backend=backend)
    for given, out in _overlaps(args[which]):
        mixed = [given if i == which else a for i, a in enumerate(args)]
        checks.assert_same_bits(run(op, *mixed, axis, out=out, backend=backend), expected)


@pytest.mark.parametrize("op", oracle.PRODUCTS)
def test_out_overlaps_both_inputs(op, backend, dtype):
    y, v = arguments(op, (7, 5), -1, dtype)
    expected = result_of(op, y, v, backend=backend)
    memory = np.concatenate([y.ravel(), v.ravel()])
    given_y, given_v = memory[:35].reshape(7, 5), memory[35:].reshape(7, 5)
    out = memory[20:55].reshape(7, 5)
    checks.assert_same_bits(result_of(op, given_y, given_v, out=out, backend=backend), expected)


def _labels_within(out, labels):
    """The same labels, kept in the memory of ``out``."""
    within = out.view(np.int64 if out.itemsize == 8 else np.int32).reshape(-1)[: labels.size]
    within[...] = labels.ravel()
    return within.reshape(labels.shape)


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 3), -1), ((3, 40), 0), ((2, 3, 20), 1), ((2, 3, 20), (0, 2))]
)
def test_labels_within_out(shape, axis, backend, dtype):
    """Kernels read them to the end, and a number of the result in their place may be any index."""
    x, labels = arguments("cross_entropy_with_grad", shape, axis, dtype)
    expected = run("cross_entropy_with_grad", x, labels, axis, backend=backend)
    out = np.zeros(shape, dtype)
    within = _labels_within(out, labels)
    actual = run("cross_entropy_with_grad", x, within, axis, out=out, backend=backend)
    checks.assert_same_bits(actual, expected)
    in_place = x.copy()  # and x as well, which makes the labels part of it
    within = _labels_within(in_place, labels)
    expected = run("cross_entropy_with_grad", in_place.copy(), within.copy(), axis, backend=backend)
    actual = run("cross_entropy_with_grad", in_place, within, axis, out=in_place, backend=backend)
    checks.assert_same_bits(actual, expected)


@pytest.mark.parametrize("shape", [(40, 3), (3,)])
@pytest.mark.parametrize("offset", [0, 1])
def test_weight_within_out(shape, offset, backend, dtype):
    """Of one row it may even be ``out`` itself."""
    x, labels = arguments("cross_entropy_with_grad", shape, -1, dtype)
    weight = np.array([0.5, 2.0, 1.5], dtype)
    options = {"backend": backend, "label_smoothing": 0.1}
    expected = run("cross_entropy_with_grad", x, labels, weight=weight, **options)
    memory = np.zeros(x.size + 8, dtype)
    out = memory[: x.size].reshape(shape)
    within = memory[offset : offset + 3]
    within[...] = weight
    checks.assert_same_bits(
        run("cross_entropy_with_grad", x, labels, weight=within, out=out, **options), expected
    )


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize(("shape", "axis"), [((40, 3), -1), ((40, 3), 0), ((4, 3, 5), (0, 2))])
def test_where_within_out(op, shape, axis, backend, dtype):
    x = inputs.rng().normal(size=shape).astype(dtype)
    where = inputs.rng(1).random(shape) < 0.7
    expected = result_of(op, x, axis, where=where, backend=backend)
    memory = np.zeros(expected.size + where.size, dtype)
    out = memory[: expected.size].reshape(expected.shape)
    within = memory.view(bool)[: where.size].reshape(shape)
    within[...] = where
    checks.assert_same_bits(result_of(op, x, axis, where=within, out=out, backend=backend), expected)


@pytest.mark.parametrize("kind", [np.float16, "labels", "weight"])
def test_half_precision_within_out(kind, backend):
    """Rounded block by block."""
    x, labels = arguments("cross_entropy_with_grad", (40, 4), -1, np.float16)
    weight = np.array([0.5, 2.0, 1.5, 1.0], np.float16)
    expected = run("cross_entropy_with_grad", x, labels, weight=weight, backend=backend)
    out = x.copy() if kind is np.float16 else np.zeros(x.shape, np.float16)
    given = [out if kind is np.float16 else x, labels, weight]
    if kind == "labels":
        given[1] = out.view(np.int16)[:10].ravel()
        given[1][...] = labels
    if kind == "weight":
        given[2] = out[3]
        given[2][...] = weight
    actual = run("cross_entropy_with_grad", *given[:2], weight=given[2], out=out, backend=backend)
    checks.assert_same_bits(actual, expected)


class Matrix(inputs.Subclass):
    """A subclass that stays two-dimensional, as np.matrix does, of which NumPy would rather not hear."""

    def __array_finalize__(self, obj):
        if self.ndim > 2:
            self.shape = (-1, self.shape[-1])

    def reshape(self, *shape, order="C"):
        return super().reshape(*shape, order=order).view(Matrix)

    def __setitem__(self, key, value):
        raise AssertionError("written through the subclass")


@pytest.mark.parametrize(
    "op", [op for op in oracle.TAKE_OUT if op not in (*oracle.ONE_A_ROW, *oracle.JACOBIANS)]
)
@pytest.mark.parametrize("axis", [0, -1, None, (1, 0)], ids=str)
@pytest.mark.parametrize("kind", [np.matrix, Matrix, inputs.Subclass])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_out_of_a_subclass(op, axis, kind, backend, dtype):
    args = arguments(op, (7, 5), axis if axis is not None else (0, 1), dtype)
    expected = run(op, *args, axis, backend=backend)
    for memory in (checks.poisoned((7, 5), dtype), checks.poisoned((7, 10), dtype)[:, ::2]):
        out = memory.view(kind)
        results = run(op, *args, axis, out=out, backend=backend)
        assert results[-1] is out
        checks.assert_same_bits((*results[:-1], memory), expected)
    if args[0].dtype == dtype:
        out = args[0].copy().view(kind)
        checks.assert_same_bits(run(op, out, *args[1:], axis, out=out, backend=backend)[:-1], expected[:-1])
        checks.assert_same_bits(np.asarray(out), expected[-1])


@pytest.mark.parametrize("kind", [np.matrix, Matrix])
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_other_results_of_a_subclass(kind, backend, dtype):
    """Those of another shape than the input."""
    x = inputs.rng().normal(size=(2, 3, 4)).astype(dtype)
    memory = checks.poisoned((2, 3), dtype)
    assert isinstance(fs.logsumexp(x, out=memory.view(kind), backend=backend), kind)
    checks.assert_same_bits(memory, fs.logsumexp(x, backend=backend))
    (y,) = arguments("softmax_jacobian", (5,), -1, dtype)
    for layout in ("batched", "dense"):
        for memory in (checks.poisoned((5, 5), dtype), checks.poisoned((5, 5), dtype).T):
            out = memory.view(kind)
            assert fs.softmax_jacobian(y, layout=layout, out=out, backend=backend) is out
            checks.assert_same_bits(memory, fs.softmax_jacobian(y, layout=layout, backend=backend))


def _strict(op):
    """The specification, for arrays as kernels may expect them: ``out`` is an input, or apart from all."""

    def kernel(*args):
        *given, out = [a for a in args if isinstance(a, np.ndarray)]
        assert all(a.flags.c_contiguous and a.flags.aligned for a in (*given, out))
        for a in given:
            same = a.ctypes.data == out.ctypes.data and a.shape == out.shape
            assert same or not np.may_share_memory(a, out)
        getattr(specification, op)(*args)

    return kernel


@pytest.mark.parametrize("op", oracle.TAKE_OUT)
@pytest.mark.parametrize("axis", [0, 1])
def test_kernels_see_out_apart_from_the_inputs_or_as_one_of_them(op, axis, dtype):
    """Aligned, too. Those that read ahead would be right without, on arrays as small as the tests' are."""
    fs.register_backend("strict", {name: _strict(name) for name in registry.OPS})
    args = arguments(op, (7, 5), axis, dtype)
    expected = result_of(op, *args, axis, backend="strict")
    for i in (i for i, a in enumerate(args) if a.dtype == dtype):
        memory = np.zeros(args[i].size + expected.size, dtype)
        given = memory[: args[i].size].reshape(args[i].shape)
        given[...] = args[i]
        mixed = [*args[:i], given, *args[i + 1 :]]
        out = memory[2 : 2 + expected.size].reshape(expected.shape)
        checks.assert_same_bits(result_of(op, *mixed, axis, out=out, backend="strict"), expected)
    misaligned = [inputs.LAYOUTS["misaligned"](a) for a in args]
    for out in _outs(expected.shape, dtype):
        checks.assert_same_bits(result_of(op, *misaligned, axis, out=out, backend="strict"), expected)


@pytest.mark.parametrize("layout", inputs.LAYOUTS)
def test_kernels_see_contiguous_labels_and_weights(layout, dtype):
    fs.register_backend("strict", {name: _strict(name) for name in registry.OPS})
    x, labels = arguments("cross_entropy", dtype=dtype)
    weight = inputs.rng(1).random(x.shape[1]).astype(dtype)
    expected = run("cross_entropy_with_grad", x, labels, weight=weight, backend="strict")
    given = [inputs.LAYOUTS[layout](a) for a in (x, labels, weight)]
    actual = run("cross_entropy_with_grad", *given[:2], weight=given[2], backend="strict")
    checks.assert_same_bits(actual, expected)


def test_kernels_see_a_weight_apart_from_out(dtype):
    """Even one that is ``out``: kernels read it in another order than they write."""
    fs.register_backend("strict", {name: _strict(name) for name in registry.OPS})
    x, labels = arguments("cross_entropy_with_grad", (3,), -1, dtype)
    out = np.array([0.5, 2.0, 1.5], dtype)
    expected = run("cross_entropy_with_grad", x, labels, weight=out.copy(), backend="strict")
    actual = run("cross_entropy_with_grad", x, labels, weight=out, out=out, backend="strict")
    checks.assert_same_bits(actual, expected)


def test_reductions_write_over_their_input(backend, dtype):
    """logsumexp and the Jacobian, whose results have another shape than the input they overlap."""
    x = inputs.rng().normal(size=(7, 5)).astype(dtype)
    expected = fs.logsumexp(x, backend=backend)
    for column in (0, 4):
        given = x.copy()
        checks.assert_same_bits(fs.logsumexp(given, out=given[:, column], backend=backend), expected)
    given = x.copy()
    checks.assert_same_bits(fs.logsumexp(given, out=given.ravel()[3:10], backend=backend), expected)
    (y,) = oracle.arguments("softmax_jacobian", x)
    for layout, shape in (("batched", (7, 5, 5)), ("dense", (7, 5, 7, 5))):
        expected = fs.softmax_jacobian(y, layout=layout, backend=backend)
        memory = np.empty(shape, dtype)
        given = memory.reshape(-1)[70:105].reshape(7, 5)
        given[...] = y
        checks.assert_same_bits(
            fs.softmax_jacobian(given, layout=layout, out=memory, backend=backend), expected
        )


def test_where_with_an_overlapping_out(backend, dtype):
    x = inputs.rng().normal(size=(7, 5)).astype(dtype)
    where = inputs.rng(1).random(x.shape) < 0.7
    expected = fs.softmax(x, where=where, backend=backend)
    for given, out in _overlaps(x):
        checks.assert_same_bits(fs.softmax(given, where=where, out=out, backend=backend), expected)


def _bad_outs(shape, dtype):
    readonly = checks.poisoned(shape, dtype)
    readonly.flags.writeable = False
    other = np.dtype(np.float32 if dtype == np.float64 else np.float64)
    half_apart = [dtype.itemsize // 2] * len(shape)
    overlapping = np.lib.stride_tricks.as_strided(checks.poisoned(4096, dtype), shape, half_apart)
    return [
        (checks.poisoned((*shape, 1), dtype), ValueError, "out has shape .*this result has shape"),
        (checks.poisoned((shape[0] + 1, *shape[1:]), dtype), ValueError, "out has shape"),
        (checks.poisoned((), dtype), ValueError, "out has shape"),
        (checks.poisoned(shape, other), TypeError, "out has dtype"),
        (checks.poisoned(shape, dtype).astype(dtype.newbyteorder()), TypeError, "out has dtype"),
        (np.zeros(shape, int), TypeError, "out has dtype"),
        (np.zeros(shape, dtype).tolist(), TypeError, "out must be a numpy.ndarray; got list"),
        (memoryview(checks.poisoned(shape, dtype)), TypeError, "got memoryview"),
        ((checks.poisoned(shape, dtype),), TypeError, "got tuple"),
        (np.ma.array(checks.poisoned(shape, dtype)), TypeError, "masked"),
        (readonly, ValueError, "read-only"),
        (np.broadcast_to(checks.poisoned(1, dtype), shape), ValueError, "read-only|overlaps itself"),
        (overlapping, ValueError, "overlaps itself"),
    ]


@pytest.mark.parametrize("op", oracle.TAKE_OUT)
def test_bad_out(op, backend, dtype):
    """Before anything is computed: nothing is written."""
    args = arguments(op, (4, 6), -1, dtype)
    for out, error, message in _bad_outs(np.shape(run(op, *args, backend=backend)[-1]), dtype):
        before = np.array(out, copy=True)
        with pytest.raises(error, match=message):
            getattr(fs, op)(*args, out=out, backend=backend)
        np.testing.assert_array_equal(np.asarray(out), before)


@pytest.mark.parametrize("op", oracle.TAKE_OUT)
def test_nothing_is_written_on_a_bad_argument(op, backend):
    args = arguments(op)
    out = checks.poisoned(np.shape(run(op, *args, backend=backend)[-1]), np.float64)
    for axis, error in ((5, np.exceptions.AxisError), ((0, 0), ValueError), ("0", TypeError)):
        with pytest.raises(error):
            getattr(fs, op)(*args, axis, out=out, backend=backend)
    with pytest.raises(TypeError):
        getattr(fs, op)(args[0].astype(complex), *args[1:], out=out, backend=backend)
    with pytest.raises(ValueError):  # noqa: PT011  the number of threads, whatever the words
        getattr(fs, op)(*args, out=out, num_threads=0, backend=backend)
    with pytest.raises(ValueError, match="unknown backend"):
        getattr(fs, op)(*args, out=out, backend="no such")
    assert np.isnan(out).all()


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_options_are_checked_of_empty_arrays_too(op, shape, backend):
    """What is wrong with a call does not wait for the first batch that has rows."""
    args = (np.zeros(shape),) * 2 if op in oracle.TWO_ARRAYS else (np.zeros(shape),)
    if op.startswith("cross_entropy"):
        args = (np.zeros((0, 3)), np.zeros(0, int))
    layouts = [{"layout": name} for name in ("batched", "dense", "sparse", "operator")]
    for options in layouts if op in oracle.JACOBIANS else [{}]:
        with pytest.raises(ValueError, match="unknown backend 'nope'"):
            getattr(fs, op)(*args, backend="nope", **options)
        with pytest.raises(ValueError, match="num_threads must be a positive int; got -4"):
            getattr(fs, op)(*args, num_threads=-4, backend=backend, **options)
        with pytest.raises(TypeError, match="num_threads must be a positive int; got 'x'"):
            getattr(fs, op)(*args, num_threads="x", backend=backend, **options)
        getattr(fs, op)(*args, num_threads=1, backend=backend, **options)


def test_out_of_an_empty_result(backend):
    out = np.empty((3, 0))
    assert fs.softmax(np.empty((3, 0)), out=out, backend=backend) is out
    lse = checks.poisoned(3, np.float64)
    assert fs.logsumexp(np.empty((3, 0)), out=lse, backend=backend) is lse
    assert np.isneginf(lse).all()


def test_out_of_zero_dimensions(backend):
    out = np.array(np.nan)
    assert fs.softmax(2.5, out=out, backend=backend) is out
    assert out == 1.0
    assert fs.logsumexp([0.0, 0.0], out=out, backend=backend) is out
    assert out == pytest.approx(np.log(2), rel=1e-15)


def test_large_cotangents_raise_and_warn_nothing(backend, dtype):
    top = np.finfo(dtype).max
    y = np.array([[0.5, 0.5], [1.0, 0.0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for op, forward in oracle.PRODUCTS.items():
            first = y if forward == "softmax" else np.array([[-0.7, -0.7], [0.0, -np.inf]], dtype)
            for v in ([[top, top], [top, -top]], [[np.inf, -np.inf], [np.nan, top]]):
                assert result_of(op, first, np.array(v, dtype), backend=backend).shape == (2, 2)


@pytest.mark.parametrize("op", ["softmax", "softmax_vjp"])
def test_first_axis_costs_no_transposed_copy(op, backend):
    """What is allocated beside the result stays below the size of one input."""
    columns = 2048 if checks.is_slow(backend) else 32768
    args = arguments(op, (64, columns), 0, np.float64)
    out = np.empty_like(result_of(op, *args, 0, backend=backend))
    tracemalloc.start()
    try:
        getattr(fs, op)(*args, 0, out=out, backend=backend, num_threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.9 * args[0].nbytes
