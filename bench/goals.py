"""The speed goals, cell by cell: measured with all candidates in turns, printed as pass or FAIL, saved.

One child process for each combination of threads and instruction set: it is pinned to as many CPUs
as it has threads before any library is loaded, so that all of them get the same.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from statistics import median
from timeit import timeit

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench import results_files
from bench.goals_table import BACKEND_GOALS, GOALS, SIDE_GOALS, required, required_floor

SECONDS_A_CASE = 0.5
# Slower than this a call, and a candidate takes part in no more than a few rounds of its own.
SLOW = 0.2
console = Console(width=None if sys.stdout.isatty() else 120)


def main():
    arguments = _arguments()
    if arguments.child:
        return _child(*arguments.child.split(","), arguments.match)
    every = (*GOALS, *SIDE_GOALS, *BACKEND_GOALS)
    if not _matching(every, arguments.match):
        listed = "\n  ".join(dict.fromkeys(str(goal.case) for goal in every))
        raise SystemExit(f"no cell holds {arguments.match!r}; the cells are\n  {listed}")
    runs = [_measure(threads, isa, arguments.match) for isa in arguments.isa for threads in arguments.threads]
    for run in runs:
        console.print(_table(run, "goals", f"{_conditions(run)}: main cells"))
        console.print(_table(run, "side_goals", f"{_conditions(run)}: side paths"))
    console.print(_backend_table(runs[0]))
    if not arguments.match:
        console.print(f"saved: {_save(runs)}")
    printed = [*(row for run in runs for row in run["goals"] + run["side_goals"]), *runs[0]["backend_goals"]]
    failed = sum(not row["passed"] for row in printed)
    console.print("every goal is met" if not failed else f"[bold red]{failed} cells FAIL")
    return 1 if failed else 0


def _arguments():
    parser = argparse.ArgumentParser(prog="make bench-goals ARGS=...", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--isa", nargs="+", choices=["native", "avx2"], default=["native", "avx2"])
    parser.add_argument("--match", default="", help="only cells whose name holds this")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _matching(goals, match):
    return [goal for goal in goals if match in str(goal.case)]


def _measure(threads, isa, match):
    """Run a child process, with its progress shown; what it measured."""
    from bench.machine import AVX2

    environment = {**os.environ, **(AVX2 if isa == "avx2" else {})}
    command = [sys.executable, "-m", "bench.goals", "--child", f"{threads},{isa}", "--match", match]
    name = f"{threads} thread{'s' * (threads > 1)}, {isa}"
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        run = _follow(child.stdout, name)
    if child.returncode:
        raise SystemExit(f"the measurement with {name} failed")
    return run


def _follow(lines, name):
    with Progress(console=console) as progress:
        task = progress.add_task(name, total=None)
        for line in lines:
            message = json.loads(line)
            if "result" in message:
                progress.update(task, description=name, completed=1, total=1)
                return message["result"]
            progress.update(task, description=f"{name}: {message['case']}", **message["progress"])
            if not console.is_terminal:
                console.print(
                    f"{name}: [{message['progress']['completed'] + 1}] {message['case']}", highlight=False
                )
    return None


def _child(threads, isa, match):
    """Measure every case once; goals and backend goals are read off the same times."""
    threads = int(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    from bench import machine, peers

    candidates = [peers.default(), *peers.backends(), *peers.peers(), *peers.floors()]
    for candidate in candidates:
        candidate.set_threads(threads)
    goals, side_goals = _matching(GOALS, match), _matching(SIDE_GOALS, match)
    backend_goals = _matching(BACKEND_GOALS, match)
    cases = list(dict.fromkeys(goal.case for goal in goals + side_goals + backend_goals))
    times = {}
    for i, case in enumerate(cases):
        _tell(case=str(case), progress={"completed": i, "total": len(cases)})
        times[case] = _times(case, candidates)
    result = {
        "threads": threads,
        "isa": isa,
        "machine": machine.describe(),
        "times": {str(case): by_name for case, by_name in times.items()},
        "goals": [_judge(goal, threads, times[goal.case]) for goal in goals],
        "side_goals": [_judge(goal, threads, times[goal.case]) for goal in side_goals],
        "backend_goals": [
            row for goal in backend_goals if (row := _judge_backend(goal, times[goal.case])) is not None
        ],
    }
    _tell(result=result)
    return 0


def _tell(**message):
    print(json.dumps(message), flush=True)


def _times(case, candidates):
    """``{name: {kind, best, median}}``, wrong answers with ``error`` in place of a time."""
    from bench import cases, peers
    from fastsoftmax._timing import interleave

    times, ready = {}, {}
    call = cases.call(case)
    for candidate in candidates:
        if not candidate.has(case):
            continue
        run = candidate.prepare(case, call)
        try:
            if candidate.kind != "floor":
                cases.check(case, candidate.name, candidate.result(run()))
        except cases.WrongAnswer as wrong:
            times[candidate.name] = {"kind": candidate.kind, "error": str(wrong)}
            continue
        times[candidate.name] = {"kind": candidate.kind}
        if (seconds := timeit(run, number=1)) > SLOW:
            times[candidate.name] |= {"best": seconds, "median": seconds}
        else:
            ready[candidate.name] = run
    if case.plain() != case:
        times["plain call"] = {"kind": "plain"}
        ready["plain call"] = peers.default().prepare(case.plain(), cases.call(case.plain()))
    for name, samples in interleave(ready, SECONDS_A_CASE).items():
        times[name] |= {"best": min(samples), "median": median(samples)}
    return times


def _judge(goal, threads, times):
    """Compare the best times; the medians stand beside them."""
    from fastsoftmax.__main__ import cpu_level

    ours, wanted = times["fastsoftmax"], required(goal, threads)
    wanted_floor = required_floor(goal, threads, cpu_level())
    peers = {name: t for name, t in times.items() if t["kind"] == "peer" and "best" in t}
    row = {"case": str(goal.case), "wanted": wanted, "wanted_floor": wanted_floor}
    if "error" in ours:
        return row | {"error": ours["error"], "passed": False}
    peer = min(peers, key=lambda name: peers[name]["best"])
    row |= {
        "seconds": ours["best"],
        "peer": peer,
        "ratio": peers[peer]["best"] / ours["best"],
        "ratio_of_medians": min(t["median"] for t in peers.values()) / ours["median"],
        "floor": ours["best"] / times["floor"]["best"] if "floor" in times else None,
        "plain": times["plain call"]["best"] if "plain call" in times else None,
    }
    floor_met = wanted_floor is None or row["floor"] <= wanted_floor
    return row | {"passed": row["ratio"] >= wanted and floor_met}


def _judge_backend(goal, times):
    """None where the backend or the peer is not here."""
    peers = {name: t for name, t in times.items() if t["kind"] == "peer" and "best" in t}
    against = min(peers, key=lambda n: peers[n]["best"]) if goal.against == "best peer" else goal.against
    if "best" not in times.get(goal.backend, {}) or against not in peers:
        return None
    ratio = peers[against]["best"] / times[goal.backend]["best"]
    return {
        "backend": goal.backend,
        "case": str(goal.case),
        "against": against,
        "wanted": goal.ratio,
        "ratio": ratio,
        "passed": ratio >= goal.ratio,
    }


def _conditions(run):
    return f"{run['threads']} thread{'s' * (run['threads'] > 1)}, {run['isa']} ({run['machine']['isa']})"


def _table(run, key, title):
    table = Table("cell", title=title, title_style="bold", title_justify="left")
    for column in ("time", "x plain", "best peer", "times as fast", "medians", "goal", "x floor", "goal", ""):
        table.add_column(column, justify="right")
    for row in run[key]:
        if "error" in row:
            table.add_row(row["case"], "", "", "", "", "", "", "", "", "[bold red]FAIL: wrong answer")
            continue
        table.add_row(
            row["case"],
            f"{row['seconds'] * 1e6:,.1f} us",
            f"{row['seconds'] / row['plain']:.2f}" if row["plain"] else "-",
            row["peer"],
            f"{row['ratio']:.2f}",
            f"{row['ratio_of_medians']:.2f}",
            f">= {row['wanted']:.2f}",
            f"{row['floor']:.2f}" if row["floor"] else "-",
            f"<= {row['wanted_floor']:.2f}" if row["wanted_floor"] else "-",
            _verdict(row),
        )
    return table


def _backend_table(run):
    table = Table("backend", "cell", "against", title="backends, one by one", title_justify="left")
    for column in ("times as fast", "goal", ""):
        table.add_column(column, justify="right")
    for row in run["backend_goals"]:
        measured = f"{row['ratio']:.2f}", f">= {row['wanted']}"
        table.add_row(row["backend"], row["case"], row["against"], *measured, _verdict(row))
    return table


def _verdict(row):
    return "[green]pass" if row["passed"] else "[bold red]FAIL"


def _save(runs):
    now = datetime.now(timezone.utc)
    saved = {"datetime": now.isoformat(), "runs": [run | {"times": _short(run["times"])} for run in runs]}
    return os.path.relpath(results_files.write(f"goals/{now:%Y%m%d_%H%M%S}.json", saved))


def _short(times):
    """``[best, median]`` of each candidate, or its error."""
    return {
        case: {name: t.get("error") or [t["best"], t["median"]] for name, t in by_name.items()}
        for case, by_name in times.items()
    }


if __name__ == "__main__":
    sys.exit(main())
