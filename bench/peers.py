"""Who is measured: this library's backends, the peers and the floors, behind one interface.

A `Candidate` prepares a case: the arrays become its own kind outside of the measured time, and the
function that it returns does what a user of that library would call.
"""

import importlib
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

import fastsoftmax as fs

DEFAULT = "fastsoftmax"  # the candidate that names no backend

# The naive loops take 1 us an element; a cell of them that lasts seconds would tell nothing more.
MOST_ELEMENTS = {"python": 20_000, "autograd": 10_000}


@dataclass(frozen=True)
class Candidate:
    """Something to time. ``kind`` is "backend", "peer" or "floor"."""

    name: str
    kind: str
    ops: dict  # op -> function(*arrays, axis=, out=)
    array: object = np.asarray  # to the candidate's own arrays
    to_numpy: object = np.asarray
    set_threads: object = lambda n: None
    plain: bool = False  # called without the arguments that are as by default

    def has(self, case):
        return _key(case) in self.ops and case.size <= MOST_ELEMENTS.get(self.name, case.size)

    def prepare(self, case, args):
        """A function without arguments that computes the case."""
        arrays = [self.array(a) for a in args]
        out = self.array(np.empty(case.shape, case.dtype)) if case.out else None
        given = {"axis": case.axis, "out": out}
        if self.plain:
            given = {k: v for k, v in given.items() if v is not None and (k, v) != ("axis", -1)}
        return partial(self.ops[_key(case)], *arrays, **given)

    def result(self, value):
        if isinstance(value, tuple):
            return tuple(map(self.to_numpy, value))
        return self.to_numpy(value)


def _key(case):
    return case.op if case.layout == "batched" else f"{case.op} {case.layout}"


def backends():
    """This library's usable backends, fastest first."""
    return [_ours(name, name) for name in fs.available_backends()]


def default():
    """This library as users call it: no backend named, and nothing said that is so by default."""
    return replace(_ours(DEFAULT, None), plain=True)


def _ours(name, backend):
    functions = {op: getattr(fs, op) for op in fs.registry.OPS}
    functions["softmax_jacobian dense"] = partial(fs.softmax_jacobian, layout="dense")
    if backend is None:
        ops = functions
    else:
        ops = {key: _without_out(partial(function, backend=backend)) for key, function in functions.items()}
    return Candidate(name, "backend", ops, set_threads=fs.set_num_threads)


def _without_out(function):
    """Not all ops take ``out``; those that do are given it where there is one."""

    def run(*args, axis, out):
        return function(*args, axis) if out is None else function(*args, axis, out=out)

    return run


@cache
def peers():
    """The peers that are installed here."""
    return [make() for name, make in PEERS.items() if missing(name) is None]


@cache
def missing(name):
    """Why a peer is absent, or None."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken installation raises
        return f"{type(error).__name__}: {error}"
    return None


def floors():
    """What memory allows: a copy, an addition, a fill."""
    copies = ("softmax", "log_softmax", "cross_entropy_with_grad")
    products = ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp")
    ops = {
        **{op: _into_warm(lambda x, *_, out: np.copyto(out, x)) for op in copies},
        **{op: _into_warm(lambda y, g, out: np.add(y, g, out=out)) for op in products},
        "softmax_jacobian": lambda y, **_: np.full((*y.shape, y.shape[-1]), 0.5, y.dtype),
    }
    return [Candidate("floor", "floor", ops)]


def _into_warm(function):
    """A floor writes into an array whose pages exist, also where the op allocates."""
    buffers = {}

    def run(*args, axis, out):
        x = args[0]
        if (x.shape, x.dtype) not in buffers:
            buffers.clear()
            buffers[x.shape, x.dtype] = np.zeros_like(x)
        return function(*args, out=buffers[x.shape, x.dtype])

    return run


def _numpy():
    """The textbook formulas, each with the stable shift."""

    def softmax(x, axis, out):
        e = np.exp(x - x.max(axis, keepdims=True))
        return np.divide(e, e.sum(axis, keepdims=True), out=out)

    def log_softmax(x, axis, out):
        d = x - x.max(axis, keepdims=True)
        return np.subtract(d, np.log(np.exp(d).sum(axis, keepdims=True)), out=out)

    def logsumexp(x, axis, out):
        m = x.max(axis, keepdims=True)
        return (m + np.log(np.exp(x - m).sum(axis, keepdims=True))).squeeze(axis)

    def softmax_vjp(y, g, axis, out):
        return np.multiply(y, g - (y * g).sum(axis, keepdims=True), out=out)

    def log_softmax_vjp(logy, g, axis, out):
        return np.subtract(g, np.exp(logy) * g.sum(axis, keepdims=True), out=out)

    def log_softmax_jvp(logy, t, axis, out):
        return np.subtract(t, (np.exp(logy) * t).sum(axis, keepdims=True), out=out)

    def softmax_jacobian(y, axis, out):
        jacobians = -y[:, :, None] * y[:, None, :]
        np.einsum("pii->pi", jacobians)[...] += y
        return jacobians

    def softmax_jacobian_dense(y, axis, out):
        m, n = y.shape
        jacobian = np.zeros((m, n, m, n), y.dtype)
        for p, row in enumerate(y):
            jacobian[p, :, p, :] = np.diag(row) - np.outer(row, row)
        return jacobian

    def cross_entropy(x, labels, axis, out):
        logy = log_softmax(x, axis, None)
        return -logy[np.arange(len(x)), labels].mean()

    def cross_entropy_with_grad(x, labels, axis, out):
        rows = np.arange(len(x))
        d = x - x.max(axis, keepdims=True)
        e = np.exp(d)
        total = e.sum(axis, keepdims=True)
        loss = (np.log(total[:, 0]) - d[rows, labels]).mean()
        e /= total
        e[rows, labels] -= 1
        e /= len(x)
        return loss, e

    return Candidate("numpy textbook", "peer", _table(locals()))


def _scipy():
    from scipy import special

    def softmax(x, axis, out):
        return special.softmax(x, axis)

    def log_softmax(x, axis, out):
        return special.log_softmax(x, axis)

    def logsumexp(x, axis, out):
        return special.logsumexp(x, axis)

    return Candidate("scipy", "peer", _table(locals()))


def _torch():
    import torch
    from torch.nn.functional import cross_entropy as loss_of

    def softmax(x, axis, out):
        return torch.softmax(x, axis, out=out)

    def log_softmax(x, axis, out):
        return torch.log_softmax(x, axis, out=out)

    def logsumexp(x, axis, out):
        return torch.logsumexp(x, axis)

    # PyTorch's own backward kernels, without its tape around them.
    def softmax_vjp(y, g, axis, out):
        if out is not None:
            return torch.ops.aten._softmax_backward_data.out(g, y, axis, y.dtype, grad_input=out)
        return torch.ops.aten._softmax_backward_data(g, y, axis, y.dtype)

    def log_softmax_vjp(logy, g, axis, out):
        return torch.ops.aten._log_softmax_backward_data(g, logy, axis, logy.dtype)

    def log_softmax_jvp(logy, t, axis, out):
        return t - (logy.exp() * t).sum(axis, keepdim=True)

    def softmax_jacobian(y, axis, out):
        return torch.diag_embed(y) - y[:, :, None] * y[:, None, :]

    def cross_entropy(x, labels, axis, out):
        return loss_of(x, labels)

    def cross_entropy_with_grad(x, labels, axis, out):
        x = x.detach().requires_grad_()
        loss = loss_of(x, labels)
        (dx,) = torch.autograd.grad(loss, x)
        return loss.detach(), dx

    ops = _table(locals())
    return Candidate("torch", "peer", ops, torch.from_numpy, np.asarray, torch.set_num_threads)


def _jax():
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def softmax(x, axis):
        return jax.nn.softmax(x, axis)

    def log_softmax(x, axis):
        return jax.nn.log_softmax(x, axis)

    def logsumexp(x, axis):
        return jax.nn.logsumexp(x, axis)

    def softmax_vjp(y, g, axis):
        return y * (g - (y * g).sum(axis, keepdims=True))

    def log_softmax_vjp(logy, g, axis):
        return g - jnp.exp(logy) * g.sum(axis, keepdims=True)

    def log_softmax_jvp(logy, t, axis):
        return t - (jnp.exp(logy) * t).sum(axis, keepdims=True)

    def softmax_jacobian(y, axis):
        return y[:, :, None] * (jnp.eye(y.shape[-1], dtype=y.dtype) - y[:, None, :])

    def cross_entropy(x, labels, axis):
        logy = jax.nn.log_softmax(x, axis)
        return -jnp.take_along_axis(logy, labels[:, None], axis).mean()

    def cross_entropy_with_grad(x, labels, axis):
        return jax.value_and_grad(cross_entropy)(x, labels, axis)

    def waiting(function):
        compiled = jax.jit(function, static_argnames="axis")
        return lambda *args, axis, out: jax.block_until_ready(compiled(*args, axis=axis))

    ops = {op: waiting(function) for op, function in _table(locals()).items()}
    return Candidate("jax", "peer", ops, jnp.asarray)


def _numexpr():
    import numexpr as ne

    def evaluate(formula, out=None, **arrays):
        return ne.evaluate(formula, arrays, out=out)

    def shifted_exp_sum(x, axis):
        m = x.max(axis, keepdims=True)
        e = evaluate("exp(x - m)", x=x, m=m)
        return m, e, e.sum(axis, keepdims=True)

    def softmax(x, axis, out):
        _, e, total = shifted_exp_sum(x, axis)
        return evaluate("e / total", out, e=e, total=total)

    def log_softmax(x, axis, out):
        m, _, total = shifted_exp_sum(x, axis)
        return evaluate("x - m - log(total)", out, x=x, m=m, total=total)

    def logsumexp(x, axis, out):
        m, _, total = shifted_exp_sum(x, axis)
        return evaluate("m + log(total)", m=m, total=total).squeeze(axis)

    def softmax_vjp(y, g, axis, out):
        total = evaluate("y * g", y=y, g=g).sum(axis, keepdims=True)
        return evaluate("y * (g - total)", out, y=y, g=g, total=total)

    def log_softmax_vjp(logy, g, axis, out):
        total = g.sum(axis, keepdims=True)
        return evaluate("g - exp(logy) * total", out, g=g, logy=logy, total=total)

    def log_softmax_jvp(logy, t, axis, out):
        total = evaluate("exp(logy) * t", logy=logy, t=t).sum(axis, keepdims=True)
        return evaluate("t - total", out, t=t, total=total)

    return Candidate("numexpr", "peer", _table(locals()), set_threads=ne.set_num_threads)


def _autograd():
    import autograd
    import autograd.numpy as anp

    def of_logits(x):
        e = anp.exp(x - anp.max(x, axis=-1, keepdims=True))
        return e / anp.sum(e, axis=-1, keepdims=True)

    def softmax_jacobian_dense(y, axis, out):
        return autograd.jacobian(of_logits)(np.log(y))

    return Candidate("autograd", "peer", _table(locals()))


def _table(functions):
    """A peer's local functions by key of the case."""
    ops = (*fs.registry.OPS, "softmax_jacobian_dense")
    return {op.replace("_dense", " dense"): functions[op] for op in ops if op in functions}


PEERS = {
    "numpy": _numpy,
    "scipy": _scipy,
    "torch": _torch,
    "jax": _jax,
    "numexpr": _numexpr,
    "autograd": _autograd,
}
