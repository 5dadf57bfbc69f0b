"""The report's charts. Narrow, with the labels inside, so that a phone shows them legibly."""

from itertools import groupby
from math import log2
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.goals_table import GOALS
from bench.results_files import PEERS

WIDTH = 4.6
ROW = 0.36
COLORS = {
    "fastsoftmax": "#b3261e",
    "cython": "#e58a84",
    "numba": "#e07b00",
    "numpy": "#7a5cc4",
    "numpy textbook": "#8a9099",
    "scipy": "#1f77b4",
    "torch": "#2f7d4f",
    "jax": "#c2185b",
    "numexpr": "#009aa6",
    "autograd": "#5d4037",
}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "fastsoftmax",  # equal data, equal file
}


def save_all(folder, run, runs, sweep, goals):
    """Write each chart that there is data for, as SVG and PNG; ``{name: caption}`` of those."""
    charts = {
        "speedup": ("Times as fast as each peer, by shape", lambda: speedup(run)),
        "side_paths": ("Side paths, beside the plain call and the best peer", lambda: side_paths(goals)),
        "floor": ("Memory traffic, beside what memory allows", lambda: floor(run)),
        "crossovers": ("Time per element over the row length", lambda: crossovers(sweep) if sweep else None),
        "history": ("Saved runs of this CPU", lambda: history(runs, run)),
    }
    with mpl.rc_context(STYLE):
        return {name: caption for name, (caption, draw) in charts.items() if _save(folder, name, draw())}


def _save(folder, name, figure):
    if figure is None:
        return False
    figure.savefig(Path(folder) / f"{name}.svg", metadata={"Date": None})
    figure.savefig(Path(folder) / f"{name}.png", dpi=170)
    plt.close(figure)
    return True


def speedup(run):
    """A dot for each peer and cell, on a log scale: right of 1 this library is faster."""
    cases = [goal.case for goal in GOALS if run.best_peer(goal.case)]
    figure, axes = _rows(cases)
    for peer in PEERS:
        points = [(s, i) for i, case in enumerate(cases) if (s := run.speed_up(case, peer))]
        if points:
            axes.scatter(*zip(*points, strict=True), s=34, color=COLORS[peer], label=peer, zorder=3)
    axes.axvline(1, color="#222222", lw=1)
    axes.set_xscale("log")
    _times_axis(axes.xaxis)
    axes.set_xlabel("times as fast as the peer, one thread")
    _legend(figure, axes)
    return figure


def side_paths(goals):
    """For each side path its time and the best peer's, in units of the plain call."""
    measured = goals["runs"][0].get("side_goals", ()) if goals else ()
    cells = [row for row in measured if row.get("plain")]
    if not cells:
        return None
    figure, axes = _rows([row["case"] for row in cells])
    for i, row in enumerate(cells):
        ours, peer = row["seconds"] / row["plain"], row["seconds"] * row["ratio"] / row["plain"]
        axes.plot([ours, peer], [i, i], color="#c9ced4", lw=1.5, zorder=2)
        label = "this library", "best peer"
        for value, color, name in zip((ours, peer), (COLORS["fastsoftmax"], "#222222"), label, strict=True):
            axes.scatter([value], [i], s=34, color=color, label=name if i == 0 else None, zorder=3)
    axes.axvline(1, color="#222222", lw=1)
    axes.set_xscale("log")
    _times_axis(axes.xaxis)
    axes.set_xlabel("time, in units of this library's plain call, one thread")
    _legend(figure, axes)
    return figure


def floor(run):
    """A bar for this library's GB/s, a mark for the copy, addition or fill of the same memory."""
    cells = [goal.case for goal in GOALS if run.ours(goal.case) and goal.case.size >= 64_000]
    figure, axes = _rows(cells)
    for i, case in enumerate(cells):
        ours = run.ours(case)
        reached = axes.barh(i, ours["GB/s"], height=0.34, color=COLORS["fastsoftmax"], zorder=3)
        reached.set_label("this library" if i == 0 else None)
        if limit := run.cells[str(case), 1].get("floor"):
            label = "copy, addition or fill" if i == 0 else None
            axes.plot(
                [limit["GB/s"]] * 2, [i - 0.17, i + 0.17], color="#222222", lw=2.5, label=label, zorder=4
            )
    axes.set_xlim(left=0)
    axes.set_xlabel("GB/s, one thread")
    _legend(figure, axes)
    return figure


def crossovers(sweep):
    """Nanoseconds an element for each backend and peer, a panel for each dtype."""
    figure, panels = plt.subplots(2, 1, figsize=(WIDTH, 6.8), layout="constrained", sharex=True)
    for axes, (dtype, curves) in zip(panels, sweep["curves"].items(), strict=True):
        for name, points in curves.items():
            ours = name in sweep["ours"]
            lengths, least, middle, most = zip(*_in_steps(points), strict=True)
            style = {"lw": 1.8 if ours else 1, "ls": "-" if ours else "--", "color": COLORS.get(name)}
            axes.plot(lengths, middle, label=name, **style)
            if ours:
                axes.fill_between(lengths, least, most, color=COLORS.get(name), alpha=0.2, lw=0)
        axes.set(xscale="log", yscale="log", title=f"softmax, {dtype}", ylabel="ns an element")
        axes.grid(color="#e3e6ea", lw=0.6)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    panels[1].set_xlabel("n, entries a row")
    panels[1].set_xticks(
        [4**k for k in range(9)], [*(f"{4**k}" for k in range(5)), "1 Ki", "4 Ki", "16 Ki", "64 Ki"]
    )
    panels[1].xaxis.set_minor_formatter(NullFormatter())
    _legend(figure, panels[0])
    return figure


def _in_steps(points):
    """Lengths in steps of an eighth of a doubling, with the least, median and largest time of each."""
    for _, step in groupby(points, lambda point: round(8 * log2(point[0]))):
        lengths, times = zip(*step, strict=True)
        yield median(lengths), min(times), median(times), max(times)


def history(runs, run):
    """How far ahead of the best peer each saved run was; only runs of this CPU can be compared."""
    same = [(r, mean) for r in runs if r.machine["cpu"] == run.machine["cpu"] and (mean := r.overall())]
    if not same:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 2.8), layout="constrained")
    axes.plot(range(len(same)), [mean for _, mean in same], "o-", color=COLORS["fastsoftmax"])
    axes.set_xticks(range(len(same)), [f"{r.datetime[:10]}\n{r.commit}" for r, _ in same], fontsize=7)
    axes.set_ylim(0, 1.15 * max(1, *(mean for _, mean in same)))
    axes.set_ylabel("times as fast as the best peer")
    axes.axhline(1, color="#222222", lw=1)
    axes.grid(axis="y", color="#e3e6ea", lw=0.6)
    return figure


def _rows(cases):
    """Axes with one row a case, its name above the row."""
    height = ROW * len(cases) + 1.3
    figure, axes = plt.subplots(figsize=(WIDTH, height), layout="constrained")
    axes.set_ylim(len(cases) - 0.4, -0.75)
    axes.set_yticks([])
    axes.grid(axis="x", color="#e3e6ea", lw=0.6)
    for i, case in enumerate(cases):
        axes.axhline(i, color="#eef0f3", lw=0.8, zorder=1)
        axes.annotate(str(case), (0, i - 0.36), xycoords=("axes fraction", "data"), fontsize=7.5, va="center")
    return figure, axes


def _times_axis(axis):
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axis.set_minor_formatter(NullFormatter())


def _legend(figure, axes):
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=8.5
    )
