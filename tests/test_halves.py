"""Promise: float16 and bfloat16 are computed in float32 or wider and rounded once at the end."""

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _isa
from tests import checks, inputs, oracle, processes


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    if request.param == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(np.float16)


def _logits(half, shape=(35, 9)):
    return (inputs.rng().normal(size=shape) * 3).astype(half)


@pytest.mark.parametrize("op", oracle.OPS)
def test_rounded_once(op, half, backend):
    """The float32 op on the same values, rounded: to the bit."""
    args = oracle.arguments(op, _logits(half))
    wide = [a.astype(np.float32) if a.dtype == half else a for a in args]
    actual = checks.call(op, *args, backend=backend, **oracle.options(op))
    expected = checks.call(op, *wide, backend=backend, **oracle.options(op))
    checks.assert_same_bits(actual, tuple(a.astype(half) for a in expected))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_rounded_once(reduction, half, backend):
    """Not each row's and then their sum."""
    x = _logits(half)
    (labels,) = oracle.extra_inputs("cross_entropy", x)
    wide = fs.cross_entropy(x.astype(np.float32), labels, reduction=reduction, backend=backend)
    expected = wide.astype(half)
    assert fs.cross_entropy(x, labels, reduction=reduction, backend=backend) == expected
    loss, _ = fs.cross_entropy_with_grad(x, labels, reduction=reduction, backend=backend)
    assert loss == expected


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_against_exact_values(op, half, backend):
    x = _logits(half, (7, 40))
    actual = np.asarray(
        fs.logsumexp(x, backend=backend) if op in oracle.ONE_A_ROW else checks.call(op, x, backend=backend)[0]
    )
    exact = oracle.exact_forward(op, x)
    assert actual.dtype == half
    off = np.abs(actual.astype(np.float64) - exact.high)
    ulp = np.spacing(np.abs(exact.high).astype(half)).astype(np.float64)
    assert (off <= 0.51 * ulp).all()


def test_softmax_of_more_entries_than_the_dtype_counts(half, backend):
    """70,000 equal logits: a sum in half precision would overflow or stick."""
    n = 5_000 if checks.is_slow(backend) else 70_000
    y = fs.softmax(np.zeros((2, n), half), backend=backend)
    np.testing.assert_array_equal(y, np.full((2, n), 1 / n).astype(half))


def test_largest_numbers(half, backend):
    top = float(np.asarray(65504.0 if half.name == "float16" else 3.3e38).astype(half))
    x = np.array([[top, -top], [top, top]]).astype(half)
    np.testing.assert_array_equal(fs.softmax(x, backend=backend).astype(float), [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
def test_axes_and_layouts(axis, half, backend):
    x = _logits(half, (3, 4, 5))
    expected = fs.softmax(x.astype(np.float32), axis, backend=backend).astype(half)
    checks.assert_same_bits(fs.softmax(x, axis, backend=backend), expected)
    checks.assert_same_bits(fs.softmax(np.asfortranarray(x), axis, backend=backend), expected)
    out = np.full_like(x, np.nan)
    assert fs.softmax(x, axis, out=out, backend=backend) is out
    checks.assert_same_bits(out, expected)
    checks.assert_same_bits(fs.softmax(x, axis, out=x, backend=backend), expected)


def test_special_rows(half, backend):
    rows = np.array([case.row for case in inputs.SPECIAL_ROWS.values()]).astype(half)
    for op in oracle.FORWARD:
        desired = [getattr(case, op) for case in inputs.SPECIAL_ROWS.values()]
        (actual,) = checks.call(op, rows, backend=backend)
        checks.assert_close(actual, desired, half)
        checks.assert_exact_values(actual.astype(np.float64), desired)


def test_big_endian_float16(backend):
    x = _logits(np.dtype(np.float16))
    checks.assert_same_bits(fs.softmax(x.astype(">f2"), backend=backend), fs.softmax(x, backend=backend))


def test_mixed_with_wider_dtypes(half, backend):
    y = fs.softmax(_logits(half), backend=backend)
    for wide in (np.float32, np.float64):
        dx = fs.softmax_vjp(y, np.ones(y.shape, wide), backend=backend)
        assert dx.dtype == wide
        assert not dx.any()


@pytest.mark.parametrize("op", oracle.JACOBIANS)
def test_jacobian_of_one_entry(op, half, backend):
    """It has the shape of what it is made of, which its kernel reads after it has written."""
    first = np.array([[-2.0], [-0.25], [0.0]], half)
    first = first if op == "log_softmax_jacobian" else np.abs(first)
    expected = getattr(fs, op)(first.astype(np.float32), backend=backend).astype(half)
    checks.assert_same_bits(getattr(fs, op)(first, backend=backend), expected)
    out = checks.poisoned((3, 1, 2), half)[..., :1]
    getattr(fs, op)(first, out=out, backend=backend)
    checks.assert_same_bits(out, expected)


def test_dense_jacobian(half, backend):
    y = fs.softmax(_logits(half, (4, 3)), backend=backend)
    blocks = fs.softmax_jacobian(y, backend=backend)
    dense = fs.softmax_jacobian(y, layout="dense", backend=backend)
    assert (blocks.dtype, dense.dtype) == (half, half)
    checks.assert_dense(dense.astype(np.float32), blocks.astype(np.float32))


@pytest.mark.usefixtures("every_row_a_block")
def test_any_number_of_threads(half, backend):
    x = _logits(half, (300, 9))
    expected = fs.softmax(x, backend=backend, num_threads=1)
    for n in (2, 5):
        checks.assert_same_bits(fs.softmax(x, backend=backend, num_threads=n), expected)


CONVERSIONS = """
import numpy as np
from fastsoftmax import _front
from tests import inputs

half = np.dtype({half})
every = np.arange(2**16, dtype=np.uint16).view(half)
wide = np.empty(every.shape, np.float32)
with np.errstate(all="ignore"):  # of signalling NaN an instruction of ARM says that they are invalid
    _front.widen(every, wide)
    expected = every.astype(np.float32)
print(np.array_equal(wide, expected, equal_nan=True), (np.signbit(wide) == np.signbit(expected)).all())

ordered = np.sort(expected[np.isfinite(expected)])
between = (ordered[1:].astype(np.float64) + ordered[:-1]) / 2
tops = np.array([np.inf, 1.5, 2.0]) * float(ordered[-1])
with np.errstate(all="ignore"):
    edges = np.concatenate([ordered, between, tops, -tops]).astype(np.float32)
    singles = np.concatenate([edges, *(np.nextafter(edges, np.float32(to)) for to in (-np.inf, np.inf))])
bits = inputs.rng().integers(0, 2**32, 10**5, np.uint32)
singles = np.concatenate([singles, bits.view(np.float32), np.float32([np.nan, -np.nan])])
for n in (len(singles), 1, 7, 9, 15, 17, 33):
    narrow = np.empty(n, half)
    with np.errstate(all="ignore"):
        _front.narrow(singles[-n:], narrow)
        expected = singles[-n:].astype(half)
    number = ~np.isnan(singles[-n:])
    print((np.isnan(narrow.astype(np.float32)) == ~number).all())
    print((narrow.view(np.uint16)[number] == expected.view(np.uint16)[number]).all())
"""


@pytest.mark.parametrize("level", ["", "x86-64-v3", "x86-64-v2", "none"])
def test_conversions(level, half):
    """Of every half; of floats at, between and beside all of them, and any others. NumPy has its own."""
    if level.startswith("x86") and level not in _isa.levels():
        pytest.skip(f"no build for {level} runs on this CPU")
    name = "'float16'" if half.name == "float16" else "__import__('ml_dtypes').bfloat16"
    output = processes.python(CONVERSIONS.format(half=name), FASTSOFTMAX_MAX_CPU_ISA=level)
    assert output.split() == ["True"] * 16
