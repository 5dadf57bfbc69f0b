"""The kinds of device arrays, on pretended libraries: arrays are NumPy's, with what a GPU's would add.

`test_torch.py` has torch itself.
"""

import sys
from contextlib import nullcontext
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax._cuda import interop
from tests import inputs

STREAM = 7


class CuPyArray(np.ndarray):
    """Enough of cupy.ndarray; taking its address shows its memory to the interpreting driver."""

    driver = None

    def __dlpack_device__(self):
        return (2, 0)

    @property
    def data(self):
        self.driver.memory[self.ctypes.data] = np.asarray(self).reshape(-1).view(np.uint8)
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self):
        return SimpleNamespace(id=0)


CuPyArray.__module__ = "cupy"


@pytest.fixture
def cupy(installed, monkeypatch):
    """The pretended library."""

    def ours(function):
        return lambda *args, **kwargs: function(*args, **kwargs).view(CuPyArray)

    module = ModuleType("cupy")
    vars(module).update({name: ours(getattr(np, name)) for name in ("array", "empty", "full", "where")})
    vars(module).update({name: ours(getattr(np, name)) for name in ("asarray", "ascontiguousarray")})
    module.from_dlpack = lambda a: ours(np.array)(a.values)
    module.cuda = SimpleNamespace(
        get_current_stream=lambda: SimpleNamespace(ptr=STREAM), Device=lambda place: nullcontext()
    )
    monkeypatch.setattr(CuPyArray, "driver", installed)
    monkeypatch.setitem(sys.modules, "cupy", module)
    _forget_kinds()
    yield module
    _forget_kinds()


def _forget_kinds():
    interop._kind.cache_clear()
    interop._kind_of_class.cache_clear()


@pytest.fixture
def ops(cupy):
    return import_module("fastsoftmax._cuda.operations")


def same(actual, desired, rtol=1e-12):
    assert type(actual) is CuPyArray
    np.testing.assert_allclose(np.asarray(actual), desired, rtol=rtol, strict=True)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_cupy(dtype, axis, ops, cupy, installed):
    x = inputs.rng().normal(size=(3, 4, 2)).astype(dtype)
    same(ops.softmax(cupy.array(x), axis), fs.softmax(x, axis), rtol=8 * np.finfo(dtype).eps)
    assert {stream for _, stream in installed.launches} == {STREAM}


def test_cupy_bfloat16(ops, cupy):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x = inputs.rng().normal(size=(4, 8)).astype(bfloat16)
    y = ops.softmax(cupy.array(x))
    assert y.dtype == bfloat16
    np.testing.assert_array_equal(np.asarray(y, np.float32), np.asarray(fs.softmax(x), np.float32))


def test_cupy_integers_masks_and_strided_out(ops, cupy):
    x, where = np.arange(12).reshape(3, 4), np.arange(12).reshape(3, 4) % 3 > 0
    out = cupy.empty((4, 3)).T
    assert ops.softmax(cupy.array(x), where=cupy.array(where), out=out) is out
    same(out, fs.softmax(x, where=where))
    same(ops.logsumexp(cupy.array(np.zeros((2, 0)))), np.full(2, -np.inf))


def test_cupy_out_that_overlaps(ops, cupy):
    x = inputs.rng().normal(size=(4, 8))
    memory = cupy.array(np.append(x, np.zeros(3)))
    given = memory[:32].reshape(4, 8)
    assert ops.softmax(given, out=given) is given
    same(given, fs.softmax(x))
    memory[:32] = x.reshape(-1)
    same(ops.softmax(given, out=memory[3:35].reshape(4, 8)), fs.softmax(x))


class Foreign:
    """A device array of no known library, with the older of the two protocols."""

    __cuda_array_interface__ = None

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


class ForeignWithDLPack(Foreign):
    """One with the newer protocol, and a library that takes arrays back."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self):
        return pytest.fail("only the library may call this")

    def __array_namespace__(self):
        return SimpleNamespace(from_dlpack=lambda a: ForeignWithDLPack(np.asarray(a)))


def test_other_arrays_are_viewed_through_cupy(ops, cupy):
    x = inputs.rng().normal(size=(3, 4))
    same(ops.softmax(Foreign(x)), fs.softmax(x))


def test_results_go_back_where_a_library_takes_them(ops, cupy):
    x = inputs.rng().normal(size=(3, 4))
    y = ops.softmax(ForeignWithDLPack(x))
    assert type(y) is ForeignWithDLPack
    np.testing.assert_allclose(y.values, fs.softmax(x), rtol=1e-12)


def _torch_with(**members):
    torch = ModuleType("torch")
    vars(torch).update(dtype=type("dtype", (), {}), **members)
    return torch


def test_viewed_through_torch_where_there_is_no_cupy(monkeypatch):
    """torch would read the older protocol into host memory, were it not told the device."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "torch", _torch_with(asarray=lambda a, device: (a.values, device)))
    _forget_kinds()
    try:
        assert interop.kind_of(Foreign("values")).own(Foreign("values"), "x") == ("values", "cuda")
    finally:
        _forget_kinds()


def test_nothing_to_view_through(monkeypatch):
    _forget_kinds()
    for name in ("cupy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TypeError, match=r"Foreign on a CUDA device needs CuPy or torch.*pip install cupy"):
        interop.kind_of(Foreign(np.zeros(2)))


def test_torch_runs_where_the_tensor_lies(monkeypatch):
    cuda = SimpleNamespace(
        device=lambda place: f"context of {place}",
        current_stream=lambda: SimpleNamespace(cuda_stream="the current stream"),
    )
    monkeypatch.setitem(sys.modules, "torch", _torch_with(cuda=cuda))
    kind, tensor = interop._Torch(), SimpleNamespace(get_device=lambda: 1)
    assert kind.device(kind.place(tensor)) == "context of 1"
    assert kind.stream() == "the current stream"


def test_subclasses_are_of_their_library(cupy):
    class Mine(CuPyArray):
        pass

    assert interop.kind_of(np.zeros(2).view(Mine)) is interop.kind_of(cupy.array([0.0]))


def test_views_are_kept_until_the_kernel_is_done(ops, cupy, installed):
    """A view is all that keeps the memory of a temporary, which its library may give to another array."""
    x, labels = inputs.rng().normal(size=(3, 4)), np.array([0, 1, 2])
    ops.softmax(cupy.array(x))
    assert not installed.kept  # of CuPy's own arrays the memory is handed on in the stream's order
    ops.cross_entropy(ForeignWithDLPack(x), ForeignWithDLPack(labels))
    ((views, stream),) = installed.kept
    assert stream == STREAM
    assert [a.shape for a in views] == [(3, 4), (3,)]


def test_masked_entries_are_filled_before_the_result_is_handed_over(ops, cupy):
    x, where = inputs.rng().normal(size=(3, 4)), inputs.rng(1).random((3, 4)) < 0.5
    y = ops.softmax(CopiedWhenTaken(x), where=CopiedWhenTaken(where))
    np.testing.assert_allclose(y.values, fs.softmax(x, where=where), rtol=1e-12)


class CopiedWhenTaken(ForeignWithDLPack):
    """One whose library looks at an array when it takes it, and no later, as JAX's may."""

    def __array_namespace__(self):
        return SimpleNamespace(from_dlpack=lambda a: ForeignWithDLPack(np.array(a)))


def test_arrays_of_numba_are_given_back(ops, cupy, monkeypatch):
    numba = ModuleType("numba.cuda")
    numba.as_cuda_array = lambda a, sync: ("numba's", np.asarray(a), sync)
    monkeypatch.setitem(sys.modules, "numba.cuda", numba)
    monkeypatch.setattr(Foreign, "__module__", "numba.cuda.cudadrv.devicearray")
    x = inputs.rng().normal(size=(3, 4))
    whose, y, sync = ops.softmax(Foreign(x))
    assert (whose, sync) == ("numba's", False)
    np.testing.assert_allclose(y, fs.softmax(x), rtol=1e-12)
