"""``python -m tests.fuzz SECONDS [SEED]``: calls of the public ops with arguments of every kind.

A call returns what the formulas give, in NumPy's longdouble, or raises one of the documented errors and has
written nothing. What fails is printed with the seed that makes it again.
"""

import random
import sys
import time
import warnings
from contextlib import suppress

import numpy as np

import fastsoftmax as fs
from fastsoftmax import BackendUnavailable
from fastsoftmax._layouts import LAYOUTS
from tests.oracle import (
    FORWARD,
    JACOBIANS,
    ONE_A_ROW,
    OPS,
    PRODUCTS,
    SOLVES,
    TAKE_OUT,
    TWO_ARRAYS,
    longdouble_forward,
)

ERRORS = (TypeError, ValueError, IndexError, BackendUnavailable)  # AxisError is two of them
LOSSES = ("cross_entropy", "cross_entropy_with_grad")
FLOATS = ("f8", "f4", "f2")
INTEGERS = ("i8", "u1", "?", "M8[s]")
TOLERANCE = {"f8": 1e-11, "f4": 2e-5, "f2": 4e-3}

OBJECTS = (
    *(None, 3.5, 1j, float("nan"), 10**400, "text", b"bytes", memoryview(b"abc"), range(4), object(), int),
    *({}, {1.0}, [], [[]], [1.0, 2.0], [[1], [2, 3]], [None, 1.0], (1.0, [2.0])),
    *(np.ma.masked_array([1.0, 2.0], [0, 1]), np.ones((1, 2)).view(np.matrix), np.zeros(3, [("a", "f8")])),
)


def _axes(x, axis):
    """As a tuple; that of an array without dimensions is none."""
    ndim = np.ndim(x)
    if axis is None:
        return tuple(range(ndim))
    if not isinstance(axis, tuple):
        axis = (int(axis),)
    return tuple(a % ndim for a in axis) if ndim else ()


class Case:
    """One call, made from a seed."""

    def __init__(self, seed):
        self.seed, self.r, self.rng = seed, random.Random(seed), np.random.default_rng(seed)
        self.op = self.r.choice(OPS)
        self.x, self.kwargs = self._array(), {}
        self.axis = -1
        self._maybe("axis", self._axis, 0.7)
        self.axis = self.kwargs.get("axis", -1)
        self.is_output = self.op in PRODUCTS and self._make_output()
        self.args = [self.x]
        if self.op in TWO_ARRAYS:
            self.args.append(self._often(lambda: self._like(self.x), self._array))
        if self.op in LOSSES:
            self.args.append(self._often(self._labels, self._array))
        self._options()

    def _make_output(self):
        """Make ``x`` what the forward op gives for it, and whether that can be."""
        with suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = longdouble_forward(PRODUCTS[self.op], self.x, _axes(self.x, self.axis))
            self.x = np.asarray(y, self.r.choice(FLOATS))
            return True
        return False

    def _often(self, first, second, chance=0.9):
        return (first if self.r.random() < chance else second)()

    def _maybe(self, name, make, chance=0.2):
        if self.r.random() < chance:
            self.kwargs[name] = make()

    def _shape(self):
        return tuple(self.r.choice((0, 1, 2, 3, 5, 8, 9, 17)) for _ in range(self.r.randrange(5)))

    def _array(self):
        if self.r.random() < 0.1:
            return self._object()
        shape = self.r.choice(((), (5,), (3, 5), (2, 3, 4), (40, 7), (1, 300), self._shape()))
        dtype = self.r.choice((*FLOATS * 3, ">f8", "<f4", "i8", "u1", "?", "g", "c16", "O", "U3", "M8[s]"))
        return self._laid_out(self._values(shape), dtype)

    def _values(self, shape):
        a = self.rng.normal(size=shape) * self.r.choice((1, 10, 300))
        if self.r.random() < 0.1 and a.size:
            a.reshape(-1)[self.rng.integers(a.size)] = self.r.choice((np.nan, np.inf, -np.inf, 1e300))
        return np.asarray(a)

    def _laid_out(self, a, dtype):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a = np.asarray(np.clip(a, -1e9, 1e9).astype("i8") if dtype in INTEGERS else a).astype(dtype)
        kind = self.r.randrange(8)
        if kind == 1:
            a = np.asfortranarray(a)
        elif kind == 2 and a.ndim:
            a = a[::-1]
        elif kind == 3 and a.ndim > 1:
            a = a.T
        elif kind == 4 and a.ndim:
            a = np.repeat(a, 2, axis=0)[::2]
        elif kind == 5 and a.ndim and a.shape[0]:
            a = np.broadcast_to(a[:1], a.shape)
        elif kind == 6:
            a.flags.writeable = False
        elif kind == 7 and a.dtype != "O":
            a = np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
        return a

    def _object(self):
        return self.r.choice(OBJECTS)

    def _like(self, x):
        if not isinstance(x, np.ndarray):
            return x
        return self._laid_out(self._values(x.shape), self.r.choice(FLOATS))

    def _axis(self):
        ndim = getattr(self.x, "ndim", 1)
        inside = range(-ndim, ndim) or (0,)
        plain = (*inside,) * 3
        some = tuple(self.r.sample(range(ndim), self.r.randrange(ndim + 1)))
        return self.r.choice(
            (*plain, None, some, ndim, -ndim - 1, True, 0.0, "0", [0], np.int8(0), (0, 0), 1 << 70)
        )

    def _labels(self):
        shape = getattr(self.x, "shape", (2,))
        if self.r.random() < 0.2:
            return self._laid_out(self.rng.random(shape), self.r.choice(("f8", "f4", "f2")))
        kept, n = shape, 5
        if type(self.axis) is int and shape and -len(shape) <= self.axis < len(shape):
            kept, n = np.delete(shape, self.axis), shape[self.axis]
        labels = self.rng.integers(0, max(n, 1), tuple(kept))
        if self.r.random() < 0.1:
            labels = labels + self.r.choice((-1, 1, 1000))
        return self._laid_out(labels, self.r.choice(("i8", "i4", "u1", "i8", "f8")))

    def _options(self):
        self._maybe("backend", lambda: self.r.choice((*fs.available_backends(), "none", 3, "")), 0.5)
        self._maybe("num_threads", lambda: self.r.choice((1, 2, 3, 0, -1, "2", 2.0, True, 10**30, None)))
        if self.op in FORWARD:
            self._maybe("where", self._where)
        if self.op in ONE_A_ROW:
            self._maybe("keepdims", lambda: self.r.choice((True, False, 1, "yes", None, np.True_)))
        if self.op in JACOBIANS:
            self._maybe("layout", lambda: self.r.choice((*LAYOUTS, "x", None)))
        if self.op in SOLVES:
            self._maybe(
                "ridge", lambda: self.r.choice((0.1, 1, 1e-9, 0.0, -1.0, float("nan"), "1", None)), 0.8
            )
        if self.op in LOSSES:
            self._maybe("weight", lambda: self.rng.random(self.r.choice((1, 4, 5, 7))).astype("f4"))
            self._maybe("sample_weight", lambda: self.rng.random(self.r.choice((1, 4, 5, 7))).astype("f4"))
            self._maybe("ignore_index", lambda: self.r.choice((0, -1, 300, "0", 1.0, None)))
            self._maybe("label_smoothing", lambda: self.r.choice((0.1, 0, 1.0, -0.1, 2, "0.1", None)))
            self._maybe("reduction", lambda: self.r.choice(("mean", "sum", "none", "max", None)))
        if self.op in TAKE_OUT:
            self._maybe("out", self._out, 0.4)

    def _where(self):
        shape = getattr(self.x, "shape", (2,))
        return self._often(lambda: self.rng.random(shape[-self.r.randrange(1, 3) :]) < 0.7, self._array)

    def _out(self):
        shape = getattr(self.x, "shape", (2,))
        dtype = self.r.choice(("f8", "f4", getattr(self.x, "dtype", "f8")))
        if self.op in ONE_A_ROW and type(self.axis) is int and -len(shape) <= self.axis < len(shape):
            shape = np.delete(shape, self.axis)
        out = self._often(lambda: self._laid_out(np.full(tuple(shape), 7.0), dtype), self._array)
        return self.r.choice((out, out, self.x, self.args[-1]))

    # ---- the call ----

    def run(self):
        """None, or what is wrong."""
        given = [a for a in (*self.args, self.kwargs.get("out")) if isinstance(a, np.ndarray)]
        before = [a.tobytes() for a in given]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                result = getattr(fs, self.op)(*self.args, **self.kwargs)
        except ERRORS as error:
            written = any(a.tobytes() != b for a, b in zip(given, before, strict=True))
            return f"{error!r}, and something was written" if written else None
        except Exception as error:
            return repr(error)
        return self._check(result, given, before)

    def _check(self, result, given, before):
        out = self.kwargs.get("out")
        for a, b in zip(given, before, strict=True):
            if a.tobytes() != b and not (out is not None and np.may_share_memory(a, out)):
                return "an input was written"
        changed = out is not None and any(
            np.may_share_memory(out, a) for a in self.args if isinstance(a, np.ndarray)
        )
        options = set(self.kwargs) - {"axis", "backend", "num_threads", "out", "where", "keepdims"}
        several = self.op in LOSSES and len(_axes(self.x, self.axis)) != 1
        no_output = self.op in PRODUCTS and not self.is_output
        if changed or options or several or no_output or self.op in (*JACOBIANS, *SOLVES):
            return None  # values of these: tests/test_against_autograd.py, tests/test_solve.py
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._compare(result)

    def _compare(self, result):
        expected = self._expected()
        actual = result[0] if isinstance(result, tuple) else result
        dtypes = [np.asarray(a).dtype.str[1:] for a in (actual, *self.args)]
        if np.shape(actual) != np.shape(expected):
            return f"shape {np.shape(actual)}, expected {np.shape(expected)}"
        a, e = np.asarray(actual, np.longdouble), np.asarray(expected, np.longdouble)
        known = np.abs(e) < 1e30
        size = max(TOLERANCE.get(dtype, 0) for dtype in dtypes) * (1 + np.abs(e)) * self.size
        wrong = known & ~(np.abs(a - e) <= size)
        return f"{a[wrong][:3]}, expected {e[wrong][:3]}" if wrong.any() else None

    def _expected(self):
        """By the formulas, where that is finite; ``self.size`` is that of the terms."""
        x = np.asarray(self.args[0], np.longdouble)
        axes, self.size = _axes(x, self.axis), 1.0
        if self.op in PRODUCTS:
            v = np.asarray(self.args[1], np.longdouble)
            self.size = 1 + np.nanmax(np.abs(v), initial=0) * (1 + x.size)
            y = x if self.op.startswith("softmax") else np.exp(x)
            if self.op == "log_softmax_vjp":
                return v - y * v.sum(axes, keepdims=True)
            centred = v - (y * v).sum(axes, keepdims=True)
            return centred if self.op == "log_softmax_jvp" else y * centred
        if "where" in self.kwargs:
            x = np.where(np.asarray(self.kwargs["where"]), x, -np.inf)
        if self.op in ONE_A_ROW:
            result = longdouble_forward(self.op, x, axes)
            return np.expand_dims(result, axes) if self.kwargs.get("keepdims") else result
        if self.op in LOSSES:
            labels, logs = np.asarray(self.args[1]), longdouble_forward("log_softmax", x, axes)
            if labels.dtype.kind == "f":
                return -(labels.astype(np.longdouble) * logs).sum(axes).mean()
            return -np.take_along_axis(logs, np.expand_dims(labels, axes), axes[0]).mean()
        return longdouble_forward(self.op, x, axes)

    def __str__(self):
        def shown(a):
            return f"{type(a).__name__}{a.shape} {a.dtype}" if isinstance(a, np.ndarray) else repr(a)[:60]

        kwargs = ", ".join(f"{k}={shown(v)}" for k, v in self.kwargs.items())
        return f"seed {self.seed}: {self.op}({', '.join(map(shown, self.args))}, {kwargs})"


def faults(seeds, seconds=float("inf")):
    """Of the cases of these seeds, as far as the time goes; yields the number of cases last."""
    end, count = time.monotonic() + seconds, 0
    for seed in seeds:
        if time.monotonic() > end:
            break
        case, count = Case(seed), count + 1
        if wrong := case.run():
            yield f"{case}\n    {wrong}"
    yield count


def main(words):
    seconds, seed = float(words[0]), int(words[1]) if len(words) > 1 else 0
    found = 0
    for fault in faults(iter(range(seed, sys.maxsize)), seconds):
        if isinstance(fault, int):
            print(f"{fault} calls, {found} faults")
        else:
            found += 1
            print(fault, flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
