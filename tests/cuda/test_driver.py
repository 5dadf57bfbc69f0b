"""The driver's own part, on a pretended cuda.core: what is asked of it, how often, and what errors say."""

import gc
import sys
import threading
import weakref
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from fastsoftmax._cuda.recipes import Launch

LEGACY = 1  # CUDA's handle of the default stream


class Cuda:
    """Devices, streams and calls: ``calls`` records them in order, ``status`` is what they return."""

    def __init__(self):
        self.calls, self.loaded, self.launched, self.streams = [], [], [], []
        self.device_id, self.context = 0, 0
        self.status = SimpleNamespace(name="CUDA_SUCCESS")
        self.success = self.status

    def returning(self, name, *values):
        def call(*args):
            self.calls.append((name, *args))
            return (self.status, *values)

        return call

    def bindings(self):
        module = ModuleType("cuda.bindings.driver")
        module.CUresult = SimpleNamespace(CUDA_SUCCESS=self.success)
        module.CUdevice_attribute = SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN="most"
        )
        module.CUfunction_attribute = SimpleNamespace(
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic"
        )
        module.cuCtxGetCurrent = lambda: (self.status, self.context)
        module.cuMemAllocAsync = self.returning("allocate", 4096)
        module.cuDeviceGetAttribute = self.returning("attribute", 99 * 1024)
        for name in (
            "cuKernelSetAttribute",
            "cuMemFreeAsync",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamSynchronize",
        ):
            setattr(module, name, self.returning(name))
        return module

    def core(self):
        module = ModuleType("cuda.core")
        module.Device = lambda device_id=None: SimpleNamespace(
            device_id=self.device_id if device_id is None else device_id,
            compute_capability=(9, 0),
            set_current=self.set_current,
        )
        module.LaunchConfig = lambda **config: config
        module.Stream = SimpleNamespace(from_handle=self.stream)
        module.launch = lambda *args: self.launched.append(args)
        return module

    def stream(self, handle):
        self.streams.append((self.device_id, handle))
        return _Stream(handle)

    def set_current(self):
        self.calls.append(("set_current",))
        self.context = 1

    def load(self, spec, capability):
        self.loaded.append((self.device_id, spec, capability))
        return SimpleNamespace(handle=f"{spec} on {self.device_id}")


class _Stream(str):
    """A stream, equal to its name."""

    def __new__(cls, handle):
        return super().__new__(cls, f"stream {handle}")


@pytest.fixture
def cuda():
    return Cuda()


@pytest.fixture
def driver(cuda, monkeypatch):
    """A `Driver` on it."""
    bindings, core = cuda.bindings(), cuda.core()
    compiler = ModuleType("fastsoftmax._cuda.compiler")
    compiler.load = cuda.load
    package = ModuleType("cuda.bindings")
    package.driver = bindings
    modules = {
        "cuda": ModuleType("cuda"),
        "cuda.core": core,
        "cuda.bindings": package,
        "cuda.bindings.driver": bindings,
        "fastsoftmax._cuda.compiler": compiler,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("fastsoftmax._cuda.driver", None)
    yield import_module("fastsoftmax._cuda.driver").get_driver()
    del sys.modules["fastsoftmax._cuda.driver"]


def step(spec, grid=3, shared=0):
    return Launch(spec, grid, (32, 4), shared, ())


def test_launches_on_the_stream_that_is_named(driver, cuda):
    softmax = step("softmax")
    driver.launch(softmax, (1, 2.0), 77)
    driver.launch(softmax, (3, 4.0), 0)
    config = {"grid": 3, "block": (32, 4), "shmem_size": 0}
    assert [(s, c, args) for s, c, _, *args in cuda.launched] == [
        ("stream 77", config, [1, 2.0]),
        (f"stream {LEGACY}", config, [3, 4.0]),
    ]


def test_a_kernel_is_loaded_once_a_device(driver, cuda):
    one, another = step("softmax"), step("softmax", grid=5)
    for s in (one, one, another):
        driver.launch(s, (), 0)
    assert cuda.loaded == [(0, "softmax", (9, 0))]
    cuda.device_id = 1
    driver.launch(one, (), 0)
    assert cuda.loaded == [(0, "softmax", (9, 0)), (1, "softmax", (9, 0))]
    assert [kernel.handle for _, _, kernel in cuda.launched] == ["softmax on 0"] * 3 + ["softmax on 1"]


def test_a_stream_is_made_once_a_device(driver, cuda):
    """Making one takes 11 to 20 us, several times the launch."""
    for handle in (77, 0, 77, 0):
        driver.launch(step("softmax"), (), handle)
    cuda.device_id = 1
    driver.launch(step("softmax"), (), 77)
    assert cuda.streams == [(0, 77), (0, LEGACY), (1, 77)]


def test_shapes_are_forgotten_and_kernels_are_not(driver, cuda):
    """A program whose row lengths never repeat has a bounded number of launches in memory."""
    first = step("softmax")
    forgotten = weakref.ref(first)
    driver.launch(first, (), 0)
    del first
    for _ in range(5000):
        driver.launch(step("softmax"), (), 0)
    gc.collect()
    assert forgotten() is None
    assert cuda.loaded == [(0, "softmax", (9, 0))]


def test_shared_memory_beyond_the_default_is_asked_for(driver, cuda):
    driver.launch(step("softmax"), (), 0)
    driver.launch(step("vjp", shared=65536), (), 0)
    asked = [call for call in cuda.calls if call[0] == "cuKernelSetAttribute"]
    assert asked == [("cuKernelSetAttribute", "dynamic", 65536, "vjp on 0", 0)]
    assert cuda.launched[-1][1]["shmem_size"] == 65536


def test_what_is_kept_is_let_go_when_the_stream_is_done(driver, monkeypatch):
    events = []

    def record(stream):
        events.append(SimpleNamespace(is_done=False))
        return events[-1]

    monkeypatch.setattr(_Stream, "record", record, raising=False)
    kept = [step(name) for name in "abc"]
    alive = [weakref.ref(k) for k in kept]
    driver.keep([kept.pop(0)], 5)
    driver.keep([kept.pop(0)], 5)
    assert all(ref() for ref in alive)
    events[0].is_done = True
    driver.keep(kept, 5)
    gc.collect()
    assert [ref() is None for ref in alive] == [True, False, False]


def test_memory_of_arrays(driver, cuda):
    array = np.arange(6.0)
    cuda.context = 1
    assert driver.allocate(48, 5) == 4096
    driver.upload(4096, array, 5)
    driver.download(array, 4096, 0)
    driver.free(4096, 0)
    driver.synchronize(5)
    assert cuda.calls == [
        ("allocate", 48, 5),
        ("cuMemcpyHtoDAsync", 4096, array.ctypes.data, 48, 5),
        ("cuMemcpyDtoHAsync", array.ctypes.data, 4096, 48, LEGACY),
        ("cuMemFreeAsync", 4096, LEGACY),
        ("cuStreamSynchronize", 5),
    ]


def test_a_thread_without_a_context_gets_one(driver, cuda):
    driver.allocate(1, 0)
    driver.allocate(1, 0)
    assert [call[0] for call in cuda.calls] == ["set_current", "allocate", "allocate"]
    cuda.context = 0  # a thread's own: a new one has none
    thread = threading.Thread(target=driver.allocate, args=(1, 0))
    thread.start()
    thread.join()
    assert [call[0] for call in cuda.calls[3:]] == ["set_current", "allocate"]


def test_a_thread_with_a_context_keeps_it(driver, cuda):
    cuda.context = 1
    driver.allocate(1, 0)
    assert ("set_current",) not in cuda.calls


def test_shared_memory_is_the_devices_own(driver, cuda):
    assert [driver.shared_memory(), driver.shared_memory()] == [99 * 1024] * 2
    assert [call for call in cuda.calls if call[0] == "attribute"] == [("attribute", "most", 0)]


def test_errors_are_named(driver, cuda):
    cuda.context = 1
    driver.allocate(1, 0)
    cuda.status = SimpleNamespace(name="CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(RuntimeError, match=r"^CUDA driver error CUDA_ERROR_OUT_OF_MEMORY$"):
        driver.allocate(1 << 60, 0)


def test_one_driver_a_process(driver):
    assert import_module("fastsoftmax._cuda.driver").get_driver() is driver
