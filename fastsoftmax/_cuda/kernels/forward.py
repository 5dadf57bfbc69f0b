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

Statistics = namedtuple("Statistics", "largest sums rest combine guarded")


def whole(t, plan, op):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=op == "softmax")
    finish = _FINISH[op](t, plan, team, of_row, statistics.guarded)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, largest, sums = team.locate, of_row.read, statistics.largest, statistics.sums
    team_max, rest = team.max, statistics.rest

    zero = number(0)

    def forward_whole(x, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
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
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, team_max = team.lane, team.locate, of_row.read, team.max
    largest, sums = statistics.largest, statistics.sums

    def forward_partial(x, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
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
    statistics = make_statistics(t, plan, team, of_row, keep=op == "softmax")
    finish = _FINISH[op](t, plan, team, of_row, statistics.guarded)
    cuda, number, size, scratch_size = t.cuda, t.number, of_row.size, team.scratch
    locate, read, combine, exps = team.locate, of_row.read, statistics.combine, make_exps(t, plan, of_row)
    keep = op == "softmax"

    def forward_combined(x, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max, high, low = combine(partials, row, start < end, n, scratch)
        if keep:
            exps(held, row_max)
        finish(out, held, row_max, high, low, row, base, start, end, inner)

    return forward_combined


def make_statistics(t, plan, team, of_row, keep, partial=PARTIAL):
    """What a row's entries add up to; ``sums`` leaves their exp in the slots where ``keep`` says so."""
    number, larger, fma, exp_shifted = t.number, t.max, t.fma, make_exp(t, plan).exp_shifted
    lowest, infinity, nan, zero, one = map(number, (-np.inf, np.inf, np.nan, 0, 1))
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at
    plus, _, group = make_sums(t, plan)
    two_sum, lane, threads, segment = make_two_sum(t), team.lane, plan.threads, plan.segment
    team_max, team_sum, team_total = team.max, team.sum, team.total

    @t.device
    def largest(held):
        top = lowest
        for v in range(vectors):
            for q in range(width):
                top = larger(top, held[at(v) + q * pitch])
        return top

    @t.device
    def sums(held, row_max, scratch):
        high, low, ties, of_group = zero, zero, zero, zero
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
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
        high, low = plus(high, low, of_group)
        high, low = team_total(high, low, scratch, 1)
        return high, low, team_sum(ties, scratch, 3)

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

    return Statistics(largest, sums, rest, combine, guarded)


def make_exps(t, plan, of_row):
    """``exps(held, row_max)``: the slots' entries become their exp."""
    exp_shifted = make_exp(t, plan).exp_shifted
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at

    @t.device
    def exps(held, row_max):
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = exp_shifted(held[slot], row_max)

    return exps


def _finish_softmax(t, plan, team, of_row, guarded):
    pair, write = make_pair(t), of_row.write
    reciprocal, multiply = pair.reciprocal, pair.multiply
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at

    @t.device
    def finish(out, held, row_max, high, low, row, base, start, end, inner):
        # y_i = exp(x_i - max) / (1 + rest)
        high, low = reciprocal(guarded(row_max, high), low)
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = multiply(held[slot], high, low)
        write(out, base, start, end, inner, held)

    return finish


def _finish_log_softmax(t, plan, team, of_row, guarded):
    number, write, rounded = t.number, of_row.write, make_sums(t, plan).rounded
    vectors, width, pitch, at = of_row.vectors, of_row.width, of_row.pitch, of_row.at

    @t.device
    def finish(out, held, row_max, high, low, row, base, start, end, inner):
        # log y_i = (x_i - max) - log(1 + rest)
        log_sum = number(math.log1p(rounded(guarded(row_max, high), low)))
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = (held[slot] - row_max) - log_sum
        write(out, base, start, end, inner, held)

    return finish


def _finish_logsumexp(t, plan, team, of_row, guarded):
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
