"""Searches structured rows for the largest errors: what bounds must survive, and random inputs never show.

``python -m tests.adversary --minutes 30`` attacks every CPU backend and every level of the compiled kernels
and prints the worst case of each measure as its error, its bound and a line of Python. ``--write`` keeps them
in bench/results/adversary.json. The exit status is 1 where a bound is exceeded.

The search is a hill climb with one champion a measure: of a random champion something is changed, and the
result replaces whichever champions it beats. Seeds are fixed, so that so many evaluations find the same.
"""

import argparse
import json
import sys
import time
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from tests import accuracy, structured
from tests.structured import FAMILIES, MEASURES, ORDERS, Pattern, Row

RESULTS = accuracy.RESULTS.with_name("adversary.json")
PERIODS = (2, 4, 8, 16, 32, 64, 128)
MOST_VALUES = 32
KEPT = 0.9  # of an error, in the line that it is reduced to
EFFORT = 300  # to reduce a row: so many evaluations, fewer of rows longer than
LONG = 300_000


class Found(NamedTuple):
    """An error over its bound, and where."""

    ratio: float
    row: Row


def search(backend, dtype, longest, seed=0):
    """Evaluate row after row for ever; after each, yield the worst `Found` of every measure so far."""
    rng, champions = np.random.default_rng(seed), {}
    for number in count():
        row = _next(rng, number, list(champions.values()), dtype, longest)
        for measure, ratio in structured.ratios(row, dtype, backend).items():
            if measure not in champions or ratio > champions[measure].ratio:
                champions[measure] = Found(ratio, row)
        yield champions


def worst(backend, dtype, longest, evaluations, seed=0):
    """The champions after so many evaluations."""
    return next(islice(search(backend, dtype, longest, seed), evaluations - 1, None))


def _next(rng, number, champions, dtype, longest):
    """In turns: each family at full length, while any is left; and a relative of a champion."""
    makers, companies = list(FAMILIES.values()), structured.COMPANY
    if number % 2 == 0 and number // 2 < len(makers) * len(companies):
        copies, axis = companies[number // 2 // len(makers)]
        make = makers[number // 2 % len(makers)]
        return make(dtype, longest // copies)._replace(copies=copies, axis=axis)
    if rng.random() < 0.1:
        return _pick(rng, makers)(dtype, int(longest ** rng.uniform(0.2, 1)))
    row = _pick(rng, champions).row
    for _ in range(rng.integers(1, 4)):
        row = _pick(rng, CHANGES)(rng, row, dtype)
    # Two of three rows are shorter, at a fraction of the time: what short rows show need not wait.
    n = max(2, min(row.n, int(longest ** ((2 + number % 3) / 4))))
    return row._replace(n=n, copies=max(1, min(row.copies, longest // n)))


def _pick(rng, things):
    return things[rng.integers(len(things))]


# ---- changes -----------------------------------------------------------------------------------


def _length(rng, row, dtype):
    factor = _pick(rng, (0.1, 0.5, 1, 1, 2, 10))
    return row._replace(n=max(2, int(row.n * factor) + _pick(rng, (-64, -16, -1, 0, 1, 16, 64))))


def _company(rng, row, dtype):
    return row._replace(copies=int(_pick(rng, (1, 1, 2, 3, 5, 8, 16, 40, 70))), axis=int(_pick(rng, (0, -1))))


def _label(rng, row, dtype):
    return row._replace(label=int(rng.integers(len(row.logits.values))))


def _logits(rng, row, dtype):
    fresh = [0.0, float(np.log(row.n)), rng.normal() * 10, rng.uniform(-20, 0)]
    fresh += [_pick(rng, structured.one_sided(dtype, sign)) for sign in (1, -1)]
    return row._replace(logits=_changed(rng, row.logits, fresh, dtype))


def _moved(rng, row, dtype):
    """All logits by the same distance, or farther apart."""
    by, factor = _pick(rng, ((0, 0.5), (0, 2), (0, 0.99), (1000, 1), (-1000, 1), (1e6, 1), (-1e6, 1), (1, 1)))
    values = [v * factor + by for v in row.logits.values]
    return row._replace(logits=row.logits._replace(values=_fitting(values, dtype)))


def _vector(rng, row, dtype):
    fresh = [0.0, 1.0, -1.0, 1e-3, 1e3, rng.normal(), rng.normal() * 1e6]
    return row._replace(vector=_changed(rng, row.vector, fresh, dtype))


def _vector_along_the_logits(rng, row, dtype):
    """In the same blocks and order, so that products of one size meet exponentials rounded one way."""
    logits = row.logits
    values = _fitting(rng.choice([-1.0, 0.0, 1.0, 3.0], len(logits.values)), dtype)
    return row._replace(vector=logits._replace(values=values))


def _ridge(rng, row, dtype):
    return row._replace(ridge=float(dtype.type(_pick(rng, (1.0, 10.0 ** rng.uniform(-30, 3), 1 / row.n)))))


CHANGES = (
    *(
        _length,
        _company,
        _label,
        _logits,
        _logits,
        _logits,
        _moved,
        _vector,
        _vector_along_the_logits,
        _ridge,
    ),
)


def _changed(rng, pattern, fresh, dtype):
    """Another order, count or value; or one value more or less."""
    values, counts, order = list(pattern.values), list(pattern.counts), pattern.order
    at, kind = rng.integers(len(values)), rng.integers(6)
    if kind == 0:
        name = _pick(rng, list(ORDERS))
        order = (name, int(_pick(rng, PERIODS) if name == "dealt" else rng.integers(1, 100)))
    elif kind == 1:
        values[at] = _pick(rng, fresh)
    elif kind == 2:
        values[at] = values[at] + rng.integers(-3, 4) * float(np.spacing(dtype.type(abs(values[at]))))
    elif kind == 3 and len(values) < MOST_VALUES:
        values.insert(0, _pick(rng, fresh))
        counts.insert(0, _new_count(rng))
    elif kind == 4 and counts:
        del values[at], counts[min(at, len(counts) - 1)]
    elif counts:
        at = rng.integers(len(counts))
        counts[at] = _pick(rng, (_new_count(rng), counts[at] * 2, max(counts[at] / 2, 1e-7)))
        counts[at] = int(counts[at]) if counts[at] >= 1 else counts[at]
    return Pattern(_fitting(values, dtype), tuple(counts), order)


def _new_count(rng):
    return _pick(rng, (1, 1, 2, 7, 16, 100, 1000, 0.5, 0.25, 0.03))


def _fitting(values, dtype):
    """As the dtype has them, and finite with room to spare."""
    most = float(np.finfo(dtype).max) / 4
    return tuple(np.clip(values, -most, most).astype(dtype).tolist())


# ---- to a line ---------------------------------------------------------------------------------


def reduced(found, measure, dtype, backend):
    """The simplest relative that keeps nine tenths of the error."""
    least, effort, candidates = KEPT * found.ratio, EFFORT, _simpler_lines(found.row, measure, dtype)
    while effort > 0 and (row := next(candidates, None)):
        effort -= 1 + row.n * row.copies / LONG
        ratio = structured.ratios(row, dtype, backend, (measure,)).get(measure, 0.0)
        if ratio >= least:
            found, candidates = Found(ratio, row), _simpler_lines(row, measure, dtype)
    return found


def _simpler_lines(row, measure, dtype):
    simplest = _complexity(row, measure, dtype)
    return (r for r in _simpler(row) if _complexity(r, measure, dtype) < simplest)


def _complexity(row, measure, dtype):
    """Fewest distinct values come first, then the shortest row, then the shortest line."""
    line = row.expression(measure, dtype, "")
    return len(row.logits.values) + len(row.vector.values), row.n * row.copies, len(line), line


def _simpler(row):
    plain = Pattern((0.0,))
    yield row._replace(vector=plain)
    yield row._replace(copies=1, axis=-1)
    for field in ("logits", "vector"):
        for pattern in _simpler_patterns(getattr(row, field)):
            yield row._replace(**{field: pattern})
    for n in (row.n // 10, row.n // 2, row.n * 3 // 4, row.n - 1 - row.n // 16, 10 ** int(np.log10(row.n))):
        if n >= 2:
            yield row._replace(n=n)
    yield row._replace(label=0)
    yield row._replace(ridge=1e-3)
    yield row._replace(copies=max(1, row.copies // 2))


def _simpler_patterns(pattern):
    values, counts, order = pattern
    for at in range(len(counts)):
        yield Pattern(values[:at] + values[at + 1 :], counts[:at] + counts[at + 1 :], order)
    if counts:
        yield Pattern(values[:-1], counts[:-1], order)
    yield pattern._replace(order=("blocked", 1))
    for at, c in enumerate(counts):
        yield pattern._replace(counts=(*counts[:at], 1 if c >= 1 else 0.5, *counts[at + 1 :]))
    yield pattern._replace(values=tuple(v - max(values) for v in values))
    for at, v in enumerate(values):
        for digits in (0, 1, 2, 4):
            yield pattern._replace(values=(*values[:at], round(v, digits), *values[at + 1 :]))


# ---- the whole attack --------------------------------------------------------------------------


def attack_and_print(backend, seconds, longest):
    """What a child does: a line of JSON now and then, and one for each case that remains."""
    for dtype in accuracy.DTYPES:
        champions = _attack(backend, dtype, seconds / len(accuracy.DTYPES), longest)
        for measure, found in champions.items():
            ratio, row = reduced(found, measure, dtype, backend)
            bound = MEASURES[measure].bound
            case = {"measure": measure, "error": ratio * bound, "bound": bound}
            case["expression"] = row.expression(measure, dtype, backend)
            print(json.dumps({"dtype": dtype.name, "case": case}), flush=True)


def _attack(backend, dtype, seconds, longest):
    start = told = time.perf_counter()
    for number, champions in enumerate(search(backend, dtype, longest), 1):
        now = time.perf_counter()
        if now - told > 1:
            told = now
            measure = max(champions, key=lambda m: champions[m].ratio)
            share = f"{champions[measure].ratio:.3g} of the bound of {MEASURES[measure].title}"
            print(json.dumps({"dtype": dtype.name, "text": f"{number} rows, at most {share}"}), flush=True)
        if now - start > seconds:
            break
    return champions


def run(backend, level, seconds, longest):
    """The cases of one backend and level, from a child held to the level."""
    cases, told = [], 0.0
    arguments = ("--attack", backend, "--seconds", str(seconds), "--longest", str(longest))
    name = f"{backend} {level}".strip()
    for line in accuracy.child("tests.adversary", backend, level, *arguments):
        if "case" in line:
            cases.append({"backend": backend, "level": level, "dtype": line["dtype"], **line["case"]})
        elif sys.stdout.isatty() or time.perf_counter() - told > 10:
            told = time.perf_counter()
            text = f"{name} {line['dtype']}: {line['text']}"
            accuracy.progress(text) if sys.stdout.isatty() else print(text, flush=True)
    accuracy.progress("")
    for case in cases:
        print(_line(case), flush=True)
    return cases


def _line(case):
    verdict, measure = "FAIL" if case["error"] > case["bound"] else "pass", MEASURES[case["measure"]]
    name = f"{case['backend']} {case['level']} {case['dtype']} {measure.title}"
    return (
        f"{verdict} {name}: {case['error']:.3g} of {case['bound']:g} {measure.unit}\n    {case['expression']}"
    )


def write(cases):
    RESULTS.write_text(
        json.dumps({"versions": accuracy.versions(), "cases": cases}, indent=1) + "\n", "utf-8"
    )
    print(f"{RESULTS.relative_to(accuracy.ROOT)}: written")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--minutes",
        type=float,
        default=30,
        help="of search (default: 30); to reduce what is found comes on top",
    )
    parser.add_argument("--backend", action="append", help="attack only this one; may be repeated")
    parser.add_argument("--longest", type=int, default=10**7, help="the longest rows (default: 10**7)")
    parser.add_argument("--write", action="store_true", help="keep the cases in bench/results/adversary.json")
    parser.add_argument("--attack", metavar="BACKEND", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        attack_and_print(arguments.attack, arguments.seconds, arguments.longest)
        return
    configurations = [
        c for c in accuracy.configurations() if c[0] in (arguments.backend or accuracy.BACKENDS)
    ]
    if not configurations:
        known = ", ".join(accuracy.BACKENDS)
        sys.exit(f"nothing to attack: --backend {arguments.backend} names none that runs here of {known}")
    cases = []
    for backend, level in configurations:
        longest = min(arguments.longest, accuracy.LONGEST.get(backend, arguments.longest))
        cases += run(backend, level, 60 * arguments.minutes / len(configurations), longest)
    if arguments.write:
        write(cases)
    failed = [case for case in cases if not case["error"] <= case["bound"]]
    print(f"FAIL: {len(failed)} of {len(cases)} errors are above their bounds" if failed else "pass")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
