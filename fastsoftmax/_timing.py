"""Timing candidates against each other: in one process and in turns, since machines are noisy."""

from random import Random
from time import perf_counter
from timeit import timeit

# A sample takes at least this long: caches and wide vector units that went to sleep while the other
# candidates ran are awake again after some 50 us, which are not to show.
SHORTEST_SAMPLE = 1e-3


def interleave(candidates, seconds, rounds=20):
    """Seconds a call, by name: one sample of each candidate in turn (A B C B C A ...).

    Each round has an order of its own: whose arrays the caches hold before moves a sample by up to 10 %. Runs
    for about ``seconds``, and for at least ``rounds`` rounds in any case. ``candidates`` are functions
    without arguments, by name.
    """
    calls = {name: _calls_a_sample(run) for name, run in candidates.items()}
    samples = {name: [] for name in candidates}
    order, shuffle = list(candidates), Random(0).shuffle
    end = perf_counter() + seconds
    while rounds > 0 or perf_counter() < end:
        shuffle(order)
        for name in order:
            samples[name].append(timeit(candidates[name], number=calls[name]) / calls[name])
        rounds -= 1
    return samples


def _calls_a_sample(run):
    run()  # the first call may compile
    calls = 1
    while timeit(run, number=calls) < SHORTEST_SAMPLE:
        calls *= 2
    return calls
