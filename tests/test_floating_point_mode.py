"""Promise: results do not depend on the floating-point mode that a caller has set, which stays as it was.

torch.set_flush_denormal(True) sets one, libraries built with -ffast-math did when they were loaded, and
threads have that of the thread that made them.
"""

import ctypes
import platform
import sys
from contextlib import contextmanager

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

# glibc's fenv_t, whose `mode` is the register mxcsr or fpcr; its bits, and those that say what has happened.
if platform.machine() == "aarch64":
    FENV_T = (("mode", ctypes.c_uint32), ("fpsr", ctypes.c_uint32))
    FLUSH, TO_ZERO, UP, FLAGS = 1 << 24, 3 << 22, 1 << 22, 0
else:
    FENV_T = (("x87", ctypes.c_char * 28), ("mode", ctypes.c_uint32))
    FLUSH, TO_ZERO, UP, FLAGS = 0x8040, 0x6000, 0x4000, 0x3F
KNOWN = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
pytestmark = pytest.mark.skipif(
    not (KNOWN and platform.libc_ver()[0] == "glibc"),
    reason="sets the mode by the layout of glibc's fenv_t on x86-64 and aarch64",
)


class Environment(ctypes.Structure):
    _fields_ = FENV_T


def environment():
    now = Environment()
    assert ctypes.CDLL("libm.so.6").fegetenv(ctypes.byref(now)) == 0
    return now


@contextmanager
def mode(bits):
    """With these bits of the mode set."""
    libm, before, changed = ctypes.CDLL("libm.so.6"), environment(), environment()
    changed.mode |= bits
    libm.fesetenv(ctypes.byref(changed))
    try:
        yield
    finally:
        libm.fesetenv(ctypes.byref(before))


def arguments(op, dtype, rows=40):
    """With subnormal results, and those that are rounded otherwise if not to nearest."""
    x = inputs.rng().normal(size=(rows, 30)) * 30
    x[::2, 3] = -715 if dtype == np.float64 else -92
    x[::2, 5] = 0
    return oracle.arguments(op, x.astype(dtype))


@pytest.mark.parametrize("bits", [FLUSH, TO_ZERO, UP], ids=["flush", "to zero", "up"])
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("op", oracle.OPS)
def test_the_callers_mode(op, bits, num_threads, backend, dtype):
    if checks.is_slow(backend) and bits != FLUSH:
        pytest.skip("math.fsum refuses other roundings")
    args = arguments(op, dtype, 10 if checks.is_slow(backend) else 3000)
    expected = checks.call(op, *args, backend=backend, num_threads=num_threads)
    with mode(bits):
        before = environment().mode
        result = checks.call(op, *args, backend=backend, num_threads=num_threads)
        after = environment().mode
    checks.assert_same_bits(result, expected)
    assert (before ^ after) & ~FLAGS == 0


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("op", oracle.OPS)
def test_the_mode_of_a_plain_call(op, num_threads, dtype):
    args = arguments(op, dtype, 4000)
    with fs.threads(num_threads):
        expected = checks.as_tuple(getattr(fs, op)(*args))
        with mode(FLUSH):
            result = checks.as_tuple(getattr(fs, op)(*args))
    checks.assert_same_bits(result, expected)


def test_threads_that_a_flushing_caller_started(backend):
    """Helpers keep no mode of the moment they were started."""
    x = np.zeros((3000, 30))
    x[:, 3] = -715
    expected = checks.call("softmax", x, backend=backend, num_threads=1)
    with mode(FLUSH):
        fs.softmax(x, backend=backend, num_threads=5)
    for _ in range(10):
        checks.assert_same_bits(checks.call("softmax", x, backend=backend, num_threads=5), expected)
