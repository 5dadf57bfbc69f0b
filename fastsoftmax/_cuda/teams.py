"""The threads that do one row together: where each stands, and sums and maxima over them.

Every thread of a team gets the same bits: the order of a reduction is fixed by the plan.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_two_sum
from fastsoftmax._cuda.plan import WARP

Team = namedtuple("Team", "lane locate scratch max sum total")

_ALL_LANES = 0xFFFFFFFF


def make_team(t, plan, reductions):
    """The team of a plan.

    ``lane()`` is a thread's place in its team. ``locate(m, n, inner)`` gives its row, where in memory the
    row begins, and the entries ``start`` to ``end`` of it that the team holds: none beyond the last row.
    ``max(v, scratch, k)`` and ``sum(v, scratch, k)`` are taken by all threads together, each call with
    its own ``k`` below ``reductions``, so that no barrier is needed between two; ``scratch`` is the length
    of the shared array that they need. ``sum`` is for counts; ``total(high, low, scratch, k)`` joins pairs,
    and has ``k`` and ``k + 1``.
    """
    if plan.tile:
        return _columns(t, plan, reductions)
    return _block(t, plan, reductions) if plan.threads > WARP else _lanes(t, plan)


def _lanes(t, plan):
    cuda, rows = t.cuda, plan.rows
    fold_max, fold_sum, fold_total = _make_folds(t, plan.threads)

    @t.device
    def lane():
        return cuda.threadIdx.x

    @t.device
    def locate(m, n, inner):
        row = np.int64(cuda.blockIdx.x) * rows + cuda.threadIdx.y
        return row, row * n, np.int64(0), n if row < m else np.int64(0)

    @t.device
    def reduce_max(v, scratch, k):
        return fold_max(v)

    @t.device
    def reduce_sum(v, scratch, k):
        return fold_sum(v)

    @t.device
    def reduce_total(high, low, scratch, k):
        return fold_total(high, low)

    return Team(lane, locate, 1, reduce_max, reduce_sum, reduce_total)


def _block(t, plan, reductions):
    cuda, warp, warps = t.cuda, WARP, plan.threads // WARP
    fold_max, fold_sum, fold_total = _make_folds(t, WARP)
    group_and_part = _make_group_and_part(t, plan)
    lowest, zero = t.number(-np.inf), t.number(0)

    @t.device
    def lane():
        return cuda.threadIdx.x

    @t.device
    def locate(m, n, inner):
        row, start, end = group_and_part(n)
        return row, row * n, start, end

    @t.device
    def offer(v, scratch, k):
        if cuda.threadIdx.x % warp == 0:
            scratch[k * warps + cuda.threadIdx.x // warp] = v

    @t.device
    def take(scratch, k, identity):
        i = cuda.threadIdx.x % warp
        return scratch[k * warps + i] if i < warps else identity

    @t.device
    def reduce_max(v, scratch, k):
        offer(fold_max(v), scratch, k)
        cuda.syncthreads()
        return fold_max(take(scratch, k, lowest))

    @t.device
    def reduce_sum(v, scratch, k):
        offer(fold_sum(v), scratch, k)
        cuda.syncthreads()
        return fold_sum(take(scratch, k, zero))

    @t.device
    def reduce_total(high, low, scratch, k):
        high, low = fold_total(high, low)
        offer(high, scratch, k)
        offer(low, scratch, k + 1)
        cuda.syncthreads()
        return fold_total(take(scratch, k, zero), take(scratch, k + 1, zero))

    return Team(lane, locate, reductions * warps, reduce_max, reduce_sum, reduce_total)


def _columns(t, plan, reductions):
    cuda, tile, threads, larger, two_sum = t.cuda, plan.tile, plan.threads, t.max, make_two_sum(t)
    group_and_part, halvings = _make_group_and_part(t, plan), plan.threads.bit_length() - 1

    @t.device
    def lane():
        return cuda.threadIdx.y

    @t.device
    def locate(m, n, inner):
        group, start, end = group_and_part(n)
        tiles = (inner + tile - 1) // tile
        outer = group // tiles
        column = (group - outer * tiles) * tile + cuda.threadIdx.x
        return outer * inner + column, outer * n * inner + column, start, end if column < inner else start

    @t.device
    def place(k):
        return (k * threads + cuda.threadIdx.y) * tile + cuda.threadIdx.x

    @t.device
    def reduce_max(v, scratch, k):
        own, distance = place(k), threads // 2
        scratch[own] = v
        for _ in range(halvings):
            cuda.syncthreads()
            if cuda.threadIdx.y < distance:
                v = larger(v, scratch[own + distance * tile])
                scratch[own] = v
            distance //= 2
        cuda.syncthreads()
        return scratch[k * threads * tile + cuda.threadIdx.x]

    @t.device
    def reduce_sum(v, scratch, k):
        own, distance = place(k), threads // 2
        scratch[own] = v
        for _ in range(halvings):
            cuda.syncthreads()
            if cuda.threadIdx.y < distance:
                v += scratch[own + distance * tile]
                scratch[own] = v
            distance //= 2
        cuda.syncthreads()
        return scratch[k * threads * tile + cuda.threadIdx.x]

    @t.device
    def reduce_total(high, low, scratch, k):
        own, second, distance = place(k), threads * tile, threads // 2
        scratch[own], scratch[own + second] = high, low
        for _ in range(halvings):
            cuda.syncthreads()
            if cuda.threadIdx.y < distance:
                other = own + distance * tile
                high, error = two_sum(high, scratch[other])
                low = (low + scratch[other + second]) + error
                scratch[own], scratch[own + second] = high, low
            distance //= 2
        cuda.syncthreads()
        first = k * threads * tile + cuda.threadIdx.x
        return scratch[first], scratch[first + second]

    return Team(lane, locate, reductions * threads * tile, reduce_max, reduce_sum, reduce_total)


def _make_folds(t, lanes):
    """Maximum, sum and sum of pairs over neighbouring lanes of a warp, the same bits in each."""
    cuda, larger, two_sum, steps = t.cuda, t.max, make_two_sum(t), lanes.bit_length() - 1

    @t.device
    def fold_max(v):
        for k in range(steps):
            v = larger(v, cuda.shfl_xor_sync(_ALL_LANES, v, 1 << k))
        return v

    @t.device
    def fold_sum(v):
        for k in range(steps):
            v += cuda.shfl_xor_sync(_ALL_LANES, v, 1 << k)
        return v

    @t.device
    def fold_total(high, low):
        for k in range(steps):
            other = cuda.shfl_xor_sync(_ALL_LANES, high, 1 << k)
            low += cuda.shfl_xor_sync(_ALL_LANES, low, 1 << k)
            high, error = two_sum(high, other)
            low += error
        return high, low

    return fold_max, fold_sum, fold_total


def _make_group_and_part(t, plan):
    """A block's group of rows, and the entries from ``start`` to ``end`` that it does of each."""
    cuda, segment = t.cuda, plan.segment

    @t.device
    def whole(n):
        return np.int64(cuda.blockIdx.x), np.int64(0), n

    @t.device
    def part(n):
        segments = (n + segment - 1) // segment
        group = cuda.blockIdx.x // segments
        start = (cuda.blockIdx.x - group * segments) * segment
        return group, start, min(n, start + segment)

    return part if plan.split else whole
