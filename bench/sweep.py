"""Softmax over row lengths: nanoseconds an element for each backend and peer, one thread.

n = 1 to 200, then the powers of two with their neighbours, at about the same number of elements: this
is where kernels change, and where the order of the backends does.
"""

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import fastsoftmax as fs
from bench import cases, machine, peers
from fastsoftmax._timing import interleave

RESULT = Path(__file__).parent / "results" / "sweep.json"
ELEMENTS = 64 * 1024
LENGTHS = (*range(1, 201), *(2**k + d for k in range(8, 17) for d in (-1, 0, 1)))
LEFT_OUT = ("python", "autograd")  # a hundred times slower than the others


def main():
    arguments = _arguments()
    candidates = [c for c in (*peers.backends(), *peers.peers()) if c.name not in LEFT_OUT]
    for candidate in candidates:
        candidate.set_threads(1)
    lengths = LENGTHS[:: arguments.every]
    columns = TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        curves = {dtype: _curves(dtype, lengths, candidates, progress) for dtype in cases.DTYPES}
    saved = {
        "datetime": datetime.now(timezone.utc).isoformat(),
        "machine": machine.describe(),
        "backends": list(fs.available_backends()),
        "curves": curves,
    }
    arguments.to.parent.mkdir(parents=True, exist_ok=True)
    arguments.to.write_text(json.dumps(saved) + "\n")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="measure every so many-th length only")
    parser.add_argument("--to", type=Path, default=RESULT)
    return parser.parse_args()


def _curves(dtype, lengths, candidates, progress):
    """``{name: [[n, nanoseconds an element], ...]}``."""
    curves = {candidate.name: [] for candidate in candidates}
    for n in progress.track(lengths, description=f"softmax, {dtype}"):
        case = cases.Case("softmax", (max(1, ELEMENTS // n), n), dtype)
        for name, seconds in _best_times(case, candidates).items():
            curves[name].append([n, round(seconds / case.size * 1e9, 4)])
    return curves


def _best_times(case, candidates):
    args = cases.arguments(case)
    runs = {candidate.name: candidate.prepare(case, args) for candidate in candidates}
    for candidate in candidates:
        cases.check(case, candidate.name, candidate.result(runs[candidate.name]()))
    return {name: min(samples) for name, samples in interleave(runs, seconds=0).items()}


if __name__ == "__main__":
    main()
