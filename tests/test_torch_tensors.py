"""Promise: tensors of PyTorch on the CPU give tensors, with the bits that arrays give."""

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("axis", [-1, 0])
def test_ops(op, axis, dtype):
    args = oracle.arguments(op, inputs.rng().normal(size=(4, 6)).astype(dtype), axis)
    expected = checks.as_tuple(getattr(fs, op)(*args, axis))
    tensors = [torch.from_numpy(a) for a in args]
    for given in (tensors, [tensors[0], *args[1:]]):
        results = checks.as_tuple(getattr(fs, op)(*given, axis))
        assert all(isinstance(r, torch.Tensor) for r in results)
        checks.assert_same_bits(tuple(r.numpy() for r in results), expected)


def test_out_and_dtypes():
    x = torch.randn(5, 7)
    out = torch.empty_like(x)
    assert fs.softmax(x, out=out) is out
    np.testing.assert_array_equal(out.numpy(), fs.softmax(x.numpy()))
    loss, dx = fs.cross_entropy_with_grad(x, torch.zeros(5, dtype=torch.int64), out=out)
    assert dx is out
    assert loss.shape == ()
    assert fs.softmax(x.half()).dtype == torch.float16
    assert fs.softmax(x.T).shape == (7, 5)
    pytest.importorskip("ml_dtypes")
    wide = fs.softmax(x.bfloat16().float())
    assert torch.equal(fs.softmax(x.bfloat16()), wide.bfloat16())


def test_layouts_and_errors():
    y = fs.softmax(torch.zeros(2, 3))
    assert fs.softmax_jacobian(y, layout="dense").shape == (2, 3, 2, 3)
    assert fs.softmax_jacobian(y, layout="operator").shape == (6, 6)
    with pytest.raises(TypeError, match=r"pass x\.detach\(\)"):
        fs.softmax(torch.zeros(3, requires_grad=True))
    with pytest.raises(TypeError, match="expected float64, float32"):
        fs.softmax(torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="out has shape"):
        fs.softmax(torch.zeros(3), out=torch.zeros(2))
