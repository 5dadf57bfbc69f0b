"""Promise: for minutes, from eight threads, forked at any moment, a million times (`make test-all`)."""

import os

import pytest

from tests import processes

pytestmark = pytest.mark.slow

# Calls of every op on backends, large and small, along rows and columns, with what each returned alone.
CALLS = """
import random, threading, time
import numpy as np
import fastsoftmax as fs
from tests import checks, inputs, oracle

SHAPES = [((70, 100), -1), ((300, 5), -1), ((5, 40, 7), 1), ((40, 60), 0), ((400, 333), -1)]

def calls(backends):
    made = []
    for backend in backends:
        for op in oracle.OPS:
            for shape, axis in SHAPES:
                for dtype in (np.float16, np.float32, np.float64):
                    if op in oracle.JACOBIANS or checks.is_slow(backend):
                        shape = tuple(min(n, 20) for n in shape)
                    args = oracle.arguments(op, inputs.rng().normal(size=shape).astype(dtype), axis)
                    made.append(Call(op, args, axis, backend))
    return made

class Call:
    def __init__(self, op, args, axis, backend):
        self.op, self.args, self.axis, self.backend = op, args, axis, backend
        self.expected = [a.tobytes() for a in self._results(1)]

    def _results(self, threads):
        results = getattr(fs, self.op)(*self.args, self.axis, backend=self.backend, num_threads=threads)
        return [np.asarray(a) for a in checks.as_tuple(results)]

    def is_same(self, threads):
        return [a.tobytes() for a in self._results(threads)] == self.expected
"""


# ---- threads -----------------------------------------------------------------------------------

EIGHT_THREADS = (
    CALLS
    + """
made = calls(name for name in fs.available_backends() if name != "cuda")
end, wrong, count = time.monotonic() + {seconds}, [], []

def work(seed):
    chosen = random.Random(seed)
    done = 0
    while time.monotonic() < end:
        call = chosen.choice(made)
        try:
            if not call.is_same(chosen.choice([1, 2, 3])):
                wrong.append((call.op, call.backend, call.axis))
        except BaseException as error:
            wrong.append((call.op, call.backend, repr(error)))
        done += 1
    count.append(done)

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sum(count), wrong[:5])
"""
)


@pytest.mark.parametrize("layer", ["default", "omp", "tbb", "workqueue"])
def test_eight_threads_for_a_minute(layer):
    """Mixed ops, dtypes, axes and backends, with helpers of their own: the bits are those of calls alone."""
    code = EIGHT_THREADS.format(seconds=60)
    count, wrong = processes.python(code, timeout=400, **processes.threading_layer(layer)).split(maxsplit=1)
    assert (wrong.strip(), int(count) > 1000) == ("[]", True)


# ---- forks -------------------------------------------------------------------------------------

FORKS = (
    CALLS
    + """
import os, signal, warnings
warnings.simplefilter("ignore")
made = calls([{backend!r}])
chosen = random.Random(0)
children, failed = [], []

def fork(*_):
    pid = os.fork()
    if pid == 0:
        children.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
    children.append(pid)

def check(call):
    try:
        return call.is_same(3)
    except RuntimeError as error:  # a child that was forked within a call of helpers
        return "incomplete" in str(error) and children == [0]

beside = threading.Event()
def work():
    mine = random.Random(1)
    while not beside.is_set():
        if not mine.choice(made).is_same(3):
            failed.append("beside")

thread = threading.Thread(target=work)
thread.start()
signal.signal(signal.SIGALRM, fork)
forks = 0
while forks < {forks}:
    call = chosen.choice(made)
    signal.setitimer(signal.ITIMER_REAL, chosen.uniform(1e-5, 3e-3))
    right = check(call)
    signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        while children:  # a signal may come as late as here
            pid = children.pop()
            if pid == 0:
                raise ChildProcessError
            _, status = os.waitpid(pid, 0)
            forks += 1
            if status:
                failed.append(("child", status))
    except ChildProcessError:  # this is one
        os._exit(2 if not right else not all(chosen.choice(made).is_same(3) for _ in range(3)))
    if not right:
        failed.append((call.op, call.axis))
beside.set()
thread.join()
print(forks >= {forks}, failed[:5])
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_forks_at_any_moment(backend):
    """Of a call, beside a thread at work: parent and child have right results, or the child says why not."""
    code = FORKS.format(backend=backend, forks=500)
    assert processes.python(code, timeout=600).strip() == "True []"


# ---- leaks -------------------------------------------------------------------------------------

LEAKS = """
import gc, sys
import numpy as np
import fastsoftmax as fs

x, labels = np.zeros((4, 5), np.float32), np.zeros(4, int)
out = np.empty_like(x)
half = x.astype(np.float16)
y = fs.softmax(x)
wrong = [
    lambda: fs.softmax("x"),
    lambda: fs.softmax(x, axis=7),
    lambda: fs.softmax(x, out=out[:2]),
    lambda: fs.softmax(x, backend="none"),
    lambda: fs.cross_entropy(x, labels + 9),
    lambda: fs.softmax_vjp(y, labels),
    lambda: fs.logsumexp(x, num_threads=0),
    lambda: fs.log_softmax(object()),
    lambda: fs.cross_entropy_with_grad(x, labels, reduction="max"),
    lambda: fs.softmax_jacobian(y, layout="none"),
]
right = [
    lambda: fs.softmax(x),
    lambda: fs.softmax(x, out=out, axis=0),
    lambda: fs.softmax([[1.0, 2.0]]),
    lambda: fs.cross_entropy(x, labels),
    lambda: fs.softmax_vjp(y, y),
    lambda: fs.logsumexp(x, backend="numpy"),
    lambda: fs.log_softmax(half),
    lambda: fs.cross_entropy_with_grad(x, labels, reduction="sum", weight=x[0] + 1),
    lambda: fs.softmax_jacobian(y, layout="sparse"),
    lambda: fs.softmax(x[:, ::2], backend="numba", num_threads=2),
]
if fs.backend_status()["numba"] != "available":
    right[-1] = right[0]

def times(n):
    for _ in range(n // 20):
        for call in right:
            call()
        for call in wrong:
            try:
                call()
            except (TypeError, ValueError, IndexError):
                continue
            raise AssertionError(call)

def size():
    gc.collect()
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096, sys.getallocatedblocks()

times(200_000)
bytes_before, blocks_before = size()
times(1_000_000)
bytes_after, blocks_after = size()
print(bytes_after - bytes_before, blocks_after - blocks_before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of a process from /proc")
def test_a_million_calls_leave_nothing():
    """Of which half fail. Of each kind are 50,000: one object lost in a hundred of them would show."""
    grown, blocks = map(int, processes.python(LEAKS, timeout=900).split())
    assert grown < 1_000_000
    assert blocks < 500
