"""A hidden Markov model of letters: a forward pass by hand and by one call a step. ``make examples``."""

from pathlib import Path

import matplotlib
import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import fastsoftmax as fs
from fastsoftmax._timing import interleave

matplotlib.use("agg")
import matplotlib.pyplot as plt

PICTURE = Path(__file__).with_suffix(".png")
TEXT = Path(__file__).parents[1] / "README.md"
LETTERS = "abcdefghijklmnopqrstuvwxyz "
MISREAD = 0.3
STATES = (5, 10, 20, 50, 100, 200)
console = Console()


def main():
    text = np.array([LETTERS.index(c) for c in TEXT.read_text("utf-8").lower() if c in LETTERS])
    rng = np.random.default_rng(0)
    read = np.where(rng.random(len(text)) < MISREAD, rng.integers(0, len(LETTERS), len(text)), text)
    start, transition, emission = model_of(text)
    log_p = forward(start, transition, emission[:, read].T.copy())
    guess = log_p.argmax(1)  # of each letter, from what came before
    console.rule("[bold]Letters of the README, three in ten misread")
    console.print(f"{len(text)} letters; right as read {np.mean(read == text):.1%}", end=", ")
    console.print(f"after the forward pass {np.mean(guess == text):.1%}")
    console.print(f"log-likelihood: {fs.logsumexp(log_p[-1]):.1f}")
    console.print(f"  {spell(read)}\n  {spell(guess)}\n  {spell(text)}")
    times = {k: measure(k) for k in STATES}
    table = Table("states", "loops over exp, us a step", "fs.logsumexp", "times as fast")
    for k, (by_hand, ours) in times.items():
        table.add_row(str(k), f"{by_hand * 1e6:.2f}", f"{ours * 1e6:.2f}", f"{by_hand / ours:.2f}")
    console.print(table)
    draw(times)
    console.print(f"The time by states: [bold]{PICTURE}")


def spell(letters):
    return "".join(LETTERS[i] for i in letters[1000:1080])


def model_of(text):
    """Letters follow each other as they do in the text itself, and are misread at random."""
    counts = np.full((len(LETTERS), len(LETTERS)), 0.1)
    np.add.at(counts, (text[:-1], text[1:]), 1)
    emission = np.full_like(counts, MISREAD / len(LETTERS)) + (1 - MISREAD) * np.eye(len(LETTERS))
    logs = np.log(counts.sum(1) / counts.sum()), np.log(counts / counts.sum(1, keepdims=True))
    return *logs, np.log(emission)


@numba.njit
def forward(start, transition, emission):
    """log p(what was read so far, letter now)."""
    log_p = np.empty_like(emission)
    log_p[0] = start + emission[0]
    for t in range(1, len(emission)):
        log_p[t] = fs.logsumexp(log_p[t - 1].reshape(-1, 1) + transition, 0) + emission[t]
    return log_p


@numba.njit
def forward_by_hand(start, transition, emission):
    """The same as such code is usually written."""
    log_p = np.empty_like(emission)
    log_p[0] = start + emission[0]
    states = len(start)
    for t in range(1, len(emission)):
        for j in range(states):
            most, total = -np.inf, 0.0
            for i in range(states):
                most = max(most, log_p[t - 1, i] + transition[i, j])
            for i in range(states):
                total += np.exp(log_p[t - 1, i] + transition[i, j] - most)
            log_p[t, j] = most + np.log(total) + emission[t, j]
    return log_p


def measure(states, steps=200):
    """Seconds a step of both."""
    rng = np.random.default_rng(states)
    transition = fs.log_softmax(rng.normal(size=(states, states)))
    model = np.full(states, -np.log(states)), transition, np.log(rng.random((steps, states)))
    assert np.allclose(forward(*model), forward_by_hand(*model), rtol=1e-12)
    runs = {"by hand": lambda: forward_by_hand(*model), "ours": lambda: forward(*model)}
    return [min(samples) / steps for samples in interleave(runs, 0.3).values()]


def draw(times):
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, column in (("loops over exp", 0), ("fs.logsumexp along axis 0", 1)):
        axes.plot(STATES, [pair[column] * 1e6 for pair in times.values()], "o-", lw=2, label=name)
    axes.set(xlabel="states", ylabel="microseconds a step", xscale="log", yscale="log")
    axes.set_xticks(STATES, map(str, STATES))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
