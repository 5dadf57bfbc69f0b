"""Promise: arrays of any type and strides, along any axes, under any mask give the bits of plain ones.

Of float32 in place of halves, rounded once, of float64 in place of integers, and of -inf where masked out.
"""

import sys
from functools import partial

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes

REALS = ["f4", "f8", "f2", "bfloat16"]
OTHERS = ["i1", "i8", "u2", "u8", "?"]
SHAPES = [
    (7,),
    (1, 1),
    (40, 10),
    (200, 3),
    (100, 130),
    (3, 300),
    (70, 1),
    (33, 2, 9),
    (2, 3, 70),
    (3, 4, 2, 5),
]


def _dtype(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def _computed_in(dtype):
    return np.dtype("f4") if dtype.itemsize == 2 and dtype.kind not in "iu" else np.dtype("f8")


def _as_plain(a):
    """In the type that it is computed in, C-contiguous."""
    return np.ascontiguousarray(a, a.dtype if a.dtype in ("f4", "f8") else _computed_in(a.dtype)).reshape(
        a.shape
    )


def _left_out(a):
    wide = np.zeros((*a.shape[:-1], a.shape[-1] + 3), a.dtype)
    wide[..., : a.shape[-1]] = a
    return wide[..., : a.shape[-1]]


VIEWS = {
    "plain": np.copy,
    "Fortran": np.asfortranarray,
    "columns left out": _left_out,
    "every second entry": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "every second row": lambda a: np.repeat(a, 2, 0)[::2],
    "backwards": lambda a: np.flip(np.flip(a).copy()),
    "first axes swapped": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
}


def _axes(ndim):
    yield from (-1, 0, None)
    if ndim > 1:
        yield from ((0, 1), (-1, 0))
    if ndim > 2:
        yield from (1, (0, 2), (1, 2))


def _masks(shape):
    rng = inputs.rng(1)
    yield rng.random(shape) < 0.7
    yield np.asfortranarray(rng.random(shape) < 0.7)
    yield rng.random(shape[-1:]) < 0.7
    yield rng.random((*shape[:-1], 1)) < 0.7


def _assert_is(actual, plain, dtype):
    """The results of plain arrays, rounded once to the float dtype that belongs to ``dtype``."""
    dtype = dtype if dtype in ("f4", "f8") or _computed_in(dtype) == np.dtype("f4") else np.dtype("f8")
    with np.errstate(all="ignore"):
        checks.assert_same_bits(actual, tuple(np.asarray(a).astype(dtype) for a in checks.as_tuple(plain)))


@pytest.fixture(params=REALS + OTHERS)
def stored(request):
    return _dtype(request.param)


@pytest.fixture(params=REALS)
def real(request):
    """Of which results are, too."""
    return _dtype(request.param)


def _logits(shape, dtype):
    x = inputs.rng().normal(size=shape) * 4
    x.flat[::31] = 0
    return np.abs(x).astype(dtype) if dtype.kind == "u" else x.astype(dtype)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize("view", VIEWS)
def test_views_and_masks(op, view, stored):
    function = getattr(fs, op)
    for shape in SHAPES:
        x = VIEWS[view](_logits(shape, stored))
        plain = _as_plain(x)
        for axis in _axes(len(shape)):
            _assert_is(function(x, axis), function(plain, axis), stored)
            for mask in _masks(shape):
                expected = function(np.where(mask, plain, -np.inf).astype(plain.dtype), axis)
                if op not in oracle.ONE_A_ROW:
                    fill = {"softmax": 0, "log_softmax": -np.inf}[op]
                    expected = np.where(mask, expected, fill).astype(plain.dtype)
                _assert_is(function(x, axis, where=mask), expected, stored)


@pytest.mark.parametrize("op", [*oracle.TWO_ARRAYS, *oracle.JACOBIANS])
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_derivatives(op, view, real):
    function = partial(getattr(fs, op), **oracle.options(op))
    for shape in SHAPES if op in oracle.TWO_ARRAYS else [s for s in SHAPES if np.prod(s) <= 600]:
        arrays = [_logits(shape, real), _logits(shape, real)[::-1]][: 1 + (op in oracle.TWO_ARRAYS)]
        for axis in _axes(len(shape)):
            expected = function(*map(_as_plain, arrays), axis)
            _assert_is(function(*map(VIEWS[view], arrays), axis), expected, real)
            if op in oracle.TWO_ARRAYS:
                _assert_is(function(arrays[0], VIEWS[view](arrays[1]), axis), expected, real)


@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_with_grad"])
@pytest.mark.parametrize("view", VIEWS)
def test_views_of_losses(op, view, stored):
    function = getattr(fs, op)
    long_way = getattr(function, "__wrapped__", function)
    for shape in SHAPES:
        x = VIEWS[view](_logits(shape, stored))
        plain = _as_plain(x)
        for axis in _axes(len(shape)):
            kept = fs.logsumexp(plain, axis).shape
            labels = inputs.rng().integers(0, x.size // int(np.prod(kept)), kept)
            for options in ({}, {"label_smoothing": 0.1, "ignore_index": 0}):
                actual, expected = (
                    function(a, labels, axis, reduction="none", **options) for a in (x, plain)
                )
                _assert_is(actual, expected, stored)
                contiguous = np.ascontiguousarray(x).reshape(shape)
                means = (f(a, labels, axis, **options) for f, a in ((function, x), (long_way, contiguous)))
                checks.assert_same_bits(*means)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("view", VIEWS)
def test_in_place(op, view, real):
    function = getattr(fs, op)
    for shape in SHAPES:
        for axis in _axes(len(shape)):
            for mask in (None, *_masks(shape)):
                x = VIEWS[view](_logits(shape, real))
                expected = function(x.copy(), axis, where=mask)
                assert function(x, axis, out=x, where=mask) is x
                checks.assert_same_bits(x, expected)
                out = VIEWS[view](np.zeros(shape, real))
                function(VIEWS[view](_logits(shape, real)), axis, out=out, where=mask)
                checks.assert_same_bits(out, expected)


def test_threads(stored):
    for shape, axis in (((3000, 130), -1), ((130, 3000), 0), ((20_000, 10), -1), ((3, 2000, 33), 1)):
        for view in VIEWS.values():
            x = view(_logits(shape, stored))
            for mask in (None, inputs.rng().random(shape) < 0.7):
                one, three = (fs.softmax(x, axis, where=mask, num_threads=n) for n in (1, 3))
                checks.assert_same_bits(one, three)


CALLS = {
    "where=": "fs.softmax(x, where=x > 0)",
    "where= in place": "fs.softmax(x, where=x > 0, out=x)",
    "logsumexp(where=)": "fs.logsumexp(x, where=x > 0, keepdims=True)",
    "float16": "fs.softmax(x.astype('f2'))",
    "losses of float16": "fs.cross_entropy_with_grad(x.astype('f2'), labels.astype('i2'), reduction='none')",
    "int8": "fs.softmax(x.astype('i1'))",
    "int64": "fs.log_softmax(x.astype('i8'))",
    "Fortran order": "fs.softmax(np.asfortranarray(x))",
    "Fortran order in place": "fs.softmax(x.T, out=x.T)",
    "rows apart": "fs.softmax(x[:, 1:-1])",
    "every second entry": "fs.softmax_vjp(x[:, ::2], x[:, ::2])",
    "axis=None": "fs.softmax(x, None)",
    "axis=(0, 2)": "fs.softmax(x.reshape(8, 5, 8), (0, 2))",
    "a Jacobian of float16 along axis 0": "fs.softmax_jacobian(x.astype('f2'), axis=0)",
    "a list": "fs.softmax(x.tolist())",
}


@pytest.mark.parametrize("kind", CALLS)
def test_the_short_way_is_taken(kind):
    """No Python of this package runs: what would, takes ten times as long as the small calls."""
    if fs.available_backends()[0] != "cython":
        pytest.skip("there is no short way without compiled kernels")
    x, entered = inputs.rng().normal(size=(32, 10)), []
    code, labels = compile(CALLS[kind], "a call", "eval"), np.zeros(32, np.intp)

    def enter(frame, event, _):
        if event == "call":
            entered.append(frame.f_globals.get("__name__", ""))

    sys.setprofile(enter)
    try:
        eval(code, {"fs": fs, "np": np, "x": x, "labels": labels})
    finally:
        sys.setprofile(None)
    assert not [name for name in entered if name.startswith("fastsoftmax")]


MEMORY = """
import resource
import numpy as np
import fastsoftmax as fs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

{given}
fs.softmax(np.zeros((200, 200), np.float32), num_threads=2)
before = peak()
result = {call}
print(peak() - before - (0 if {in_place} else result.nbytes))
"""
LARGE = {  # 512 MB each
    "transposed, in place": ("x = np.ones((1024, 131072), 'f4')", "fs.softmax(x.T, out=x.T)", True),
    "Fortran order": ("x = np.ones((1024, 131072), 'f4').T", "fs.softmax(x)", False),
    "where=, in place": (
        "x = np.ones((131072, 1024), 'f4'); mask = np.ones(x.shape, bool)",
        "fs.softmax(x, where=mask, out=x)",
        True,
    ),
    "logsumexp(where=)": (
        "x = np.ones((131072, 1024), 'f4'); mask = np.ones(x.shape, bool)",
        "fs.logsumexp(x, where=mask)",
        False,
    ),
    "axis=(0, 2)": ("x = np.ones((64, 2048, 1024), 'f4')", "fs.softmax(x, (0, 2))", False),
    "int8": ("x = np.ones((65536, 1024), 'i1')", "fs.softmax(x)", False),
    "int64": ("x = np.ones((65536, 1024), 'i8')", "fs.softmax(x)", False),
    "float16": ("x = np.ones((262144, 1024), 'f2')", "fs.softmax(x)", False),
    "rows apart": ("x = np.ones((131072, 1028), 'f4')[:, 2:-2]", "fs.softmax(x)", False),
    "a VJP of every second entry": (
        "x = np.ones((65536, 2048), 'f4')[:, ::2]",
        "fs.softmax_vjp(x, x)",
        False,
    ),
}


@pytest.mark.parametrize("kind", LARGE)
def test_peak_memory(kind):
    """The result, if it is a new one, and less than 16 MB beside the arguments of some 512 MB."""
    if fs.available_backends()[0] != "cython":
        pytest.skip("other backends convert integers and turn arrays as a whole")
    if sys.platform != "linux":
        pytest.skip("peaks are in other units")
    given, call, in_place = LARGE[kind]
    code = MEMORY.format(given=given, call=call, in_place=in_place)
    assert int(processes.python(code, FASTSOFTMAX_NUM_THREADS="2")) < 16e6
