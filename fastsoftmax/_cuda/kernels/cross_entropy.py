"""Cross-entropy of softmax with integer labels, and its gradient.

The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, with ``everywhere`` from smoothing. A
label out of range cannot raise here: its row's loss and gradient are NaN.
"""

import math
from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_exp, make_pair
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.kernels.forward import make_statistics
from fastsoftmax._cuda.teams import make_team

# A segment's statistics as in `forward`, then its sums of everywhere * (anchor - x) and of everywhere, and
# the label's logit where the segment has it. The anchor is its maximum, or 0 where that is infinite.
PARTIAL = 6
REDUCTIONS = 6

_Target = namedtuple("_Target", "logit spread loss gradient")


def whole(t, plan, smooth, weighted, gradient, mean):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=gradient)
    target = _make_target(t, plan, team, of_row, statistics.rest, smooth, weighted, gradient, mean)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, largest, sums = team.locate, of_row.read, statistics.largest, statistics.sums
    team_max, team_sum, infinity, zero = team.max, team.sum, t.number(np.inf), t.number(0)
    logit, spread_of, write_loss, write_gradient = target.logit, target.spread, target.loss, target.gradient

    def cross_entropy_whole(x, labels, weight, smoothing, ignored, factor, scale, loss, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        label = labels[row] if start < end else ignored
        at_label = logit(x, label, base, start, end, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        anchor = row_max if abs(row_max) < infinity else zero
        spread, share = spread_of(held, weight, smoothing, anchor, start, end, n)
        if smooth:
            spread, share = team_sum(spread, scratch, 3), team_sum(share, scratch, 4)
        below, ties = sums(held, row_max)
        below, ties = team_sum(below, scratch, 1), team_sum(ties, scratch, 2)
        state = (row_max, below, ties, spread, share, at_label)
        write_loss(loss, state, label, weight, smoothing, ignored, row, start, end, n)
        if gradient:
            write_gradient(
                out, held, state, label, weight, smoothing, ignored, factor, scale, base, start, end, n, inner
            )

    return cross_entropy_whole


def partial(t, plan, smooth, weighted):
    """What each segment of longer rows adds up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=False)
    target = _make_target(t, plan, team, of_row, statistics.rest, smooth, weighted, False, False)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, largest, sums = (
        team.lane,
        team.locate,
        of_row.read,
        statistics.largest,
        statistics.sums,
    )
    team_max, team_sum, infinity, zero = team.max, team.sum, t.number(np.inf), t.number(0)
    logit, spread_of = target.logit, target.spread

    def cross_entropy_partial(x, labels, weight, smoothing, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        anchor = row_max if abs(row_max) < infinity else zero
        spread, share = spread_of(held, weight, smoothing, anchor, start, end, n)
        if smooth:
            spread, share = team_sum(spread, scratch, 3), team_sum(share, scratch, 4)
        below, ties = sums(held, row_max)
        below, ties = team_sum(below, scratch, 1), team_sum(ties, scratch, 2)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = row_max
            partials[i + 1] = below
            partials[i + 2] = ties
            partials[i + 3] = spread
            partials[i + 4] = share
            partials[i + 5] = logit(x, labels[row], base, start, end, inner)

    return cross_entropy_partial


def combined(t, plan, smooth, weighted, gradient, mean):
    """Longer rows, from what their segments add up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=gradient, partial=PARTIAL)
    target = _make_target(t, plan, team, of_row, statistics.rest, smooth, weighted, gradient, mean)
    cuda, number, size, scratch_size = t.cuda, t.number, of_row.size, team.scratch
    locate, read, sums, combine = team.locate, of_row.read, statistics.sums, statistics.combine
    combine_spread = _make_combine_spread(t, plan, team, smooth)
    write_loss, write_gradient, segment = target.loss, target.gradient, plan.segment

    def cross_entropy_combined(
        x, partials, labels, weight, smoothing, ignored, factor, scale, loss, out, m, n, inner
    ):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        valid = start < end
        label = labels[row] if valid else ignored
        row_max, below, ties = combine(partials, row, valid, n, scratch)
        spread, share = combine_spread(partials, row, row_max, valid, n, scratch)
        at_label = row_max
        if valid and label >= 0 and label < n:
            segments = (n + segment - 1) // segment
            at_label = partials[PARTIAL * (row * segments + label // segment) + 5]
        state = (row_max, below, ties, spread, share, at_label)
        write_loss(loss, state, label, weight, smoothing, ignored, row, start, end, n)
        if gradient:
            read(x, base, start, end, inner, held, 0)
            sums(held, row_max)
            write_gradient(
                out, held, state, label, weight, smoothing, ignored, factor, scale, base, start, end, n, inner
            )

    return cross_entropy_combined


def _make_target(t, plan, team, of_row, rest, smooth, weighted, gradient, mean):
    everywhere = _make_everywhere(t, weighted)
    logit = _make_logit(t)
    spread = _make_spread(t, of_row, everywhere) if smooth else _make_no_spread(t)
    loss = _make_loss(t, team, rest, smooth, weighted)
    if not gradient:
        return _Target(logit, spread, loss, None)
    write = _make_gradient(t, plan, team, of_row, rest, everywhere, smooth, weighted, mean)
    return _Target(logit, spread, loss, write)


def _make_logit(t):
    load, zero = t.load, t.number(0)

    @t.device
    def logit(x, label, base, start, end, inner):
        # Read before anything is written: out may be x.
        return load(x, base + label * inner) if label >= start and label < end else zero

    return logit


def _make_everywhere(t, weighted):
    number = t.number

    @t.device
    def everywhere(weight, smoothing, j, n):
        return number(smoothing / n) * weight[j] if weighted else number(smoothing / n)

    return everywhere


def _make_no_spread(t):
    zero = t.number(0)

    @t.device
    def no_spread(held, weight, smoothing, anchor, start, end, n):
        return zero, zero

    return no_spread


def _make_spread(t, of_row, everywhere):
    zero = t.number(0)
    vectors, width, pitch, at, position = (
        of_row.vectors,
        of_row.width,
        of_row.pitch,
        of_row.at,
        of_row.position,
    )

    @t.device
    def spread_of(held, weight, smoothing, anchor, start, end, n):
        spread, share = zero, zero
        for v in range(vectors):
            c = position(v, start)
            if c < end:
                for q in range(width):
                    w = everywhere(weight, smoothing, c + q, n)
                    spread += w * (anchor - held[at(v) + q * pitch])
                    share += w
        return spread, share

    return spread_of


def _make_combine_spread(t, plan, team, smooth):
    threads, segment, lane, team_sum = plan.threads, plan.segment, team.lane, team.sum
    infinity, zero = t.number(np.inf), t.number(0)

    @t.device
    def combine_spread(partials, row, row_max, valid, n, scratch):
        spread, share = zero, zero
        if smooth:
            segments = (n + segment - 1) // segment if valid else 0
            for i in range(lane(), segments, threads):
                k = PARTIAL * (row * segments + i)
                anchor = partials[k] if abs(partials[k]) < infinity else zero
                spread += partials[k + 3] + partials[k + 4] * (row_max - anchor)
                share += partials[k + 4]
            spread, share = team_sum(spread, scratch, 3), team_sum(share, scratch, 4)
        return spread, share

    return combine_spread


def _make_loss(t, team, rest, smooth, weighted):
    number, lane = t.number, team.lane
    zero, one, nan = number(0), number(1), number(np.nan)

    @t.device
    def write_loss(loss, state, label, weight, smoothing, ignored, row, start, end, n):
        row_max, below, ties, spread, share, at_label = state
        if lane() == 0 and start == 0 and start < end:
            value = zero
            if label != ignored:
                value = nan
                if label >= 0 and label < n:
                    # -log y_j = (max - x_j) + log(1 + rest)
                    log_sum = number(math.log1p(rest(row_max, below, ties)))
                    factor = one - number(smoothing) if smooth else one
                    if weighted:
                        factor *= weight[label]
                    value = factor * ((row_max - at_label) + log_sum)
                    if smooth:
                        value += spread + share * log_sum
            loss[row] = value

    return write_loss


def _make_gradient(t, plan, team, of_row, rest, everywhere, smooth, weighted, mean):
    number, exp_shifted, pair, write = t.number, make_exp(t, plan).exp_shifted, make_pair(t), of_row.write
    reciprocal, multiply, scale_pair = pair.reciprocal, pair.multiply, pair.scale
    zero, one, nan, double = number(0), number(1), number(np.nan), np.float64
    vectors, width, pitch = of_row.vectors, of_row.width, of_row.pitch
    at, position, lane, threads, store = of_row.at, of_row.position, team.lane, plan.threads, t.store

    @t.device
    def write_gradient(
        out, held, state, label, weight, smoothing, ignored, factor, scale, base, start, end, n, inner
    ):
        row_max, below, ties, _, share, at_label = state
        scaled, taken = scale[1] if mean else factor, label != ignored
        weight_at_label = one - number(smoothing) if smooth else one
        inside = label >= 0 and label < n
        if weighted and inside:
            weight_at_label *= weight[label]
        others = rest(row_max, below, ties) if inside else nan
        high, low = reciprocal(others)
        y_label = multiply(exp_shifted(at_label, row_max), high, low)
        one_minus = multiply(others, high, low) if at_label == row_max else one - y_label
        # d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label
        high, low = scale_pair(high, low, double(weight_at_label + share) * scaled)
        for v in range(vectors):
            c = position(v, start)
            if c < end:
                for q in range(width):
                    slot = at(v) + q * pitch
                    dx = multiply(held[slot], high, low)
                    if smooth:
                        dx -= everywhere(weight, smoothing, c + q, n) * number(scaled)
                    held[slot] = dx if taken else zero
        write(out, base, start, end, inner, held)
        # The thread that wrote the label's entry writes it again: a test in the loop took registers.
        if taken and label >= start and label < end and (label - start) // width % threads == lane():
            w = everywhere(weight, smoothing, label, n) if smooth else zero
            dx = (share * y_label - w) - weight_at_label * one_minus
            store(out, base + label * inner, number(double(dx) * scaled))

    return write_gradient
