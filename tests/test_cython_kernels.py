"""Promise: users' Cython takes the kernels by `cimport`, from the installed package, in two lines."""

import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax as fs
from tests import inputs, processes

SETUP = """from setuptools import setup; from Cython.Build import cythonize
setup(ext_modules=cythonize("user.pyx"))
"""
USER = """# cython: language_level=3
from fastsoftmax.cython_kernels cimport (
    cross_entropy_{t}, log_softmax_{t}, logsumexp_{t}, logsumexp_columns_{t}, logsumexp_rows_{t}, softmax_{t},
    softmax_vjp_{t},
)

def results(const {real}[:, ::1] x, const {real}[:, ::1] g, const Py_ssize_t[::1] labels,
            {real}[:, :, ::1] to, {real}[:, ::1] rows, {real}[::1] columns):
    cdef Py_ssize_t m = x.shape[0], n = x.shape[1]
    with nogil:
        softmax_{t}(&x[0, 0], &to[0, 0, 0], m, n)
        log_softmax_{t}(&x[0, 0], &to[1, 0, 0], m, n)
        softmax_vjp_{t}(&to[0, 0, 0], &g[0, 0], &to[2, 0, 0], m, n)
        logsumexp_rows_{t}(&x[0, 0], &rows[0, 0], m, n)
        logsumexp_columns_{t}(&x[0, 0], &columns[0], m, n)
        cross_entropy_{t}(&x[0, 0], &labels[0], &rows[1, 0], &to[3, 0, 0], m, n, 0.5)
        cross_entropy_{t}(&x[0, 0], &labels[0], &rows[2, 0], NULL, m, n, 1)
    return logsumexp_{t}(&x[0, 0], n)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("t", "real"), [("f64", "double"), ("f32", "float")])
def test_a_users_module(tmp_path, t, real):
    """Compiled in an empty environment; a fused type would give names that no setup could rely on."""
    folder, python = tmp_path / "user", tmp_path / "venv" / "bin" / "python"
    folder.mkdir()
    venv.create(tmp_path / "venv", with_pip=True)
    source = shutil.copytree(processes.ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "*.so"))
    _run(python, "-m", "pip", "install", "-q", source, "cython", "setuptools")
    (folder / "setup.py").write_text(SETUP)
    (folder / "user.pyx").write_text(USER.format(t=t, real=real))
    _run(python, "setup.py", "-q", "build_ext", "--inplace", cwd=folder)
    x, g = (inputs.rng(i).normal(size=(37, 11)).astype(t[0] + {"64": "8", "32": "4"}[t[1:]]) for i in (0, 1))
    labels = inputs.rng(2).integers(0, 11, 37)
    np.savez(folder / "given.npz", x=x, g=g, labels=labels)
    _run(python, "-c", CALL, cwd=folder)
    found = np.load(folder / "found.npz")
    y = fs.softmax(x)
    losses, dx = fs.cross_entropy_with_grad(x, labels, reduction="none")
    for actual, expected in zip(
        found["to"], (y, fs.log_softmax(x), fs.softmax_vjp(y, g), dx / 2), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    for actual, expected in zip(found["rows"], (fs.logsumexp(x), losses, losses), strict=True):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(found["columns"], fs.logsumexp(x, 0))
    assert found["one"] == fs.logsumexp(x[0])


CALL = """
import numpy as np, user
given = np.load("given.npz")
x, g, labels = given["x"], given["g"], given["labels"]
to, rows, columns = (np.empty(shape, x.dtype) for shape in ((4, *x.shape), (3, len(x)), x.shape[1]))
one = user.results(x, g, labels, to, rows, columns)
np.savez("found.npz", to=to, rows=rows, columns=columns, one=one)
"""


def _run(*command, cwd=None):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]


def test_the_names_stay():
    """More may come; what there is keeps its name and signature."""
    if fs.backend_status()["cython"] != "available":
        pytest.skip(fs.backend_status()["cython"])
    from fastsoftmax import _kernels

    rows = "void ({r} const *, {r} *, Py_ssize_t, Py_ssize_t)"
    signatures = {
        "softmax": rows,
        "log_softmax": rows,
        "logsumexp": "{r} ({r} const *, Py_ssize_t)",
        "logsumexp_rows": rows,
        "logsumexp_columns": rows,
        "softmax_vjp": "void ({r} const *, {r} const *, {r} *, Py_ssize_t, Py_ssize_t)",
        "cross_entropy": "void ({r} const *, Py_ssize_t const *, {r} *, {r} *, "
        "Py_ssize_t, Py_ssize_t, double)",
    }
    found = {name: repr(capsule).split('"')[1] for name, capsule in _kernels.__pyx_capi__.items()}
    for name, signature in signatures.items():
        for suffix, real in (("f64", "double"), ("f32", "float")):
            assert found[f"{name}_{suffix}"] == signature.format(r=real)
    assert Path(fs.__file__).with_name("cython_kernels.pxd").exists()
