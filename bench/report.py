"""The saved runs as the README's speed table, charts and a page that opens from disk."""

import argparse
import html
import re
import sys
from pathlib import Path

from bench import results_files
from bench.goals_table import GOALS
from bench.peers import DEFAULT
from bench.results_files import BY_HAND, PEERS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
FOLDER = Path(__file__).parent / "report"
BLOCK = re.compile(r"<!-- speed: begin(?: (\S+))? -->\n.*?<!-- speed: end -->", re.DOTALL)
NOT_MEASURED = "No run is saved yet: `make bench`, then `make bench-report`."
LIBRARIES = ("numpy", "scipy", "torch", "jax", "numexpr", "numba")


def main():
    arguments = _arguments()
    runs = results_files.saved_runs()
    if not arguments.run and not runs:
        sys.exit("no saved run: make bench first")
    run = results_files.load(arguments.run) if arguments.run else runs[-1]
    print_table(run)
    arguments.to.mkdir(parents=True, exist_ok=True)

    from bench import plots  # needs matplotlib, which the tests do without

    charts = plots.save_all(arguments.to, run, runs or [run], results_files.sweep(), results_files.goals())
    (arguments.to / "index.html").write_text(page(run, charts, results_files.goals()))
    if not arguments.run:
        README.write_text(BLOCK.sub(lambda _: readme_block(run), README.read_text()))
        print("README.md: speed table written")
    print(f"the page: {arguments.to / 'index.html'}")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="this run; by default the newest saved one")
    parser.add_argument("--to", type=Path, default=FOLDER, help="the folder of charts and page")
    return parser.parse_args()


def rows(run):
    """The goals' cells of a run, one thread: the case, our time, a speed-up for each peer."""
    for goal in GOALS:
        if ours := run.ours(goal.case):
            yield str(goal.case), ours["best"], [run.speed_up(goal.case, peer) for peer in PEERS]


def readme_block(run):
    """The README's generated part, markers included; without a run it says that there is none."""
    if run is None:
        return f"<!-- speed: begin -->\n{NOT_MEASURED}\n<!-- speed: end -->"
    lines = [
        f"<!-- speed: begin {run.path.resolve().relative_to(ROOT).as_posix()} -->",
        "![Times as fast as each peer, by shape](bench/report/speedup.svg)",
        "",
        f"One thread on {conditions(run)}.",
        "",
        "| | time | " + " | ".join(PEERS) + " |",
        "|---|--:" + "|--:" * len(PEERS) + "|",
        *(
            f"| {case} | {duration(seconds)} | " + " | ".join(map(times_as_fast, speed_ups)) + " |"
            for case, seconds, speed_ups in rows(run)
        ),
        "",
        "Each peer's column: how many times as fast this library is, best time against best time; below 1.00 "
        "the peer is faster. The allocation of the result is included but for `out=`.",
        "<!-- speed: end -->",
    ]
    return "\n".join(lines)


def conditions(run):
    """The machine, the instruction set and the versions that a run was made with."""
    machine = run.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in LIBRARIES)
    return f"{machine['cpu']}, {machine['isa']}, Python {machine['python']}, {versions}; commit {run.commit}"


def times_as_fast(ratio):
    return f"{ratio:.2f}" if ratio else "-"


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def print_table(run):
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "cell",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="times as fast as each peer, one thread",
        caption=conditions(run),
    )
    for column in ("time", *PEERS):
        table.add_column(column, justify="right")
    for case, seconds, speed_ups in rows(run):
        cells = (f"[red]{times_as_fast(s)}[/]" if s and s < 1 else times_as_fast(s) for s in speed_ups)
        table.add_row(case, duration(seconds), *cells)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    missing = [name for name in LIBRARIES if run.machine[name] == "not installed"]
    if missing:
        console.print(f"not installed, so not measured: {', '.join(missing)}")


STYLE = """
:root { color-scheme: light; font: 16px/1.5 system-ui, sans-serif; color: #1c2024; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { max-width: 46rem; }
.charts { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .25rem; }
img { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e3e6ea; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.facts td { white-space: normal; text-align: left; } .behind { color: #b3261e; } .ahead { color: #2f7d4f; }
@media (max-width: 40rem) { th:first-child, td:first-child { white-space: normal; min-width: 7rem; } }
"""


def page(run, charts, goals):
    """A page without scripts: charts, the tables, the machine."""
    figures = "".join(
        f'<figure><figcaption>{caption}</figcaption><img src="{name}.svg" alt="{caption}"></figure>'
        for name, caption in charts.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fastsoftmax: speed</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>
<h1>fastsoftmax: speed</h1>
<p>Run of {run.datetime[:16].replace("T", " ")} UTC, commit {run.commit}, one thread unless said. Times are
the best of a run and include the allocation of the result, but for the cells marked out=.</p>
<div class="charts">{figures}</div>
<h2>Times as fast as each peer</h2>{_speed_table(run)}
<h2>Inside users' own code</h2>{_inside_table(run)}
<h2>Goals</h2>{_goals_tables(goals)}
<h2>Every cell</h2>{_details(run)}
<h2>Import and first call</h2>{_startup_table(run)}
<h2>Machine and versions</h2>{_facts_table(run)}
</body></html>
"""


def _speed_table(run):
    body = [[case, duration(seconds), *map(_colored, speed_ups)] for case, seconds, speed_ups in rows(run)]
    return _table(["cell", "time", *PEERS], body)


def _inside_table(run):
    """Calls from Numba, Cython and autograd, beside what users write there."""
    body = [
        [
            case,
            duration(candidates[DEFAULT]["best"]),
            duration(candidates[BY_HAND]["best"]),
            _colored(run.speed_up(case, BY_HAND, threads)),
        ]
        for (case, threads), candidates in run.cells.items()
        if BY_HAND in candidates and DEFAULT in candidates
    ]
    return _table(["cell", "time", BY_HAND, "times as fast"], body) if body else "<p>Not in this run.</p>"


def _colored(ratio):
    if not ratio:
        return "-"
    return f'<span class="{"ahead" if ratio >= 1 else "behind"}">{ratio:.2f}</span>'


def _goals_tables(goals):
    if goals is None:
        return "<p>Not measured yet: <code>make bench-goals</code>.</p>"
    parts = []
    for measured, cells in ((run, cells) for run in goals["runs"] for cells in ("goals", "side_goals")):
        body = [
            [
                row["case"],
                row["peer"],
                f"{row['ratio']:.2f}",
                f"&ge; {row['wanted']:.2f}",
                f"{row['floor']:.2f}" if row["floor"] else "-",
                f"&le; {row['wanted_floor']}" if row["wanted_floor"] else "-",
                '<span class="ahead">pass</span>' if row["passed"] else '<span class="behind">FAIL</span>',
            ]
            for row in measured.get(cells, ())
            if "error" not in row
        ]
        head = ["cell", "best peer", "times as fast", "goal", "x floor", "goal", ""]
        parts.append(
            f"<p>Threads: {measured['threads']}, instruction set: {measured['isa']}</p>{_table(head, body)}"
        )
    return "".join(parts)


def _details(run):
    """All times of a run, folded away by op."""
    by_op = {}
    for (case, threads), candidates in run.cells.items():
        if BY_HAND not in candidates:
            by_op.setdefault(case.split()[0], []).append((case, threads, candidates))
    parts = []
    for op, cells in by_op.items():
        names = list(dict.fromkeys(name for _, _, candidates in cells for name in candidates))
        body = [
            [case, str(threads), *(duration(c[name]["best"]) if name in c else "-" for name in names)]
            for case, threads, c in cells
        ]
        parts.append(f"<details><summary>{op}</summary>{_table(['cell', 'threads', *names], body)}</details>")
    return "".join(parts)


def _startup_table(run):
    return _table(["process", "time"], [[name, duration(t["best"])] for name, t in run.startup.items()])


def _facts_table(run):
    machine = run.machine
    facts = {
        "CPU": machine["cpu"],
        "CPUs": machine["cpus"],
        "instruction set": machine["isa"],
        "limits on it": machine["isa_limits"] or "none",
        "Python": machine["python"],
        **{name: machine[name] for name in ("fastsoftmax", *LIBRARIES, "autograd")},
        **{f"backend {name}": status for name, status in machine["backends"].items()},
    }
    body = [[name, html.escape(str(value))] for name, value in facts.items()]
    return _table(["", ""], body, "facts")


def _table(head, body, kind=""):
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
    header = "".join(f"<th>{cell}</th>" for cell in head)
    table = f'<table class="{kind}"><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="wide">{table}</div>'


if __name__ == "__main__":
    main()
