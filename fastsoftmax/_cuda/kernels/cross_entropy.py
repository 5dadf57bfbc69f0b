"""Cross-entropy of softmax with integer labels, and its gradient.

The loss is ``at_label * nll[label] + sum_j everywhere[j] * nll[j]``, with ``everywhere`` from smoothing. A
label out of range cannot raise here: its row's loss and gradient are NaN.
"""

import math
from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_exp, make_pair, make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.kernels.forward import make_statistics
from fastsoftmax._cuda.teams import make_team

# A segment's statistics as in `forward`, then its sums of everywhere * (anchor - x) / 2 (a difference of
# logits may overflow) and of everywhere, as pairs, and the label's logit where the segment has it. The anchor
# is its maximum, or 0 where that is infinite.
PARTIAL = 9
REDUCTIONS = 9

_Target = namedtuple("_Target", "logit spread loss gradient")


def whole(t, plan, smooth, weighted, gradient, mean):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=gradient)
    target = _make_target(t, plan, team, of_row, statistics, smooth, weighted, gradient, mean)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, largest, sums = team.locate, of_row.read, statistics.largest, statistics.sums
    team_max, rest, infinity, zero = team.max, statistics.rest, t.number(np.inf), t.number(0)
    logit, spread_of, write_loss, write_gradient = target.logit, target.spread, target.loss, target.gradient
    word, rounded = t.word, make_sums(t, plan).rounded

    def cross_entropy_whole(x, labels, weight, smoothing, ignored, factor, scale, loss, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        label = labels[row] if start < end else ignored
        at_label = logit(x, label, base, start, end, inner)
        cuda.syncwarp()  # out may be x, and a shuffle orders no accesses: no lane writes before all have read
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        anchor = row_max if abs(row_max) < infinity else zero
        spreads = spread_of(held, weight, smoothing, anchor, start, end, n, scratch)
        spread, share = rounded(spreads[0], spreads[1]), rounded(spreads[2], spreads[3])
        high, low, ties = sums(held, row_max, scratch)
        high, low = rest(high, low, ties, zero)
        state = (row_max, high, low, spread, share, at_label)
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
    target = _make_target(t, plan, team, of_row, statistics, smooth, weighted, False, False)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word, segment = t.word, plan.segment
    lane, locate, read, largest, sums = (
        team.lane,
        team.locate,
        of_row.read,
        statistics.largest,
        statistics.sums,
    )
    team_max, infinity, zero = team.max, t.number(np.inf), t.number(0)
    logit, spread_of = target.logit, target.spread

    def cross_entropy_partial(x, labels, weight, smoothing, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(x, base, start, end, inner, held, 0)
        row_max = team_max(largest(held), scratch, 0)
        anchor = row_max if abs(row_max) < infinity else zero
        spreads = spread_of(held, weight, smoothing, anchor, start, end, n, scratch)
        high, low, ties = sums(held, row_max, scratch)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = row_max
            partials[i + 1] = high
            partials[i + 2] = low
            partials[i + 3] = ties
            partials[i + 4] = spreads[0]
            partials[i + 5] = spreads[1]
            partials[i + 6] = spreads[2]
            partials[i + 7] = spreads[3]
            partials[i + 8] = logit(x, labels[row], base, start, end, inner)

    return cross_entropy_partial


def combined(t, plan, smooth, weighted, gradient, mean):
    """Longer rows, from what their segments add up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, -np.inf)
    statistics = make_statistics(t, plan, team, of_row, keep=False, partial=PARTIAL)
    target = _make_target(t, plan, team, of_row, statistics, smooth, weighted, gradient, mean)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word = t.word
    locate, read, combine = team.locate, of_row.read, statistics.combine
    combine_spread = _make_combine_spread(t, plan, team, smooth)
    write_loss, write_gradient, segment = target.loss, target.gradient, plan.segment

    def cross_entropy_combined(
        x, partials, labels, weight, smoothing, ignored, factor, scale, loss, out, m, n, inner
    ):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        valid = start < end
        label = labels[row] if valid else ignored
        row_max, high, low = combine(partials, row, valid, n, scratch)
        spread, share = combine_spread(partials, row, row_max, valid, n, scratch)
        at_label = row_max
        if valid and label >= 0 and label < n:
            segments = (n + segment - 1) // segment
            at_label = partials[PARTIAL * (row * segments + label // segment) + 8]
        state = (row_max, high, low, spread, share, at_label)
        write_loss(loss, state, label, weight, smoothing, ignored, row, start, end, n)
        if gradient:
            read(x, base, start, end, inner, held, 0)
            write_gradient(
                out, held, state, label, weight, smoothing, ignored, factor, scale, base, start, end, n, inner
            )

    return cross_entropy_combined


def _make_target(t, plan, team, of_row, statistics, smooth, weighted, gradient, mean):
    everywhere = _make_everywhere(t, weighted)
    logit = _make_logit(t)
    spread = _make_spread(t, plan, team, of_row, everywhere) if smooth else _make_no_spread(t)
    loss = _make_loss(t, plan, team, statistics.guarded, smooth, weighted)
    if not gradient:
        return _Target(logit, spread, loss, None)
    write = _make_gradient(t, plan, team, of_row, statistics, everywhere, smooth, weighted, mean)
    return _Target(logit, spread, loss, write)


def _make_logit(t):
    load, zero = t.load, t.number(0)

    @t.device
    def logit(x, label, base, start, end, inner):
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
    def no_spread(held, weight, smoothing, anchor, start, end, n, scratch):
        return zero, zero, zero, zero

    return no_spread


def _make_spread(t, plan, team, of_row, everywhere):
    cuda, number, plus, team_total = t.cuda, t.number, make_sums(t, plan).plus, team.total
    zero, half = number(0), number(0.5)
    vectors, width, take, position = of_row.vectors, of_row.width, of_row.take, of_row.position

    @t.device
    def spread_of(held, weight, smoothing, anchor, start, end, n, scratch):
        line = cuda.local.array(width, number)
        spread, spread_low, share, share_low = zero, zero, zero, zero
        for v in range(vectors()):
            c = position(v, start)
            if c < end:
                take(held, v, 0, line)
                for q in range(width):
                    w = everywhere(weight, smoothing, c + q, n)
                    if w != zero:
                        gap = half * anchor - half * line[q]
                        spread, spread_low = plus(spread, spread_low, w * gap)
                        share, share_low = plus(share, share_low, w)
        spread, spread_low = team_total(spread, spread_low, scratch, 5)
        share, share_low = team_total(share, share_low, scratch, 7)
        return spread, spread_low, share, share_low

    return spread_of


def _make_combine_spread(t, plan, team, smooth):
    threads, segment, lane, team_total = plan.threads, plan.segment, team.lane, team.total
    infinity, zero, half, sums = t.number(np.inf), t.number(0), t.number(0.5), make_sums(t, plan)
    plus, rounded = sums.plus, sums.rounded

    @t.device
    def combine_spread(partials, row, row_max, valid, n, scratch):
        spread, spread_low, share, share_low = zero, zero, zero, zero
        if smooth:
            segments = (n + segment - 1) // segment if valid else 0
            for i in range(lane(), segments, threads):
                k = PARTIAL * (row * segments + i)
                anchor = partials[k] if abs(partials[k]) < infinity else zero
                spread, spread_low = plus(spread, spread_low + partials[k + 5], partials[k + 4])
                if partials[k + 6] != zero:
                    gap = half * row_max - half * anchor
                    spread, spread_low = plus(spread, spread_low, partials[k + 6] * gap)
                share, share_low = plus(share, share_low + partials[k + 7], partials[k + 6])
            spread, spread_low = team_total(spread, spread_low, scratch, 5)
            share, share_low = team_total(share, share_low, scratch, 7)
        return rounded(spread, spread_low), rounded(share, share_low)

    return combine_spread


def _make_loss(t, plan, team, guarded, smooth, weighted):
    number, lane, rounded = t.number, team.lane, make_sums(t, plan).rounded
    zero, one, half, two, nan, infinity = map(number, (0, 1, 0.5, 2, np.nan, np.inf))

    @t.device
    def term(weight, row_max, x, log_sum):
        # weight * -log y; 0 of a weight of 0, and finite where only the difference of logits is not.
        # -log y_j = (max - x_j) + log(1 + rest)
        nll = (row_max - x) + log_sum
        value = weight * nll if nll != infinity else two * (weight * (half * row_max - half * x))
        return value if weight != zero else zero * log_sum

    @t.device
    def write_loss(loss, state, label, weight, smoothing, ignored, row, start, end, n):
        row_max, high, low, spread, share, at_label = state
        if lane() == 0 and start == 0 and start < end:
            value = zero
            if label != ignored:
                value = nan
                if label >= 0 and label < n:
                    log_sum = number(math.log1p(rounded(guarded(row_max, high), low)))
                    factor = one - number(smoothing) if smooth else one
                    if weighted:
                        factor *= weight[label]
                    value = term(factor, row_max, at_label, log_sum)
                    if smooth:
                        value += two * spread + share * log_sum
            loss[row] = value

    return write_loss


def _make_gradient(t, plan, team, of_row, statistics, everywhere, smooth, weighted, mean):
    cuda, number, pair, exp_shifted = t.cuda, t.number, make_pair(t), make_exp(t, plan).exp_shifted
    guarded, exp_of = statistics.guarded, statistics.exp_of
    reciprocal, multiply, scale_pair = pair.reciprocal, pair.multiply, pair.scale
    zero, one, nan, double = number(0), number(1), number(np.nan), np.float64
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put
    position, lane, threads, store = of_row.position, team.lane, plan.threads, t.store

    @t.device
    def write_gradient(
        out, held, state, label, weight, smoothing, ignored, factor, scale, base, start, end, n, inner
    ):
        row_max, others, others_low, _, share, at_label = state
        scaled, taken = scale[1] if mean else factor, label != ignored
        weight_at_label = one - number(smoothing) if smooth else one
        inside = label >= 0 and label < n
        if weighted and inside:
            weight_at_label *= weight[label]
        others = guarded(row_max, others) if inside else nan
        high, low = reciprocal(others, others_low)
        y_label = multiply(exp_shifted(at_label, row_max), high, low)
        one_minus = multiply(others, high, low) + others_low * high if at_label == row_max else one - y_label
        # d loss / d x_j = y_j * (at_label + total) - everywhere_j - (j == label) * at_label
        high, low = scale_pair(high, low, double(weight_at_label + share) * scaled)
        line = cuda.local.array(width, number)
        for v in range(vectors()):
            c = position(v, start)
            if c < end:
                take(held, v, 0, line)
                for q in range(width):
                    dx = multiply(exp_of(line[q], row_max), high, low)
                    if smooth:
                        dx -= everywhere(weight, smoothing, c + q, n) * number(scaled)
                    line[q] = dx if taken else zero
                put(out, base, start, end, inner, v, line)
        # The thread that wrote the label's entry writes it again: a test in the loop took registers.
        if taken and label >= start and label < end and (label - start) // width % threads == lane():
            w = everywhere(weight, smoothing, label, n) if smooth else zero
            dx = (share * y_label - w) - weight_at_label * one_minus
            store(out, base + label * inner, number(double(dx) * scaled))

    return write_gradient
