"""Promise: what is converted a block at a time, masks and halves, has the bits of what is converted whole."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

# More than a block of `_converted.py`, along every axis; of few columns too, which are not cut apart.
SHAPES = [
    ((70_000, 2), 0),
    ((131_073, 1, 2), 0),
    ((3, 70_000, 3), 1),
    ((400, 500), 0),
    ((400, 500), 1),
    ((2, 300, 999), 1),
]


def _masks(shape):
    rng = inputs.rng()
    yield np.True_
    yield rng.random(shape) < 0.7
    yield rng.random(shape[-1]) < 0.7
    yield rng.random((*shape[:-1], 1)) < 0.7
    yield np.broadcast_to(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) < 5, shape)


@pytest.mark.parametrize("op", oracle.FORWARD)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_masks(op, shape, axis, backend, dtype):
    if checks.is_slow(backend):
        pytest.skip("naive loops take a minute")
    x = inputs.rng().normal(size=shape).astype(dtype)
    x.flat[::1001] = np.nan
    for mask in _masks(shape):
        (expected,) = checks.call(op, np.where(mask, x, -np.inf).astype(dtype), axis, backend=backend)
        if op not in oracle.ONE_A_ROW:
            expected = np.where(mask, expected, {"softmax": 0.0, "log_softmax": -np.inf}[op]).astype(dtype)
        for num_threads in (1, 2):
            options = {"where": mask, "backend": backend, "num_threads": num_threads}
            checks.assert_same_bits(checks.call(op, x, axis, **options), (expected,))
        if op not in oracle.ONE_A_ROW:
            out = np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
            getattr(fs, op)(x, axis, out=out, **options)
            checks.assert_same_bits((np.ascontiguousarray(out),), (expected,))
            in_place = x.copy()
            getattr(fs, op)(in_place, axis, out=in_place, **options)
            checks.assert_same_bits((in_place,), (expected,))


@pytest.mark.parametrize("op", oracle.ROWS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_halves(op, shape, axis, backend):
    if checks.is_slow(backend):
        pytest.skip("naive loops take a minute")
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(np.float16), axis)
    wide = [a.astype(np.float32) if a.dtype == np.float16 else a for a in args]
    expected = checks.call(op, *wide, axis, backend=backend, **oracle.options(op))
    actual = checks.call(op, *args, axis, backend=backend, **oracle.options(op))
    checks.assert_same_bits(actual, tuple(np.asarray(a).astype(np.float16) for a in expected))
