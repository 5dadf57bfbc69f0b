"""softmax, log_softmax and logsumexp."""

import math
from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_exp, make_pair, make_sums, make_two_sum
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

# A segment's statistics: its maximum, the sum of exp over the entries below it as a pair, and how often it
# occurs. A row's are its maximum and the rest: the sum of exp over all entries but one maximum, as a pair.
PARTIAL = 4
REDUCTIONS = 5

Statistics = namedtuple("Statistics", "largest sums exp_of rest combine guarded")


def whole(t, plan, op):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=op == "softmax")
    finish = _FINISH[op](t, plan, team, of_row, statistics)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, largest, sums = team.locate, of_row.read, statistics.largest, statistics.sums
    team_max, rest, word, zero = team.max, statistics.rest, t.word, number(0)

    def forward_whole(x, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        high, low, ties = sums(held, row_max, scratch)
        high, low = rest(high, low, ties, zero)
        finish(out, held, row_max, high, low, row, base, start, end, inner)

    return forward_whole


def partial(t, plan):
    """The statistics of each segment of longer rows."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=False)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word, segment = t.word, plan.segment
    lane, locate, read, team_max = team.lane, team.locate, of_row.read, team.max
    largest, sums = statistics.largest, statistics.sums

    def forward_partial(x, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        high, low, ties = sums(held, row_max, scratch)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = row_max
            partials[i + 1] = high
            partials[i + 2] = low
            partials[i + 3] = ties

    return forward_partial


def combined(t, plan, op):
    """Longer rows, from the statistics of their segments."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=False)
    finish = _FINISH[op](t, plan, team, of_row, statistics)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word = t.word
    locate, read, combine = team.locate, of_row.read, statistics.combine

    def forward_combined(x, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max, high, low = combine(partials, row, start < end, n, scratch)
        finish(out, held, row_max, high, low, row, base, start, end, inner)

    return forward_combined


def make_statistics(t, plan, team, of_row, keep, partial=PARTIAL):
    """What a row's entries add up to; ``sums`` leaves their exp in their place where ``keep`` says so.

    ``exp_of(v, row_max)`` is the exp of what is there then.
    """
    cuda, number, larger, fma, exp_shifted = t.cuda, t.number, t.max, t.fma, make_exp(t, plan).exp_shifted
    lowest, infinity, nan, zero, one = map(number, (-np.inf, np.inf, np.nan, 0, 1))
    vectors, width, take, give = of_row.vectors, of_row.width, of_row.take, of_row.give
    plus, _, group = make_sums(t, plan)
    two_sum, lane, threads, segment = make_two_sum(t), team.lane, plan.threads, plan.segment
    keep = keep and of_row.keeps
    team_max, team_sum, team_total = team.max, team.sum, team.total

    @t.device
    def largest(held):
        line, top = cuda.local.array(width, number), lowest
        for v in range(vectors()):
            take(held, v, 0, line)
            for q in range(width):
                top = larger(top, line[q])
        return top

    @t.device
    def sums(held, row_max, scratch):
        line = cuda.local.array(width, number)
        high, low, ties, of_group = zero, zero, zero, zero
        for v in range(vectors()):
            take(held, v, 0, line)
            for q in range(width):
                x = line[q]
                e = exp_shifted(x, row_max)
                if x == row_max:
                    ties += one
                else:
                    of_group += e
                line[q] = e
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
            if keep:
                give(held, v, line)
        high, low = plus(high, low, of_group)
        high, low = team_total(high, low, scratch, 1)
        return high, low, team_sum(ties, scratch, 3)

    @t.device
    def exp_of(v, row_max):
        return v if keep else exp_shifted(v, row_max)

    @t.device
    def rest(high, low, ties, ties_low):
        ties, lost = two_sum(ties, -one)
        high, error = two_sum(high, ties)
        return two_sum(high, (low + error) + (ties_low + lost))

    @t.device
    def guarded(row_max, high):
        # NaN where softmax is.
        return high if abs(row_max) < infinity else nan

    @t.device
    def combine(partials, row, valid, n, scratch):
        segments = (n + segment - 1) // segment if valid else 0
        first = row * segments * partial
        top = lowest
        for i in range(lane(), segments, threads):
            top = larger(top, partials[first + i * partial])
        row_max = team_max(top, scratch, 0)
        high, low, ties, ties_low = zero, zero, zero, zero
        for i in range(lane(), segments, threads):
            k = first + i * partial
            if partials[k] == row_max:
                high, low = plus(high, low + partials[k + 2], partials[k + 1])
                ties, ties_low = plus(ties, ties_low, partials[k + 3])
            else:
                factor = exp_shifted(partials[k], row_max)
                s, error = two_sum(partials[k + 1], partials[k + 3])
                product = s * factor
                low += fma(s, factor, -product) + (error + partials[k + 2]) * factor
                high, low = plus(high, low, product)
        high, low = team_total(high, low, scratch, 1)
        ties, ties_low = team_total(ties, ties_low, scratch, 3)
        high, low = rest(high, low, ties, ties_low)
        return row_max, high, low

    return Statistics(largest, sums, exp_of, rest, combine, guarded)


def _finish_softmax(t, plan, team, of_row, statistics):
    cuda, number, pair, guarded, exp_of = (
        t.cuda,
        t.number,
        make_pair(t),
        statistics.guarded,
        statistics.exp_of,
    )
    reciprocal, multiply = pair.reciprocal, pair.multiply
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put

    @t.device
    def finish(out, held, row_max, high, low, row, base, start, end, inner):
        # y_i = exp(x_i - max) / (1 + rest)
        line = cuda.local.array(width, number)
        high, low = reciprocal(guarded(row_max, high), low)
        for v in range(vectors()):
            take(held, v, 0, line)
            for q in range(width):
                line[q] = multiply(exp_of(line[q], row_max), high, low)
            put(out, base, start, end, inner, v, line)

    return finish


def _finish_log_softmax(t, plan, team, of_row, statistics):
    cuda, number, rounded, guarded = t.cuda, t.number, make_sums(t, plan).rounded, statistics.guarded
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put

    @t.device
    def finish(out, held, row_max, high, low, row, base, start, end, inner):
        # log y_i = (x_i - max) - log(1 + rest)
        line = cuda.local.array(width, number)
        log_sum = number(math.log1p(rounded(guarded(row_max, high), low)))
        for v in range(vectors()):
            take(held, v, 0, line)
            for q in range(width):
                line[q] = (line[q] - row_max) - log_sum
            put(out, base, start, end, inner, v, line)

    return finish


def _finish_logsumexp(t, plan, team, of_row, statistics):
    number, store, lane, rounded = t.number, t.store, team.lane, make_sums(t, plan).rounded
    infinity = number(np.inf)

    @t.device
    def finish(out, held, row_max, high, low, row, base, start, end, inner):
        if lane() == 0 and start == 0 and start < end:
            if abs(row_max) < infinity:
                store(out, row, row_max + number(math.log1p(rounded(high, low))))
            else:
                store(out, row, row_max if high == high else high)

    return finish


_FINISH = {"softmax": _finish_softmax, "log_softmax": _finish_log_softmax, "logsumexp": _finish_logsumexp}
