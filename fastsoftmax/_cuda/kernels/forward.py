"""softmax, log_softmax and logsumexp."""

import math
from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_exp, make_pair
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

# A row's statistics: its maximum, the sum of exp over the entries below it, and how often it occurs.
# A segment's are stored in this order.
PARTIAL = 3
REDUCTIONS = 3

# Terms that a thread adds up before they join its sum: of 56 in sequence some came to 3 ULP.
GROUP = 8

Statistics = namedtuple("Statistics", "largest sums rest combine")


def whole(t, plan, op):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=op == "softmax")
    finish = _FINISH[op](t, team, of_row, statistics.rest)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, largest, sums = team.locate, of_row.read, statistics.largest, statistics.sums
    team_max, team_sum = team.max, team.sum

    def forward_whole(x, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        below, ties = sums(held, row_max)
        below, ties = team_sum(below, scratch, 1), team_sum(ties, scratch, 2)
        finish(out, held, row_max, below, ties, row, base, start, end, inner)

    return forward_whole


def partial(t, plan):
    """The statistics of each segment of longer rows."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=False)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, team_max, team_sum = team.lane, team.locate, of_row.read, team.max, team.sum
    largest, sums = statistics.largest, statistics.sums

    def forward_partial(x, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        below, ties = sums(held, row_max)
        below, ties = team_sum(below, scratch, 1), team_sum(ties, scratch, 2)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = row_max
            partials[i + 1] = below
            partials[i + 2] = ties

    return forward_partial


def combined(t, plan, op):
    """Longer rows, from the statistics of their segments."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=op == "softmax")
    finish = _FINISH[op](t, team, of_row, statistics.rest)
    cuda, number, size, scratch_size = t.cuda, t.number, of_row.size, team.scratch
    locate, read, sums, combine = team.locate, of_row.read, statistics.sums, statistics.combine

    def forward_combined(x, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max, below, ties = combine(partials, row, start < end, n, scratch)
        sums(held, row_max)
        finish(out, held, row_max, below, ties, row, base, start, end, inner)

    return forward_combined


def make_statistics(t, plan, team, of_row, keep, partial=PARTIAL):
    """What a row's entries add up to; ``sums`` leaves their exp in the slots where ``keep`` says so."""
    number, larger, exp_shifted = t.number, t.max, make_exp(t, plan).exp_shifted
    lowest, infinity, nan, zero, one = map(number, (-np.inf, np.inf, np.nan, 0, 1))
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at
    group = max(1, GROUP // width)
    lane, threads, segment, team_max, team_sum = team.lane, plan.threads, plan.segment, team.max, team.sum

    @t.device
    def largest(held):
        top = lowest
        for v in range(vectors):
            for q in range(width):
                top = larger(top, held[at(v) + q * pitch])
        return top

    @t.device
    def sums(held, row_max):
        below, ties, of_group = zero, zero, zero
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                x = held[slot]
                e = exp_shifted(x, row_max)
                if x == row_max:
                    ties += one
                else:
                    of_group += e
                if keep:
                    held[slot] = e
            if v % group == group - 1:
                below += of_group
                of_group = zero
        return below + of_group, ties

    @t.device
    def rest(row_max, below, ties):
        # The sum of exp over all entries but one maximum; NaN where softmax is.
        return below + (ties - one) if abs(row_max) < infinity else nan

    @t.device
    def combine(partials, row, valid, n, scratch):
        segments = (n + segment - 1) // segment if valid else 0
        first = row * segments * partial
        top = lowest
        for i in range(lane(), segments, threads):
            top = larger(top, partials[first + i * partial])
        row_max = team_max(top, scratch, 0)
        below, ties = zero, zero
        for i in range(lane(), segments, threads):
            k = first + i * partial
            if partials[k] == row_max:
                below += partials[k + 1]
                ties += partials[k + 2]
            else:
                below += (partials[k + 1] + partials[k + 2]) * exp_shifted(partials[k], row_max)
        return row_max, team_sum(below, scratch, 1), team_sum(ties, scratch, 2)

    return Statistics(largest, sums, rest, combine)


def _finish_softmax(t, team, of_row, rest):
    pair, write = make_pair(t), of_row.write
    reciprocal, multiply = pair.reciprocal, pair.multiply
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at

    @t.device
    def finish(out, held, row_max, below, ties, row, base, start, end, inner):
        # y_i = exp(x_i - max) / (1 + rest)
        high, low = reciprocal(rest(row_max, below, ties))
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = multiply(held[slot], high, low)
        write(out, base, start, end, inner, held)

    return finish


def _finish_log_softmax(t, team, of_row, rest):
    number, write = t.number, of_row.write
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at

    @t.device
    def finish(out, held, row_max, below, ties, row, base, start, end, inner):
        # log y_i = (x_i - max) - log(1 + rest)
        log_sum = number(math.log1p(rest(row_max, below, ties)))
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = (held[slot] - row_max) - log_sum
        write(out, base, start, end, inner, held)

    return finish


def _finish_logsumexp(t, team, of_row, rest):
    number, store, lane = t.number, t.store, team.lane
    infinity = number(np.inf)

    @t.device
    def finish(out, held, row_max, below, ties, row, base, start, end, inner):
        if lane() == 0 and start == 0 and start < end:
            if abs(row_max) < infinity:
                store(out, row, row_max + number(math.log1p(rest(row_max, below, ties))))
            else:
                store(out, row, row_max if below == below else below)

    return finish


_FINISH = {"softmax": _finish_softmax, "log_softmax": _finish_log_softmax, "logsumexp": _finish_logsumexp}
