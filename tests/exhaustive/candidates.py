"""The elementary functions of each build, as functions of arrays; a result is a number and what it lacks."""

import ast
import ctypes
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastsoftmax import _isa, backend_status
from tests.processes import ROOT

SOURCES = ROOT / "src_cy"


class Limits(NamedTuple):
    """The arguments that exp takes: maxima up to ``large`` in magnitude, entries down to ``vanishes`` below.

    Its results are ``2**bias`` times as large.
    """

    large: float
    vanishes: float
    bias: int


def build_all(directory):
    """Compile the library of each level of this CPU; where that cannot be done it says why."""
    try:
        for level in _isa.levels():
            build(level, directory)
    except OSError as error:
        print(f"the compiled kernels are not measured: {error}")
    if (status := backend_status()["numba"]) != "available":
        print(f"numba is not measured: {status}")


def candidates(dtype, directory):
    """The libraries of a directory, and Numba where it can run."""
    found = [Compiled(library, dtype) for library in sorted(Path(directory).glob("*.so"))]
    return found + ([Numba(dtype)] if backend_status()["numba"] == "available" else [])


# ---- src_cy/real.hpp ---------------------------------------------------------------------------


def flags():
    """FLAGS and UNIT_FLAGS of setup.py, which builds when it is imported."""
    found = []
    for node in ast.parse((ROOT / "setup.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign | ast.AugAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if getattr(target, "id", None) in ("FLAGS", "UNIT_FLAGS"):
                found += ast.literal_eval(node.value)
    return found


def build(level, directory, sources=SOURCES):
    """The path of a level's library, compiled as setuptools does; ``OSError`` where there is no compiler."""
    library = Path(directory) / f"{level}.so"
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command += [
        *shlex.split(sysconfig.get_config_var("CFLAGS") or ""),
        *flags(),
        "-fPIC",
        "-shared",
        "-fvisibility=default",
    ]
    command += [] if level == "baseline" else [f"-march={level}"]
    command += [f"-I{sources}", str(Path(__file__).with_name("elementary.cpp")), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    return library


class Compiled:
    """Those of one level."""

    def __init__(self, library, dtype):
        self.name = library.stem
        self._library, self._suffix = ctypes.CDLL(str(library)), f"_f{8 * dtype.itemsize}"
        self._real = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        large, vanishes, bias = self._real(), self._real(), ctypes.c_int()
        self._function("limits")(*map(ctypes.byref, (large, vanishes, bias)))
        self.limits = Limits(large.value, vanishes.value, bias.value)

    def _function(self, name):
        return getattr(self._library, name + self._suffix)

    def _call(self, name, *arrays, maximum=()):
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        self._function(name)(ctypes.c_ssize_t(arrays[0].size), *map(self._real, maximum), *pointers)

    def exp(self, x, maximum):
        out = np.empty_like(x)
        self._call("exps", x, out, maximum=[maximum])
        return out, 0

    def exp_of_max(self, x, maximum):
        out, lo = np.empty_like(x), np.empty_like(x)
        self._call("exps_of_max", x, out, lo, maximum=[maximum])
        return out, lo

    def log1p(self, s, lo):
        out = np.empty_like(s)
        self._call("log1ps", s, lo, out)
        return out, 0

    def quotient(self, a, hi, lo):
        out = np.empty_like(a)
        self._call("quotients", a, hi, lo, out)
        return out, 0


# ---- fastsoftmax/backends/_numba_rows.py -------------------------------------------------------


class Numba:
    """Those of Numba's kernels."""

    def __init__(self, dtype):
        from numba import from_dtype

        from fastsoftmax.backends._numba_vectors import _CONSTANTS

        self.name = "numba"
        constants = _CONSTANTS[from_dtype(dtype)]
        bias = int(-np.log2(constants["POWER_INVERSE"]))
        self.limits = Limits(constants["NEAR"], -constants["EXP_LOWEST"], bias)
        self._exps, self._exps_of_max, self._log1ps, self._quotients = _numba_loops()

    def exp(self, x, maximum):
        out = np.empty_like(x)
        self._exps(x, maximum, out)
        return out, 0

    def exp_of_max(self, x, maximum):
        out, lo = np.empty_like(x), np.empty_like(x)
        self._exps_of_max(x, maximum, out, lo)
        return out, lo

    def log1p(self, s, lo):
        out = np.empty_like(s)
        self._log1ps(s, lo, out)
        return out, 0

    def quotient(self, a, hi, lo):
        out = np.empty_like(a)
        self._quotients(a, hi, lo, out)
        return out, 0


def _numba_loops():
    from fastsoftmax.backends._numba_jit import jit
    from fastsoftmax.backends._numba_rows import _exp_of_max, exp_shifted, log1p, reciprocal, shift_of
    from fastsoftmax.backends._numba_vectors import fma, lanes, load, splat, store

    @jit
    def exps(x, maximum, out):
        shift = shift_of(splat(x, maximum))
        for i in range(0, x.size, lanes(x)):
            store(out, i, exp_shifted(load(x, i), shift))

    @jit
    def exps_of_max(x, maximum, out, lo):
        shift = shift_of(splat(x, maximum))
        for i in range(0, x.size, lanes(x)):
            hi, low = _exp_of_max(load(x, i), shift)
            store(out, i, hi)
            store(lo, i, low)

    @jit
    def log1ps(s, lo, out):
        for i in range(0, s.size, lanes(s)):
            store(out, i, log1p(load(s, i), load(lo, i)))

    @jit
    def quotients(a, hi, lo, out):
        for i in range(0, a.size, lanes(a)):
            inverse, lacking = reciprocal(load(hi, i), load(lo, i))
            store(out, i, fma(load(a, i), inverse, load(a, i) * lacking))

    return exps, exps_of_max, log1ps, quotients
