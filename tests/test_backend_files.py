"""Promise: the files of fastsoftmax/backends/ hold the same ops, in one order, with the same arguments."""

import ast
import inspect
from pathlib import Path

import pytest

import fastsoftmax
from fastsoftmax import registry
from tests import oracle

PACKAGE = Path(fastsoftmax.__file__).parent
FILES = sorted(p for p in (PACKAGE / "backends").glob("*.py") if not p.name.startswith("_"))


def _tree(path):
    return ast.parse(path.read_text("utf-8"))


def _ops(path):
    """The ops that a file defines, in order, with their arguments; None where it binds a compiled one."""
    ops = []
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef):
            ops.append((node.name, [a.arg for a in node.args.args]))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            ops.append((node.targets[0].id, None))
    return [(name, arguments) for name, arguments in ops if name in registry.OPS]


SPECIFICATION = _ops(PACKAGE / "backends" / "python.py")


def test_the_specification_has_every_op_in_order():
    assert [name for name, _ in SPECIFICATION] == list(registry.OPS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_same_ops_same_order_same_arguments(path):
    """What follows the specification's arguments is filled in by the file's own decorator."""
    missing = oracle.NOT_ON_CUDA if path.stem == "cuda" else ()
    specification = [(name, arguments) for name, arguments in SPECIFICATION if name not in missing]
    assert [name for name, _ in _ops(path)] == [name for name, _ in specification]
    for (name, arguments), (_, specified) in zip(_ops(path), specification, strict=True):
        if arguments is not None:
            assert arguments[: len(specified)] == specified, name
            assert set(arguments[len(specified) :]) <= {"part", "parts", "stop"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_no_file_raises_or_knows_of_an_axis(path):
    """Validation is the public layer's: a kernel sees canonical arrays, and no caller's axis."""
    functions = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)]
    for node in (node for function in functions for node in ast.walk(function)):
        assert not isinstance(node, ast.Raise), f"{path.name}:{node.lineno} raises"
    assert not any("axis" in (arguments or ()) for _, arguments in _ops(path))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_nothing_asks_for_a_backend_by_name(path):
    """``backend ==`` would be a second table."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "backend":
            assert not any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops), f"{path}:{node.lineno}"


def test_every_public_op_is_tested_and_has_a_kernel():
    public = [name for name in fastsoftmax.__all__ if name in vars(fastsoftmax.api)]
    assert sorted(public) == sorted((*oracle.OPS, *registry.SEGMENTS))
    kernels = {registry._SAME_KERNEL.get(name, name) for name in public}
    kernels |= {f"{op}_diagonal" for op in oracle.JACOBIANS} | {"weighted_logsumexp"}
    assert kernels | {f"soft_{op}" for op in public if "entropy" in op} == set(registry.OPS)


@pytest.mark.parametrize("op", oracle.OPS)
def test_public_signatures(op):
    """Arrays are positional only, then ``axis=-1``, then keywords: ``backend``, ``num_threads`` last."""
    parameters = list(inspect.signature(getattr(fastsoftmax, op)).parameters.values())
    kinds = [p.kind for p in parameters]
    axis = [p.name for p in parameters].index("axis")
    assert parameters[axis].default == -1
    assert kinds[:axis] == [inspect.Parameter.POSITIONAL_ONLY] * axis
    assert kinds[axis + 1 :] == [inspect.Parameter.KEYWORD_ONLY] * (len(parameters) - axis - 1)
    assert [p.name for p in parameters[-2:]] == ["backend", "num_threads"]
    assert ("out" in [p.name for p in parameters]) == (op in oracle.TAKE_OUT)


@pytest.mark.parametrize("op", registry.SEGMENTS)
def test_public_signatures_of_ragged_rows(op):
    """Arrays and ``ptr`` are positional only, then keywords; there is no axis."""
    parameters = list(inspect.signature(getattr(fastsoftmax, op)).parameters.values())
    names = [p.name for p in parameters]
    last = names.index("ptr") + 1
    assert all(p.kind is p.POSITIONAL_ONLY for p in parameters[:last])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[last:])
    assert names[last:] == ["out", "backend", "num_threads"]


@pytest.mark.parametrize("op", [*oracle.OPS, *registry.SEGMENTS])
def test_docstrings(op):
    """numpydoc sections; a derivative says first that it takes the forward output."""
    text = inspect.getdoc(getattr(fastsoftmax, op))
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert f"{section}\n{'-' * len(section)}" in text
    if op in oracle.JACOBIANS or registry.SEGMENTS.get(op, op) in oracle.TWO_ARRAYS:
        assert "Takes the forward output" in text.split("Parameters")[0]
