"""Promise: what would lose a mask, a graph or its entries is refused, with advice that runs and is right."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import fastsoftmax as fs
from tests import checks, inputs, oracle

BOTH = ("cross_entropy", "cross_entropy_with_grad")


def follow(error, **given):
    """The value of the expression that a message advises, and the keywords that it adds to that."""
    message = str(error.value)
    expression = re.search(r"(?:pass|with|first:) ((?:np\.|[a-z_]+\.).*?)(?: with (\w+=\S+))?$", message)
    assert expression, message
    keywords = eval(f"dict({expression[2] or ''})")
    return eval(expression[1], {"np": np, **given}), keywords


# ---- masked arrays -----------------------------------------------------------------------------

MASK = np.array([[False, True, False], [True, False, False]])


@pytest.mark.parametrize("given", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_])
@pytest.mark.parametrize("op", oracle.FORWARD)
def test_masked_logits(op, given, backend):
    """What is advised leaves the masked entries out, as ``where=`` does."""
    values = np.array([[1, 0, 2], [3, 1, 0]]).astype(given)
    x = np.ma.array(values, mask=MASK)
    with pytest.raises(TypeError, match=r"^x is a masked array, whose mask .* lost: pass x\.") as raised:
        getattr(fs, op)(x, backend=backend)
    advised, _ = follow(raised, x=x)
    expected = getattr(fs, op)(values, where=~MASK, backend=backend)
    checks.assert_same_bits(getattr(fs, op)(advised, backend=backend), expected)


@pytest.mark.parametrize("op", oracle.TWO_ARRAYS)
@pytest.mark.parametrize("which", [0, 1])
def test_masked_arguments_of_products(op, which, backend):
    args = list(oracle.arguments(op, inputs.rng().normal(size=MASK.shape)))
    name = (PRODUCT_NAMES[op])[which]
    args[which] = np.ma.array(args[which], mask=MASK)
    with pytest.raises(TypeError, match=rf"^{name} is a masked array") as raised:
        getattr(fs, op)(*args, backend=backend, **oracle.options(op))
    advised, _ = follow(raised, **{name: args[which]})
    assert (advised[MASK] == (-np.inf if name == "logy" else 0)).all()
    np.testing.assert_array_equal(advised[~MASK], args[which].data[~MASK])
    args[which] = advised
    assert np.isfinite(getattr(fs, op)(*args, backend=backend, **oracle.options(op))).all()


PRODUCT_NAMES = {
    "softmax_vjp": ("y", "g"),
    "softmax_jvp": ("y", "t"),
    "log_softmax_vjp": ("logy", "g"),
    "log_softmax_jvp": ("logy", "t"),
    "softmax_solve": ("y", "b"),
}


@pytest.mark.parametrize("integer", [np.int64, np.int8, np.uint8, np.uint64])
@pytest.mark.parametrize("op", BOTH)
def test_masked_labels(op, integer, backend):
    """Without the mask, the masked label 2 would count."""
    x = inputs.rng().normal(size=(3, 4))
    labels = np.ma.array([1, 2, 3], mask=[False, True, False], dtype=integer)
    with pytest.raises(TypeError, match=r"^labels is a masked array, whose mask would be lost") as raised:
        getattr(fs, op)(x, labels, backend=backend)
    advised, keywords = follow(raised, labels=labels)
    loss = checks.as_tuple(getattr(fs, op)(x, advised, backend=backend, **keywords))[0]
    checks.assert_close(loss, fs.cross_entropy(x[::2], [1, 3], backend=backend), np.float64)


@pytest.mark.parametrize("op", BOTH)
def test_masked_weight(op, backend):
    x, labels = inputs.rng().normal(size=(2, 3)), [0, 1]
    for weight in (np.ma.array([2.0, 9.0, 1.0], mask=[0, 1, 0]), np.ma.array([2, 9, 1], mask=[0, 1, 0])):
        with pytest.raises(TypeError, match=r"^weight is a masked array") as raised:
            getattr(fs, op)(x, labels, weight=weight, backend=backend)
        advised, _ = follow(raised, weight=weight)
        np.testing.assert_array_equal(advised, [2, 1, 1])
        getattr(fs, op)(x, labels, weight=advised, backend=backend)


@pytest.mark.parametrize("op", BOTH)
def test_masked_sample_weight(op, backend):
    """What is masked out takes no part."""
    x, labels = inputs.rng().normal(size=(3, 4)), [0, 1, 2]
    for dtype in (float, int):
        sample_weight = np.ma.array([2, 9, 1], mask=[0, 1, 0], dtype=dtype)
        with pytest.raises(TypeError, match=r"^sample_weight is a masked array") as raised:
            getattr(fs, op)(x, labels, sample_weight=sample_weight, backend=backend)
        advised, _ = follow(raised, sample_weight=sample_weight)
        np.testing.assert_array_equal(advised, [2, 0, 1])


@pytest.mark.parametrize("op", BOTH)
def test_masked_probabilities(op, backend):
    x, labels = inputs.rng().normal(size=(1, 3)), np.ma.array([[0.5, 0.25, 0.25]], mask=[[0, 1, 0]])
    with pytest.raises(TypeError, match=r"^labels is a masked array") as raised:
        getattr(fs, op)(x, labels, backend=backend)
    advised, keywords = follow(raised, labels=labels)
    np.testing.assert_array_equal(advised, [[0.5, 0, 0.25]])
    getattr(fs, op)(x, advised, backend=backend, **keywords)


@pytest.mark.parametrize("op", oracle.FORWARD)
def test_masked_where(op, backend):
    where = np.ma.array([True, True, False], mask=[False, True, False])
    x = inputs.rng().normal(size=(2, 3))
    with pytest.raises(TypeError, match=r"^where is a masked array") as raised:
        getattr(fs, op)(x, where=where, backend=backend)
    advised, _ = follow(raised, where=where)
    expected = getattr(fs, op)(x, where=[True, False, False], backend=backend)
    checks.assert_same_bits(getattr(fs, op)(x, where=advised, backend=backend), expected)


def test_lists_of_masked_arrays(backend):
    x = [np.ma.array([1.0, 2.0, 3.0], mask=mask) for mask in MASK]
    with pytest.raises(TypeError, match=r"^x holds masked arrays, whose masks would be lost") as raised:
        fs.softmax(x, backend=backend)
    advised, _ = follow(raised, x=x)
    np.testing.assert_array_equal(fs.softmax(advised, backend=backend) == 0, MASK)


# ---- other kinds of arrays ---------------------------------------------------------------------


@pytest.mark.parametrize("op", oracle.OPS)
@pytest.mark.parametrize("form", ["csr_array", "coo_matrix", "bsr_array"])
def test_sparse_arrays(op, form, backend):
    sparse = pytest.importorskip("scipy.sparse")
    args = oracle.arguments(op, np.eye(3))
    x = getattr(sparse, form)(args[0])
    with pytest.raises(TypeError, match=rf"^(x|y|logy) is a sparse {form}: pass \1\.toarray\(\)$") as raised:
        getattr(fs, op)(x, *args[1:], backend=backend)
    name = str(raised.value).partition(" ")[0]
    advised, _ = follow(raised, **{name: x})
    checks.assert_same_bits(
        getattr(fs, op)(advised, *args[1:], backend=backend), getattr(fs, op)(*args, backend=backend)
    )


def test_sparse_secondary_arrays(backend):
    sparse = pytest.importorskip("scipy.sparse")
    x = np.eye(3)
    with pytest.raises(TypeError, match=r"^where is a sparse csr_array: pass where\.toarray\(\)$"):
        fs.softmax(x, where=sparse.csr_array(x > 0), backend=backend)
    with pytest.raises(TypeError, match=r"^labels is a sparse csr_array"):
        fs.cross_entropy(x, sparse.csr_array(np.eye(3, dtype=int)), backend=backend)
    with pytest.raises(TypeError, match=r"^weight is a sparse coo_array"):
        fs.cross_entropy(x, [0, 1, 2], weight=sparse.coo_array(np.ones((1, 3))), backend=backend)


NUMBERS = {
    "object": np.array([1.0, 2.0, 0.5], object),
    "Decimal": [Decimal("1"), Decimal("2"), Decimal("0.5")],
    "Fraction": [Fraction(1), Fraction(2), Fraction(1, 2)],
    "str": ["1", "2", "0.5"],
    "bytes": np.array([b"1", b"2", b"0.5"]),
    "longdouble": np.array([1, 2, 0.5], np.longdouble),
    "complex": np.array([1, 2, 0.5], complex),
    "list of complex": [1 + 0j, 2, 0.5],
    "structured": np.array([(1, "p"), (2, "q"), (0.5, "r")], [("a", float), ("b", "U1")]),
}


@pytest.mark.parametrize("kind", [k for k in NUMBERS if k != "longdouble" or np.dtype("g") != np.float64])
def test_advice_for_other_dtypes(kind, backend):
    """It gives the numbers that were meant."""
    x = NUMBERS[kind]
    with pytest.raises(TypeError, match=r"^x has dtype .*: convert") as raised:
        fs.softmax(x, backend=backend)
    advised, _ = follow(raised, x=x)
    expected = fs.softmax([1.0, 2.0, 0.5], backend=backend)
    checks.assert_same_bits(fs.softmax(advised, backend=backend), expected)


class NA:
    """What a table holds where nothing is known."""

    def __repr__(self):
        return "<NA>"


@pytest.mark.parametrize(
    ("x", "odd"),
    [
        (np.array([1.0, None]), r"x\[1\] is None"),
        ([[1.0, 2.0], [NA(), None]], r"x\[1, 0\] is <NA>"),
        (["1", "two"], r"x\[1\] is .*'two'.*"),
        (np.array([1.0, 1j], object), r"x\[1\] is 1j"),
        ({"a": 1.0}, r"x is \{'a': 1.0\}"),
        (range, "x is <class 'range'>"),
    ],
    ids=["None", "NA", "word", "complex", "dict", "class"],
)
def test_what_is_no_number_is_named(x, odd, backend):
    """Nothing converts it."""
    with pytest.raises(TypeError, match=f"^x has dtype .*expected float64.*: {odd}, which is no real number"):
        fs.softmax(x, backend=backend)


def test_advice_for_labels_of_objects(backend):
    labels = np.array([1, 0], object)
    with pytest.raises(TypeError, match=r"^labels has dtype object; expected an integer dtype") as raised:
        fs.cross_entropy(np.eye(2), labels, backend=backend)
    advised, _ = follow(raised, labels=labels)
    fs.cross_entropy(np.eye(2), advised, backend=backend)
    with pytest.raises(TypeError, match=r"labels\[1\] is None, which is no real number"):
        fs.cross_entropy(np.eye(2), [1, None], backend=backend)


# ---- what frameworks trace ---------------------------------------------------------------------


def test_autograd_boxes(backend):
    """Also where a list holds them; and what is advised differentiates."""
    autograd = pytest.importorskip("autograd")
    x = np.array([1.0, 2.0, 0.5])
    for op in (fs.softmax, lambda x, **kwargs: fs.softmax([x[0], x[1], x[2]], **kwargs)):
        with pytest.raises(TypeError, match=r"^x is a \w*Box, and autograd .*fastsoftmax\.autograd$"):
            autograd.grad(lambda x, op=op: op(x, backend=backend)[0])(x)

    from fastsoftmax.autograd import softmax

    with fs.use_backend(backend):
        gradient = autograd.grad(lambda x: softmax(x)[0])(x)
    checks.assert_close(gradient, fs.softmax_jacobian(fs.softmax(x, backend=backend))[0], np.float64)


class Tracer:
    """As JAX's: an array of which the values are not known."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("The numpy.ndarray conversion method __array__() was called on traced array")


class Tensor:
    """As torch's: one that requires grad is no NumPy array."""

    requires_grad = True

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


Tracer.__module__, Tensor.__module__ = "jax._src.core", "torch"


def test_what_other_frameworks_trace(backend):
    """The error of the conversion is the cause."""
    for x, way in ((Tracer(), r"jax\.pure_callback"), (Tensor(), r"pass x\.detach\(\)")):
        kind = type(x).__name__
        with pytest.raises(
            TypeError, match=f"^x is a {kind}, and .*{way}.*its derivative, such as"
        ) as raised:
            fs.softmax(x, backend=backend)
        assert isinstance(raised.value.__cause__, (TypeError, RuntimeError))
        with pytest.raises(TypeError, match=f"^g is a {kind}, "):
            fs.softmax_vjp(np.ones(2), x, backend=backend)
        with pytest.raises(TypeError, match=f"^weight is a {kind}, "):
            fs.cross_entropy(np.ones(2), 1, weight=x, backend=backend)


def test_other_errors_of_a_conversion_are_its_own(backend):
    class Lazy:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError, match=r"^the server is gone$"):
        fs.softmax(Lazy(), backend=backend)
    deleted = Tensor()
    deleted.requires_grad = False
    with pytest.raises(RuntimeError, match=r"^Can't call numpy"):
        fs.softmax(deleted, backend=backend)


def test_torch_itself(backend):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^x is a Tensor, .*pass x\.detach\(\)"):
        fs.softmax(torch.zeros(3, requires_grad=True), backend=backend)


def test_jax_itself(backend):
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"^x is a \w*Tracer, and jax does not see into fastsoftmax"):
        jax.jit(fs.softmax)(np.zeros(3))
    call = jax.jit(lambda x: jax.pure_callback(fs.softmax, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
    np.testing.assert_array_equal(call(np.zeros(2)), [0.5, 0.5])


# ---- pandas ------------------------------------------------------------------------------------


class Nullable:
    """As pandas' dtypes of the kind."""

    def __init__(self, dtype):
        self.numpy_dtype = np.dtype(dtype)


class Column:
    """As a pandas Series of a nullable dtype: an array of objects unless a dtype is asked for."""

    def __init__(self, values, dtype):
        self.values, self.dtype = values, Nullable(dtype)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object if dtype is None else dtype)


class Frame(Column):
    """As a pandas DataFrame, which has a dtype for each column; here a nullable one is the first."""

    def __init__(self, values, dtype):
        self.values, self.dtypes = values, [Nullable(dtype), np.dtype(dtype)]


@pytest.mark.parametrize("kind", [Column, Frame])
def test_nullable_columns(kind, backend, dtype):
    x = [[1.0, 2.0], [0.5, 1.5]]
    actual = fs.softmax(kind(x, dtype), backend=backend)
    checks.assert_same_bits(actual, fs.softmax(np.array(x, dtype), backend=backend))
    labels = kind([1, 0], np.int64)
    expected = fs.cross_entropy(np.array(x), [1, 0], backend=backend)
    checks.assert_same_bits(fs.cross_entropy(np.array(x), labels, backend=backend), expected)
    where = fs.softmax(np.array(x), where=kind([True, False], bool), backend=backend)
    np.testing.assert_array_equal(where, [[1, 0], [1, 0]])


@pytest.mark.parametrize("kind", [Column, Frame])
def test_nullable_columns_with_a_missing_entry(kind, backend):
    with pytest.raises(TypeError, match=r"^x has dtype object.*: x\[0, 1\] is <NA>, which is no real number"):
        fs.softmax(kind([[1.0, NA()], [0.5, 1.5]], np.float64), backend=backend)


@pytest.mark.parametrize("columns", [0, 1, 2])
def test_pandas_itself(columns, backend):
    """A missing entry is NaN where pandas itself says so, and refused where it leaves that to others."""
    pandas = pytest.importorskip("pandas")

    def table(values, dtype):
        column = pandas.Series(values, dtype=dtype)
        return pandas.DataFrame(dict.fromkeys("ab"[:columns], column)) if columns else column

    for name, dtype in (("Float64", np.float64), ("Float32", np.float32), ("Int64", np.float64)):
        x = table([1, 2, 0], name)
        expected = fs.softmax(x.to_numpy().astype(dtype), 0, backend=backend)
        checks.assert_same_bits(fs.softmax(x, 0, backend=backend), expected)
    where = fs.softmax(np.eye(2), where=table([True, False], "boolean"), backend=backend)
    assert where.shape == (2, 2)
    if columns == 0:
        labels = table([1, 0], "Int64")
        fs.cross_entropy(np.eye(2), labels, backend=backend)
    if columns == 2:
        with pytest.raises(TypeError, match=r"x\[1, 0\] is <NA>, which is no real number"):
            fs.softmax(table([1.0, None], "Float64"), backend=backend)
