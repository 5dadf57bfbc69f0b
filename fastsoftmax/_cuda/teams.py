"""The threads that do one row together: where each stands, and sums and maxima over them.

Every thread of a team gets the same bits: the order of a reduction is fixed by the plan.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.plan import WARP

Team = namedtuple("Team", "lane locate scratch max sum")

_ALL_LANES = 0xFFFFFFFF


def make_team(t, plan, reductions):
    """The team of a plan.

    ``lane()`` is a thread's place in its team. ``locate(m, n, inner)`` gives its row, where in memory the
    row begins, and the entries ``start`` to ``end`` of it that the team holds: none beyond the last row.
    ``max(v, scratch, k)`` and ``sum(v, scratch, k)`` are taken by all threads together, each call with
    its own ``k`` below ``reductions``, so that one barrier a reduction is enough; ``scratch`` is the
    length of the shared array that they need.
    """
    if plan.tile:
        return _columns(t, plan, reductions)
    return _block(t, plan, reductions) if plan.threads > WARP else _lanes(t, plan)


def _lanes(t, plan):
    cuda, rows = t.cuda, plan.rows
    fold_max, fold_sum = _make_folds(t, plan.threads)

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

    return Team(lane, locate, 1, reduce_max, reduce_sum)


def _block(t, plan, reductions):
    cuda, warp, warps = t.cuda, WARP, plan.threads // WARP
    fold_max, fold_sum = _make_folds(t, WARP)
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
    def exchange(v, scratch, k, identity):
        i = cuda.threadIdx.x % warp
        if i == 0:
            scratch[k * warps + cuda.threadIdx.x // warp] = v
        cuda.syncthreads()
        return scratch[k * warps + i] if i < warps else identity

    @t.device
    def reduce_max(v, scratch, k):
        return fold_max(exchange(fold_max(v), scratch, k, lowest))

    @t.device
    def reduce_sum(v, scratch, k):
        return fold_sum(exchange(fold_sum(v), scratch, k, zero))

    return Team(lane, locate, reductions * warps, reduce_max, reduce_sum)


def _columns(t, plan, reductions):
    cuda, tile, threads, larger = t.cuda, plan.tile, plan.threads, t.max
    group_and_part = _make_group_and_part(t, plan)

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
    def exchange(v, scratch, k):
        scratch[(k * threads + cuda.threadIdx.y) * tile + cuda.threadIdx.x] = v
        cuda.syncthreads()

    @t.device
    def reduce_max(v, scratch, k):
        exchange(v, scratch, k)
        first = k * threads * tile + cuda.threadIdx.x
        total = scratch[first]
        for i in range(1, threads):
            total = larger(total, scratch[first + i * tile])
        return total

    @t.device
    def reduce_sum(v, scratch, k):
        exchange(v, scratch, k)
        first = k * threads * tile + cuda.threadIdx.x
        total = scratch[first]
        for i in range(1, threads):
            total += scratch[first + i * tile]
        return total

    return Team(lane, locate, reductions * threads * tile, reduce_max, reduce_sum)


def _make_folds(t, lanes):
    """Maximum and sum over neighbouring lanes of a warp, the same bits in each."""
    cuda, larger, steps = t.cuda, t.max, lanes.bit_length() - 1

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

    return fold_max, fold_sum


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
