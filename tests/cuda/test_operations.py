"""Device arrays in and out, on a pretended library of them: its memory is the interpreting driver's."""

import re
from contextlib import contextmanager
from functools import partial
from importlib import import_module

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import registry
from fastsoftmax._cuda import interop
from fastsoftmax._cuda.door import also_on_device
from tests import inputs, oracle

OPS = [op for op in oracle.OPS if op not in oracle.NOT_ON_CUDA]

STREAM = 1234


class DeviceArray:
    """An array on the pretended device."""

    is_cuda = True

    def __init__(self, library, values):
        self.library, self.values, self.device = library, values, library.current
        library.driver.memory[values.ctypes.data] = values.reshape(-1).view(np.uint8)

    shape = property(lambda self: self.values.shape)

    def reshape(self, *shape):
        return DeviceArray(self.library, self.values.reshape(*shape))


class Library:
    """The kind of `DeviceArray`; what it allocates lies on the current device."""

    views = False

    def __init__(self, driver):
        self.driver, self.current = driver, 0

    def array(self, values):
        return self._new(np.shape(values), np.asarray(values))

    def _new(self, shape, values):
        raw = np.zeros(values.nbytes + 256, np.uint8)
        start = -raw.ctypes.data % 256
        fresh = raw[start : start + values.nbytes].view(values.dtype).reshape(shape)
        fresh[...] = values
        return DeviceArray(self, fresh)

    def own(self, a, name):
        return a

    def back(self, a, like):
        return a

    def dtype(self, a):
        return a.values.dtype.name

    def address(self, a):
        return a.values.ctypes.data

    def contiguous(self, a):
        return a.values.flags.c_contiguous

    def nbytes(self, a):
        return a.values.nbytes

    def place(self, a):
        return a.device

    @contextmanager
    def device(self, place):
        before, self.current = self.current, place
        yield
        self.current = before

    def stream(self):
        return STREAM

    def empty(self, shape, dtype):
        return self.array(
            np.full(shape, 255, np.uint8) if dtype == "uint8" else np.full(shape, np.nan, dtype)
        )

    def full(self, shape, dtype, value):
        return self.array(np.full(shape, value, dtype))

    def cast(self, a, dtype):
        return a if self.dtype(a) == dtype else self.array(a.values.astype(dtype))

    def transposed(self, a, order):
        return DeviceArray(self, a.values.transpose(order)) if a.values.size else a

    def packed(self, a):
        return a if self.contiguous(a) else self.array(a.values)

    def masked(self, a, where, fill):
        return self.array(np.where(where.values, a.values, a.values.dtype.type(fill)))

    def assign(self, out, a):
        out.values[...] = a.values


@pytest.fixture
def library(installed, monkeypatch):
    library = Library(installed)
    monkeypatch.setattr(interop, "kind_of", lambda a: library)
    return library


@pytest.fixture
def ops(library, monkeypatch):
    operations = import_module("fastsoftmax._cuda.operations")
    calls = import_module("fastsoftmax._cuda.calls")
    monkeypatch.setattr(calls, "kind_of", lambda a: library)
    monkeypatch.setattr(calls, "_require_cuda", lambda backend: None)
    return operations


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_against_numpy_arrays(op, axis, ops, library):
    x = inputs.rng(0).normal(size=(3, 4, 2))
    args = oracle.arguments(op, x, axis)
    actual = getattr(ops, op)(*(library.array(a) for a in args), axis)
    desired = getattr(fs, op)(*args, axis, backend="numpy")
    pairs = zip(actual, desired, strict=True) if isinstance(desired, tuple) else [(actual, desired)]
    for a, b in pairs:
        assert isinstance(a, DeviceArray)
        np.testing.assert_allclose(a.values, b, rtol=1e-12, atol=1e-15, strict=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ignore_index": 2},
        {"ignore_index": 10**30},
        {"label_smoothing": 0.2},
        {"weight": [1.0, 2.0, 0.5]},
    ],
)
def test_cross_entropy_options(reduction, options, ops, library):
    x, labels = inputs.rng(1).normal(size=(6, 3)), np.array([0, 1, 2, 2, 1, 0])
    given = {k: library.array(v) if k == "weight" else v for k, v in options.items()}
    actual = ops.cross_entropy_with_grad(
        library.array(x), library.array(labels), reduction=reduction, **given
    )
    desired = fs.cross_entropy_with_grad(x, labels, reduction=reduction, backend="numpy", **options)
    for a, b in zip(actual, desired, strict=True):
        np.testing.assert_allclose(a.values, b, rtol=1e-12, atol=1e-15)


def test_a_mean_over_every_row_sums_no_weights(ops, library, installed):
    """Their number is known: a launch less, where no row is ignored or weighted."""
    x, labels = library.array(np.zeros((4, 3))), library.array(np.array([0, 1, 2, 2]))
    weight = library.array(np.ones(3))
    for options, names in (
        ({}, ["whole", "total_loss"]),
        ({"ignore_index": 2}, ["total_weight", "whole", "total_loss"]),
        ({"weight": weight}, ["total_weight", "whole", "total_loss"]),
    ):
        installed.launches.clear()
        ops.cross_entropy_with_grad(x, labels, **options)
        assert [step.spec.name for step, _ in installed.launches] == names


def test_where(ops, library):
    x, where = inputs.rng(2).normal(size=(4, 5)), inputs.rng(3).random((4, 5)) < 0.5
    for op in ("softmax", "log_softmax", "logsumexp"):
        actual = getattr(ops, op)(library.array(x), where=library.array(where))
        np.testing.assert_allclose(
            actual.values, getattr(fs, op)(x, where=where, backend="numpy"), rtol=1e-12
        )


def test_out_is_returned_and_may_be_the_input(ops, library):
    x = inputs.rng(4).normal(size=(4, 6))
    a = library.array(x)
    assert ops.softmax(a, out=a) is a
    np.testing.assert_allclose(a.values, fs.softmax(x, backend="numpy"), rtol=1e-13)


def test_out_holds_what_is_read_beside_the_input(ops, library):
    """Labels, weight and mask are read to the end, of one row a weight that is ``out`` itself."""
    x, labels = inputs.rng(4).normal(size=(6, 4)), np.array([0, 3, 2, 1, 1, 0])
    out = library.array(np.zeros((6, 4)))
    within = DeviceArray(library, out.values.view(np.int64).reshape(-1)[2:8])
    within.values[...] = labels
    _, dx = ops.cross_entropy_with_grad(library.array(x), within, out=out)
    assert dx is out
    _, expected = fs.cross_entropy_with_grad(x, labels, backend="numpy")
    np.testing.assert_allclose(out.values, expected, rtol=1e-12, atol=1e-15)

    out = library.array(np.array([0.5, 2.0, 1.5, 1.0]))
    weight = out.values.copy()
    given = DeviceArray(library, out.values)
    ops.cross_entropy_with_grad(library.array(x[0]), library.array(np.array(3)), weight=given, out=out)
    _, expected = fs.cross_entropy_with_grad(x[0], 3, weight=weight, backend="numpy")
    np.testing.assert_allclose(out.values, expected, rtol=1e-12, atol=1e-15)

    where = inputs.rng(3).random((6, 4)) < 0.5
    out = library.array(np.zeros((6, 4)))
    within = DeviceArray(library, out.values.view(bool).reshape(-1)[8:32].reshape(6, 4))
    within.values[...] = where
    ops.softmax(library.array(x), where=within, out=out)
    np.testing.assert_allclose(out.values, fs.softmax(x, where=where, backend="numpy"), rtol=1e-12)


def test_out_with_other_strides(ops, library):
    x = inputs.rng(5).normal(size=(4, 6))
    out = library.transposed(library.array(np.zeros((6, 4))), (1, 0))
    assert ops.softmax(library.array(x), 0, out=out) is out
    np.testing.assert_allclose(out.values, fs.softmax(x, 0, backend="numpy"), rtol=1e-13)


@pytest.mark.parametrize(
    ("out", "error"),
    [(np.zeros((4, 5)), TypeError), ("shape", ValueError), ("dtype", TypeError)],
)
def test_wrong_out(out, error, ops, library):
    wrong = {"shape": np.zeros((5, 4)), "dtype": np.zeros((4, 5), np.float32)}
    out = library.array(wrong[out]) if isinstance(out, str) else out
    with pytest.raises(error):
        ops.softmax(library.array(np.zeros((4, 5))), out=out)


def test_runs_on_the_callers_stream_without_waiting(ops, library, installed):
    ops.softmax(library.array(np.zeros((3, 4))))
    assert {stream for _, stream in installed.launches} == {STREAM}
    assert installed.synchronized == 0


@pytest.mark.parametrize("op", OPS)
def test_everything_lies_on_the_device_of_the_arrays(op, ops, library, monkeypatch):
    """Results, workspace and copies, though another device is the current one."""
    x = inputs.rng(0).normal(size=(3, 4, 2))
    with library.device(1):
        args = [library.array(a) for a in oracle.arguments(op, x, 0)]
    places, array = [], library.array
    monkeypatch.setattr(library, "array", lambda values: places.append(library.current) or array(values))
    result = getattr(ops, op)(*args, 0)
    assert {a.device for a in (result if isinstance(result, tuple) else (result,))} == {1}
    assert set(places) == {1}
    assert library.current == 0


ELSEWHERE = {
    "g": lambda ops, x, other: ops.softmax_vjp(x, other),
    "labels": lambda ops, x, other: ops.cross_entropy(x, other),
    "weight": lambda ops, x, other: ops.cross_entropy(x, x.library.array(np.zeros(2, int)), weight=other),
    "where": lambda ops, x, other: ops.softmax(x, where=other),
    "out": lambda ops, x, other: ops.softmax(x, out=other),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_arrays_on_two_devices(name, ops, library, installed):
    dtype = {"labels": int, "where": bool}.get(name, float)
    x = library.array(np.zeros((2, 2)))
    with library.device(1):
        other = library.array(np.zeros((2, 2), dtype))
    with pytest.raises(ValueError, match=f"^{name} is on device 1; the other arrays are on device 0$"):
        ELSEWHERE[name](ops, x, other)
    assert not installed.launches


def test_arrays_of_two_libraries(ops, library, monkeypatch):
    calls = import_module("fastsoftmax._cuda.calls")
    x, other = (library.array(np.zeros((2, 2))) for _ in range(2))
    monkeypatch.setattr(calls, "kind_of", lambda a: None if a is other else library)
    for call in (lambda: ops.softmax_vjp(x, other), lambda: ops.softmax(x, out=other)):
        with pytest.raises(TypeError, match="must be a DeviceArray on a CUDA device; got DeviceArray"):
            call()


def test_host_arrays_beside_device_arrays(ops, library):
    with pytest.raises(TypeError, match="g is a ndarray in host memory"):
        ops.softmax_vjp(library.array(np.zeros((2, 3))), np.zeros((2, 3)))


def test_other_layouts_of_the_jacobian(ops, library):
    with pytest.raises(ValueError, match="'dense' is for NumPy arrays"):
        ops.softmax_jacobian(library.array(np.zeros((2, 3))), layout="dense")


BAD_CALLS = {
    "where has dtype int8; expected bool": lambda ops, a: ops.softmax(
        a(X), where=a(np.ones((2, 3), np.int8))
    ),
    "where has shape (4, 2, 3), which does not broadcast to x's (2, 3)": lambda ops, a: ops.logsumexp(
        a(X), where=a(np.ones((4, 2, 3), bool))
    ),
    "labels has dtype float64; expected an integer dtype": lambda ops, a: ops.cross_entropy(
        a(X), a(np.zeros(2))
    ),
    "labels has shape (3,); expected (2,)": lambda ops, a: ops.cross_entropy(a(X), a(np.zeros(3, int))),
    "weight has shape (2,); expected (3,)": lambda ops, a: ops.cross_entropy(
        a(X), a(LABELS), weight=a(np.ones(2))
    ),
    "y and g must have the same shape; got y (2, 3) and g (3, 2)": lambda ops, a: ops.softmax_vjp(
        a(X), a(X.T.copy())
    ),
    "unknown reduction 'max'; expected one of 'mean', 'sum', 'none'": lambda ops, a: ops.cross_entropy(
        a(X), a(LABELS), reduction="max"
    ),
    "ignore_index must be an int or None; got [0, 2]": lambda ops, a: ops.cross_entropy(
        a(X), a(LABELS), ignore_index=[0, 2]
    ),
    "keepdims must be True or False; got 'no'": lambda ops, a: ops.logsumexp(a(X), keepdims="no"),
    "unknown layout 'blocks'; expected one of 'batched', ": lambda ops, a: ops.softmax_jacobian(
        a(X), layout="blocks"
    ),
    "label_smoothing must be between 0 and 1; got 1.5": lambda ops, a: ops.cross_entropy_with_grad(
        a(X), a(LABELS), label_smoothing=1.5
    ),
}
X, LABELS = np.zeros((2, 3)), np.zeros(2, int)


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_arguments(message, ops, library, installed):
    """Refused in the words of the NumPy operations, before anything is launched."""
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        BAD_CALLS[message](ops, library.array)
    assert not installed.launches


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty(shape, ops, library):
    x = np.zeros(shape)
    assert ops.softmax(library.array(x)).shape == shape
    np.testing.assert_array_equal(ops.logsumexp(library.array(x)).values, fs.logsumexp(x))


def test_integers_become_float64(ops, library):
    assert ops.softmax(library.array(np.arange(4))).values.dtype == np.float64


def test_recipes_and_launches_are_made_once(ops, library, installed):
    for _ in range(2):
        ops.softmax(library.array(np.zeros((3, 4))))
    (first, _), (second, _) = installed.launches
    assert first is second


def test_the_door_leads_device_arrays_here(ops, library, monkeypatch):
    monkeypatch.setitem(registry._kernels, ("softmax", "cuda"), None)
    softmax = also_on_device(fs.softmax)
    assert isinstance(softmax(library.array(np.zeros((2, 3)))), DeviceArray)
    assert isinstance(softmax(np.zeros((2, 3))), np.ndarray)
    assert isinstance(softmax([0.0, 1.0]), np.ndarray)


WITHOUT_KERNELS = {
    **dict.fromkeys(
        ("segment_softmax", "segment_log_softmax", "segment_logsumexp"), lambda op, a: op(a, [0, 3])
    ),
    "segment_softmax_vjp": lambda op, a: op(a, a, [0, 3]),
    "softmax_solve": lambda op, a: op(a, a),
}


@pytest.mark.parametrize("name", WITHOUT_KERNELS)
def test_the_door_says_what_has_no_kernel(name, ops, library, monkeypatch):
    backend = registry._Backend("cuda", lambda: import_module("fastsoftmax.backends.cuda"), 0)
    monkeypatch.setitem(registry._backends, "cuda", backend)
    with pytest.raises(fs.BackendUnavailable, match=f"'cuda' has no kernel for '{name}'; it has softmax"):
        WITHOUT_KERNELS[name](getattr(fs, name), library.array(np.zeros(3)))


def test_options_without_kernels(ops, library, installed):
    x, labels, weights = (library.array(a) for a in (X, LABELS, np.ones(2)))
    calls = {
        "b": partial(ops.logsumexp, x, b=x),
        "sample_weight": partial(ops.cross_entropy, x, labels, sample_weight=weights),
        "sample_weight ": partial(ops.cross_entropy_with_grad, x, labels, sample_weight=weights),
    }
    for name, call in calls.items():
        with pytest.raises(
            fs.BackendUnavailable, match=f"'cuda' has no kernel for {name.strip()}=: .*on the CPU"
        ):
            call()
    assert not installed.launches


def test_first_array_in_host_memory(library):
    """As the second argument, and as an option: the library's own words would be of no help."""
    other = library.array(np.ones((2, 3)))
    calls = {
        "g": partial(fs.softmax_vjp, X, other),
        "labels": partial(fs.cross_entropy, X, other),
        "where": partial(fs.softmax, X, where=other),
        "b": partial(fs.logsumexp, X, b=other),
        "x": partial(fs.LogSumExp().update, other),
    }
    for name, call in calls.items():
        with pytest.raises(
            TypeError, match=f"{name} is a DeviceArray on a CUDA device.*{name} in host memory"
        ):
            call()


def test_another_backend_by_name(library, monkeypatch):
    calls = import_module("fastsoftmax._cuda.calls")
    with pytest.raises(TypeError, match="need backend 'cuda'; backend= on the call asks for 'numpy'"):
        calls.Call("numpy", x=library.array(np.zeros((2, 3))))


def test_what_lies_on_a_device():
    class OnHost:
        __cuda_array_interface__ = None  # JAX's class has it, wherever an array lies

        def __dlpack_device__(self):
            return (1, 0)

    class OnDevice(OnHost):
        def __dlpack_device__(self):
            return (2, 0)

    class WithoutDLPack:
        __cuda_array_interface__ = None

    assert not any(map(interop.on_device, (1.0, [1.0], np.zeros(2), np.float32(1), OnHost(), None, "x")))
    assert interop.on_device(OnDevice())
    assert interop.on_device(WithoutDLPack())
