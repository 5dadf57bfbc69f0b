"""Promise: calls and settings of several threads at once do what they do alone, with the GIL or without."""

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _front, accumulator, registry
from tests import processes
from tests.test_registry import Recorder

X = np.array([[0.0, 1.0], [2.0, 2.0]])


def test_the_import_leaves_the_gil_off():
    """It would be turned on, with a warning, for an extension that does not say that it does without."""
    if not processes.WITHOUT_GIL:
        pytest.skip("this Python is not free-threaded")
    code = "import fastsoftmax as fs, sys; fs.softmax([0.0]); print(sys._is_gil_enabled())"
    assert processes.python(code, PYTHON_GIL=None).strip() == "False"


# ---- everything at once ------------------------------------------------------------------------

FIRST = """
import sys, threading
import numpy as np, fastsoftmax as fs
from fastsoftmax.backends import python as specification

sys.setswitchinterval(1e-6)
x = np.random.default_rng(0).normal(size=(30, 7))
large = np.random.default_rng(0).normal(size=(3000, 100)).astype(np.float32)
calls = [
    lambda: fs.softmax(x),
    lambda: fs.softmax(x.tolist()),
    lambda: fs.softmax(x.astype(np.float16)),
    lambda: fs.softmax(large, num_threads=2),
    lambda: fs.softmax(x, backend="numpy"),
    lambda: fs.logsumexp(x, axis=0, backend="python"),
    lambda: fs.cross_entropy(x, np.arange(30) % 7),
    lambda: fs.softmax_jacobian(x, layout="dense"),
    lambda: fs.LogSumExp().update(x).value,
    lambda: fs.register_backend("mine", specification, priority=-1),
    lambda: str(fs.explain("softmax", (5, 3))),
    fs.get_num_threads,
    fs.available_backends,
]
results = [None] * 2 * len(calls)
barrier = threading.Barrier(len(results))

def first(k):
    barrier.wait()
    results[k] = calls[k % len(calls)]()

threads = [threading.Thread(target=first, args=(k,)) for k in range(len(results))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
names = [tuple(name for name in found if name != "mine") for found in results[len(calls) - 1 :: len(calls)]]
for k, call in enumerate(calls[:-1]):
    assert all(np.array_equal(result, call()) for result in results[k :: len(calls)]), k
assert names == [tuple(name for name in fs.available_backends() if name != "mine")] * 2, names
"""


@pytest.mark.parametrize("attempt", range(3))
def test_first_calls_at_once(attempt):
    """What is filled when it is first needed, of a new process, is filled by several threads."""
    processes.python(FIRST)


TOGETHER = """
import itertools, sys, threading, time
import numpy as np, fastsoftmax as fs
from fastsoftmax.backends import numpy as vectors

sys.setswitchinterval(1e-5)
names = [name for name in ("cython", "numpy") if name in fs.available_backends()]
rng = np.random.default_rng(0)
x, large = rng.normal(size=(50, 7)), rng.normal(size=(3000, 100)).astype(np.float32)
half, mask, labels = x.astype(np.float16), x > -1, np.arange(50) % 7
for shared in (x, large, half, mask, labels):
    shared.flags.writeable = False
rows, changing = x[:3].tolist(), [0.0] * 10
calls = [
    lambda **named: fs.softmax(x, **named),
    lambda **named: fs.softmax(large, num_threads=2, **named),
    lambda **named: fs.softmax(large.T, axis=0, **named),
    lambda **named: fs.log_softmax(half, **named),
    lambda **named: fs.logsumexp(x, where=mask, **named),
    lambda **named: fs.softmax(rows, **named),
    lambda **named: fs.softmax_vjp(x, x, **named),
    lambda **named: fs.cross_entropy_with_grad(x, labels, label_smoothing=0.1, **named)[1],
]
legal = [{call(backend=name).tobytes() for name in names} for call in calls]
plain, errors, stopped = fs.softmax(x, backend="python").tobytes(), [], threading.Event()

def call():
    for run, results in zip(calls, legal):
        assert run().tobytes() in results

def call_within_a_block():
    with fs.use_backend("python"), fs.threads(2):
        assert fs.softmax(x).tobytes() == plain and fs.get_num_threads() == 2

def call_with_a_list_that_changes():
    try:
        fs.softmax(changing)
    except RuntimeError:  # NumPy's, who saw it change
        pass

def change_the_list():
    changing.append(float(len(changing)))
    changing[:5] = [1000.5 + k for k in range(5)]
    del changing[10:]

def set_backend():
    for name in (None, *names):
        fs.set_backend(name)

def set_num_threads():
    for n in (1, 3, None):
        fs.set_num_threads(n)

def register():
    for priority in (1000, -1):
        fs.register_backend("mine", vectors, priority=priority)
        assert "mine" in fs.available_backends() and fs.explain("softmax", (5, 3)).reason

def repeat(work):
    try:
        while not stopped.is_set():
            work()
    except BaseException as error:
        errors.append(error)
        raise

works = [call, call, call_within_a_block, call_with_a_list_that_changes, change_the_list]
works += [set_backend, set_num_threads, register]
threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
for thread in threads:
    thread.start()
time.sleep(2)
stopped.set()
for thread in threads:
    thread.join()
assert not errors, errors
fs.set_backend(None)
fs.register_backend("mine", vectors, priority=-1)
assert fs.softmax(x).tobytes() == fs.softmax(x, backend=names[0]).tobytes()
"""


def test_calls_while_settings_change():
    """Each has the bits of one backend that was set; no setting is lost."""
    processes.python(TOGETHER)


# ---- one after the other, where it is close ----------------------------------------------------


def test_backends_set_at_once(monkeypatch):
    """One thread sets its own between another's look at what holds and its word to the front door."""
    recorder, set_open = Recorder("mine", priority=-1), _front.set_open

    def set_open_late(is_open):
        monkeypatch.setattr(_front, "set_open", set_open)
        fs.set_backend("mine")
        set_open(is_open)

    monkeypatch.setattr(_front, "set_open", set_open_late)
    fs.set_backend(None)
    fs.softmax(X)
    assert recorder.calls == ["softmax"]


@pytest.mark.parametrize("backend", ["mine", None])
def test_registered_while_another_thread_looks_up(backend, monkeypatch):
    """What that thread found may serve its own call, and no later one."""
    rows = tuple(map(tuple, X))  # which go the long way
    first, second = Recorder("mine", priority=1000), []

    def replaced_meanwhile(look):
        def found(*args):
            result = look(*args)
            monkeypatch.undo()
            second.append(Recorder("mine", priority=1000))
            return result

        return found

    for name in ("_by_priority", "_usable"):
        monkeypatch.setattr(registry, name, replaced_meanwhile(getattr(registry, name)))
    fs.softmax(rows, backend=backend)
    fs.softmax(rows, backend=backend)
    assert (first.calls, second[0].calls) == (["softmax"], ["softmax"])


def test_an_accumulator_read_while_it_is_updated(monkeypatch):
    """Its value is that of before: never a maximum of one state with a sum of another."""
    read = fs.LogSumExp().update([0.0, 0.0])

    def mode_late():
        monkeypatch.undo()
        read.update([1000.0])
        return accumulator.floating_point_mode()

    monkeypatch.setattr(accumulator, "floating_point_mode", mode_late)
    assert read.value == fs.LogSumExp().update([0.0, 0.0]).value
    assert read.value == 1000
