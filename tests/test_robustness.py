"""Promise: handlers, nested calls, exceptions, forks and lack of memory leave the library as it was.

Each of these hung, crashed or lost an error once; docs/robustness.md says why none does now.
"""

import os
import signal
import threading
import time

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _threads, registry
from tests import checks, inputs, oracle, processes

needs_signals = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no setitimer and fork")


@pytest.fixture
def registered():
    """``register(kernels)`` as the backend "mine", for one test."""
    yield lambda ops: fs.register_backend("mine", ops, priority=-1)
    registry._backends.pop("mine", None)
    for op in registry.OPS:
        registry._kernels.pop((op, "mine"), None)


@pytest.mark.parametrize("within", ["numpy", "numba", "cython"])
def test_a_kernel_that_calls_the_library(registered, within):
    """Blocks of the outer call had all threads of the pool, which the inner one waited for."""
    if fs.backend_status()[within] != "available":
        pytest.skip(f"backend {within}: {fs.backend_status()[within]}")
    registered({"softmax": lambda x, out: fs.softmax(x, axis=1, out=out, backend=within, num_threads=2)})
    x = inputs.rng().normal(size=(4000, 100))
    expected = fs.softmax(x, backend=within)
    for _ in range(5):
        checks.assert_same_bits((fs.softmax(x, backend="mine", num_threads=2),), (expected,))


def test_a_kernel_sees_its_callers_context(registered):
    """On helpers too; and that it is within a call."""
    seen = []

    def softmax(x, out):
        seen.append((threading.get_ident(), registry.requested()[0], _threads.limit(5)))
        np.copyto(out, x)

    registered({"softmax": softmax})
    x = np.zeros((4000, 100))
    with fs.use_backend("numpy"), fs.threads(2):
        fs.softmax(x, backend="mine")
    assert _threads.limit(5) == 5
    assert len(seen) == 2
    assert {(backend, limit) for _, backend, limit in seen} == {("numpy", 1)}


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_an_error_in_one_block(registered, where):
    """It is raised, and by then nobody writes."""
    at_work, together = [], threading.Barrier(2)

    def softmax(x, out):
        """On the caller and on a helper at the same time: one fails, the other takes longer."""
        at_work.append(1)
        together.wait(10)
        if (threading.get_ident() == caller) == (where == "caller"):
            at_work.pop()
            raise ZeroDivisionError
        time.sleep(0.05)
        np.copyto(out, x)
        at_work.pop()

    caller = threading.get_ident()
    registered({"softmax": softmax})
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            fs.softmax(np.zeros((4000, 100)), backend="mine", num_threads=2)
        assert not at_work
        assert _threads._within.get() is None


HANDLER = """
import random, signal
import numpy as np
import fastsoftmax as fs

options = {{"backend": {backend!r}, "num_threads": 3}}
x = np.random.default_rng(0).normal(size=({rows}, 100)).astype({dtype!r})
small = x[:-10]
expected, few = fs.softmax(x, **options), fs.softmax(small, **options)
wrong = []

class Interrupt(Exception):
    pass

def check():
    global inside
    inside = False
    if not (fs.softmax(small, **options) == few).all():
        wrong.append("inside")
    inside = True

def handler(*_):
    global inside
    if inside:
        {handler}

inside, calls = False, 0
signal.signal(signal.SIGALRM, handler)
while calls < {times}:
    calls += 1
    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3))
    try:
        inside = True
        result = fs.softmax(x, **options)
        inside = False
        if not (result == expected).all():
            wrong.append("outside")
    except Interrupt:
        inside = False
signal.setitimer(signal.ITIMER_REAL, 0)
out = fs.softmax(x, **options)
if {backend!r} == "numba":
    from fastsoftmax.backends import _numba_jit
    assert _numba_jit._launcher.take(_numba_jit._Turn())
print(wrong, (out == expected).all())
"""


@needs_signals
@pytest.mark.parametrize("floats", ["float16", "float32"])
@pytest.mark.parametrize("handler", ["check()", "raise Interrupt"], ids=["calls", "raises"])
def test_a_signal_handler(handler, floats, backend):
    """One that calls the library waited for the call it interrupted; one that raises left locks behind."""
    slow = checks.is_slow(backend)
    code = HANDLER.format(
        backend=backend, dtype=floats, handler=handler, rows=1400, times=6 if slow else 2000
    )
    assert processes.python(code, timeout=300).strip() == "[] True"


FORKED_WITHIN = """
import os, signal, sys, warnings
import numpy as np
import fastsoftmax as fs

warnings.simplefilter("ignore")
x = np.zeros((30_000, 1000), np.float32)
out = np.empty_like(x)
fs.softmax(x[:3000], num_threads=2, backend={backend!r})
pids = []
signal.signal(signal.SIGALRM, lambda *_: pids.append(os.fork()))
signal.setitimer(signal.ITIMER_REAL, 0.02)
out.fill(7)
try:
    fs.softmax(x, num_threads=2, out=out, backend={backend!r})
    complete = bool((out != 7).all())
except RuntimeError as error:
    complete = "incomplete" in str(error) and pids == [0]
while not pids:  # it came too late
    pass
again = bool((fs.softmax(x[:3000], num_threads=2, backend={backend!r}) == np.float32(1e-3)).all())
if pids == [0]:
    os._exit(not (complete and again))
_, status = os.waitpid(pids[0], 0)
print(status, complete, again)
"""


@needs_signals
def test_forked_within_a_call(backend):
    """The child lacks the blocks of its parent's helpers: it says so, or has had the result before."""
    if checks.is_slow(backend):
        pytest.skip("naive loops: the others' threads are the same")
    assert processes.python(FORKED_WITHIN.format(backend=backend), timeout=60).strip() == "0 True True"


LATENCY = """
import os, signal, threading, time
import numpy as np
import fastsoftmax as fs

signal.signal(signal.SIGINT, signal.default_int_handler)
x = np.zeros({shape}, np.float32)
out = np.empty_like(x)

def interrupt():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

fs.softmax(np.zeros((2, 100, 1000), np.float32), axis=1, backend={backend!r}, num_threads=2)
late = []
for _ in range(3):
    sent = []
    timer = threading.Timer(0.05, interrupt)
    timer.start()
    try:
        while True:
            fs.{op}({arguments}, axis={axis}, out=out, backend={backend!r}, num_threads=2)
    except KeyboardInterrupt:
        late.append(time.perf_counter() - sent[0])
    timer.join()
print(min(late))
"""


@needs_signals
def test_ctrl_c_within_a_wide_row(backend):
    """Of 10^8 entries of a kind that are cut along ``inner``. The best of three: the machine may be busy."""
    if checks.is_slow(backend):
        pytest.skip("naive loops: an hour")
    code = LATENCY.format(op="softmax", arguments="x", backend=backend, shape=(2, 1000, 100_000), axis=1)
    assert float(processes.python(code, timeout=120)) < 0.2


WITHIN_A_ROW = """
import signal
import numpy as np
import fastsoftmax as fs

class Interrupted(Exception): pass

def interrupt(*_): raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
x = np.zeros({shape}, np.float32)
out = np.empty({shape_of_result}, np.float32)
row = out[0] if {axis} else out
op = fs.{op}
with fs.threads({num_threads}):
    op({arguments}, axis={axis}, out=out, backend={backend!r})
    row.flat[-1] = -1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        op({arguments}, axis={axis}, out=out, backend={backend!r})
    except Interrupted:
        print(row.flat[-1] == -1)
    op({arguments}, axis={axis}, out=out, backend={backend!r})
    print(row.flat[-1] != -1)
"""

LONG = [
    ("softmax", "x", (2**26,)),
    ("softmax", "x", (2**21, 32)),
    ("softmax", "x", (2, 2**10, 2**16)),
    ("log_softmax", "x", (2**26,)),
    ("softmax_vjp", "x, x", (2**26,)),
    ("log_softmax_vjp", "x, x", (2**26,)),
    ("log_softmax_jvp", "x, x", (2**26,)),
    ("softmax_jacobian", "x", (2**13,)),
]


@needs_signals
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(("op", "arguments", "shape"), LONG)
def test_interrupted_within_a_row(op, arguments, shape, num_threads, backend):
    """One that takes tens of milliseconds is left before its end; the call after it is whole."""
    if checks.is_slow(backend):
        pytest.skip("naive loops: an hour")
    code = WITHIN_A_ROW.format(
        op=op,
        backend=backend,
        arguments=arguments,
        shape=shape,
        shape_of_result=shape * 2 if op in oracle.JACOBIANS else shape,
        axis=int(len(shape) == 3),
        num_threads=num_threads,
    )
    assert processes.python(code, timeout=60).split() == ["True", "True"]


@needs_signals
@pytest.mark.slow
@pytest.mark.parametrize(("op", "arguments"), [("softmax", "x"), ("softmax_vjp", "x, x")])
def test_ctrl_c_within_a_long_row(op, arguments, backend):
    """Of 2^28 entries, alone. The best of three: the machine may be busy."""
    if checks.is_slow(backend):
        pytest.skip("naive loops: an hour")
    code = LATENCY.format(op=op, arguments=arguments, backend=backend, shape=(2**28,), axis=0)
    assert float(processes.python(code, timeout=120)) < 0.2


def test_a_backend_that_had_no_memory_to_load():
    """It is tried again: memory comes back."""
    backend = registry._Backend("short of memory", lambda: loads.pop()(), 0)

    def fail():
        raise MemoryError

    loads = [lambda: {"softmax": len}, fail]
    with pytest.raises(MemoryError):
        backend.ops()
    assert backend.reason is None
    assert backend.ops() == {"softmax": len}


@needs_signals
def test_an_exception_of_a_handler_while_a_backend_loads():
    """It is the program's, and no reason why the backend could not be used."""

    class Interrupt(Exception):
        pass

    def handler(*_):
        raise Interrupt

    def load():
        loads.append(1)
        if len(loads) == 1:
            try:
                signal.raise_signal(signal.SIGALRM)
            except Interrupt as error:
                raise ImportError("what some import makes of it") from error
        return {"softmax": len}

    loads, before = [], signal.signal(signal.SIGALRM, handler)
    backend = registry._Backend("interrupted", load, 0)
    try:
        with pytest.raises(ImportError, match="what some"):
            backend.ops()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert backend.reason is None
    assert backend.ops() == {"softmax": len}


# ---- numba's launcher --------------------------------------------------------------------------


@pytest.fixture
def with_numba():
    if (status := fs.backend_status()["numba"]) != "available":
        pytest.skip(f"backend numba: {status}")


BESIDE_PRANGE = """
import threading
import numba, numpy as np
import fastsoftmax as fs

@numba.njit(parallel=True, nogil=True)
def user(x, times):
    for _ in range(times):
        for i in numba.prange(len(x)):
            x[i] += 1

x = np.random.default_rng(0).normal(size=(3000, 100))
expected = fs.softmax(x, backend="numba", num_threads=1)
user(np.zeros(1000), 1)
beside = threading.Thread(target=user, args=(np.zeros(100_000), 20_000))
beside.start()
same = [(fs.softmax(x, backend="numba", num_threads=2) == expected).all() for _ in range(50)]
meanwhile = beside.is_alive()
beside.join()
print(all(same), meanwhile)
"""


@pytest.mark.usefixtures("with_numba")
def test_beside_a_prange_of_the_users():
    """The workqueue layer ends a process of which two threads enter it."""
    assert processes.python(BESIDE_PRANGE, NUMBA_THREADING_LAYER="workqueue").strip() == "True True"


FORKED_BEFORE_THREADS_START = """
import os, warnings
import numpy as np
import fastsoftmax as fs

warnings.simplefilter("ignore")
options = {"backend": "numba", "num_threads": 2}
x = np.random.default_rng(0).normal(size=(3000, 100))
expected = fs.softmax(x, **options)

from fastsoftmax.backends import _numba_jit
numba, pids = _numba_jit.numba, []
set_num_threads = numba.set_num_threads

def fork(n):
    set_num_threads(n)
    pids[:] = pids or [os.fork()]

numba.set_num_threads = fork
out = np.full_like(x, 7)
right = (fs.softmax(x, out=out, **options) == expected).all() and (fs.softmax(x, **options) == expected).all()
if pids == [0]:
    os._exit(not right)
print(os.waitpid(pids[0], 0)[1], right)
"""


@needs_signals
@pytest.mark.usefixtures("with_numba")
def test_forked_before_numbas_threads_start():
    """GNU OpenMP ended a child that a handler forked after the call had decided to run in parallel."""
    assert processes.python(FORKED_BEFORE_THREADS_START, timeout=60).strip() == "0 True"


FORKED_WHILE_NUMBA_STARTS = """
import os, threading, time, warnings
import numpy as np
import fastsoftmax as fs
from fastsoftmax.backends import _numba_jit
from numba.np.ufunc import parallel

warnings.simplefilter("ignore")
options = {"backend": "numba", "num_threads": 2}
x = np.random.default_rng(0).normal(size=(3000, 100))
expected = fs.softmax(x, backend="numba", num_threads=1)
inside, pids = threading.Event(), []
can_be_used, get_num_threads = _numba_jit._Launcher.can_be_used, _numba_jit.numba.get_num_threads

def fork(self):
    if threading.current_thread() is threading.main_thread() and not pids:
        inside.wait()
        pids.append(os.fork())
    return can_be_used(self)

def slow():
    with parallel._backend_init_thread_lock:
        inside.set()
        time.sleep(0.3)
    return get_num_threads()

_numba_jit._Launcher.can_be_used, _numba_jit.numba.get_num_threads = fork, slow
starting = threading.Thread(target=lambda: fs.softmax(x, **options))
starting.start()
right = (fs.softmax(x, **options) == expected).all()
if pids == [0]:
    os._exit(not right)
starting.join()
print(os.waitpid(pids[0], 0)[1], right)
"""


@needs_signals
@pytest.mark.usefixtures("with_numba")
def test_forked_while_another_thread_starts_numbas():
    """A child that was forked within a call waited for a lock of numba's that the other thread had."""
    assert processes.python(FORKED_WHILE_NUMBA_STARTS, timeout=60).strip() == "0 True"


FORKED_WHILE_COMPILING = """
import os, threading, time, warnings
import numpy as np
import fastsoftmax as fs

warnings.simplefilter("ignore")
x = np.zeros((10, 10))
fs.softmax(x, backend="numba")
compiling = threading.Thread(target=lambda: fs.log_softmax(x, backend="numba"))
compiling.start()
time.sleep(0.3)
pid = os.fork()
y = fs.logsumexp(x, backend="numba")
if pid == 0:
    os._exit(int(y.shape != (10,)))
compiling.join()
print(os.waitpid(pid, 0)[1])
"""


@needs_signals
@pytest.mark.usefixtures("with_numba")
def test_forked_while_another_thread_compiles(tmp_path):
    """The child found numba's lock taken by a thread that it does not have."""
    assert processes.python(FORKED_WHILE_COMPILING, timeout=60, NUMBA_CACHE_DIR=str(tmp_path)).strip() == "0"


OUT_OF_MEMORY = """
import resource
import numpy as np
import fastsoftmax as fs

options = {"backend": "numba", "num_threads": 2}
fs.softmax(np.zeros((3000, 1000), np.float32), **options)
x = np.zeros((4, 40_000_000), np.float32)
out = np.full((4, 40_000_000), 7, np.float32)
with open("/proc/self/statm") as f:
    size = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000, -1))
try:
    fs.softmax(x, out=out, **options)
    print("returned", (out == 7).any())
except MemoryError:
    print("MemoryError")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
print((fs.softmax(x, out=out, **options)[:, 0] == np.float32(1 / 4e7)).all())
"""


@needs_signals
@pytest.mark.usefixtures("with_numba")
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of a process from /proc")
def test_no_memory_for_scratch():
    """Numba lost the error of its workers: rows were returned that nobody had written."""
    assert processes.python(OUT_OF_MEMORY).split() == ["MemoryError", "True"]
