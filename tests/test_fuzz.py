"""Promise: whatever an op is given, it returns right values, or a documented error is all that happens."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import fuzz

SEEDS = range(0, 24_000, 3_000)


@pytest.mark.parametrize("first", SEEDS)
def test_arbitrary_arguments(first):
    """Half a minute of `python -m tests.fuzz` in all, always the same calls."""
    *found, count = fuzz.faults(range(first, first + 3_000))
    assert (found, count) == ([], 3_000)


def test_faults_are_noticed(monkeypatch):
    softmax = fs.softmax

    def wrong(*args, **options):
        y = softmax(*args, **options)
        return 2 * y if np.ndim(y) < 3 else 1 // 0

    monkeypatch.setattr(fs, "softmax", wrong)
    *found, _ = fuzz.faults(range(3_000))
    assert any("expected" in fault for fault in found)
    assert any("ZeroDivisionError" in fault for fault in found)


# ---- found by it -------------------------------------------------------------------------------


def test_an_int_beyond_floats():
    """`float` raised OverflowError while the advice was looked for."""
    with pytest.raises(TypeError, match="no real number"):
        fs.softmax(10**400)


def test_no_axis_of_no_dimensions():
    """The shape of a 0-d array without any axis is its own; it was that of one dimension."""
    assert fs.logsumexp(np.float64(3.0), axis=()).shape == ()
    assert fs.cross_entropy(np.float64(3.0), np.int64(0), axis=(), reduction="none").shape == ()
