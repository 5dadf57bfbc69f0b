"""What measurements leave behind, and read back: runs, goals, the sweep.

``python -m bench.results_files RUN.json`` keeps a run of pytest-benchmark, of which a history needs 2 %: the
best and the median time of every cell.
"""

import json
import sys
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from bench import machine
from bench.goals_table import GOALS
from bench.peers import DEFAULT

RESULTS = Path(__file__).parent / "results"
BY_HAND = "by hand"  # what users write in their own compiled or traced code
PEERS = ("numpy textbook", "scipy", "torch", "jax", "numexpr", "autograd")


@dataclass
class Run:
    """One saved run.

    ``cells[case, threads][candidate]`` is ``{"best", "median", "GB/s"}``, the times in seconds;
    ``startup[name]`` has the first two.
    """

    path: Path
    datetime: str
    commit: str
    machine: dict
    cells: dict
    startup: dict

    def ours(self, case, threads=1):
        """The times of a call that names no backend, or None."""
        return self.cells.get((str(case), threads), {}).get(DEFAULT)

    def speed_up(self, case, peer, threads=1):
        """How many times faster than a peer, or None where one of the two is not in the run."""
        ours = self.ours(case, threads)
        theirs = self.cells.get((str(case), threads), {}).get(peer)
        return theirs["best"] / ours["best"] if ours and theirs else None

    def best_peer(self, case, threads=1):
        """``(speed-up, peer)`` beside the fastest peer, or None."""
        pairs = [(s, peer) for peer in PEERS if (s := self.speed_up(case, peer, threads))]
        return min(pairs, default=None)

    def overall(self):
        """The geometric mean of the speed-ups over the best peer, over the goals' cells."""
        ratios = [pair[0] for goal in GOALS if (pair := self.best_peer(goal.case))]
        return exp(sum(map(log, ratios)) / len(ratios)) if ratios else None


def load(path):
    """A run that was kept, or as pytest-benchmark writes it."""
    saved = json.loads(Path(path).read_text("utf-8"))
    if "benchmarks" in saved:
        saved = _kept(saved)
    cells = {}
    for case, threads, size, times in saved["cells"]:
        cells[case, threads] = {
            name: {"best": best, "median": median, "GB/s": size / best / 1e9}
            for name, (best, median) in times.items()
        }
    startup = {name: {"best": best, "median": median} for name, (best, median) in saved["startup"]}
    return Run(Path(path), saved["datetime"], saved["commit"], saved["machine"], cells, startup)


def _kept(measured):
    """What a history needs of a run."""
    cells, startup = {}, []
    for entry in measured["benchmarks"]:
        facts = entry["extra_info"]
        times = [entry["stats"][name] / facts.get("calls", 1) for name in ("min", "median")]
        if "startup" in facts:
            startup.append([facts["startup"], times])
            continue
        cell = cells.setdefault((facts["case"], facts["threads"]), (facts["bytes"], {}))
        cell[1][facts["candidate"]] = times
    commit = measured["commit_info"]["id"][:9] + ("+" if measured["commit_info"]["dirty"] else "")
    return {
        "datetime": measured["datetime"],
        "commit": commit,
        "machine": {name: measured["machine_info"][name] for name in machine.describe()},
        "startup": startup,
        "cells": [[*key, *cell] for key, cell in cells.items()],
    }


def keep(path):
    """Save a run of pytest-benchmark among the others."""
    run = _kept(json.loads(Path(path).read_text("utf-8")))
    name = "".join(c for c in run["datetime"][:19] if c.isdigit())
    return write(f"runs/{name}_{run['commit']}.json", run)


def write(name, content):
    """Compact, times to four digits, and a line an entry: a change shows as one."""
    lines = []
    for key, value in content.items():
        entries = [_compact(v) for v in value] if isinstance(value, list) else None
        text = "[\n" + ",\n".join(entries) + "\n]" if entries else _compact(value)
        lines.append(f"{json.dumps(key)}: {text}")
    path = RESULTS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    return path


def _compact(value):
    return json.dumps(_rounded(value), separators=(",", ":"))


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def saved_runs():
    """Every saved run, oldest first."""
    return sorted(map(load, RESULTS.glob("runs/*.json")), key=lambda run: run.datetime)


def sweep():
    """The saved sweep, or None."""
    path = RESULTS / "sweep.json"
    return json.loads(path.read_text()) if path.exists() else None


def goals():
    """The newest saved measurement of the goals, or None."""
    paths = sorted(RESULTS.glob("goals/*.json"))
    return json.loads(paths[-1].read_text()) if paths else None


if __name__ == "__main__":
    print(f"saved: {keep(sys.argv[1])}")
