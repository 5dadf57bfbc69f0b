"""Promise: same input, same bits, on any threads and in any company; safe threads, forks and Ctrl-C."""

import io
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _threads, registry
from tests import checks, inputs, oracle, processes

SHAPES = [((37, 5), -1), ((11, 40), -1), ((6, 100), -1), ((7, 23), 0), ((3, 5, 19), 1)]


# ---- bits --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_row_a_block")
@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_any_number_of_threads(op, shape, axis, backend, dtype):
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype) * 3, axis)
    expected = checks.call(op, *args, axis, backend=backend, num_threads=1)
    for n in (2, 5):
        checks.assert_same_bits(checks.call(op, *args, axis, backend=backend, num_threads=n), expected)


@pytest.mark.parametrize("op", ["softmax", "softmax_vjp", "cross_entropy_with_grad"])
def test_any_number_of_threads_at_a_size_that_takes_them(op, backend, dtype):
    rows = 20 if checks.is_slow(backend) else 1100
    args = oracle.arguments(op, inputs.rng().normal(size=(rows, 300)).astype(dtype))
    expected = checks.call(op, *args, backend=backend, num_threads=1)
    checks.assert_same_bits(checks.call(op, *args, backend=backend, num_threads=5), expected)


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("shape", [(30_000, 5), (700, 300), (40, 4001), (2, 3, 40_000)], ids=str)
@pytest.mark.parametrize("axis", [0, -1])
def test_any_number_of_threads_for_plain_calls(op, shape, axis, dtype):
    if op in oracle.JACOBIANS:
        shape, axis = (1000, shape[-1] % 100 + 5), -1
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
    results = []
    for n in (1, 2, 5):
        with fs.threads(n):
            results.append(checks.as_tuple(getattr(fs, op)(*args, axis=axis)))
    checks.assert_same_bits(results[1], results[0])
    checks.assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("blocks", [1, 64, 1000])
def test_any_size_of_blocks(op, blocks, backend, monkeypatch):
    """Long calls run in blocks of rows."""
    if backend == "cython":
        pytest.skip("its blocks are made in compiled code: test_interrupted_within_a_plain_call")
    for shape, axis in SHAPES:
        args = oracle.arguments(op, inputs.rng().normal(size=shape), axis)
        results = []
        for size in (2**40, blocks):
            for kernel in registry._backends[backend].ops().values():
                monkeypatch.setattr(kernel, "block_elements", size, raising=False)
            results.append(checks.call(op, *args, axis, backend=backend, num_threads=1))
        checks.assert_same_bits(results[1], results[0])


@pytest.mark.parametrize("op", [op for op in oracle.OPS if op != "cross_entropy"])
@pytest.mark.parametrize("n", [*range(1, 12), 31, 33, 100, 1000])
def test_a_row_alone_and_in_company(op, n, backend, dtype):
    """At any position of any batch."""
    rows = 70 if n <= 33 else 3
    n = min(n, 200) if op in oracle.JACOBIANS else n
    args = oracle.arguments(op, inputs.width(n, dtype, rows=rows))
    options = {"reduction": "none"} if op.startswith("cross") else {}
    together = checks.call(op, *args, backend=backend, **options)
    for start, stop in ((0, 1), (1, 2), (rows - 1, rows), (rows // 2, rows // 2 + 1), (1, rows - 1)):
        part = checks.call(op, *(a[start:stop] for a in args), backend=backend, **options)
        checks.assert_same_bits(part, tuple(a[start:stop] for a in together))
    order = inputs.rng().permutation(rows)
    mixed = checks.call(op, *(a[order] for a in args), backend=backend, **options)
    checks.assert_same_bits(mixed, tuple(a[order] for a in together))


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp", "softmax_vjp"])
@pytest.mark.parametrize("n", [3, 9, 40])
def test_a_column_in_company(op, n, backend, dtype):
    """Along the first axis, whatever stands to the left and right."""
    args = oracle.arguments(op, inputs.rng().normal(size=(n, 70)).astype(dtype), 0)
    (together,) = checks.call(op, *args, 0, backend=backend)
    for columns in (slice(0, 69), slice(1, 70), slice(3, 36), slice(68, 70), slice(10, 12)):
        (part,) = checks.call(op, *(a[:, columns] for a in args), 0, backend=backend)
        checks.assert_same_bits(part, together[..., columns])


def test_again_and_again(backend, dtype):
    x = inputs.far_apart(dtype)
    first = checks.call("softmax", x, backend=backend)
    for _ in range(5):
        checks.assert_same_bits(checks.call("softmax", x, backend=backend), first)


@pytest.mark.parametrize("op", ["softmax", "log_softmax", "softmax_vjp"])
@pytest.mark.parametrize(("shape", "axis"), [((5, 9), -1), ((5, 100), -1), ((3, 400), -1), ((9, 600), 0)])
def test_where_the_memory_starts(op, shape, axis, backend, dtype):
    """The alignment of input and output does not show."""
    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
    expected = checks.call(op, *args, axis, backend=backend)
    for offset in range(1, 16, 3):
        moved = [_at(offset, a) for a in args]
        out = _at(16 - offset, checks.poisoned(shape, dtype))
        checks.assert_same_bits((getattr(fs, op)(*moved, axis, out=out, backend=backend),), expected)


def _at(offset, a):
    """A copy that begins so many entries behind the start of its memory."""
    copy = np.empty(a.size + 16, a.dtype)[offset : offset + a.size].reshape(a.shape)
    copy[...] = a
    return copy


# ---- the number --------------------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (1.0, TypeError),
        ("2", TypeError),
        ([1], TypeError),
        (np.array([1]), TypeError),
        (True, TypeError),
    ],
    ids=str,
)
def test_bad_num_threads(op, number, error, backend):
    with pytest.raises(error, match="num_threads must be a positive int; got"):
        getattr(fs, op)(*oracle.arguments(op, np.zeros((2, 3))), num_threads=number, backend=backend)


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", [], True, np.array([2])], ids=repr)
def test_bad_number_for_the_setting(number):
    before = fs.get_num_threads()
    with pytest.raises((TypeError, ValueError), match="positive int"):
        fs.set_num_threads(number)
    with pytest.raises((TypeError, ValueError), match="positive int"), fs.threads(number):
        pass
    assert fs.get_num_threads() == before


def test_precedence_of_the_number():
    fs.set_num_threads(3)
    assert fs.get_num_threads() == 3
    with fs.threads(2):
        assert fs.get_num_threads() == 2
        assert _threads.limit(7) == 7
        with fs.threads(np.int64(5)):
            assert fs.get_num_threads() == 5
        assert fs.get_num_threads() == 2
    assert fs.get_num_threads() == 3
    fs.set_num_threads(None)
    assert fs.get_num_threads() >= 1


@pytest.mark.parametrize("number", [2**31, 2**64, 10**30])
def test_more_threads_than_there_can_be(number, backend):
    """No limit is meant: a large call is right with it, however it is given."""
    rows = 20 if checks.is_slow(backend) else 3000
    x = inputs.rng().normal(size=(rows, 100)).astype(np.float32)
    expected = fs.softmax(x, backend=backend, num_threads=1)
    checks.assert_same_bits(fs.softmax(x, backend=backend, num_threads=number), expected)
    with fs.threads(number):
        checks.assert_same_bits(fs.softmax(x, backend=backend), expected)
    fs.set_num_threads(number)
    checks.assert_same_bits(fs.softmax(x, backend=backend), expected)
    fs.softmax(x)
    assert 1 < fs.get_num_threads() < 10_000
    assert fs.explain("softmax", (10**9, 10)).num_threads == fs.get_num_threads()


def test_threads_is_local_to_its_thread():
    fs.set_num_threads(4)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # it starts its thread here: one of the block's may inherit from it
        with fs.threads(2):
            assert pool.submit(fs.get_num_threads).result() == 4


def test_threads_started_within_a_block():
    """They have its settings where Python has threads inherit the context of who starts them."""
    fs.set_num_threads(4)
    with fs.threads(2), fs.use_backend("python"), ThreadPoolExecutor(1) as pool:
        seen = pool.submit(lambda: (fs.get_num_threads(), registry.requested()[0])).result()
    assert seen == ((2, "python") if getattr(sys.flags, "thread_inherit_context", 0) else (4, None))


GET = "import fastsoftmax as fs; print(fs.get_num_threads())"


def test_number_from_the_environment():
    assert processes.python(GET, FASTSOFTMAX_NUM_THREADS="3").strip() == "3"


def test_more_threads_in_the_environment_than_there_can_be():
    code = GET + "; import numpy as np; print(fs.softmax(np.zeros((50_000, 5)))[0, 0])"
    most, y = processes.python(code, FASTSOFTMAX_NUM_THREADS=str(10**30)).split()
    assert (1 < int(most) < 10_000, y) == (True, "0.2")


def test_empty_number_in_the_environment():
    """As if it were not set."""
    code = f"{GET}; import numpy as np; print(fs.softmax(np.zeros((50_000, 5)))[0, 0])"
    unset = processes.python(code, FASTSOFTMAX_NUM_THREADS=None)
    assert processes.python(code, FASTSOFTMAX_NUM_THREADS="") == unset


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5"])
def test_bad_number_in_the_environment(value):
    """The import works; the first use of the number names the variable."""
    code = (
        "import fastsoftmax as fs\ntry: fs.get_num_threads()\nexcept (TypeError, ValueError) as e: print(e)"
    )
    assert "FASTSOFTMAX_NUM_THREADS" in processes.python(code, FASTSOFTMAX_NUM_THREADS=value)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no CPU affinity")
def test_default_is_the_cpus_of_this_process():
    code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {GET}"
    unset = {"FASTSOFTMAX_NUM_THREADS": None, "OMP_NUM_THREADS": None}
    assert processes.python(code, **unset).strip() == "1"


QUOTAS = {"50000 100000": 1, "150000 100000": 2, "800000 100000": 4, "max 100000": 4, None: 4}


@pytest.mark.parametrize("quota", QUOTAS)
def test_quota_of_the_cgroup(quota, monkeypatch):
    """Of four CPUs, as many as the cgroup grants time for, in full or in part."""

    def open_quota(path):
        if quota is None:
            raise FileNotFoundError(path)
        return io.StringIO(quota)

    monkeypatch.setattr(_threads.os, "sched_getaffinity", lambda pid: range(4), raising=False)
    monkeypatch.setattr(_threads, "open", open_quota, raising=False)
    assert _threads._usable_cpus() == QUOTAS[quota]


def test_a_jacobian_is_counted_by_its_result():
    """So that plain calls, which count in compiled code, have as many threads as `explain` says."""
    kernel = pytest.importorskip("fastsoftmax.backends.cython", exc_type=ImportError).softmax_jacobian
    share = kernel.elements_per_thread
    assert _threads.count_for(kernel, (share // 900 * 3, 30, 1), 8) == 2
    assert _threads.count_for(kernel, (share // 900, 30, 1), 8) == 1


def test_no_thread_for_small_arrays(backend):
    code = f"""
import threading, numpy as np, fastsoftmax as fs
fs.softmax(np.zeros((100, 10)), backend={backend!r}, num_threads=4)
print([t.name for t in threading.enumerate() if t is not threading.main_thread()])
"""
    assert processes.python(code).strip() == "[]"


# ---- company -----------------------------------------------------------------------------------


def test_two_threads_that_need_one_numba_kernel_compile_it_once(monkeypatch):
    jit = pytest.importorskip("fastsoftmax.backends._numba_jit", exc_type=ImportError)
    compiled, ran = [], []

    def kernel(x, out, part, parts, stop):
        raise AssertionError("only the compiled one runs")

    def compile_it(function, signature):
        compiled.append(signature)
        return lambda *args: ran.append(args)

    monkeypatch.setattr(jit, "_compiled", compile_it)
    shared = jit.Kernel(kernel, ())
    threads = [threading.Thread(target=shared, args=(np.zeros((1, 1, 1)),) * 2) for _ in range(2)]
    with jit._compiling:  # both find no kernel, and wait
        for thread in threads:
            thread.start()
        while any(thread.is_alive() and not _waits(thread) for thread in threads):
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert (len(compiled), len(ran)) == (1, 2)


def _waits(thread):
    """Whether a thread has come to the end of what it can do without the lock."""
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_name == "_compile"


def _calls(backend):
    """Calls of several ops, each with its expected result."""
    shapes = {
        "softmax": (70, 100),
        "softmax_vjp": (300, 5),
        "logsumexp": (4, 1000),
        "softmax_jacobian": (9, 20),
    }
    calls = []
    for seed, (op, shape) in enumerate(shapes.items()):
        args = oracle.arguments(op, inputs.rng(seed).normal(size=shape).astype(np.float32))
        calls.append((op, args, checks.call(op, *args, backend=backend, num_threads=1)))
    return calls


@pytest.mark.usefixtures("every_row_a_block")
@pytest.mark.parametrize("num_threads", [1, 3])
def test_several_python_threads_at_once(num_threads, backend):
    calls = _calls(backend) * 3

    def run(call):
        op, args, expected = call
        checks.assert_same_bits(checks.call(op, *args, backend=backend, num_threads=num_threads), expected)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, calls))


COMPANY = """
import numpy as np, fastsoftmax as fs
from concurrent.futures import ThreadPoolExecutor
x = np.random.default_rng(0).normal(size=({rows}, 200)).astype(np.float32)
expected = fs.softmax(x, backend={backend!r}, num_threads=1)

def check(_):
    return np.array_equal(fs.softmax(x, backend={backend!r}, num_threads=2), expected)
"""


@pytest.mark.parametrize("layer", ["default", "workqueue", "omp"])
def test_several_python_threads_on_each_threading_layer(layer, backend):
    """A layer that is not installed is not used; one that aborts when entered twice is not entered twice."""
    code = COMPANY + "\nwith ThreadPoolExecutor(4) as pool: print(all(pool.map(check, range(12))))"
    code = code.format(backend=backend, rows=50 if checks.is_slow(backend) else 1500)
    output = processes.python(code, timeout=300, NUMBA_THREADING_LAYER=layer)
    assert output.strip() == "True"


FORK = (
    COMPANY
    + """
import os, warnings
warnings.simplefilter("ignore")  # forking a process with threads is what this is about
assert check(0)
child = os.fork()
if child == 0:
    os._exit(0 if check(0) and check(1) else 1)
print(os.waitpid(child, 0)[1], check(2))
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("layer", ["default", "workqueue", "omp"])
def test_forked_child_after_parallel_work(layer, backend):
    code = FORK.format(backend=backend, rows=50 if checks.is_slow(backend) else 1500)
    output = processes.python(code, timeout=120, NUMBA_THREADING_LAYER=layer)
    assert output.split() == ["0", "True"]


FORK_MEANWHILE = (
    COMPANY
    + """
import os, threading, warnings
warnings.simplefilter("ignore")
stop = threading.Event()

def work():
    while not stop.is_set():
        check(0)

thread = threading.Thread(target=work)
thread.start()
statuses = set()
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0 if check(0) and check(1) else 1)
    statuses.add(os.waitpid(child, 0)[1])
stop.set()
thread.join()
print(statuses)
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_forked_while_another_thread_is_at_work(backend):
    """A child inherits locks as they are, and threads not at all."""
    code = FORK_MEANWHILE.format(backend=backend, rows=10 if checks.is_slow(backend) else 1500)
    assert processes.python(code, timeout=120).strip() == "{0}"


LATE = """
import atexit, threading, time
import numpy as np
import fastsoftmax as fs

x = np.random.default_rng(0).normal(size=({rows}, 100)).astype({dtype!r})
options = {{"backend": {backend!r}, "num_threads": 3}}
expected = fs.softmax(x, backend={backend!r}, num_threads={before})

class Late:
    def __init__(self, x, expected):
        self.x, self.expected = x, expected

    def __call__(self, where):
        y = fs.softmax(self.x, out=self.x.copy(), **options)
        print(where, (y == self.expected).all(), fs.logsumexp(self.x, **options).shape == (len(x),))

    def __del__(self):
        self("del")

late = Late(x, expected)
fs.late = late  # which lives until the modules go
atexit.register(late, "atexit")

def outlive():
    threading.main_thread().join()
    late("thread")

threading.Thread(target=outlive).start()
"""

MODULES_ARE_EMPTIED = processes.WITHOUT_GIL and sys.version_info < (3, 14)
"""Before what they hold dies: there functions live for ever, and a `__del__` finds None for what it knew."""


@pytest.mark.parametrize("floats", ["float16", "float32"])
@pytest.mark.parametrize("before", [1, 3])
def test_at_the_end_of_the_interpreter(floats, before, backend):
    """It starts no more threads: a call runs on its caller's, whether or not there was a pool before."""
    rows = 1400 if checks.is_slow(backend) else 3000
    code = LATE.format(rows=rows, dtype=floats, backend=backend, before=before)
    output = sorted(processes.python(code).splitlines())
    calls = ["atexit", "thread"] if MODULES_ARE_EMPTIED else ["atexit", "del", "thread"]
    assert output == [f"{where} True True" for where in calls]


@pytest.mark.parametrize("started", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()], ids=repr)
def test_a_system_without_more_threads(started, error, monkeypatch):
    """The call runs on those that there are."""
    start_new_thread, threads = _threads.start_new_thread, []

    def start(*args):
        if len(threads) == started:
            raise error
        threads.append(start_new_thread(*args))

    monkeypatch.setattr(_threads, "start_new_thread", start)
    taken = []

    def kernel(x, out):
        taken.append(threading.get_ident())
        np.copyto(out, x)

    x, out = np.arange(12.0).reshape(4, 3, 1), checks.poisoned((4, 3, 1), np.float64)
    kernel.elements_per_thread = 1
    _threads.run(kernel, x.shape, (x, out), 4)
    np.testing.assert_array_equal(out, x)
    assert len(taken) == 4
    assert set(taken) <= {threading.get_ident(), *threads}


@pytest.mark.parametrize("there_is_a_helper", [True, False])
def test_work_that_is_watched(there_is_a_helper, monkeypatch):
    """It is done once, and what it raises arrives."""
    if not there_is_a_helper:
        monkeypatch.setattr(_threads, "start_new_thread", lambda *_: None)
    stop, ran = np.zeros(1, np.uint8), []
    _threads.run_watched(lambda: ran.append(threading.get_ident()), stop)
    assert [ident != threading.get_ident() for ident in ran] == [there_is_a_helper]
    assert not stop[0]
    with pytest.raises(ZeroDivisionError):
        _threads.run_watched(lambda: 1 // 0, stop)


CTRL_C = """
import numpy as np, os, signal, sys, threading, time
import fastsoftmax as fs
signal.signal(signal.SIGINT, signal.default_int_handler)
x = np.zeros((20, 1000), np.float32)
fs.softmax(x, backend={backend!r})
x = np.zeros(({rows}, 1000), np.float32)
fs.log_softmax(x[:200], backend={backend!r})
out = np.empty_like(x)
sent = []

def interrupt():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

late = []
for _ in range(3):
    timer = threading.Timer(0.03, interrupt)
    try:
        timer.start()
        while True:
            fs.log_softmax(x, out=out, backend={backend!r}, num_threads={num_threads})
    except KeyboardInterrupt:
        late.append(time.perf_counter() - sent[-1])
    timer.join()
y = fs.softmax(x[:100], backend={backend!r}, num_threads=2)
assert np.allclose(y.sum(axis=1), 1)
print(min(late))
"""


@pytest.mark.skipif(os.name == "nt", reason="os.kill sends no Ctrl-C on Windows")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_ctrl_c(num_threads, backend):
    """Within 0.2 s of kernel time, and the library works on. The best of three: the machine may be busy."""
    rows = 3000 if checks.is_slow(backend) else 30_000
    code = CTRL_C.format(backend=backend, num_threads=num_threads, rows=rows)
    late = float(processes.python(code, timeout=120))
    assert late < 0.2


WITHIN_A_CALL = """
import numpy as np, signal
import fastsoftmax as fs

class Interrupted(Exception): pass

def interrupt(*_): raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
x = np.zeros((200_000, 1000), np.float32)
with fs.threads({num_threads}):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        fs.softmax(x, out=x)
    except Interrupted:
        print(np.count_nonzero(x[:, 0]))
    y = fs.softmax(x[:1000])
assert np.allclose(y.sum(axis=1), 1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no timers that send signals")
@pytest.mark.parametrize(("num_threads", "most"), [(1, 2**24 // 1000), (2, 190_000)])
def test_interrupted_within_a_plain_call(num_threads, most):
    """One of 800 MB ends after 2^24 entries of the caller's thread, and the other threads with it."""
    assert int(processes.python(WITHIN_A_CALL.format(num_threads=num_threads))) <= most
