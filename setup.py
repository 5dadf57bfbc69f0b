"""The compiled kernels: one extension module, in which each x86-64 level has its own, elsewhere one baseline.

Everything else about the package stands in pyproject.toml. The extension is optional: without GCC or Clang
the installation succeeds, of a wheel for any machine, and `fastsoftmax.backend_status()` says why "cython" is
missing. With FASTSOFTMAX_REQUIRE_KERNELS=1 it fails there: for those who build wheels.
"""

import hashlib
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from distutils.ccompiler import new_compiler
from pathlib import Path
from sysconfig import get_platform

import Cython
import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# What it is compiled for, on macOS perhaps another machine than this. A Python that is for two would compile
# for both; levels are of one.
MACHINE = get_platform().rpartition("-")[2]
if MACHINE == "universal2":
    MACHINE = platform.machine()
    os.environ.setdefault("ARCHFLAGS", f"-arch {MACHINE}")

# Fewer compile faster: FASTSOFTMAX_CPU_LEVELS=v3 pip install ...
X86_LEVELS = os.environ.get("FASTSOFTMAX_CPU_LEVELS", "v4 v3 v2").split()
IS_X86 = MACHINE in ("x86_64", "amd64")
LEVELS = {level: [f"-march=x86-64-{level}"] for level in X86_LEVELS} if IS_X86 else {"baseline": []}

# -fno-math-errno and -fno-trapping-math change no result; nothing here may reassociate, assume finite values
# or flush subnormals (docs/numerics.md), so never -ffast-math, and never -march=native. -ffp-contract=off: a
# formula that is inlined in several places gives the same bits in each. -g0: without symbols for debugging it
# compiles in two thirds of the time, to a tenth of the size.
FLAGS = ["-O3", "-g0", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wno-psabi", "-Wno-unused-function", "-Wno-maybe-uninitialized", "-fvisibility=hidden"]
FLAGS += ["-Wno-unknown-warning-option"]  # Clang knows not all of these, GCC passes over this one
# Units are C++17 that needs nothing of its library, compiled by the compiler of C. GCC 12 takes the vectors
# that its own headers of AVX-512 leave undefined for a mistake. A switch without one of the ops is one.
UNIT_FLAGS = ["-xc++", "-std=gnu++17", "-fno-exceptions", "-fno-rtti", "-Wno-uninitialized", "-Werror=switch"]
LAST = os.environ.get("CFLAGS", "").split()  # setuptools puts them first, where -O1 says nothing

# The pool's, which on Windows are its own, and for WebAssembly are none (src_cy/system.h).
THREADS = [] if MACHINE == "wasm32" or os.name == "nt" else ["-pthread"]

# What compiles on Windows (`_clang_in_place_of`), for the run-time that Python has.
CLANG = ["clang", "-fms-runtime-lib=dll"]

# Of the flags that Python was compiled with, units take those of the target (-fPIC, -arch), not these.
PYTHONS_OWN = ("-W", "-D", "-O", "-g", "-fwrapv", "-fno-strict-overflow")

# The ops that have kernels for rows of few entries: units of their own, which compile side by side.
OPS_OF_FEW = ("CROSS_ENTROPY", "LOG_SOFTMAX", "SOFTMAX", "SOFTMAX_VJP")
UNITS = [(level, op) for op in (None, *OPS_OF_FEW) for level in LEVELS]
SOURCES = sorted(str(path) for path in Path("src_cy").glob("*.[hc]*"))
UNIT_SOURCES = [path for path in SOURCES if Path(path).stem not in ("pool", "system")]


class BuildUnits(build_ext):
    """Compiles the units of src_cy/unit.cpp side by side and links them in.

    Each is kept in build/units under a hash of what it was made of, and serves every environment and Python.
    """

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self.compiler = _clang_in_place_of(self.compiler)
        super().build_extensions()

    def build_extension(self, extension):
        extension.extra_objects = self.units()
        super().build_extension(extension)

    def units(self):
        """Their objects, all compiled."""
        compiler, *others = self.compiler.compiler_so
        command = [
            compiler,
            *(flag for flag in others if not flag.startswith(PYTHONS_OWN)),
            *FLAGS,
            *UNIT_FLAGS,
        ]
        objects = Path("build", "units", _hash_of(command))
        objects.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda unit: self._compiled(command, unit, objects), UNITS))

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


class Wheel(bdist_wheel):
    """For any machine and Python, if the extension was not built."""

    def run(self):
        self.run_command("build_ext")
        if not os.path.exists(self.get_finalized_command("build_ext").get_ext_fullpath(module.name)):
            self.distribution.ext_modules = []
            self.root_is_pure = True
        super().run()


def _clang_in_place_of(msvc):
    """MSVC has no vector types. Clang makes such objects, by GCC's flags, and has its linker link them."""
    clang = new_compiler("unix")
    clang.set_executables(compiler_so=CLANG, linker_so=[*CLANG, "-shared"])
    clang.include_dirs, clang.library_dirs, clang.macros = msvc.include_dirs, msvc.library_dirs, msvc.macros
    return clang


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
    ["src_cy/_kernels.pyx", "src_cy/pool.c"],
    include_dirs=["src_cy", np.get_include()],
    depends=[*map(str, Path("src_cy").glob("*.pxi")), "fastsoftmax/_kernels.pxd", *SOURCES],
    define_macros=[
        ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"),
        _each("LEVELS", LEVELS),
    ],
    extra_compile_args=["-std=gnu11", *FLAGS, *THREADS, *LAST],
    extra_link_args=THREADS,
)
# What Cython makes of it is for the NumPy whose declarations it read: the next Python's may lack some.
(module,) = cythonize(
    [extension],
    build_dir=f"build/cython-{Cython.__version__}-numpy-{np.__version__}",
    compiler_directives={
        "boundscheck": False,
        "cdivision": True,
        "embedsignature": False,
        "freethreading_compatible": True,  # what holds for that: docs/robustness.md
        "initializedcheck": False,
        "language_level": 3,
        "wraparound": False,
    },
)
module.optional = not os.environ.get("FASTSOFTMAX_REQUIRE_KERNELS")  # cythonize drops it

setup(ext_modules=[module], cmdclass={"build_ext": BuildUnits, "bdist_wheel": Wheel})
