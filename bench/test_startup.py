"""What a process pays once: the import, and the first call of each backend."""

import os
import subprocess
import sys

import pytest

import fastsoftmax as fs

IMPORTS = {"python alone": "", "numpy": "import numpy", "fastsoftmax": "import fastsoftmax"}
FIRST_CALL = "import numpy, fastsoftmax; fastsoftmax.softmax(numpy.zeros((32, 10)), backend={!r})"


@pytest.mark.parametrize("name", IMPORTS)
def test_import(benchmark, name):
    _measure(benchmark, f"import {name}", IMPORTS[name])


@pytest.mark.parametrize("backend", fs.available_backends())
def test_first_call(benchmark, backend):
    """With the compiled kernels in their cache, where a backend compiles."""
    _measure(benchmark, f"first call {backend}", FIRST_CALL.format(backend))


@pytest.mark.parametrize("backend", [name for name in fs.available_backends() if name == "numba"])
def test_first_call_ever(benchmark, backend, tmp_path):
    """With an empty cache: the compile time."""
    if not benchmark.enabled:
        pytest.skip("compiles for seconds")
    _measure(
        benchmark, f"compile {backend}", FIRST_CALL.format(backend), rounds=1, NUMBA_CACHE_DIR=str(tmp_path)
    )


def _measure(benchmark, name, code, rounds=20, **environment):
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
    benchmark.extra_info |= {"startup": name}
    benchmark.group = "startup"
    benchmark.pedantic(
        subprocess.run,
        (command,),
        {"check": True, "env": environment},
        rounds=rounds,
        warmup_rounds=int(benchmark.enabled and rounds > 1),
    )
