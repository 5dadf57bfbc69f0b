"""Promise: every op on every backend agrees with autograd, in float64 to 1e-12 relative.

autograd has no softmax: the oracle composes it, so its results carry a few eps of their own where the
textbook formula cancels (tests/tolerances.py); test_ulp.py holds the bounds there.
"""

from functools import lru_cache

import numpy as np
import pytest
from autograd import jacobian

import fastsoftmax as fs
from tests import checks, inputs, oracle

SOURCES = ("sources_1000x5", "sources_100x5", "sources_1x5", "sources_times_100", "sources_offset")
FINITE = [name for name in inputs.FAMILIES if name != "largest_numbers"]  # the textbook's shift overflows
SIMPLE_OPS = [op for op in oracle.OPS if op not in oracle.JACOBIANS]


@pytest.mark.parametrize("op", SIMPLE_OPS)
@pytest.mark.parametrize("name", [name for name in FINITE if name != "masked"])
def test_families(op, name, backend, dtype):
    checks.check_autograd(op, inputs.FAMILIES[name](dtype), backend)


@pytest.mark.parametrize("op", ["softmax", "logsumexp", "softmax_vjp", "softmax_jvp"])
def test_masked_rows(op, backend, dtype):
    checks.check_autograd(op, inputs.masked(dtype), backend)


@pytest.mark.parametrize("op", SIMPLE_OPS)
@pytest.mark.parametrize("n", inputs.WIDTHS)
def test_widths(op, n, backend, dtype):
    checks.check_autograd(op, inputs.width(n, dtype), backend)


@pytest.mark.parametrize("op", [op for op in oracle.OPS if not op.startswith("cross_entropy")])
@pytest.mark.parametrize(("shape", "axis"), inputs.SHAPES, ids=str)
def test_axes(op, shape, axis, backend, dtype):
    checks.check_autograd(op, inputs.rng().normal(size=shape).astype(dtype), backend, axis)


@pytest.mark.parametrize("n", [n for n in inputs.WIDTHS if n <= 100])
@pytest.mark.parametrize("op", oracle.JACOBIANS)
def test_batched_jacobian_widths(op, n, backend, dtype):
    checks.check_autograd(op, inputs.width(n, dtype, rows=3), backend)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "sources_1000x5"])
def test_batched_jacobian_of_the_sources(name, backend, dtype):
    checks.check_autograd("softmax_jacobian", inputs.FAMILIES[name](dtype), backend)


@lru_cache
def _whole_jacobian(name):
    """autograd's (m, n, m, n) of a family: its diagonal blocks, and the largest entry off them."""
    x = inputs.FAMILIES[name](np.float64)
    dense = jacobian(oracle.softmax)(x)
    blocks = np.einsum("pipj->pij", dense).copy()
    np.einsum("pipj->pij", dense)[...] = 0
    return blocks, np.abs(dense).max()


@pytest.mark.parametrize("name", SOURCES[1:])
def test_diagonal_blocks_of_the_whole_jacobian(name, backend):
    blocks, off_diagonal = _whole_jacobian(name)
    assert off_diagonal == 0
    (y,) = oracle.arguments("softmax_jacobian", inputs.FAMILIES[name](np.float64))
    (actual,) = checks.call("softmax_jacobian", y, backend=backend)
    checks.assert_close(actual, blocks, np.float64)
    checks.assert_dense(fs.softmax_jacobian(y, layout="dense", backend=backend), actual)


@pytest.mark.parametrize("name", [name for name in inputs.FAMILIES if name != "sources_1000x5"])
def test_dense_is_batched_with_zeros(name, backend, dtype):
    checks.check_dense_jacobian(inputs.FAMILIES[name](dtype), backend)


def test_dense_of_the_sources_1000x5(backend):
    x = inputs.sources_1000x5(np.float64)
    (y,) = oracle.arguments("softmax_jacobian", x)
    (blocks,) = checks.call("softmax_jacobian", y, backend=backend)
    checks.assert_dense(fs.softmax_jacobian(y, layout="dense", backend=backend), blocks)


@pytest.mark.parametrize("name", SOURCES)
def test_mean_absolute_percentage_error(name, backend):
    """The sources' measure of the forward pass, 1e-14 % at best there."""
    x = inputs.FAMILIES[name](np.float64)
    assert oracle.mape(fs.softmax(x, backend=backend), oracle.longdouble_forward("softmax", x)) < 1e-13


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "sources_times_100"])
def test_mean_absolute_percentage_error_of_a_gradient(name, backend):
    """Of the loss sum(a^2), where the sources reach 6e-7 %. Times 100, ties leave digits that no y holds."""
    x = inputs.FAMILIES[name](np.float64)
    y = fs.softmax(x, backend=backend)
    dx = fs.softmax_vjp(y, 2 * y, backend=backend)
    exact = oracle.exact_softmax_product(x[:100], 2 * oracle.exact_forward("softmax", x[:100]).high)
    assert oracle.mape(dx[:100], exact.high) < 1e-12


def test_derivative_of_one_output(backend):
    """sigma_q * (delta_qr - sigma_r): the VJP with a unit vector."""
    (y,) = oracle.arguments("softmax_jacobian", inputs.sources_1x5(np.float64))
    s = y[0]
    for q in range(5):
        e_q = np.eye(5)[q]
        (dx,) = checks.call("softmax_vjp", s, e_q, backend=backend)
        checks.assert_close(dx, s[q] * (e_q - s), np.float64)
