"""What is run, on every CPU: all float32 arguments; of float64 a search for the worst."""

import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

import numpy as np

from tests.accuracy import WIDE_LONGDOUBLE, progress
from tests.exhaustive import arguments as a
from tests.exhaustive import errors
from tests.exhaustive.candidates import candidates

DTYPES = (np.dtype(np.float32), *([np.dtype(np.float64)] if WIDE_LONGDOUBLE else []))
RANDOM = 100  # tasks
CLIMBS, SEEDS = 40, 64


def workers(directory):
    """Processes that measure the candidates of a directory."""
    return ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _open, [directory])


def _open(directory):
    global _candidates
    _candidates = {dtype: candidates(dtype, directory) for dtype in DTYPES}


def _run(dtype, family, blocks):
    return errors.of_blocks(family, blocks(), _candidates[dtype])


def search(pool, dtype, limits):
    """A `Search` for each family, done."""
    climbing = {"exp": partial(a.exp_near, limits), "log1p": a.log1p_near} if dtype == np.float64 else {}
    for family, tasks in _tasks(dtype, limits).items():
        found, start = Search(pool, dtype, family), time.perf_counter()
        found.run(tasks)
        if family in climbing:
            found.climb(climbing[family])
        progress("")
        print(
            f"{dtype} {family}: {found.count:,} arguments in {time.perf_counter() - start:.0f} s", flush=True
        )
        yield found


def _tasks(dtype, limits):
    """By family: functions that yield blocks, each of some million arguments."""
    tasks = {
        "exp": [partial(a.exp_breakpoints, dtype, limits, a.STEPS)],
        "log1p": [partial(a.log1p_breakpoints, dtype, a.STEPS)],
        "quotient": [partial(a.quotient_random, dtype, seed, False) for seed in range(RANDOM // 4)],
        "subnormal quotient": [partial(a.quotient_random, dtype, seed, True) for seed in range(RANDOM // 4)],
    }
    if dtype == np.float32:
        ends = -limits.large - limits.vanishes, limits.large
        tasks["exp"] += [partial(a.exp_every, part, limits) for part in a.ordinals(*ends)]
        tasks["log1p"] += [partial(a.log1p_every, part) for part in a.ordinals(0, a.LOG1P_MOST)]
    else:
        tasks["exp"] += [partial(a.exp_random, dtype, limits, seed) for seed in range(RANDOM)]
        tasks["log1p"] += [partial(a.log1p_random, dtype, seed) for seed in range(RANDOM)]
    return tasks


class Search:
    """What is found of one dtype and family: the worst, and how many arguments it is of."""

    def __init__(self, pool, dtype, family):
        self.worst, self.count = {}, 0
        self._pool, self._dtype, self._family = pool, dtype, family
        self._tasks_worst = {}  # errors by argument, by function

    def run(self, tasks):
        start = time.perf_counter()
        running = [self._pool.submit(_run, self._dtype, self._family, task) for task in tasks]
        for done, future in enumerate(as_completed(running), 1):
            count, worst = future.result()
            self.count += count
            errors.merge(self.worst, worst)
            for key, found in worst.items():
                self._tasks_worst.setdefault(key.function, {})[found.arguments[0]] = found.error
            seconds = time.perf_counter() - start
            progress(f"{self._dtype} {self._family}: {done} of {len(running)} parts, {seconds:.0f} s")

    def climb(self, near):
        """Again and again look near the worst of each function: ``near(arguments, step)`` is where."""
        for step in range(CLIMBS):
            worst = [sorted(found, key=found.get)[-SEEDS:] for found in self._tasks_worst.values()]
            self.run([partial(near, np.array(some, self._dtype), step) for some in worst])
