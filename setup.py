"""The compiled kernels: one source, an extension module for each x86-64 level, one baseline elsewhere.

Everything else about the package stands in pyproject.toml. The extensions are optional: without a
compiler (or with one that lacks vector types, such as MSVC) the installation succeeds and
`fastsoftmax.backend_status()` says why "cython" is missing.
"""

import os
import platform

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

# Fewer compile faster: FASTSOFTMAX_CPU_LEVELS=v3 pip install ...
X86_LEVELS = os.environ.get("FASTSOFTMAX_CPU_LEVELS", "v2 v3 v4").split()

# -fno-math-errno and -fno-trapping-math change no result; nothing here may reassociate, assume finite values
# or flush subnormals (docs/numerics.md), so never -ffast-math, and never -march=native. -ffp-contract=off: a
# formula that is inlined in several places gives the same bits in each. -g0: without symbols for debugging it
# compiles in two thirds of the time, to a tenth of the size.
FLAGS = ["-O3", "-g0", "-std=gnu11", "-pthread", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
LAST = os.environ.get("CFLAGS", "").split()  # setuptools puts them first, where -O1 says nothing
FLAGS += ["-Wno-psabi", "-Wno-unused-function", "-Wno-maybe-uninitialized"]


def extension(level, *flags):
    return Extension(
        f"fastsoftmax._kernels_{level}",
        [f"src_cy/kernels_{level}.pyx"],
        include_dirs=["src_cy", np.get_include()],
        depends=["src_cy/kernels.pxi", "src_cy/front_door.pxi", *(f"src_cy/{h}.h" for h in HEADERS)],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        extra_compile_args=[*FLAGS, *flags, *LAST],
        extra_link_args=["-pthread"],
    )


HEADERS = ("kernels", "lanes", "passes", "real", "rows", "simd", "sums", "undef", "pool")

if platform.machine().lower() in ("x86_64", "amd64"):
    extensions = [extension(level, f"-march=x86-64-{level}") for level in X86_LEVELS]
else:
    extensions = [extension("baseline")]

modules = cythonize(
    extensions,
    compiler_directives={
        "boundscheck": False,
        "cdivision": True,
        "embedsignature": False,
        "initializedcheck": False,
        "language_level": 3,
        "wraparound": False,
    },
)
for module in modules:
    module.optional = True  # cythonize drops it

setup(ext_modules=modules)
