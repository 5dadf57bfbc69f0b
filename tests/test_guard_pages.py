"""Promise: kernels read and write within the arrays they are given, to the byte.

Arrays lie against pages that may not be touched, at their start or at their end; a step beyond ends the
process.
"""

import sys

import pytest

from fastsoftmax import _isa, backend_status
from tests import oracle, processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="maps pages by Linux's mprotect")

CODE = """
import ctypes, mmap
import numpy as np
import fastsoftmax as fs
from tests import checks, oracle

PAGE, ROOM = mmap.PAGESIZE, 1 << 23
libc = ctypes.CDLL(None, use_errno=True)

class Guarded:
    '''Memory between two pages that may not be touched.'''

    def __init__(self):
        self.memory = mmap.mmap(-1, ROOM + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for at in (start, start + PAGE + ROOM):
            assert libc.mprotect(ctypes.c_void_p(at), PAGE, 0) == 0

    def array(self, shape, dtype, at_end):
        count = int(np.prod(shape))
        start = PAGE + (ROOM - count * np.dtype(dtype).itemsize if at_end else 0)
        return np.frombuffer(self.memory, dtype, count, start).reshape(shape)

    def copy(self, a, at_end):
        moved = self.array(a.shape, a.dtype, at_end)
        moved[...] = a
        return moved

def check_stored(op, args, axis, at_end):
    '''In Fortran order, as halves, and under a mask.'''
    turned = [m.copy(np.asarray(a).T, at_end).T for m, a in zip((first, second), args)]
    getattr(fs, op)(*turned, axis=axis)
    others = [a.astype("f2" if a.dtype.kind == "f" else "i4") for a in args]
    moved = [m.copy(a, at_end) for m, a in zip((first, second), others)]
    getattr(fs, op)(*moved, axis=axis, **oracle.options(op))
    if op in oracle.FORWARD:
        x, mask = first.copy(args[0], at_end), second.copy(args[0] > 0, at_end)
        getattr(fs, op)(x, axis=axis, where=mask)

first, second, third = Guarded(), Guarded(), Guarded()
rng = np.random.default_rng(0)
calls = 0
for n in {lengths}:
    for rows in (1, 2, 9, 37):
        x = rng.normal(size=(rows, n)) * 4
        for dtype in ("f8", "f4"):
            for axis in (-1, 0):
                for op in oracle.OPS:
                    args = oracle.arguments(op, x.astype(dtype), axis)
                    expected = checks.as_tuple(getattr(fs, op)(*args, axis=axis, backend={backend!r}))
                    for at_end in (False, True):
                        moved = [m.copy(np.asarray(a), at_end) for m, a in zip((first, second), args)]
                        options = {{}}
                        if op in oracle.TAKE_OUT:
                            options["out"] = third.array(expected[-1].shape, expected[-1].dtype, at_end)
                        result = getattr(fs, op)(*moved, axis=axis, backend={backend!r}, **options)
                        checks.assert_same_bits(checks.as_tuple(result), expected)
                        if {backend!r} == "cython":
                            check_stored(op, args, axis, at_end)
                        if op in ("softmax", "log_softmax"):
                            result = getattr(fs, op)(moved[0], axis=axis, out=moved[0], backend={backend!r})
                            checks.assert_same_bits((result,), expected)
                        calls += 1
print(calls)
"""


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("level", ["x86-64-v4", "x86-64-v3", "x86-64-v2", "baseline"])
def test_compiled_kernels(level, part):
    if level not in _isa.levels() or backend_status()["cython"] != "available":
        pytest.skip(f"no build for {level} runs on this CPU")
    lengths = [n for n in range(1, 71) if n % 2 == part]
    code = CODE.format(lengths=lengths, backend="cython")
    limit = {_isa.ENVIRONMENT: level} if level.startswith("x86") else {}
    calls = int(processes.python(code, timeout=300, **limit))
    assert calls == 35 * 4 * 2 * 2 * len(oracle.OPS) * 2


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_other_backends(backend):
    if (status := backend_status()[backend]) != "available":
        pytest.skip(f"backend {backend}: {status}")
    lengths = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 70, 101, 130]
    code = CODE.format(lengths=lengths, backend=backend)
    assert int(processes.python(code, timeout=300)) == len(lengths) * 4 * 2 * 2 * len(oracle.OPS) * 2


def test_a_step_beyond_is_noticed():
    code = CODE.format(lengths=[], backend="numpy") + (
        "a = first.array((4,), 'f8', True)\n"
        "wide = np.lib.stride_tricks.as_strided(a, (5,))\n"
        "fs.softmax(wide)\n"
    )
    assert processes.start(["-c", code]).returncode == -11
