"""Promise: calls from the workers of other libraries are right, and as many threads as was said."""

import os

import pytest

import fastsoftmax as fs
from fastsoftmax import _threads
from tests import processes

pytestmark = [
    pytest.mark.skipif(
        not os.path.isdir("/proc/self/task"), reason="counts the threads of a process in /proc"
    ),
    pytest.mark.skipif(
        fs.available_backends()[0] != "cython", reason="counts the helpers of compiled kernels"
    ),
]


def run(code, **environment):
    """What a program prints that ends with ``results``; warnings of other libraries are theirs."""
    code = f"""
import warnings
warnings.simplefilter("ignore")
import os
from tests.workers import work

if __name__ == "__main__":
{code}
    print(*(sorted(set(column)) for column in zip(*results)))
"""
    given = {"FASTSOFTMAX_NUM_THREADS": None, "OMP_NUM_THREADS": None} | environment
    return processes.python(code, **given).strip()


# ---- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["1", "3", "3,2", " 2 "])
def test_openmps_variable(given):
    n = int(given.split(",")[0])
    assert run("    results = [work(), work()]", OMP_NUM_THREADS=given) == f"[True] [{n}] [{n - 1}]"


@pytest.mark.parametrize("given", ["", "0", "-1", "many", ",2"])
def test_what_openmp_ignores(given):
    n = _threads._usable_cpus()
    assert run("    results = [work()]", OMP_NUM_THREADS=given) == f"[True] [{n}] [{n - 1}]"


def test_our_own_variable_comes_first():
    given = {"OMP_NUM_THREADS": "1", "FASTSOFTMAX_NUM_THREADS": "3"}
    assert run("    results = [work()]", **given) == "[True] [3] [2]"


def test_a_number_in_the_call_comes_first():
    """Of a worker that dask started for one thread, for example (mreineck/ducc issue 42)."""
    code = "import fastsoftmax as fs; print(fs.explain('softmax', (10**9, 10), num_threads=3).num_threads)"
    assert processes.python(code, OMP_NUM_THREADS="1", FASTSOFTMAX_NUM_THREADS=None).strip() == "3"


THREADPOOLCTL = """
    {first}
    {second}
    results = []
    with threadpoolctl.threadpool_limits({limit}):
        results.append(work())
    before = fs.get_num_threads()
    fs.set_num_threads(5)
    print(before == default, fs.get_num_threads())
"""


@pytest.mark.parametrize("limit", ["1", "{'fastsoftmax': 1}"])
@pytest.mark.parametrize("order", [1, -1])
def test_threadpoolctl(limit, order):
    """Whichever is imported first; afterwards the settings hold that held before."""
    pytest.importorskip("threadpoolctl")
    first, second = ["import threadpoolctl", "import fastsoftmax as fs; default = fs.get_num_threads()"][
        ::order
    ]
    code = THREADPOOLCTL.format(first=first, second=second, limit=limit)
    assert run(code).splitlines() == ["True 5", "[True] [1] [0]"]


def test_threadpoolctl_limits_one_thread():
    """As it is with OpenMP: each worker says so itself."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    from concurrent.futures import ThreadPoolExecutor

    fs.set_num_threads(4)
    with ThreadPoolExecutor(1, initializer=threadpoolctl.threadpool_limits, initargs=(1,)) as pool:
        assert pool.submit(fs.get_num_threads).result() == 1
    assert fs.get_num_threads() == 4
    (info,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "fastsoftmax"]
    assert (info["num_threads"], info["version"]) == (4, fs.__version__)


# ---- workers -----------------------------------------------------------------------------------

PROCESSES = {
    "concurrent.futures": """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r})) as pool:
        results = list(pool.map(work, range(6)))
""",
    "multiprocessing": """
    import multiprocessing
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        results = pool.map(work, range(6))
""",
}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("pool", PROCESSES)
def test_processes(pool, method):
    """After parallel work in the parent, whose threads and locks a forked child does not have."""
    code = "    before = [work()]" + PROCESSES[pool].format(method=method) + "    results += before"
    assert run(code, FASTSOFTMAX_NUM_THREADS="3") == "[True] [3] [2]"


JOBLIB = """
    from joblib import Parallel, delayed
    results = Parallel(2, backend="loky")(delayed(work)() for _ in range(6))
"""

INNER = """
    from joblib import Parallel, delayed, parallel_config
    with parallel_config("loky", inner_max_num_threads=3):
        results = Parallel(2)(delayed(work)() for _ in range(6))
"""

DASK = """
    from dask.distributed import Client, LocalCluster
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        results = client.gather(client.map(work, range(6)))
"""

LOADER = """
    import torch
    from tests.workers import Data
    results = list(torch.utils.data.DataLoader(Data(), batch_size=None, num_workers=2))
"""


def test_joblib():
    """Each worker has its share of the machine; or as many as the user says."""
    cpus = pytest.importorskip("joblib").cpu_count()
    share = max(1, cpus // 2)
    assert run(JOBLIB) == f"[True] [{share}] [{share - 1}]"
    assert run(INNER) == "[True] [3] [2]"


def test_dask_workers():
    pytest.importorskip("dask.distributed")
    assert run(DASK) == "[True] [1] [0]"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_torchs_data_loader(method):
    """It limits PyTorch's threads and no others', so the number has to be said."""
    pytest.importorskip("torch")
    code = LOADER.replace("num_workers=2", f"num_workers=2, multiprocessing_context={method!r}")
    assert run(code, FASTSOFTMAX_NUM_THREADS="1") == "[True] [1] [0]"


# ---- threads -----------------------------------------------------------------------------------

THREADS = {
    "concurrent.futures": """
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(40)))
""",
    "joblib": """
    from joblib import Parallel, delayed
    results = Parallel(4, backend="threading")(delayed(work)() for _ in range(40))
""",
    "dask": """
    import dask
    results = dask.compute(*[dask.delayed(work)(i) for i in range(40)], scheduler="threads", num_workers=4)
""",
    "torch": """
    import torch
    import fastsoftmax as fs
    class Softmax(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            results.append(work())
            return torch.from_numpy(fs.softmax(x.detach().numpy()))
        @staticmethod
        def backward(ctx, g):
            results.append(work())
            return g
    results = []
    for _ in range(20):
        x = torch.zeros(3000, 200, requires_grad=True)
        Softmax.apply(x * 2).sum().backward()
""",
}


@pytest.mark.parametrize("threads", THREADS)
def test_threads(threads):
    """One call at a time has the helpers, others meanwhile run on their callers': no more than were said."""
    pytest.importorskip(threads)
    assert run(THREADS[threads], FASTSOFTMAX_NUM_THREADS="3") == "[True] [3] [2]"


PARALLEL_REGION = """
    import numba, numpy as np
    import fastsoftmax as fs
    from tests.workers import X
    expected = fs.softmax(X[:1100], backend={backend!r}, num_threads=1)
    numba.set_num_threads(2)

    @numba.njit(parallel=True)
    def user(x, out):
        for i in numba.prange(len(out)):
            with numba.objmode:
                fs.softmax(x, out=out[i], backend={backend!r}, num_threads=2)

    out = np.zeros((20, *expected.shape), np.float32)
    user(X[:1100], out)
    with fs.threads(2):
        results = [work()]
    print((out == expected).all())
"""


@pytest.mark.parametrize("layer", ["default", "omp", "tbb", "workqueue"])
@pytest.mark.parametrize("name", ["cython", "numba", "numpy"])
def test_within_a_parallel_region_of_numbas(name, layer):
    """Numba's workqueue may not be entered again from there, nor from another thread."""
    pytest.importorskip("numba")
    variables = processes.threading_layer(layer) | {"NUMBA_NUM_THREADS": "2"}
    is_right, *seen = run(PARALLEL_REGION.format(backend=name), **variables).splitlines()
    assert (is_right, seen) == ("True", ["[True] [2] [1]"])
