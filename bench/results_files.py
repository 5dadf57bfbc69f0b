"""Saved runs, read back: pytest-benchmark's JSON, the goals' and the sweep's."""

import json
from dataclasses import dataclass
from math import exp, log
from pathlib import Path

from bench.goals_table import GOALS
from bench.peers import DEFAULT

RESULTS = Path(__file__).parent / "results"
PEERS = ("numpy textbook", "scipy", "torch", "jax", "numexpr", "autograd")


@dataclass
class Run:
    """One saved run.

    ``cells[case, threads][candidate]`` is ``{"best", "median", "GB/s", "kind"}``, the times in
    seconds; ``startup[name]`` has the first two.
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
    saved = json.loads(Path(path).read_text())
    cells, startup = {}, {}
    for entry in saved["benchmarks"]:
        facts, stats = entry["extra_info"], entry["stats"]
        times = {"best": stats["min"], "median": stats["median"]}
        if "startup" in facts:
            startup[facts["startup"]] = times
            continue
        times |= {key: facts[key] for key in ("kind", "GB/s")}
        cells.setdefault((facts["case"], facts["threads"]), {})[facts["candidate"]] = times
    commit = saved["commit_info"]["id"][:9] + ("+" if saved["commit_info"]["dirty"] else "")
    return Run(Path(path), saved["datetime"], commit, saved["machine_info"], cells, startup)


def saved_runs():
    """Every saved run, oldest first."""
    return sorted(map(load, RESULTS.glob("runs/*/*.json")), key=lambda run: run.datetime)


def sweep():
    """The saved sweep, or None."""
    path = RESULTS / "sweep.json"
    return json.loads(path.read_text()) if path.exists() else None


def goals():
    """The newest saved measurement of the goals, or None."""
    paths = sorted(RESULTS.glob("goals/*.json"))
    return json.loads(paths[-1].read_text()) if paths else None
