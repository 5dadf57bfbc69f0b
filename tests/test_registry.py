"""Promise: one registry that says what there is, runs what was named or raises, and explains itself."""

import json
import sys
import threading
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import __main__, _isa, registry
from fastsoftmax.backends import python as specification
from tests import checks, inputs, oracle, processes

BUILT_IN = ("cython", "numba", "numpy", "python")
X = np.array([[0.0, 1.0], [2.0, 2.0]])


class Recorder:
    """Kernels that note their calls, around the specification's."""

    def __init__(self, name, priority=0, ops=registry.OPS):
        self.calls = []
        fs.register_backend(name, {op: self._kernel(op) for op in ops}, priority=priority)

    def _kernel(self, op):
        def kernel(*args):
            self.calls.append(op)
            getattr(specification, op)(*args)

        return kernel


# ---- what there is -----------------------------------------------------------------------------


def test_built_in_names():
    assert set(BUILT_IN) <= set(fs.backend_status())


def test_status_is_available_or_a_reason():
    status = fs.backend_status()
    assert all(isinstance(reason, str) and reason for reason in status.values())
    assert fs.available_backends() == tuple(name for name, reason in status.items() if reason == "available")
    assert {"numpy", "python"} <= set(fs.available_backends())


def test_fastest_first():
    known = [name for name in fs.available_backends() if name in BUILT_IN]
    assert known == [name for name in BUILT_IN if name in known]


@pytest.mark.parametrize("op", oracle.OPS)
def test_every_backend_has_every_op(op, backend):
    args = oracle.arguments(op, X)
    assert np.isfinite(np.asarray(checks.call(op, *args, backend=backend)[-1])).all()


# ---- precedence --------------------------------------------------------------------------------


def test_precedence():
    """The call, then `use_backend`, then `set_backend`, then speed."""
    recorders = {name: Recorder(name, priority=-1) for name in ("call", "context", "default")}

    def taken(**kwargs):
        for recorder in recorders.values():
            recorder.calls.clear()
        fs.softmax(X, **kwargs)
        return [name for name, recorder in recorders.items() if recorder.calls]

    assert taken() == []
    fs.set_backend("default")
    assert taken() == ["default"]
    with fs.use_backend("context"):
        assert taken() == ["context"]
        assert taken(backend="call") == ["call"]
        with fs.use_backend("call"):
            assert taken() == ["call"]
        assert taken() == ["context"]
    assert taken() == ["default"]
    fs.set_backend(None)
    assert taken() == []


def test_precedence_of_the_environment():
    """After `set_backend`, before speed."""
    code = """
import fastsoftmax as fs
reasons = [fs.explain("softmax", (2, 3)).reason]
fs.set_backend("numpy")
reasons.append(fs.explain("softmax", (2, 3)).reason)
fs.set_backend(None)
reasons.append(fs.explain("softmax", (2, 3)).reason)
print(reasons)
"""
    variable = "the environment variable FASTSOFTMAX_BACKEND"
    output = processes.python(code, FASTSOFTMAX_BACKEND="python")
    assert output.strip() == repr([variable, "set_backend", variable])


def test_speed_chooses_the_highest_priority():
    slow, fast = Recorder("slow", priority=-5), Recorder("fast", priority=1000)
    fs.softmax(X)
    assert fast.calls == ["softmax"]
    assert slow.calls == []
    assert fs.available_backends()[0] == "fast"
    assert fs.available_backends()[-1] == "slow"


def test_a_faster_backend_is_noticed_at_once():
    """Also where the kernel was chosen before, and remembered, which the front door's is not."""
    rows = tuple(map(tuple, X))
    fs.softmax(rows)
    recorder = Recorder("mine", priority=1000)
    fs.softmax(rows)
    assert recorder.calls == ["softmax"]


def test_speed_passes_over_a_backend_without_the_op():
    recorder = Recorder("partial", priority=1000, ops=["log_softmax"])
    np.testing.assert_array_equal(fs.softmax([[0.0, 0.0]]), [[0.5, 0.5]])
    assert recorder.calls == []
    fs.log_softmax(X)
    assert recorder.calls == ["log_softmax"]


def test_use_backend_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), fs.use_backend("python"):
        raise ZeroDivisionError
    assert registry.requested() == (None, None)


def test_use_backend_is_local_to_its_thread():
    main, other = Recorder("main", priority=-1), Recorder("other", priority=-1)
    within, inside, done = threading.Event(), threading.Event(), threading.Event()
    seen = []

    def work():
        within.wait(10)
        seen.append(registry.requested()[0])
        with fs.use_backend("other"):
            inside.set()
            done.wait(10)
            fs.softmax(X)

    thread = threading.Thread(target=work)
    thread.start()
    with fs.use_backend("main"):
        within.set()
        inside.wait(10)
        fs.softmax(X)
        done.set()
        thread.join()
    assert seen == [None]
    assert (main.calls, other.calls) == (["softmax"], ["softmax"])


def test_set_backend_reaches_other_threads():
    recorder = Recorder("mine", priority=-1)
    fs.set_backend("mine")
    thread = threading.Thread(target=fs.softmax, args=(X,))
    thread.start()
    thread.join()
    assert recorder.calls == ["softmax"]


# ---- errors ------------------------------------------------------------------------------------


def _ways_to_name(name):
    def by_context():
        with fs.use_backend(name):
            fs.softmax(X)

    return [lambda: fs.softmax(X, backend=name), by_context, lambda: fs.set_backend(name)]


@pytest.mark.parametrize("name", ["nunpy", "", "NumPy", 3, b"numpy", ["numpy"], np.array("numpy")], ids=repr)
def test_unknown_name(name):
    """Lists the known ones with their status."""
    for call in _ways_to_name(name):
        with pytest.raises(ValueError, match="unknown backend") as raised:
            call()
        assert repr(name) in str(raised.value)
        for known, status in fs.backend_status().items():
            assert f"{known} ({status})" in str(raised.value)
    assert registry.requested() == (None, None)


def test_unknown_name_from_the_environment():
    code = "import fastsoftmax as fs\ntry: fs.softmax([1.0])\nexcept ValueError as e: print(e)"
    message = processes.python(code, FASTSOFTMAX_BACKEND="nunpy")
    assert "nunpy" in message
    assert "FASTSOFTMAX_BACKEND" in message
    assert "numpy (available)" in message


def test_backend_from_the_environment():
    code = "import fastsoftmax as fs; fs.softmax([1.0]); print(fs.explain('softmax', (2, 3)).backend)"
    assert processes.python(code, FASTSOFTMAX_BACKEND="python").strip() == "python"


def test_empty_environment_variable_is_none():
    code = "import fastsoftmax as fs; print(fs.softmax((1.0,)))"
    assert processes.python(code, FASTSOFTMAX_BACKEND="").strip() == "[1.]"


def _broken(monkeypatch, error=None):
    def load():
        raise error or ImportError("no such compiler")

    monkeypatch.setitem(registry._backends, "broken", registry._Backend("broken", load, 1000))


def test_unusable_backend_raises_with_the_reason(monkeypatch):
    _broken(monkeypatch)
    assert "no such compiler" in fs.backend_status()["broken"]
    assert "broken" not in fs.available_backends()
    for call in _ways_to_name("broken"):
        with pytest.raises(fs.BackendUnavailable, match=r"'broken'.*no such compiler"):
            call()


def test_no_silent_fallback(monkeypatch):
    """Neither to another backend nor to another kernel."""
    _broken(monkeypatch)
    numpy_kernel = Recorder("partial", ops=["log_softmax"])
    with pytest.raises(
        fs.BackendUnavailable, match="'partial' has no kernel for 'softmax'; it has log_softmax"
    ):
        fs.softmax(X, backend="partial")
    with fs.use_backend("partial"), pytest.raises(fs.BackendUnavailable, match="no kernel for 'logsumexp'"):
        fs.logsumexp(X)
    assert numpy_kernel.calls == []
    np.testing.assert_array_equal(fs.softmax([0.0, 0.0]), [0.5, 0.5])


@pytest.mark.parametrize(
    "error", [OSError("disk"), RuntimeError("odd setting"), AttributeError("old version")]
)
def test_whatever_an_import_raises_is_the_reason(error, monkeypatch):
    _broken(monkeypatch, error)
    assert str(error) in fs.backend_status()["broken"]
    np.testing.assert_array_equal(fs.softmax([0.0, 0.0]), [0.5, 0.5])


def test_backend_unavailable_is_a_runtime_error():
    assert issubclass(fs.BackendUnavailable, RuntimeError)


# ---- third parties -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [dict, MappingProxyType, lambda ops: SimpleNamespace(**ops)])
def test_register(kind):
    fs.register_backend("third", kind({"softmax": specification.softmax}))
    assert fs.backend_status()["third"] == "available"
    np.testing.assert_array_equal(fs.softmax([0.0, 0.0], backend="third"), [0.5, 0.5])


def test_register_replaces_what_was_registered():
    first = Recorder("third")
    fs.softmax(X, backend="third")
    second = Recorder("third")
    fs.softmax(X, backend="third")
    assert (first.calls, second.calls) == (["softmax"], ["softmax"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_names_are_taken(name):
    with pytest.raises(ValueError, match="taken by a built-in"):
        fs.register_backend(name, {"softmax": specification.softmax})


def test_register_without_ops():
    with pytest.raises(ValueError, match="none of the known ops: softmax, "):
        fs.register_backend("third", {"soft_max": specification.softmax})
    assert "third" not in fs.backend_status()


@pytest.mark.parametrize("name", [3, None, ["numpy"], np.array("mine")], ids=repr)
def test_register_under_no_name(name):
    with pytest.raises(TypeError, match="the name of a backend must be a str; got"):
        fs.register_backend(name, {"softmax": specification.softmax})


@pytest.mark.parametrize("priority", ["high", None, [1], True], ids=repr)
def test_register_with_no_priority(priority):
    """It would fail where backends are sorted, in calls of others."""
    with pytest.raises(TypeError, match="priority must be a number; got"):
        fs.register_backend("third", {"softmax": specification.softmax}, priority=priority)
    assert "third" not in fs.backend_status()


def test_kernels_see_canonical_arrays():
    """(outer, n, inner), C-contiguous, native, one dtype; never empty."""
    seen = []

    def vjp(*args):
        seen.extend(args)
        specification.softmax_vjp(*args)

    fs.register_backend("third", {"softmax_vjp": vjp})
    y = np.asfortranarray(np.full((3, 4, 5), 0.25)).astype(">f4")
    fs.softmax_vjp(y, np.ones((3, 4, 5))[::-1], 1, backend="third")
    fs.softmax_vjp(y[:0], y[:0], 1, backend="third")
    assert [(a.shape, a.dtype.str, a.flags.c_contiguous) for a in seen] == [((3, 4, 5), "<f8", True)] * 3


# ---- explain -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
def test_explain(op, dtype):
    choice = fs.explain(op, (1000, 5), dtype)
    assert choice.backend == fs.available_backends()[0]
    assert choice.num_threads >= 1
    assert choice.backend in choice.kernel
    assert choice.reason
    assert choice.kernel in str(choice)
    assert choice.reason in str(choice)


@pytest.mark.parametrize("shape", [(1000, 5), (5, 1000)])
def test_explain_names_the_kernel_of_each_backend(shape, backend, dtype):
    with fs.use_backend(backend):
        assert fs.explain("softmax", shape, dtype).kernel.startswith(f"{backend}.softmax")


def test_explain_says_what_named_the_backend():
    with fs.use_backend("python"):
        choice = fs.explain("softmax", (2, 3))
        assert (choice.backend, choice.reason) == ("python", "use_backend")
    fs.set_backend("numpy")
    assert fs.explain("softmax", (2, 3)).reason == "set_backend"


def test_explain_says_what_was_passed_over(monkeypatch):
    _broken(monkeypatch)
    assert "broken is not available (ImportError: no such compiler)" in fs.explain("softmax", (2, 3)).reason


def test_explain_says_nothing_of_slower_backends():
    Recorder("mine", priority=1000)
    assert fs.explain("softmax", (2, 3)).reason == "the fastest backend usable here"


def test_explain_counts_the_rows_that_the_kernel_gets():
    """Those of the Jacobian are moved last, and so all are rows to share among threads."""
    Recorder("mine", priority=1000)
    for axis in (0, 1, 2):
        assert fs.explain("softmax_jacobian", (2, 700, 700), axis=axis, num_threads=5).num_threads == 5
    assert fs.explain("softmax", (2, 700, 700), axis=1, num_threads=5).num_threads == 2


def test_choice_in_words():
    words = [str(registry.Choice("mine", "mine.softmax", n, "because")) for n in (1, 2)]
    assert words == ["mine.softmax on 1 thread: because", "mine.softmax on 2 threads: because"]


def test_explain_limits_threads():
    assert fs.explain("softmax", (10**5, 100), np.float32, num_threads=1).num_threads == 1
    assert fs.explain("softmax", (2, 3), np.float32, num_threads=8).num_threads == 1
    assert fs.explain("softmax", (10**5, 100), num_threads=2).num_threads <= 2


def test_explain_is_what_a_call_does():
    recorder = Recorder("mine", priority=1000)
    choice = fs.explain("softmax", X.shape, X.dtype)
    fs.softmax(X)
    assert choice.backend == "mine"
    assert recorder.calls == ["softmax"]


@pytest.mark.parametrize("op", ["soft_max", "", None, 3, ["softmax"], np.array("softmax")], ids=repr)
def test_explain_unknown_op(op):
    with pytest.raises(ValueError, match=r"unknown op .*; the ops are softmax, ") as raised:
        fs.explain(op, (2, 3))
    assert repr(op) in str(raised.value)


def test_explain_checks_the_axis():
    with pytest.raises(np.exceptions.AxisError):
        fs.explain("softmax", (2, 3), axis=2)


# ---- imports -----------------------------------------------------------------------------------

HEAVY = ("numba", "llvmlite", "scipy", "torch", "cupy", "jax", "autograd", "ml_dtypes")


def test_import_loads_nothing_heavy_and_starts_no_thread():
    code = f"""
import json, sys, threading
import fastsoftmax as fs
fs.explain
print(json.dumps([[m for m in {HEAVY} if sys.modules.get(m)], threading.active_count()]))
"""
    assert json.loads(processes.python(code)) == [[], 1]


def test_import_takes_little_longer_than_numpys(tmp_path):
    """< 1.3 times `import numpy`, the best of five processes, with the byte code that an installation has."""
    environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    code = """
import time
t0 = time.perf_counter(); import numpy
t1 = time.perf_counter(); import fastsoftmax
t2 = time.perf_counter(); print((t2 - t0) / (t1 - t0))
"""
    assert min(float(processes.python(code, **environment)) for _ in range(5)) < 1.3


STATUS = "\nimport fastsoftmax as fs, json; fs.softmax([[0.0, 1.0]]); print(json.dumps(fs.backend_status()))"


def test_without_the_compiled_extension():
    status = json.loads(processes.python(processes.HIDE_EXTENSIONS + STATUS))
    assert status["cython"] != "available"
    assert "Error" in status["cython"]
    assert (status["numpy"], status["python"]) == ("available", "available")


@pytest.mark.parametrize("names", [["numba"], ["llvmlite"], ["numba", "llvmlite", "scipy"]])
def test_without_numba(names):
    status = json.loads(processes.python(processes.HIDE.format(names=names) + STATUS))
    assert status["numba"] != "available"
    assert "Error" in status["numba"]
    assert (status["numpy"], status["python"]) == ("available", "available")


def test_without_either_nothing_but_numpy_is_needed():
    code = processes.HIDE.format(names=["numba", "scipy"]) + processes.HIDE_EXTENSIONS
    code += "\nimport fastsoftmax as fs; print(fs.available_backends())"
    assert processes.python(code).strip() == "('numpy', 'python')"


def test_every_level_of_the_compiled_kernels():
    """FASTSOFTMAX_MAX_CPU_ISA caps them; each level gives an answer within the bounds."""
    code = """
import fastsoftmax as fs
from tests import checks, inputs, oracle
for n in (5, 33):
    for dtype in ("float64", "float32"):
        for op in oracle.FORWARD:
            checks.check_ulps(op, inputs.width(n, dtype, rows=2), fs.available_backends()[0])
print("ok")
"""
    for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        assert processes.python(code, FASTSOFTMAX_MAX_CPU_ISA=level).strip() == "ok"


def test_report_of_the_command_line():
    """``python -m fastsoftmax``: versions, the CPU level, backends, threads and a table of speeds."""
    result = processes.start(["-m", "fastsoftmax"], timeout=120)
    assert result.returncode == 0, result.stderr
    for word in (fs.__version__, np.__version__, sys.version.split()[0], "thread", *fs.backend_status()):
        assert word in result.stdout


def test_report_of_what_is_missing(monkeypatch):
    assert (
        __main__._versions("numpy", "no-such-package")
        == f"numpy {np.__version__}, no-such-package not installed"
    )
    code = processes.HIDE_EXTENSIONS + "from fastsoftmax.__main__ import cpu_level; print(cpu_level())"
    assert processes.python(code).strip() == "no compiled kernels"


def test_levels_of_other_processors(monkeypatch):
    """Outside of x86-64 there is one build; a level nobody knows is refused with those that are known."""
    monkeypatch.setattr(_isa.platform, "machine", lambda: "aarch64")
    assert _isa.levels() == ["baseline"]
    monkeypatch.setenv(_isa.ENVIRONMENT, "avx2")
    with pytest.raises(ValueError, match=r"FASTSOFTMAX_MAX_CPU_ISA='avx2' is unknown; known: x86-64-v2, "):
        _isa.levels()


def test_inputs_of_the_suite_are_distinct():
    """The families are not one family under many names."""
    seen = {make(np.float64).tobytes() for make in inputs.FAMILIES.values()}
    assert len(seen) == len(inputs.FAMILIES)
