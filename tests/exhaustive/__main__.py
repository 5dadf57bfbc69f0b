"""``python -m tests.exhaustive``: the largest errors of the vector exp, log1p and quotient, as a table.

Of every float32 argument; of float64 around every breakpoint, at random, and near the worst of those. Fails
where an error exceeds its bound in tests/tolerances.py. ``--write`` puts all figures into
bench/results/elementary.json.
"""

import argparse
import json
import re
import sys
import tempfile

import numpy as np

import fastsoftmax as fs
from tests import tolerances
from tests.exhaustive import errors
from tests.exhaustive.candidates import build_all, candidates
from tests.exhaustive.search import DTYPES, search, workers
from tests.processes import ROOT

UNITS = ("u below", "u above", "ULP")
RESULTS = ROOT / "bench" / "results" / "elementary.json"


def rows(dtype, found):
    """A dictionary for each function and build."""
    for function, build in dict.fromkeys((key.function, key.build) for key in found.worst):
        row = {"function": function, "dtype": dtype.name, "build": build, "arguments": found.count}
        for unit in UNITS:
            worst = found.worst[errors.Key(function, build, unit)]
            row |= {unit: worst.error, f"{unit} at": [_hex(x) for x in worst.arguments]}
        yield row


def _hex(x):
    return re.sub(r"\.?0*p", "p", x.hex())


def print_table(rows):
    print(f"\n{'':18} {'dtype':8} {'build':10}" + "".join(f" {unit:7} at {'':22}" for unit in UNITS))
    for r in rows:
        worst = "".join(f" {r[unit]:7.4f} {r[unit + ' at'][0]:25}" for unit in UNITS)
        print(f"{r['function']:18} {r['dtype']:8} {r['build']:10}{worst}")


def write(rows):
    figures = {
        "versions": {
            "fastsoftmax": fs.__version__,
            "numpy": np.__version__,
            "python": sys.version.split()[0],
        },
        "bounds": {function: bound._asdict() for function, bound in tolerances.ELEMENTARY.items()},
        "results": rows,
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    print(f"{RESULTS.relative_to(ROOT)}: written")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    write_it = parser.parse_args().write
    table, failures = [], []
    with tempfile.TemporaryDirectory() as directory:
        build_all(directory)
        with workers(directory) as pool:
            for dtype in DTYPES:
                for found in search(pool, dtype, candidates(dtype, directory)[0].limits):
                    table += rows(dtype, found)
                    failures += [f"{dtype} {text}" for text in errors.beyond_bounds(found.worst)]
    print_table(table)
    if write_it:
        write(table)
    for text in failures:
        print(f"FAIL: {text}")
    print("FAIL" if failures else "pass: every error is within its bound")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
