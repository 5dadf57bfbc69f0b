"""Who is measured: this library's backends, the peers and the floors, behind one interface.

A `Candidate` prepares a case: the arrays become its own kind outside of the measured time, and the
function that it returns does what a user of that library would call.
"""

import importlib
from contextvars import copy_context
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

import fastsoftmax as fs
from bench.cases import JACOBIANS, SEGMENTS

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
    dtypes: tuple = ("float64", "float32", "float16", "bfloat16")
    has_strides: bool = True  # its arrays may lie in memory as NumPy's do

    def has(self, case):
        return (
            _key(case) in self.ops
            and case.dtype in self.dtypes
            and (self.has_strides or not case.side_path.is_strided)
            and case.size <= MOST_ELEMENTS.get(self.name, case.size)
        )

    def prepare(self, case, call):
        """A function without arguments that computes the case; what is no array is converted within it."""
        out = self.array(np.empty(case.shape, case.dtype)) if case.out else None
        given = {"out": out} if case.op in SEGMENTS else {"axis": case.axis, "out": out}
        if self.plain:
            given = {k: v for k, v in given.items() if v is not None and (k, v) != ("axis", -1)}
        given |= {k: self.array(v) if isinstance(v, np.ndarray) else v for k, v in call.said.items()}
        function = self.ops[_key(case)]
        if not all(isinstance(a, np.ndarray) for a in call.args):
            return lambda: function(*map(self.array, call.args), **given)
        return partial(function, *map(self.array, call.args), **given)

    def result(self, value):
        if isinstance(value, tuple):
            return tuple(map(self.to_numpy, value))
        return self.to_numpy(value)


def _key(case):
    words = [case.op] if case.layout == "batched" else [case.op, case.layout]
    return " ".join(words + ["where="] * (case.path == "where="))


def backends():
    """This library's usable backends, fastest first."""
    return [_ours(name) for name in fs.available_backends()]


class Default(Candidate):
    """This library as users call it: no backend named, and nothing said that is so by default."""

    def prepare(self, case, call):
        run = super().prepare(case, call._replace(said=call.said | call.ours))
        if case.path != "use_backend":
            return run
        within = copy_context()  # as the block of ``with use_backend("cython"):`` is
        within.run(fs.registry._context.set, "cython")
        return partial(within.run, run)


def default():
    """The candidate that names no backend."""
    return Default(DEFAULT, "backend", _functions(), _as_it_is, set_threads=fs.set_num_threads, plain=True)


def _ours(name):
    ops = {key: _without_out(partial(function, backend=name)) for key, function in _functions().items()}
    return Candidate(name, "backend", ops, _as_it_is, set_threads=fs.set_num_threads)


def _functions():
    functions = {op: getattr(fs, op) for op in fs.registry.OPS if op in fs.__all__}
    functions["softmax where="] = fs.softmax
    for layout in ("dense", "diagonal"):
        functions[f"softmax_jacobian {layout}"] = partial(fs.softmax_jacobian, layout=layout)
    return functions


def _as_it_is(a):
    return a


def _without_out(function):
    """Not all ops take ``out``; those that do are given it where there is one."""

    def run(*args, out, **said):
        return function(*args, **said) if out is None else function(*args, out=out, **said)

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
    copies = ("softmax", "log_softmax", "cross_entropy_with_grad", "softmax_jacobian diagonal", *SEGMENTS[:2])
    products = ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp", "softmax_solve", "segment_softmax_vjp")
    ops = {
        **{op: _into_warm(lambda x, *_, out: np.copyto(out, x)) for op in copies},
        **{op: _into_warm(lambda y, g, *_, out: np.add(y, g, out=out)) for op in products},
        **{op: lambda y, **_: np.full((*y.shape, y.shape[-1]), 0.5, y.dtype) for op in JACOBIANS},
        "softmax_jacobian dense": lambda y, **_: _touched(np.zeros((*y.shape, *y.shape), y.dtype)),
    }
    return [Candidate("floor", "floor", ops)]


def _touched(fresh, page=4096):
    """One entry of each page of memory written."""
    fresh.reshape(-1)[:: page // fresh.itemsize] = 0.5
    return fresh


def _into_warm(function):
    """A floor writes into an array whose pages exist, also where the op allocates."""
    buffers = {}

    def run(*args, **_):
        x = args[0]
        if (x.shape, x.dtype) not in buffers:
            buffers.clear()
            buffers[x.shape, x.dtype] = np.zeros_like(x)
        return function(*args, out=buffers[x.shape, x.dtype])

    return run


def _numpy():
    """The textbook formulas, each with the stable shift."""

    def softmax(x, axis, out):
        wide = x.astype(np.float32) if x.itemsize == 2 else x  # a sum of 50257 bfloat16 is off by a third
        e = np.exp(wide - wide.max(axis, keepdims=True))
        return np.divide(e, e.sum(axis, keepdims=True), out=out).astype(x.dtype, copy=False)

    def softmax_where(x, axis, out, where):
        return softmax(np.where(where, x, -np.inf), axis, out)

    def log_softmax(x, axis, out):
        d = x - x.max(axis, keepdims=True)
        return np.subtract(d, np.log(np.exp(d).sum(axis, keepdims=True)), out=out)

    def logsumexp(x, axis, out, b=None):
        m = x.max(axis, keepdims=True)
        e = np.exp(x - m)
        if b is not None:
            e *= b
        return (m + np.log(e.sum(axis, keepdims=True))).squeeze(axis)

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

    def softmax_solve(y, b, axis, out, ridge):
        matrices = softmax_jacobian(y, axis, None)
        np.einsum("pii->pi", matrices)[...] += y.dtype.type(ridge)
        return np.linalg.solve(matrices, b[:, :, None])[:, :, 0]

    def log_softmax_jacobian(logy, axis, out):
        return np.eye(logy.shape[1], dtype=logy.dtype) - np.exp(logy)[:, None, :]

    def softmax_jacobian_diagonal(y, axis, out):
        return y * (1 - y)

    def softmax_jacobian_dense(y, axis, out):
        m, n = y.shape
        jacobian = np.zeros((m, n, m, n), y.dtype)
        for p, row in enumerate(y):
            jacobian[p, :, p, :] = np.diag(row) - np.outer(row, row)
        return jacobian

    def cross_entropy(x, labels, axis, out, **said):
        factor, at_label, everywhere = factors(x, labels, **said)
        logy = log_softmax(x, axis, None)
        loss = -(at_label * logy[np.arange(len(x)), labels])
        if everywhere is not None:
            loss -= logy @ everywhere
        return loss * factor if said.get("reduction") == "none" else (loss * factor).sum()

    def cross_entropy_with_grad(x, labels, axis, out, **said):
        if labels.ndim == 2:
            return of_probabilities(x, labels, axis)
        rows = np.arange(len(x))
        factor, at_label, everywhere = factors(x, labels, **said)
        d = x - x.max(axis, keepdims=True)
        e = np.exp(d)
        total = e.sum(axis, keepdims=True)
        of_all = 0 if everywhere is None else everywhere.sum()
        loss = (at_label + of_all) * np.log(total[:, 0]) - at_label * d[rows, labels]
        e *= (at_label + of_all)[:, None] / total if np.ndim(at_label) else (at_label + of_all) / total
        e[rows, labels] -= at_label
        if everywhere is not None:
            loss -= d @ everywhere
            e -= everywhere
        e *= factor
        return loss * factor if said.get("reduction") == "none" else (loss * factor).sum(), e

    def of_probabilities(x, t, axis):
        d = x - x.max(axis, keepdims=True)
        e = np.exp(d)
        total = e.sum(axis, keepdims=True)
        sums = t.sum(axis, keepdims=True)
        loss = (sums * np.log(total)).sum() - np.einsum("ij,ij->", t, d)
        e *= sums / (len(x) * total)
        e -= t / x.dtype.type(len(x))
        return loss / x.dtype.type(len(x)), e

    def segment_softmax(x, ptr, out):
        n = np.diff(ptr)
        e = np.exp(x - np.repeat(np.maximum.reduceat(x, ptr[:-1]), n))
        return np.divide(e, np.repeat(np.add.reduceat(e, ptr[:-1]), n), out=out)

    def segment_log_softmax(x, ptr, out):
        return np.subtract(x, np.repeat(segment_logsumexp(x, ptr, None), np.diff(ptr)), out=out)

    def segment_logsumexp(x, ptr, out):
        m = np.maximum.reduceat(x, ptr[:-1])
        return m + np.log(np.add.reduceat(np.exp(x - np.repeat(m, np.diff(ptr))), ptr[:-1]))

    def segment_softmax_vjp(y, g, ptr, out):
        return np.multiply(y, g - np.repeat(np.add.reduceat(y * g, ptr[:-1]), np.diff(ptr)), out=out)

    def factors(
        x,
        labels,
        weight=None,
        sample_weight=None,
        ignore_index=None,
        label_smoothing=0.0,
        reduction="mean",
    ):
        """Of all losses, of each row's at its label, and at each class; no path both ignores and smooths."""
        one = x.dtype.type(1)
        at_label = one if weight is None else weight[labels]
        if ignore_index is not None:
            at_label = at_label * (labels != ignore_index).astype(x.dtype)
        if sample_weight is not None:
            at_label = at_label * sample_weight
        total = (np.sum(at_label) if np.ndim(at_label) else len(x)) if reduction == "mean" else 1
        everywhere = np.full(x.shape[1], label_smoothing / x.shape[1], x.dtype) if label_smoothing else None
        return one / x.dtype.type(total), at_label * (one - x.dtype.type(label_smoothing)), everywhere

    return Candidate("numpy textbook", "peer", _table(locals()))


def _scipy():
    from scipy import special

    def softmax(x, axis, out):
        return special.softmax(x, axis)

    def softmax_where(x, axis, out, where):
        return special.softmax(np.where(where, x, -np.inf), axis)

    def log_softmax(x, axis, out):
        return special.log_softmax(x, axis)

    def logsumexp(x, axis, out, b=None):
        return special.logsumexp(x, axis, b)

    return Candidate("scipy", "peer", _table(locals()), dtypes=("float64", "float32", "float16"))


def _torch():
    import torch
    from torch.nn.functional import cross_entropy as loss_of

    def softmax(x, axis, out):
        if isinstance(axis, tuple):
            return torch.softmax(x.flatten(axis[0], axis[-1]), axis[0]).view(x.shape)
        return torch.softmax(x, axis, out=out)

    def softmax_where(x, axis, out, where):
        return torch.softmax(torch.where(where, x, -torch.inf), axis)

    def log_softmax(x, axis, out):
        return torch.log_softmax(x, axis, out=out)

    def logsumexp(x, axis, out, b=None):
        return torch.logsumexp(x if b is None else x + b.log(), axis)

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

    def softmax_solve(y, b, axis, out, ridge):
        matrices = softmax_jacobian(y, axis, None) + ridge * torch.eye(y.shape[1], dtype=y.dtype)
        return torch.linalg.solve(matrices, b)

    def log_softmax_jacobian(logy, axis, out):
        return torch.eye(logy.shape[1], dtype=logy.dtype) - logy.exp()[:, None, :]

    def softmax_jacobian_diagonal(y, axis, out):
        return y * (1 - y)

    def cross_entropy(x, labels, axis, out, **said):
        return loss_of(x, labels, **said)

    def cross_entropy_with_grad(x, labels, axis, out, sample_weight=None, **said):
        x = x.detach().requires_grad_()
        if sample_weight is None:
            loss = loss_of(x, labels, **said)
        else:
            loss = (loss_of(x, labels, reduction="none") * sample_weight).sum() / sample_weight.sum()
        (dx,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
        return loss.detach(), dx

    def over_segments(kind, x, ptr):
        return torch.segment_reduce(x, kind, offsets=ptr)

    def spread(values, ptr):
        return values.repeat_interleave(ptr.diff())

    def segment_softmax(x, ptr, out):
        e = (x - spread(over_segments("max", x, ptr), ptr)).exp()
        return torch.div(e, spread(over_segments("sum", e, ptr), ptr), out=out)

    def segment_log_softmax(x, ptr, out):
        return torch.sub(x, spread(segment_logsumexp(x, ptr, None), ptr), out=out)

    def segment_logsumexp(x, ptr, out):
        m = over_segments("max", x, ptr)
        return m + over_segments("sum", (x - spread(m, ptr)).exp(), ptr).log()

    def segment_softmax_vjp(y, g, ptr, out):
        return torch.mul(y, g - spread(over_segments("sum", y * g, ptr), ptr), out=out)

    def array(a):
        if not isinstance(a, np.ndarray):
            return torch.tensor(a, dtype=torch.float64)
        if a.dtype.name == "bfloat16":
            return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(a if a.dtype != np.int32 else a.astype(np.int64))

    def to_numpy(t):
        return t.float().numpy() if t.dtype == torch.bfloat16 else t.numpy()

    ops = _table(locals())
    return Candidate("torch", "peer", ops, array, to_numpy, torch.set_num_threads)


def _jax():
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def softmax(x, axis):
        return jax.nn.softmax(x, axis)

    def softmax_where(x, axis, where):
        return jax.nn.softmax(x, axis, where=where)

    def log_softmax(x, axis):
        return jax.nn.log_softmax(x, axis)

    def logsumexp(x, axis, b=None):
        return jax.nn.logsumexp(x, axis, b)

    def softmax_vjp(y, g, axis):
        return y * (g - (y * g).sum(axis, keepdims=True))

    def log_softmax_vjp(logy, g, axis):
        return g - jnp.exp(logy) * g.sum(axis, keepdims=True)

    def log_softmax_jvp(logy, t, axis):
        return t - (jnp.exp(logy) * t).sum(axis, keepdims=True)

    def softmax_jacobian(y, axis):
        return y[:, :, None] * (jnp.eye(y.shape[-1], dtype=y.dtype) - y[:, None, :])

    def softmax_solve(y, b, axis, ridge):
        matrices = softmax_jacobian(y, axis) + ridge * jnp.eye(y.shape[-1], dtype=y.dtype)
        return jnp.linalg.solve(matrices, b[:, :, None])[:, :, 0]

    def log_softmax_jacobian(logy, axis):
        return jnp.eye(logy.shape[-1], dtype=logy.dtype) - jnp.exp(logy)[:, None, :]

    def softmax_jacobian_diagonal(y, axis):
        return y * (1 - y)

    def losses(x, labels, axis, weight=None, sample_weight=None, ignore_index=None, label_smoothing=0.0):
        """And what a mean divides by."""
        logy = jax.nn.log_softmax(x, axis)
        if labels.ndim == 2:
            return -(labels * logy).sum(axis), len(x)
        at_label = jnp.take_along_axis(logy, labels[:, None], axis)[:, 0]
        loss = -(1 - label_smoothing) * at_label
        if label_smoothing:
            loss -= label_smoothing * logy.mean(axis)
        factor = jnp.ones_like(loss) if weight is None else weight[labels]
        if ignore_index is not None:
            factor *= labels != ignore_index
        if sample_weight is not None:
            factor *= sample_weight
        return loss * factor, factor.sum()

    def cross_entropy(x, labels, axis, reduction="mean", **said):
        loss, total = losses(x, labels, axis, **said)
        return loss if reduction == "none" else loss.sum() / (total if reduction == "mean" else 1)

    def cross_entropy_with_grad(x, labels, axis, reduction="mean", **said):
        def summed(x):
            loss = cross_entropy(x, labels, axis, reduction, **said)
            return loss.sum(), loss

        (_, loss), dx = jax.value_and_grad(summed, has_aux=True)(x)
        return loss, dx

    def waiting(function, static):
        compiled = jax.jit(function, static_argnames=static)
        return lambda *args, axis, out, **said: jax.block_until_ready(compiled(*args, axis=axis, **said))

    options = ("axis", "reduction", "ignore_index", "label_smoothing")
    ops = {
        op: waiting(function, options if op.startswith("cross_entropy") else "axis")
        for op, function in _table(locals()).items()
    }
    return Candidate("jax", "peer", ops, jnp.asarray, has_strides=False)


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

    def logsumexp(x, axis, out, b=None):
        m, e, total = shifted_exp_sum(x, axis)
        if b is not None:
            total = evaluate("b * e", b=b, e=e).sum(axis, keepdims=True)
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

    ops = _table(locals())
    return Candidate("numexpr", "peer", ops, set_threads=ne.set_num_threads, dtypes=("float64", "float32"))


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
    keys = {op: op for op in fs.registry.OPS}
    keys |= {"softmax_where": "softmax where=", "softmax_jacobian_dense": "softmax_jacobian dense"}
    keys["softmax_jacobian_diagonal"] = "softmax_jacobian diagonal"
    return {key: functions[name] for name, key in keys.items() if name in functions}


PEERS = {
    "numpy": _numpy,
    "scipy": _scipy,
    "torch": _torch,
    "jax": _jax,
    "numexpr": _numexpr,
    "autograd": _autograd,
}
