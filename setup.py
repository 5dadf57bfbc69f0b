"""The compiled kernels: one extension module, in which each x86-64 level has its own, elsewhere one baseline.

Everything else about the package stands in pyproject.toml. The extension is optional: without a compiler (or
with one that lacks vector types, such as MSVC) the installation succeeds and `fastsoftmax.backend_status()`
says why "cython" is missing.
"""

import hashlib
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Fewer compile faster: FASTSOFTMAX_CPU_LEVELS=v3 pip install ...
X86_LEVELS = os.environ.get("FASTSOFTMAX_CPU_LEVELS", "v4 v3 v2").split()
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = {level: [f"-march=x86-64-{level}"] for level in X86_LEVELS} if IS_X86 else {"baseline": []}

# -fno-math-errno and -fno-trapping-math change no result; nothing here may reassociate, assume finite values
# or flush subnormals (docs/numerics.md), so never -ffast-math, and never -march=native. -ffp-contract=off: a
# formula that is inlined in several places gives the same bits in each. -g0: without symbols for debugging it
# compiles in two thirds of the time, to a tenth of the size.
FLAGS = ["-O3", "-g0", "-pthread", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wno-psabi", "-Wno-unused-function", "-Wno-maybe-uninitialized", "-fvisibility=hidden"]
FLAGS += ["-Wno-unknown-warning-option"]  # Clang knows not all of these, GCC passes over this one
# Units are C++17 that needs nothing of its library, compiled by the compiler of C. GCC 12 takes the vectors
# that its own headers of AVX-512 leave undefined for a mistake. A switch without one of the ops is one.
UNIT_FLAGS = ["-xc++", "-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-Wno-uninitialized", "-Werror=switch"]
LAST = os.environ.get("CFLAGS", "").split()  # setuptools puts them first, where -O1 says nothing

# Of the flags that Python was compiled with, units take those of the target (-fPIC, -arch), not these.
PYTHONS_OWN = ("-W", "-D", "-O", "-g", "-fwrapv", "-fno-strict-overflow")

# The ops that have kernels for rows of few entries: units of their own, which compile side by side.
OPS_OF_FEW = ("CROSS_ENTROPY", "LOG_SOFTMAX", "SOFTMAX", "SOFTMAX_VJP")
UNITS = [(level, op) for op in (None, *OPS_OF_FEW) for level in LEVELS]
UNIT_SOURCES = sorted(str(path) for path in Path("src_cy").glob("*.[hc]*") if path.name != "_kernels.c")


class BuildUnits(build_ext):
    """Compiles the units of src_cy/unit.cpp side by side and links them in.

    Each is kept in build/units under a hash of what it was made of, and serves every environment and Python.
    """

    def build_extension(self, extension):
        compiler, *others = getattr(self.compiler, "compiler_so", None) or ["cc"]
        command = [
            compiler,
            *(flag for flag in others if not flag.startswith(PYTHONS_OWN)),
            *FLAGS,
            *UNIT_FLAGS,
        ]
        objects = Path("build", "units", _hash_of(command))
        objects.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda unit: self._compiled(command, unit, objects), UNITS)
            extension.extra_objects = list(made)
        super().build_extension(extension)

    def _compiled(self, command, unit, objects):
        level, op = unit
        done = objects / f"{'-'.join(filter(None, unit))}.o"
        if self.force or not done.exists():
            part = f"{done}.{os.getpid()}"
            defines = [
                f"-DLEVEL={level}",
                f"-DOP={op}" if op else "-D" + "=".join(_each("OPS_OF_FEW", OPS_OF_FEW)),
            ]
            self.spawn([*command, *LEVELS[level], *LAST, *defines, "-c", "src_cy/unit.cpp", "-o", part])
            os.replace(part, done)
        return str(done)


def _each(name, items):
    """A macro that applies another to each item, and what it stands for."""
    return f"{name}(EACH)", " ".join(f"EACH({item})" for item in items)


def _hash_of(command):
    try:
        version = subprocess.run([*command, "-v"], capture_output=True, text=True, check=False).stderr
    except OSError as error:
        raise CompileError(str(error)) from error  # the one that an optional extension may raise
    sources = b"".join(Path(path).read_bytes() for path in UNIT_SOURCES)
    return hashlib.sha256(sources + repr((command, UNITS, LEVELS, LAST, version)).encode()).hexdigest()[:16]


extension = Extension(
    "fastsoftmax._kernels",
    ["src_cy/_kernels.pyx"],
    include_dirs=["src_cy", np.get_include()],
    depends=[*map(str, Path("src_cy").glob("*.pxi")), "fastsoftmax/_kernels.pxd", *UNIT_SOURCES],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        _each("LEVELS", LEVELS),
    ],
    extra_compile_args=["-std=gnu11", *FLAGS, *LAST],
    extra_link_args=["-pthread"],
)
(module,) = cythonize(
    [extension],
    compiler_directives={
        "boundscheck": False,
        "cdivision": True,
        "embedsignature": False,
        "initializedcheck": False,
        "language_level": 3,
        "wraparound": False,
    },
)
module.optional = True  # cythonize drops it

setup(ext_modules=[module], cmdclass={"build_ext": BuildUnits})
