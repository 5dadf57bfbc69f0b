"""Measures the errors that docs/numerics.md bounds: every CPU backend, every level of the compiled kernels.

``python -m tests.accuracy`` prints the largest error of each kind and fails where it exceeds its bound.
``--write`` also puts the table between the README's markers, and all figures into
bench/results/accuracy.json. Each backend runs in a process of its own, so that
``FASTSOFTMAX_MAX_CPU_ISA`` can hold it to a level.

The reference is longdouble arithmetic with the same two corrections as the kernels, itself compared with
mpmath on rows of every family. Where longdouble is no wider than double, mpmath is the reference, and far
fewer values are measured.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from itertools import chain, product
from typing import NamedTuple

import numpy as np

import fastsoftmax as fs
from bench import machine
from fastsoftmax import _isa
from tests import checks, inputs, oracle, structured
from tests.processes import ROOT

README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results" / "accuracy.json"
BLOCK = re.compile(r"<!-- accuracy: begin -->\n.*?<!-- accuracy: end -->", re.DOTALL)

BACKENDS = ("cython", "numba", "numpy", "python")
DTYPES = (np.dtype(np.float64), np.dtype(np.float32))
WIDE_LONGDOUBLE = np.finfo(np.longdouble).nmant > 60

# n and the axis: rows shorter and longer than vectors, groups of vectors and blocks, and side by side.
SHAPES = ((2, 1), (5, 1), (10, 1), (17, 1), (33, 1), (100, 1), (257, 1), (1000, 1), (4097, 1))
SHAPES += ((5, 0), (33, 0), (300, 0), (50257, 1))
ELEMENTS = 6000 if WIDE_LONGDOUBLE else 60  # a family and shape, or one row
FEWER = {"python": 4}  # at 5 us an element for all ops together: one in so many
LENGTHS = (10**3, 10**4, 10**5, 10**6, 10**7)  # of structured rows
LONGEST = {"python": 10**5}
REFERENCE_ULPS = 0.05  # what the reference itself may be off by


_WITHOUT = ("log_softmax_", "softmax_solve")  # which have no column in the table
MEASURES = {name: m for name, m in structured.MEASURES.items() if not name.startswith(_WITHOUT)}
MEASURES["flushed"] = structured.Measure("flushed", 0, "count")
MEASURES["long_rows"] = structured.Measure("long rows", 1, "the bound of each measure")


# ---- inputs ------------------------------------------------------------------------------------

SPREADS = {}


def spread(make):
    """Enter a function of (random numbers, shape, the dtype's limits) into `SPREADS`."""
    SPREADS[make.__name__] = make
    return make


def _underflow(info):
    """Below this distance from the maximum a softmax is less than the smallest subnormal number."""
    return np.log(float(info.smallest_subnormal))


@spread
def normal(rng, shape, info):
    return rng.normal(size=shape)


@spread
def normal_times_100(rng, shape, info):
    return rng.normal(size=shape) * 100


@spread
def half_integers(rng, shape, info):
    return rng.integers(-30, 31, shape) / 2


@spread
def offset(rng, shape, info):
    return rng.normal(size=shape) + rng.choice([0.0, 1000.0, -1000.0], (shape[0], 1))


@spread
def offset_by_a_million(rng, shape, info):
    return rng.normal(size=shape) * 50 + 1e6


@spread
def down_to_underflow(rng, shape, info):
    x = rng.uniform(_underflow(info), 0, shape)
    x[:, 0] = 1 / 3
    return x


@spread
def subnormal(rng, shape, info):
    x = rng.uniform(_underflow(info) - 2, np.log(float(info.tiny)) + 3, shape)
    x[:, -1] = rng.normal(size=shape[0])
    return x


@spread
def dominant(rng, shape, info):
    x = rng.normal(size=shape)
    x[:, shape[1] // 2] += rng.uniform(0, 40, shape[0])
    return x


@spread
def saturated(rng, shape, info):
    x = rng.normal(size=shape)
    x[:, 0] += rng.uniform(20, -_underflow(info) - 6, shape[0])
    return x


@spread
def near_ties(rng, shape, info):
    base = rng.normal(size=(shape[0], 1)).astype(info.dtype) * 10
    return base + rng.integers(0, 4, shape) * np.spacing(np.abs(base)).astype(np.float64)


@spread
def equal(rng, shape, info):
    return np.broadcast_to(rng.normal(size=(shape[0], 1)) * 100, shape)


@spread
def close_to_zero(rng, shape, info):
    return rng.normal(size=shape) * 1e-6


@spread
def masked(rng, shape, info):
    x = rng.normal(size=shape) * 3
    x[rng.random(shape) < 0.4] = -np.inf
    x[:, 0] = 0.0
    return x


@spread
def geometric(rng, shape, info):
    return -np.arange(shape[1]) * rng.uniform(0, 2, (shape[0], 1))


@spread
def heavy_tailed(rng, shape, info):
    return rng.standard_cauchy(shape)


@spread
def whole_range(rng, shape, info):
    return rng.uniform(-1, 1, shape) * float(info.max)


class Case(NamedTuple):
    """Logits (rows, n), and whether the kernels see them along the last or the first axis."""

    family: str
    x: np.ndarray
    axis: int


def cases(dtype, elements):
    """Every family: that of the tests, and each spread at each shape with about so many elements."""
    for name in inputs.FAMILIES:
        yield Case(name, inputs.FAMILIES[name](dtype)[: max(1, elements // 5)], 1)
    shapes = [(n, axis) for n, axis in SHAPES if n <= 10 * elements]
    for (name, make), (n, axis) in ((s, shape) for shape in shapes for s in SPREADS.items()):
        rows = max(1, elements // n)
        x = make(inputs.rng(n + axis), (rows, n), np.finfo(dtype))
        yield Case(f"{name} {n}" + (", axis 0" if axis == 0 else ""), np.ascontiguousarray(x, dtype), axis)


def labels_of(x):
    """Random ones, and the likeliest in every second row."""
    labels = inputs.rng(7).integers(0, x.shape[1], len(x))
    labels[::2] = x[::2].argmax(axis=1)
    return labels


def cotangents(x):
    """Normal, far from 0, and a single spike in each row."""
    rng = inputs.rng(8)
    normal, spike = rng.normal(size=x.shape), np.zeros(x.shape)
    spike[np.arange(len(x)), rng.integers(0, x.shape[1], len(x))] = 1e3
    return [v.astype(x.dtype) for v in (normal, normal + 1000, spike)]


# ---- references --------------------------------------------------------------------------------


class Reference:
    """The exact answers for logits (rows, n), in longdouble."""

    def __init__(self, x, labels):
        with np.errstate(invalid="ignore"):  # -inf - -inf in masked entries
            self._fill(x.astype(np.longdouble), labels)

    def _fill(self, x, labels):
        m = x.max(axis=1, keepdims=True)
        d = x - m
        part = d - x
        lost = (x - (d - part)) - (m + part)  # two-sum: at distance 745 even longdouble is off by 0.2 ULP
        lost[~np.isfinite(d)] = 0
        e = np.exp(d) * (1 + lost)
        e[self._at(x.argmax(axis=1))] = 0
        rest = e.sum(axis=1, keepdims=True)
        e[self._at(x.argmax(axis=1))] = 1
        log_y = (d - np.log1p(rest)) + lost
        self.softmax, self.log_softmax = e / (1 + rest), log_y
        self.logsumexp = (m + np.log1p(rest))[:, 0]
        self.cross_entropy = -log_y[self._at(labels)]
        self._one_minus = 1 - self.softmax
        self._one_minus[self._at(x.argmax(axis=1))] = (rest / (1 + rest))[:, 0]
        self.cross_entropy_with_grad = self.softmax.copy()
        self.cross_entropy_with_grad[self._at(labels)] = -self._one_minus[self._at(labels)]

    @staticmethod
    def _at(columns):
        return np.arange(len(columns)), columns

    @property
    def softmax_jacobian(self):
        y = self.softmax
        blocks = -y[:, :, None] * y[:, None, :]
        np.einsum("pii->pi", blocks)[...] = y * self._one_minus
        return blocks

    def product(self, v):
        """The VJP and JVP: to a few eps of longdouble in the bound's unit, which is all that is asked."""
        return self.softmax * (v - (self.softmax * v).sum(axis=1, keepdims=True))

    def exact(self, op, *v):
        return oracle.Exact(self.product(*v) if v else getattr(self, op), np.longdouble(0))


class MpmathReference:
    """The same from mpmath."""

    def __init__(self, x, labels):
        self._x, self._labels = x, labels

    def exact(self, op, *v):
        if v:
            return oracle.exact_softmax_product(self._x, *v)
        if op.startswith("cross_entropy"):
            loss, gradient = oracle.exact_cross_entropy(self._x, self._labels)
            return loss if op == "cross_entropy" else gradient
        return oracle.exact_forward(op, self._x)


def reference(x, labels):
    return (Reference if WIDE_LONGDOUBLE else MpmathReference)(x, labels)


# Of the ops with a bound in ULP, those measured here: from the logits.
IN_ULPS = ("softmax", "log_softmax", "cross_entropy", "cross_entropy_with_grad", "softmax_jacobian")


def reference_error():
    """The longdouble reference against mpmath on rows of every family: in ULP of float64, products in eps."""
    worst = 0.0
    for case in cases(DTYPES[0], 1):  # n up to 10: mpmath takes a second for the blocks of n = 100
        x = case.x[:1, :12]
        labels = labels_of(x)
        ours, exact = Reference(x, labels), MpmathReference(x, labels)
        for op in IN_ULPS:
            worst = max(worst, _distance(getattr(ours, op), exact.exact(op)))
        lse = exact.exact("logsumexp")
        spare = np.finfo(np.float64).smallest_subnormal  # of the low part of a subnormal result
        worst = max(worst, _in_units(ours.logsumexp, lse, spare, _lse_unit(x, lse, np.float64)))
    return float(worst)


def _distance(actual, exact):
    """In ULP of float64, of normal numbers: the rest of a subnormal one is lost in an `Exact` of mpmath."""
    normal = np.abs(exact.high) > np.finfo(np.float64).tiny * 2.0**60
    with np.errstate(all="ignore"):
        distance = np.abs((actual - exact.high) - exact.low) / np.spacing(np.abs(exact.high))
    return np.max(distance, initial=0.0, where=normal & np.isfinite(exact.high))


# ---- measuring ---------------------------------------------------------------------------------


def measure(case, backend):
    """The largest errors of one case, by measure."""
    x, labels = case.x, labels_of(case.x)
    with np.errstate(all="ignore"):
        return _Errors(case, reference(x, labels), backend).all(x, labels)


class _Errors:
    def __init__(self, case, reference, backend):
        self._case, self._reference, self._backend = case, reference, backend
        self.flushed = 0

    def all(self, x, labels):
        y = self._call("softmax", x)
        errors = {
            "softmax": self._ulps("softmax", y),
            "log_softmax": self._ulps("log_softmax", self._call("log_softmax", x)),
            "logsumexp": self._logsumexp(x),
            "products": max(self._product(x, v) for v in cotangents(x)),
            "row_sums": float(np.abs(y.astype(np.longdouble).sum(axis=1) - 1).max() / np.finfo(x.dtype).eps),
        }
        alone = self._call("cross_entropy", x, labels, reduction="none")
        loss, dx = self._call("cross_entropy_with_grad", x, labels, reduction="none")
        errors["cross_entropy"] = max(self._ulps("cross_entropy", a) for a in (alone, loss))
        errors["cross_entropy_with_grad"] = self._ulps("cross_entropy_with_grad", dx)
        if x.shape[1] <= 100:
            errors["softmax_jacobian"] = self._jacobian(x, y, labels)
        return errors | {"flushed": self.flushed}

    def _call(self, op, *arrays, **options):
        """A public op, along the axis of the case, with rows first in and out."""
        first = self._case.axis == 0
        arrays = [np.ascontiguousarray(a.T) for a in arrays] if first else arrays
        results = checks.as_tuple(
            getattr(fs, op)(*arrays, 0 if first else -1, backend=self._backend, **options)
        )
        results = [np.ascontiguousarray(np.asarray(a).T) if first else np.asarray(a) for a in results]
        return results[0] if len(results) == 1 else results

    def _ulps(self, op, actual, exact=None):
        exact = exact or self._reference.exact(op)
        if op != "cross_entropy":
            smallest = np.finfo(actual.dtype).smallest_subnormal
            self.flushed += int(np.count_nonzero((actual == 0) & (np.abs(exact.high) >= smallest)))
        return exact.ulps(actual)

    def _jacobian(self, x, y, labels):
        few = max(1, x.size // x.shape[1] ** 2)
        exact = reference(x[:few], labels[:few]).exact("softmax_jacobian")
        return self._ulps("softmax_jacobian", fs.softmax_jacobian(y[:few], backend=self._backend), exact)

    def _logsumexp(self, x):
        actual, exact = self._call("logsumexp", x), self._reference.exact("logsumexp")
        spare = (
            float(np.finfo(x.dtype).smallest_subnormal) * x.shape[1]
        )  # each term of a subnormal sum rounds
        return _in_units(actual, exact, spare, _lse_unit(x, exact, x.dtype))

    def _product(self, x, v):
        y = self._reference.exact("softmax").high
        exact = self._reference.exact("softmax_vjp", v)
        unit = np.finfo(x.dtype).eps * y * (np.abs(v) + (y * np.abs(v)).sum(axis=1, keepdims=True))
        spare = 2 * float(np.finfo(x.dtype).smallest_subnormal) * (1 + np.abs(v).max())  # of a subnormal y
        products = [self._call(op, y.astype(x.dtype), v) for op in ("softmax_vjp", "softmax_jvp")]
        return max(_in_units(actual, exact, spare, unit) for actual in products)


def _lse_unit(x, exact, dtype):
    largest = np.maximum(np.abs(x.max(axis=1)).astype(np.float64), np.abs(exact.high))
    return np.finfo(dtype).eps * np.maximum(largest, np.finfo(dtype).tiny)


def _in_units(actual, exact, spare, unit):
    wide = np.promote_types(actual.dtype, exact.high.dtype)
    off = np.abs((actual.astype(wide) - exact.high) - exact.low)
    errors = np.maximum(off - spare, 0) / np.where(unit > 0, unit, 1)
    return float(np.max(np.where(np.isnan(errors), np.inf, errors)))


def measure_and_print(backend):
    """What a child does: a line of JSON for each case."""
    elements = ELEMENTS // FEWER.get(backend, 1)
    for dtype in DTYPES:
        for case in cases(dtype, elements):
            line = {"dtype": dtype.name, "family": case.family, "logits": case.x.size}
            line["errors"] = measure(case, backend)
            print(json.dumps(line), flush=True)
        for family, row in long_rows(dtype, LONGEST.get(backend, LENGTHS[-1])):
            ratios = structured.ratios(row, dtype, backend)
            worst = max(ratios, key=ratios.get)
            line = {"dtype": dtype.name, "family": f"{family}, {structured.MEASURES[worst].title}"}
            print(json.dumps(line | {"errors": {"long_rows": ratios[worst]}}), flush=True)


def long_rows(dtype, longest):
    """The structured rows, by name; of the longest, which take seconds, one alone."""
    for n in (n for n in LENGTHS if n <= longest):
        for (name, make), (copies, axis) in product(structured.FAMILIES.items(), structured.COMPANY):
            if copies * n <= longest:
                company = f", {copies} along axis {axis}" if copies > 1 else ""
                yield f"{name} {n}{company}", make(dtype, n)._replace(copies=copies, axis=axis)


# ---- the whole run -----------------------------------------------------------------------------


class Worst:
    """The largest errors of one backend, level and dtype."""

    def __init__(self, backend, level, dtype):
        self.backend, self.level, self.dtype = backend, level, dtype
        self.errors, self.at, self.logits, self.families = dict.fromkeys(MEASURES, 0.0), {}, 0, 0

    def add(self, family, errors, logits):
        self.logits += logits
        self.families += 1
        for name, error in errors.items():
            if name == "flushed":
                self.errors[name] += error
            elif error >= self.errors[name]:
                self.errors[name], self.at[name] = error, family

    def failures(self):
        return [name for name, m in MEASURES.items() if not self.errors[name] <= m.bound]

    def cells(self, mark="{} FAIL"):
        failed = self.failures()
        for name, error in self.errors.items():
            text = str(int(error)) if name == "flushed" else _rounded_up(error)
            yield mark.format(text) if name in failed else text


def _rounded_up(error):
    return f"{math.ceil(error * 100) / 100:.2f}" if error < 1000 else f"{error:.1e}"


def configurations():
    """Backends that run here, the compiled one once for each level."""
    for name in BACKENDS:
        if (status := fs.backend_status()[name]) != "available":
            print(f"{name} is not measured: {status}")
        else:
            yield from ((name, level) for level in (_isa.levels() if name == "cython" else ("",)))


def child(module, backend, level, *arguments):
    """The lines of JSON that ``python -m module`` prints, held to a level."""
    environment = os.environ | ({_isa.ENVIRONMENT: level} if level.startswith("x86") else {})
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        yield from map(json.loads, process.stdout)
    if process.returncode:
        sys.exit(f"{backend} {level}: exit status {process.returncode}")


def run(backend, level):
    """`Worst` of each dtype."""
    worst = {dtype.name: Worst(backend, level, dtype.name) for dtype in DTYPES}
    start = time.perf_counter()
    for line in child("tests.accuracy", backend, level, "--measure", backend):
        worst[line["dtype"]].add(line["family"], line["errors"], line.get("logits", 0))
        progress(f"{backend} {level} {line['dtype']}: {line['family']}")
    progress("")
    total = sum(w.logits for w in worst.values())
    print(
        f"{backend} {level}".strip() + f": {total:,} logits in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    return list(worst.values())


def progress(text):
    """One line that is written over, on terminals."""
    if sys.stdout.isatty():
        print(f"\r{text:<100.100}", end="\n" if not text else "", flush=True)


def table(rows, mark):
    """The bounds and the errors as a Markdown table with even columns."""
    lines = [["backend", "dtype", *(m.title for m in MEASURES.values())]]
    lines.append(["bound", "", *(f"{m.bound:g}" for m in MEASURES.values())])
    lines += [[f"{w.backend} {w.level}".strip(), w.dtype, *w.cells(mark)] for w in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def readme_block(rows):
    families = len(SPREADS) + len(inputs.FAMILIES)
    counts = {w.backend: f"{w.logits / 1e6:.1f} million" for w in rows}
    most = max(counts.values())
    shorter = "".join(f" ({name}: {n:,})" for name, n in LONGEST.items())
    exceptions = "".join(f" ({name}: {count})" for name, count in counts.items() if count != most)
    return (
        "<!-- accuracy: begin -->\n"
        f"Largest errors over {families} families of inputs, {most} logits a line{exceptions};\nbold is "
        f"above the bound. From `make accuracy`, on {versions()['cpu']}:\n\n{table(rows, '**{}**')}\n\n"
        "softmax to Jacobian in ULP of the exact value; logsumexp in eps * max(abs(row max), abs(result));\n"
        "VJP and JVP in eps * y_i * (abs(g_i) + sum_j y_j * abs(g_j)); row sums in eps; flushed: results "
        "that are 0\nand should not be; long rows: the largest error of any op over its bound, in "
        f"{len(structured.FAMILIES)} families of\nstructured rows of {LENGTHS[0]:,} to {LENGTHS[-1]:,} "
        f"entries{shorter}. `make adversary` searches for worse.\n"
        "<!-- accuracy: end -->"
    )


def versions():
    """And the CPU: its estimate of a reciprocal, and so AVX-512's bits, may be another than of others."""
    described = machine.describe()
    return {name: described[name] for name in ("cpu", "fastsoftmax", "numpy", "python")}


def write(rows, error):
    text = README.read_text("utf-8")
    if BLOCK.search(text):
        README.write_text(BLOCK.sub(lambda _: readme_block(rows), text), "utf-8")
        print(f"{README.name}: accuracy table written")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "versions": versions(),
        "reference": {"longdouble bits": np.finfo(np.longdouble).nmant + 1, "largest error, ULP": error},
        "measures": {name: m._asdict() for name, m in MEASURES.items()},
        "results": [vars(w) for w in rows],
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(f"{RESULTS.relative_to(ROOT)}: written")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="write the README's table and the JSON")
    parser.add_argument("--measure", metavar="BACKEND", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_and_print(arguments.measure)
        return
    error = reference_error() if WIDE_LONGDOUBLE else 0.0
    print(f"reference: off from mpmath by {error:.3f} ULP of float64 at most", flush=True)
    if not error <= REFERENCE_ULPS:
        sys.exit(f"more than {REFERENCE_ULPS}: no reference for these bounds")
    rows = list(chain.from_iterable(run(*c) for c in list(configurations())))
    print(table(rows, "{} FAIL"))
    if arguments.write:
        write(rows, error)
    failed = [(w, name) for w in rows for name in w.failures()]
    for w, name in failed:
        print(f"FAIL: {w.backend} {w.level} {w.dtype}, {name}: {w.errors[name]} at {w.at.get(name)}")
    print("FAIL" if failed else "pass: every error is within its bound")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
