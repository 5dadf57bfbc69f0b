"""The machine and the versions, as every saved run states them."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import fastsoftmax as fs
from fastsoftmax.__main__ import cpu_level

LIBRARIES = ("numpy", "numba", "scipy", "torch", "jax", "numexpr", "autograd")

# What holds every library to AVX2, each in its own words.
AVX2 = {
    "FASTSOFTMAX_MAX_CPU_ISA": "x86-64-v3",
    "ATEN_CPU_CAPABILITY": "avx2",
    "NPY_DISABLE_CPU_FEATURES": "AVX512_SPR AVX512_ICL X86_V4",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}


def describe():
    """A flat dict for JSON and for the report."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "isa": cpu_level(),
        "isa_limits": {name: os.environ[name] for name in AVX2 if name in os.environ},
        "python": platform.python_version(),
        "fastsoftmax": fs.__version__,
        "backends": fs.backend_status(),
        **{name: _version(name) for name in LIBRARIES},
    }


def cpus():
    """The CPUs that this process may use; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def stay_on(cpus):
    """Keep all threads of this process on these CPUs, where the system can."""
    for thread in os.listdir("/proc/self/task") if cpus and os.path.isdir("/proc/self/task") else ():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), cpus)


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_model():
    try:
        with open("/proc/cpuinfo") as f:
            fields = dict(map(str.strip, line.split(":", 1)) for line in f if ":" in line)
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = ("model name", "cpu family", "model", "stepping")
    name, *numbers = (fields.get(key, "?") for key in names)
    # Virtual machines give many processors one name: the family, model and stepping tell them apart.
    return f"{name} ({'/'.join(numbers)})"
