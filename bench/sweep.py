"""Softmax over row lengths: nanoseconds an element for a plain call, each backend and each peer, one thread.

n = 1 to 200, then the powers of two with their neighbours, at about the same number of elements: this
is where kernels change, and where the order of the backends does.
"""

import argparse
from datetime import datetime, timezone
from pathlib import Path

from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench import cases, machine, peers, results_files
from fastsoftmax._timing import interleave

RESULT = Path(__file__).parent / "results" / "sweep.json"
ELEMENTS = 64 * 1024
LENGTHS = (*range(1, 201), *(2**k + d for k in range(8, 17) for d in (-1, 0, 1)))
LEFT_OUT = ("python", "autograd")  # a hundred times slower than the others
# All lengths, so many times over: a machine that others share is slow for seconds on end, which is not to
# show as a difference between neighbours.
PASSES, ROUNDS = 4, 5


def main():
    arguments = _arguments()
    every = peers.default(), *peers.backends(), *peers.peers()
    candidates = [c for c in every if c.name not in LEFT_OUT]
    for candidate in candidates:
        candidate.set_threads(1)
    lengths = LENGTHS[:: arguments.every]
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        curves = {dtype: _curves(dtype, lengths, candidates, progress) for dtype in cases.DTYPES}
    saved = {
        "datetime": datetime.now(timezone.utc).isoformat(),
        "machine": machine.describe(),
        "ours": [c.name for c in candidates if c.kind == "backend"],
        "curves": curves,
    }
    results_files.write(arguments.to, saved)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="measure every so many-th length only")
    parser.add_argument("--to", type=Path, default=RESULT)
    return parser.parse_args()


def _curves(dtype, lengths, candidates, progress):
    """``{name: [[n, nanoseconds an element], ...]}``."""
    curves = {candidate.name: dict.fromkeys(lengths, float("inf")) for candidate in candidates}
    order = [(i, n) for i in range(PASSES) for n in lengths]
    for i, n in progress.track(order, description=f"softmax, {dtype}"):
        case = cases.Case("softmax", (max(1, ELEMENTS // n), n), dtype)
        for name, seconds in _best_times(case, candidates, verify=i == 0).items():
            curves[name][n] = min(curves[name][n], round(seconds / case.size * 1e9, 4))
    return {name: [list(point) for point in curve.items()] for name, curve in curves.items()}


def _best_times(case, candidates, verify):
    call = cases.call(case)
    runs = {candidate.name: candidate.prepare(case, call) for candidate in candidates}
    for candidate in candidates if verify else ():
        cases.check(case, candidate.name, candidate.result(runs[candidate.name]()))
    return {name: min(samples) for name, samples in interleave(runs, seconds=0, rounds=ROUNDS).items()}


if __name__ == "__main__":
    main()
