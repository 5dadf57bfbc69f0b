"""The backend from its file to the driver: NumPy arrays there and back, and its place in the registry."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import registry
from fastsoftmax._cuda import availability
from tests import checks, inputs, oracle

OPS = [op for op in oracle.OPS if op not in oracle.NOT_ON_CUDA]


@pytest.fixture
def backend(installed):
    """The name of the interpreted backend, registered for one test."""
    fs.register_backend("cuda in lockstep", import_module("fastsoftmax.backends.cuda"), priority=-1)
    return "cuda in lockstep"


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", [(3, 5), (2, 12), (4, 33)])
def test_against_autograd(op, shape, backend):
    x = inputs.rng(0).normal(size=shape) * 3
    extra = oracle.extra_inputs(op, x)
    actual = checks.call(op, *oracle.arguments(op, x, extra=extra), backend=backend)
    for a, b in zip(actual, oracle.autograd_answer(op, x, extra=extra), strict=True):
        checks.assert_close(a, b, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_jacobian_of_dominant_rows(dtype, backend):
    checks.check_jacobian_ulps(inputs.saturated(dtype), backend)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_diagonal_of_dominant_rows(dtype, backend):
    checks.check_diagonal_ulps(inputs.saturated(dtype), backend)


@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
def test_axes(axis, backend):
    x = inputs.rng(1).normal(size=(3, 4, 5))
    checks.assert_close(
        fs.softmax(x, axis, backend=backend), oracle.longdouble_forward("softmax", x, axis), np.float64
    )


def test_memory_goes_back(backend, installed):
    fs.cross_entropy_with_grad(np.zeros((3, 4)), [0, 1, 2], backend=backend)
    assert not installed.memory
    assert installed.synchronized == 1


def test_blocks_of_columns(backend, monkeypatch):
    """Cut along ``inner``, a block's result is no contiguous piece of memory to copy into."""
    monkeypatch.setattr(registry.find("softmax", backend), "block_elements", 10)
    x = inputs.rng(2).normal(size=(5, 7))
    y = fs.softmax(x, 0, backend=backend)
    checks.assert_close(y, oracle.longdouble_forward("softmax", x, 0), np.float64)


def test_explain_names_the_regime(backend):
    kernel = registry.find("softmax", backend)
    assert kernel.regime(np.dtype(np.float32), (10, 1000, 1)) == "warp"


def test_same_names_and_order_as_the_other_backends(backend):
    module = import_module("fastsoftmax.backends.cuda")
    expected = [op for op in registry.OPS if op not in oracle.NOT_ON_CUDA]
    assert [name for name in vars(module) if name in registry.OPS] == expected


def test_what_it_does_not_have(backend):
    with pytest.raises(
        fs.BackendUnavailable, match="has no kernel for 'soft_cross_entropy'; it has softmax,"
    ):
        fs.cross_entropy([[0.5, 0.5]], [[1.0, 0.0]], backend=backend)


def test_weights_of_rows(backend):
    x, of_rows = inputs.width(7, np.float32, rows=9), np.arange(9.0)
    x[0] = np.nan
    args = x, x[:, ::-1].argmax(axis=1)
    expected = fs.cross_entropy_with_grad(*args, sample_weight=of_rows, backend="python")
    actual = fs.cross_entropy_with_grad(*args, sample_weight=of_rows, backend=backend)
    for a, b in zip(actual, expected, strict=True):
        checks.assert_close(a, b, x.dtype)


def test_unavailable_is_a_reason(monkeypatch):
    monkeypatch.setattr(availability, "reason_unavailable", lambda: "no such thing")
    monkeypatch.delitem(sys.modules, "fastsoftmax.backends.cuda", raising=False)
    with pytest.raises(ImportError, match=r"^no such thing$"):
        import_module("fastsoftmax.backends.cuda")


def test_reason_names_the_missing_package(monkeypatch):
    monkeypatch.setattr(availability, "_installed", lambda package: None)
    assert "numba-cuda is not installed: pip install 'fastsoftmax[cuda]'" in availability.reason_unavailable()


def test_reason_names_a_package_that_is_too_old(monkeypatch):
    """cuda-core before 0.6 has no Kernel.handle."""
    monkeypatch.setattr(availability, "_installed", {"numba-cuda": "0.30.4", "cuda-core": "0.5.1"}.get)
    assert availability.reason_unavailable().startswith("cuda-core 0.5.1 is older than 0.6: pip install")


def test_the_extras_ask_for_no_older_packages():
    extras = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    for package, needed in availability.NEEDED.items():
        asked = re.findall(rf'"{package}(?:\[cu1\d\])?>=([\d.]+)"', extras)
        assert len(asked) == 2
        assert all(tuple(map(int, version.split("."))) >= needed for version in asked)


class Library:
    """The driver's libraries; to initialise CUDA would deny it to forked children."""

    def __init__(self, *capabilities, error=0):
        self.capabilities, self.error = capabilities, error

    def cuInit(self, flags):
        pytest.fail("CUDA was initialised")

    def nvmlInit_v2(self):
        return self.error

    def nvmlShutdown(self):
        return 0

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.capabilities)

    def nvmlDeviceGetHandleByIndex_v2(self, i, device):
        device._obj.value = i + 1

    def nvmlDeviceGetCudaComputeCapability(self, device, major, minor):
        major._obj.value, minor._obj.value = self.capabilities[device.value - 1]


@pytest.mark.parametrize(
    ("cuda", "nvml", "words"),
    [
        (None, Library((9, 0)), "no NVIDIA driver on this machine"),
        (Library(), Library(error=9), "NVML error 9"),
        (Library(), Library(), "no device"),
        (Library(), Library((7, 5)), "compute capability 8.0 is needed, the device has 7.5"),
        (Library(), Library((7, 5), (8, 6)), None),
        (Library(), None, None),
    ],
)
def test_reason_of_the_driver(cuda, nvml, words, monkeypatch):
    def load(name):
        library = nvml if "ml" in name else cuda
        if library is None:
            raise OSError
        return library

    monkeypatch.setattr(availability, "_installed", lambda package: "99.0")
    monkeypatch.setattr(availability.ctypes, "CDLL", load)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    reason = availability.reason_unavailable()
    assert reason is None if words is None else words in reason


@pytest.mark.parametrize("devices", ["", "-1"])
def test_reason_of_hidden_devices(devices, monkeypatch):
    monkeypatch.setattr(availability, "_installed", lambda package: "99.0")
    monkeypatch.setattr(availability.ctypes, "CDLL", lambda name: Library((9, 0)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    assert availability.reason_unavailable() == "CUDA_VISIBLE_DEVICES hides every device"


def test_status_imports_no_cuda_package():
    program = (
        "import sys, fastsoftmax as fs; fs.backend_status(); fs.available_backends();"
        "print([m for m in sys.modules if m.split('.')[0] in ('cuda', 'numba_cuda', 'cupy', 'torch')])"
    )
    if availability.reason_unavailable() is None:
        pytest.skip("a GPU is here: the status loads the backend")
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[]"
