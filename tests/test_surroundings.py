"""Promise: whatever is broken around it, the import works, `backend_status` says so, the rest runs."""

import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle, processes

LIBRARIES = sorted(Path(fs.__file__).parent.glob("_kernels.*.so"))
needs_libraries = pytest.mark.skipif(not LIBRARIES, reason="there are no compiled kernels to damage")

USE = """
import json
import numpy as np
import fastsoftmax as fs

x = np.array([[0.0, np.log(3.0)]] * 40_000)
for name in fs.available_backends():
    y = fs.softmax(x[:200] if name == "python" else x, backend=name, num_threads=2)
    assert np.allclose(y, [0.25, 0.75], rtol=1e-15), (name, y[:2])
print(json.dumps(fs.backend_status()))
"""


# ---- compiled kernels --------------------------------------------------------------------------


# Numba would compile for a while.
ALONE = processes.HIDE.format(names=["numba"]) + processes.WITHOUT_EDITABLE


@pytest.fixture
def copied(tmp_path):
    """``copied(damage)`` is the status of a copy of the package whose compiled kernels were damaged."""

    def status(damage):
        package = tmp_path / "fastsoftmax"
        shutil.copytree(Path(fs.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        for library in package.glob("_kernels.*.so"):
            damage(library)
        program = tmp_path / "program.py"
        program.write_text(
            ALONE + USE + "assert fs.__file__.startswith(__file__[:-len('program.py')])", "utf-8"
        )
        result = processes.start([str(program)])
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return status


@needs_libraries
@pytest.mark.parametrize("share", [0, 1e-4, 0.5, 0.999])
def test_libraries_that_are_cut_short(share, copied):
    """The loader ends a process that maps one (SIGBUS)."""
    status = copied(lambda library: os.truncate(library, int(share * library.stat().st_size)))
    assert "too short" in status["cython"] or "cut short" in status["cython"]


@needs_libraries
def test_libraries_of_something_else(copied):
    other = Path(np._core._multiarray_umath.__file__)
    status = copied(lambda library: shutil.copy(other, library))
    assert "does not define" in status["cython"]


@needs_libraries
def test_libraries_of_another_python(copied):
    tag = sys.implementation.cache_tag
    status = copied(lambda library: library.rename(str(library).replace(tag, "cpython-27")))
    assert "No module named" in status["cython"]


@needs_libraries
def test_libraries_that_may_not_be_read(copied):
    """A directory in their place stands for it where the superuser runs the tests."""

    def replace(library):
        library.unlink()
        library.mkdir()

    assert copied(replace)["cython"].startswith("ImportError: the compiled extension is missing")


# ---- numba -------------------------------------------------------------------------------------


@pytest.fixture
def numba_status():
    """Of this process, where it is available."""
    if (status := fs.backend_status()["numba"]) != "available":
        pytest.skip(f"backend numba: {status}")
    return status


BREAK_NUMBA = """
import sys

class Broken:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "numba":
            raise {error}('by this test')

sys.meta_path.insert(0, Broken)
"""


@pytest.mark.usefixtures("numba_status")
@pytest.mark.parametrize("error", ["ImportError", "OSError", "AttributeError", "SystemError"])
def test_a_broken_numba(error):
    status = json.loads(processes.python(BREAK_NUMBA.format(error=error) + USE))
    assert status["numba"] == f"{error}: by this test"


REFUSED = {
    "NUMBA_DISABLE_JIT=1": "NUMBA_DISABLE_JIT is set",
    "NUMBA_NUM_THREADS=0": "must be > 0",
    "NUMBA_NUM_THREADS=many": "NUMBA_NUM_THREADS",
}

HEEDED = [
    "NUMBA_NUM_THREADS=1",
    "NUMBA_NUM_THREADS=64",
    "NUMBA_THREADING_LAYER=no_such_layer",
    "NUMBA_THREADING_LAYER_PRIORITY=nothing",
    "NUMBA_CPU_NAME=generic",
    "NUMBA_CPU_FEATURES=-avx2",
    "NUMBA_OPT=0",
    "NUMBA_BOUNDSCHECK=1",
    "NUMBA_DEBUGINFO=1",
    "NUMBA_ENABLE_CUDASIM=1",
    "NUMBA_CAPTURED_ERRORS=old_style",
]


def _numba_status(**variables):
    return json.loads(processes.python(USE, timeout=300, **variables))["numba"]


@pytest.mark.usefixtures("numba_status")
@pytest.mark.parametrize("setting", REFUSED)
def test_settings_that_numba_refuses(setting):
    name, value = setting.split("=")
    assert REFUSED[setting] in _numba_status(**{name: value})


@pytest.mark.parametrize("setting", HEEDED)
def test_odd_settings(setting, numba_status):
    name, value = setting.split("=")
    assert _numba_status(**{name: value}) == numba_status


# ---- caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["/proc/unwritable", "/dev/null"])
def test_a_cache_that_may_not_be_written(directory, numba_status):
    assert _numba_status(NUMBA_CACHE_DIR=directory) == numba_status


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))
"""


def test_a_cache_on_a_full_disk(tmp_path, numba_status):
    """Every write fails after 1000 bytes; what was written so is not used later."""
    pytest.importorskip("resource")
    output = processes.python(FULL_DISK + USE, timeout=300, NUMBA_CACHE_DIR=str(tmp_path))
    assert json.loads(output)["numba"] == numba_status
    assert _numba_status(NUMBA_CACHE_DIR=str(tmp_path)) == numba_status


def test_a_damaged_cache(tmp_path, numba_status):
    assert _numba_status(NUMBA_CACHE_DIR=str(tmp_path)) == numba_status
    files = [path for path in tmp_path.rglob("*.nb?") if path.is_file()]
    assert files
    for path in files:
        os.truncate(path, path.stat().st_size // 2)
    assert _numba_status(NUMBA_CACHE_DIR=str(tmp_path)) == numba_status


# ---- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
def test_a_small_stack(op, backend, dtype):
    """A thread of 256 KB, with columns and rows of every kind."""
    seen = []

    def call():
        for shape, axis in (((40, 60), -1), ((40, 60), 0), ((3, 5, 40), 1), ((2, 3000), -1)):
            if op in oracle.JACOBIANS or checks.is_slow(backend):
                shape = tuple(min(n, 40) for n in shape)
            args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
            checks.call(op, *args, axis, backend=backend, num_threads=2)
        seen.append(op)

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=call)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert seen == [op]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no CPU affinity")
def test_one_cpu():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + USE
    assert json.loads(processes.python(code, timeout=300))["numpy"] == "available"


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

{before}
run = getattr(interpreters, "run_string", None) or interpreters.exec
code = '''
import warnings
warnings.simplefilter("ignore")  # NumPy's, that it does not support this
try:
    import fastsoftmax as fs
except ImportError:
    print("ImportError")
else:
    print(fs.softmax([0.0, 0.0])[0])
'''
for _ in range(3):
    other = interpreters.create()
    try:
        failed = run(other, code)
        failed = failed and str(failed)
    except Exception as error:
        failed = str(error)
    print(failed)
    interpreters.destroy(other)
{after}
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="NumPy does not notice there, and breaks later ones")
@pytest.mark.parametrize("before", [True, False])
def test_subinterpreters(before):
    """NumPy is loaded in one interpreter of a process, since 2.5 in the main one, and says so in others."""
    use = "import fastsoftmax as fs; print(fs.softmax([0.0, 0.0])[0])"
    code = SUBINTERPRETER.format(before=use if before else "", after=use if before else "")
    lines = [line for line in processes.python(code).splitlines() if line != "None"]
    refused = 3 * ["ImportError"]
    assert lines in ([["0.5", *refused, "0.5"]] if before else [["0.5", *refused[1:]], refused])
