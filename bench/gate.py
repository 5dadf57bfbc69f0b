"""Fail on a slowdown: this checkout against another revision, built side by side, measured in turns.

Three worker processes hold the checkout, the base, and the base once more; each cell is sampled in
turn in all three. The base against itself tells what this machine's noise looks like today. A cell whose
median is beyond what most cells show of it is measured again, at length, and fails if its whole bootstrap
interval lies beyond that of the base against itself in the same cell.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from timeit import timeit

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.goals_table import GOALS, SIDE_GOALS
from bench.peers import DEFAULT

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".cache" / "gate"
# Every generation is a set of fresh processes: where memory and code lie in them moves times by some
# percent, so rounds within one process agree better with each other than with the next process.
GENERATIONS = 7
# As many rounds as fit the time, within these bounds.
FEWEST, MOST, SECONDS = 4, 15, 0.1
SHORTEST_SAMPLE = 300e-6
# A smaller slowdown than this is not reported, however quiet the machine is.
SMALLEST = 0.03
CONFIDENCE = 0.95
RESAMPLES = 2000
LEFT_OUT = ("python",)  # nobody waits for the naive loops to be fast
CELLS = (*GOALS, *SIDE_GOALS)
WORKERS = ("checkout", "base", "base again")
console = Console(width=None if sys.stdout.isatty() else 120)


def main():
    arguments = _arguments()
    if arguments.worker:
        return _work()
    base = _git("rev-parse", "--verify", f"{arguments.base}^{{commit}}")
    sites = [_build_checkout(), _build(base)]
    console.print(f"this checkout against {arguments.base} ({base[:9]})")
    cells = _cells(sites, arguments.match)
    ratios = _measure(sites, cells, GENERATIONS)
    noise = _noise(ratios)
    suspects = [cell for cell, (ours, _) in ratios.items() if median(ours) > 1 + noise]
    console.print(_table(ratios, suspects, f"the base came within {noise:.1%} of itself in most cells"))
    slower = []
    if suspects:
        console.print(f"measuring {len(suspects)} cells again")
        ratios = _measure(sites, suspects, 3 * GENERATIONS)
        slower = [cell for cell in suspects if _is_slower(*ratios[cell])]
        console.print(_table(ratios, slower, "measured again"))
    for cell in slower:
        console.print(f"[bold red]FAIL[/] {_name(cell)} is slower than in {arguments.base}")
    if not slower:
        console.print("no cell is slower beyond the noise")
    return 1 if slower else 0


def _arguments():
    parser = argparse.ArgumentParser(prog="make bench-gate BASE=<revision> ARGS=...", description=__doc__)
    parser.add_argument("base", nargs="?", help="the revision to compare with")
    parser.add_argument("--match", default="", help="only cells whose name holds this")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _git(*arguments):
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def _build(revision):
    """The folder where a revision is installed; kept, since a revision does not change."""
    site = FOLDER / revision
    if not site.exists():
        _install(site, f"git archive {revision}")
    return site


def _build_checkout():
    """The same for the files as they are now, uncommitted ones included."""
    site = FOLDER / "checkout"
    shutil.rmtree(site, ignore_errors=True)
    _install(
        site, "git ls-files -z -co --exclude-standard --deduplicate | tar --null -c --ignore-failed-read -T -"
    )
    return site


def _install(site, archive):
    source = FOLDER / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    with console.status(f"building {site.name[:9]}"):
        subprocess.run(f"{archive} | tar -x -C {source}", shell=True, cwd=ROOT, check=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", site, source], check=True)


def _cells(sites, match):
    """(cell number, candidate): main cells on each backend of both builds, side paths on the fastest."""
    with Worker(sites[0]) as checkout, Worker(sites[1]) as base:
        backends = checkout.ask("backends"), base.ask("backends")
    both = [name for name in backends[0] if name in backends[1] and name not in LEFT_OUT]
    cells = [(i, backend) for i in range(len(GOALS)) for backend in both]
    cells += [(i, DEFAULT) for i in range(len(GOALS), len(CELLS))]
    return [cell for cell in cells if match in _name(cell)]


def _name(cell):
    i, backend = cell
    return f"{CELLS[i].case} {backend}"


def _noise(ratios):
    """How far the base came from itself in three of four cells, as a share of the time."""
    distances = sorted(abs(median(again) - 1) for _, again in ratios.values())
    return max(SMALLEST, distances[3 * (len(distances) - 1) // 4])


def _is_slower(ours, again):
    """Whether no doubt is left: one interval lies beyond the other, and beyond what is reported at all."""
    return _interval(ours)[0] > max(1 + SMALLEST, _interval(again)[1])


def _table(ratios, marked, title):
    table = Table("cell", title=f"time beside the base's; {title}", title_justify="left")
    for column in ("ratio", f"{CONFIDENCE:.0%} interval", "base again", ""):
        table.add_column(column, justify="right")
    for cell, (ours, again) in ratios.items():
        (low, high), (_, noise) = _interval(ours), _interval(again)
        verdict = "[red]slower?" if cell in marked else "[green]faster" if high < 2 - noise else ""
        table.add_row(
            _name(cell), f"{median(ours):.3f}", f"{low:.3f} to {high:.3f}", f"{median(again):.3f}", verdict
        )
    return table


def _measure(sites, cells, generations):
    """``{cell: (ratios to the base, ratios of the base to itself)}``, one of each a generation."""
    ratios = {cell: ([], []) for cell in cells}
    with Progress(console=console) as progress:
        task = progress.add_task("", total=generations * len(cells))
        for generation in range(generations):
            with ExitStack() as stack:
                builds = dict(zip(WORKERS, (sites[0], sites[1], sites[1]), strict=True))
                workers = {name: stack.enter_context(Worker(site)) for name, site in builds.items()}
                for cell in cells:
                    progress.update(
                        task, advance=1, description=f"{generation + 1}/{generations} {_name(cell)}"
                    )
                    best = _best_times(workers, cell, check=generation == 0)
                    ratios[cell][0].append(best["checkout"] / best["base"])
                    ratios[cell][1].append(best["base again"] / best["base"])
    return ratios


def _best_times(workers, cell, check):
    prepared = [worker.ask("prepare", *cell, check) for worker in workers.values()]
    calls, seconds = max(prepared)
    rounds = min(MOST, max(FEWEST, round(SECONDS / seconds)))
    samples = {name: [] for name in workers}
    order = list(workers)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            samples[name].append(workers[name].ask("sample", calls))
    return {name: min(times) for name, times in samples.items()}


def _interval(ratios):
    """A bootstrap interval of the median over the generations."""
    medians = sorted(median(random.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    outside = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return medians[outside], medians[-1 - outside]


class Worker:
    """A process that has one build loaded, and measures what it is told to."""

    def __init__(self, site):
        # The build comes before the checkout's own package on the path; bench/ and tests/ are the checkout's.
        environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.gate", "--worker"],
            cwd=FOLDER,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *message):
        print(json.dumps(message), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()


def _work():
    """The worker's side: one answer, a line of JSON, for each message."""
    import fastsoftmax as fs
    from bench import cases, peers

    fs.set_num_threads(1)
    by_name = {candidate.name: candidate for candidate in (peers.default(), *peers.backends())}
    run = None
    for line in sys.stdin:
        kind, *values = json.loads(line)
        if kind == "backends":
            answer = [name for name in by_name if name != DEFAULT]
        elif kind == "prepare":
            case, candidate = CELLS[values[0]].case, by_name[values[1]]
            run = candidate.prepare(case, cases.call(case))
            result = candidate.result(run())
            if values[2]:
                cases.check(case, candidate.name, result)
            answer = _calls_a_sample(run)
        else:
            answer = timeit(run, number=values[0]) / values[0]
        print(json.dumps(answer), flush=True)
    return 0


def _calls_a_sample(run):
    """How many calls a sample takes, and how long they last."""
    calls = 1
    while (seconds := timeit(run, number=calls)) < SHORTEST_SAMPLE:
        calls *= 2
    return calls, seconds


if __name__ == "__main__":
    sys.exit(main())
