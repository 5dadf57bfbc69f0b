"""The kind of torch tensors, on CPU tensors that the interpreting driver takes for a GPU's."""

from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax._cuda import interop
from tests import inputs
from tests.cuda import exact

torch = pytest.importorskip("torch")


class _OnHost(interop._Torch):
    """Tensors whose memory the driver is shown when their address is taken."""

    target = "cpu"

    def __init__(self, driver):
        super().__init__()
        self._driver = driver

    def address(self, a):
        if a.numel():
            self._driver.memory[a.data_ptr()] = a.view(torch.uint8).numpy().reshape(-1)
        return super().address(a)

    def device(self, place):
        return nullcontext()

    def stream(self):
        return 7


@pytest.fixture
def ops(installed, monkeypatch):
    calls = import_module("fastsoftmax._cuda.calls")
    kind = _OnHost(installed)
    monkeypatch.setattr(calls, "kind_of", lambda a: kind)
    monkeypatch.setattr(calls, "on_device", torch.is_tensor)
    return import_module("fastsoftmax._cuda.operations")


def tensor(shape, dtype, seed=0):
    return torch.from_numpy(inputs.rng(seed).normal(size=shape) * 3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("axis", [-1, 0])
def test_softmax_and_its_vjp(dtype, axis, ops):
    x, g = tensor((4, 24), dtype), tensor((4, 24), dtype, 1)
    y = ops.softmax(x, axis)
    assert y.dtype == dtype
    eps = exact.EPS[str(dtype)[6:]]
    torch.testing.assert_close(y.double(), torch.softmax(x.double(), axis), rtol=16 * eps, atol=0)
    wide, given = y.double(), g.double()
    wanted = wide * (given - (wide * given).sum(axis, keepdim=True))
    torch.testing.assert_close(ops.softmax_vjp(y, g, axis).double(), wanted, rtol=8 * eps, atol=8 * eps)


def test_axes_apart(ops):
    x = tensor((3, 4, 5), torch.float64)
    wanted = fs.softmax(x.numpy(), (0, 2))
    np.testing.assert_allclose(ops.softmax(x, (0, 2)).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy(dtype, reduction, ops):
    x, labels = tensor((6, 10), dtype), torch.tensor([0, 9, 3, 3, 1, 7], dtype=torch.int32)
    loss, dx = ops.cross_entropy_with_grad(x, labels, ignore_index=3, reduction=reduction)
    wide = x.double().clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(wide, labels.long(), ignore_index=3, reduction=reduction)
    wanted.sum().backward()
    assert loss.dtype == dx.dtype == dtype
    eps = exact.EPS[str(dtype)[6:]]
    torch.testing.assert_close(loss.double(), wanted.detach(), rtol=8 * eps, atol=0)
    torch.testing.assert_close(dx.double(), wide.grad, rtol=8 * eps, atol=8 * eps)


def test_strided_tensors_and_out(ops):
    x = tensor((6, 8), torch.float32)
    out = torch.empty(8, 6).t()
    assert ops.softmax(x.t().contiguous().t()[::2], out=out[:3]).shape == (3, 8)
    torch.testing.assert_close(out[:3], torch.softmax(x[::2], -1))


def test_overlapping_out(ops):
    base = tensor((40,), torch.float64)
    x, out = base[:32].view(4, 8), base[4:36].view(4, 8)
    wanted = torch.softmax(x, -1)
    torch.testing.assert_close(ops.softmax(x, out=out), wanted)


def test_where_and_jacobian(ops):
    x, where = tensor((3, 5), torch.float32), tensor((3, 5), torch.float32, 2) > 0
    np.testing.assert_allclose(
        ops.softmax(x, where=where).numpy(), fs.softmax(x.numpy(), where=where.numpy()), rtol=1e-6
    )
    y = ops.softmax(x)
    np.testing.assert_allclose(
        ops.softmax_jacobian(y).numpy(), fs.softmax_jacobian(y.numpy()), rtol=1e-6, atol=1e-9
    )


def test_integers_and_mixed_dtypes(ops):
    assert ops.softmax(torch.arange(4)).dtype == torch.float64
    y, g = tensor((2, 3), torch.bfloat16), tensor((2, 3), torch.float16)
    assert ops.softmax_vjp(y, g).dtype == torch.float32


def test_an_unknown_dtype(ops):
    with pytest.raises(TypeError, match="x has dtype complex64"):
        ops.softmax(torch.zeros(3, dtype=torch.complex64))


class Mine(torch.Tensor):
    """A user's own class of tensors."""


def test_out_of_a_subclass(ops):
    x = tensor((2, 3), torch.float32)
    for out in (torch.nn.Parameter(torch.empty(2, 3)), torch.empty(2, 3).as_subclass(Mine)):
        assert ops.softmax(x, out=out) is out
        torch.testing.assert_close(out.detach().as_subclass(torch.Tensor), torch.softmax(x, -1))
        assert type(interop.kind_of(out)) is interop._Torch


def test_gradients_are_not_dropped_in_silence(ops):
    x = tensor((2, 3), torch.float32)
    w = torch.ones(3, requires_grad=True)
    for call in (
        lambda: ops.softmax(x.clone().requires_grad_()),
        lambda: ops.softmax_vjp(x, x.clone().requires_grad_()),
        lambda: ops.cross_entropy(x, torch.tensor([0, 1]), weight=w),
    ):
        with pytest.raises(TypeError, match=r"torch does not see into fastsoftmax: pass \w+\.detach\(\)"):
            call()
    with torch.no_grad():
        ops.softmax(x.clone().requires_grad_())
