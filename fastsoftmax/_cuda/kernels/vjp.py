"""The vector-Jacobian product of softmax, which is also its JVP: ``dx_i = y_i * (g_i - sum_j g_j y_j)``.

``g - c`` in place of ``g`` changes nothing: the centre c keeps the digits of a saturated row, and makes a
constant cotangent give exactly 0. It is the cotangent of a row's dominant entry, or else the value
nearest 0 between the extremes of g. Where a difference of these may overflow, all is computed of an eighth
of g, and of 8 y.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

# A segment's: largest g and -g, number of dominant entries and their g; then its dot product of y with
# g less the segment's own centre, both by its scale, and its sum of y, as pairs.
PARTIAL = 8
REDUCTIONS = 8

_Steps = namedtuple("_Steps", "extremes centre scale dot sum finish")


def whole(t, plan):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    steps = _make_steps(t, plan, team, of_row)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, word, team_max, team_sum = team.locate, of_row.read, t.word, team.max, team.sum
    extremes, centre_of, scale_of, dot_of, _, finish = steps

    def vjp_whole(y, g, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        _, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
        upper, lower, dominant, at_dominant = extremes(held, start, end)
        upper, lower = team_max(upper, scratch, 0), team_max(lower, scratch, 1)
        dominant, at_dominant = team_sum(dominant, scratch, 2), team_sum(at_dominant, scratch, 3)
        centre = centre_of(upper, lower, dominant, at_dominant)
        scale = scale_of(upper, lower)
        dot, low = dot_of(held, centre, scale, scratch)
        finish(out, held, centre, dot, low, scale, base, start, end, inner)

    return vjp_whole


def partial(t, plan):
    """What each segment of longer rows adds up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    steps = _make_steps(t, plan, team, of_row)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word, segment = t.word, plan.segment
    lane, locate, read, team_max, team_sum = team.lane, team.locate, of_row.read, team.max, team.sum
    extremes, centre_of, scale_of, dot_of, sum_of, _ = steps

    def vjp_partial(y, g, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
        upper, lower, dominant, at_dominant = extremes(held, start, end)
        upper, lower = team_max(upper, scratch, 0), team_max(lower, scratch, 1)
        dominant, at_dominant = team_sum(dominant, scratch, 2), team_sum(at_dominant, scratch, 3)
        centre = centre_of(upper, lower, dominant, at_dominant)
        dot, dot_low = dot_of(held, centre, scale_of(upper, lower), scratch)
        total, total_low = sum_of(held, scratch)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = upper
            partials[i + 1] = lower
            partials[i + 2] = dominant
            partials[i + 3] = at_dominant
            partials[i + 4] = dot
            partials[i + 5] = dot_low
            partials[i + 6] = total
            partials[i + 7] = total_low

    return vjp_partial


def combined(t, plan):
    """Longer rows, from what their segments add up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    steps = _make_steps(t, plan, team, of_row)
    combine = _make_combine(t, plan, team, steps)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word = t.word
    locate, read, finish = team.locate, of_row.read, steps.finish

    def vjp_combined(y, g, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
        centre, dot, low, scale = combine(partials, row, start < end, n, scratch)
        finish(out, held, centre, dot, low, scale, base, start, end, inner)

    return vjp_combined


def _make_steps(t, plan, team, of_row):
    cuda, number, larger = t.cuda, t.number, t.max
    zero, one, half, infinity, lowest = map(number, (0, 1, 0.5, np.inf, -np.inf))
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put
    position, team_total, two, eighth = of_row.position, team.total, number(2), number(0.125)
    plus, rounded, group = make_sums(t, plan)

    @t.device
    def extremes(held, start, end):
        y, g = cuda.local.array(width, number), cuda.local.array(width, number)
        upper, lower, dominant, at_dominant = lowest, lowest, zero, zero
        for v in range(vectors()):
            if position(v, start) < end:
                take(held, v, 0, y)
                take(held, v, 1, g)
                for q in range(width):
                    upper, lower = larger(upper, g[q]), larger(lower, -g[q])
                    if y[q] > half:
                        dominant += one
                        at_dominant += g[q]
        return upper, lower, dominant, at_dominant

    @t.device
    def centre_of(upper, lower, dominant, at_dominant):
        centre = upper if upper < zero else -lower if lower < zero else zero
        if dominant > zero:
            centre = at_dominant
        return centre if abs(centre) < infinity else zero

    @t.device
    def scale_of(upper, lower):
        return one if (upper + lower) * two < infinity else eighth

    @t.device
    def dot_of(held, centre, scale, scratch):
        y, g = cuda.local.array(width, number), cuda.local.array(width, number)
        high, low, of_group, centre = zero, zero, zero, centre * scale
        for v in range(vectors()):
            take(held, v, 0, y)
            take(held, v, 1, g)
            for q in range(width):
                of_group += y[q] * (g[q] * scale - centre)
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
        high, low = plus(high, low, of_group)
        return team_total(high, low, scratch, 4)

    @t.device
    def sum_of(held, scratch):
        y = cuda.local.array(width, number)
        high, low = zero, zero
        for v in range(vectors()):
            take(held, v, 0, y)
            for q in range(width):
                high, low = plus(high, low, y[q])
        return team_total(high, low, scratch, 6)

    @t.device
    def finish(out, held, centre, dot, low, scale, base, start, end, inner):
        # dx_i = y_i * ((g_i - c) - sum_j (g_j - c) y_j)
        y, g = cuda.local.array(width, number), cuda.local.array(width, number)
        dot, centre, back = rounded(dot, low), centre * scale, one / scale
        for v in range(vectors()):
            take(held, v, 0, y)
            take(held, v, 1, g)
            for q in range(width):
                y[q] = y[q] * back * ((g[q] * scale - centre) - dot)
            put(out, base, start, end, inner, v, y)

    return _Steps(extremes, centre_of, scale_of, dot_of, sum_of, finish)


def _make_combine(t, plan, team, steps):
    number, larger, threads, segment = t.number, t.max, plan.threads, plan.segment
    lane, team_max, team_sum, team_total = team.lane, team.max, team.sum, team.total
    zero, lowest, plus, fma = number(0), number(-np.inf), make_sums(t, plan).plus, t.fma
    centre_of, scale_of = steps.centre, steps.scale

    @t.device
    def combine(partials, row, valid, n, scratch):
        segments = (n + segment - 1) // segment if valid else 0
        first = row * segments * PARTIAL
        upper, lower, dominant, at_dominant = lowest, lowest, zero, zero
        for i in range(lane(), segments, threads):
            k = first + i * PARTIAL
            upper, lower = larger(upper, partials[k]), larger(lower, partials[k + 1])
            dominant += partials[k + 2]
            at_dominant += partials[k + 3]
        upper, lower = team_max(upper, scratch, 0), team_max(lower, scratch, 1)
        dominant, at_dominant = team_sum(dominant, scratch, 2), team_sum(at_dominant, scratch, 3)
        centre, scale = centre_of(upper, lower, dominant, at_dominant), scale_of(upper, lower)
        high, low = zero, zero
        for i in range(lane(), segments, threads):
            k = first + i * PARTIAL
            own = centre_of(partials[k], partials[k + 1], partials[k + 2], partials[k + 3])
            change = scale / scale_of(partials[k], partials[k + 1])
            further, total = own * scale - centre * scale, partials[k + 6]
            product = further * total
            low += fma(further, total, -product) + further * partials[k + 7]
            high, low = plus(high, low + partials[k + 5] * change, partials[k + 4] * change)
            high, low = plus(high, low, product)
        high, low = team_total(high, low, scratch, 4)
        return centre, high, low, scale

    return combine
