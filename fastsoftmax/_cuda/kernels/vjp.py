"""The vector-Jacobian product of softmax, which is also its JVP: ``dx_i = y_i * (g_i - sum_j g_j y_j)``.

``g - c`` in place of ``g`` changes nothing: the centre c keeps the digits of a saturated row, and makes a
constant cotangent give exactly 0. It is the cotangent of a row's dominant entry, or else the value
nearest 0 between the extremes of g.
"""

from collections import namedtuple

import numpy as np

from fastsoftmax._cuda.arithmetic import make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

# A segment's: largest g and -g, number of dominant entries and their g; then its dot product of y with
# g less the segment's own centre, and its sum of y, as pairs.
PARTIAL = 8
REDUCTIONS = 8

_Steps = namedtuple("_Steps", "extremes centre dot sum finish")


def whole(t, plan):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    steps = _make_steps(t, plan, team, of_row)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, second, team_max, team_sum = team.locate, of_row.read, of_row.second, team.max, team.sum
    extremes, centre_of, dot_of, finish = steps.extremes, steps.centre, steps.dot, steps.finish

    def vjp_whole(y, g, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        _, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        upper, lower, dominant, at_dominant = extremes(held, start, end)
        upper, lower = team_max(upper, scratch, 0), team_max(lower, scratch, 1)
        dominant, at_dominant = team_sum(dominant, scratch, 2), team_sum(at_dominant, scratch, 3)
        centre = centre_of(upper, lower, dominant, at_dominant)
        dot, low = dot_of(held, centre, scratch)
        finish(out, held, centre, dot, low, base, start, end, inner)

    return vjp_whole


def partial(t, plan):
    """What each segment of longer rows adds up to."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    steps = _make_steps(t, plan, team, of_row)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, second = team.lane, team.locate, of_row.read, of_row.second
    team_max, team_sum = team.max, team.sum
    extremes, centre_of, dot_of, sum_of = steps.extremes, steps.centre, steps.dot, steps.sum

    def vjp_partial(y, g, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        upper, lower, dominant, at_dominant = extremes(held, start, end)
        upper, lower = team_max(upper, scratch, 0), team_max(lower, scratch, 1)
        dominant, at_dominant = team_sum(dominant, scratch, 2), team_sum(at_dominant, scratch, 3)
        dot, dot_low = dot_of(held, centre_of(upper, lower, dominant, at_dominant), scratch)
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
    combine = _make_combine(t, plan, team, steps.centre)
    cuda, number, size, scratch_size = t.cuda, t.number, of_row.size, team.scratch
    locate, read, second, finish = team.locate, of_row.read, of_row.second, steps.finish

    def vjp_combined(y, g, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(y, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        centre, dot, low = combine(partials, row, start < end, n, scratch)
        finish(out, held, centre, dot, low, base, start, end, inner)

    return vjp_combined


def _make_steps(t, plan, team, of_row):
    number, larger = t.number, t.max
    zero, one, half, infinity, lowest = map(number, (0, 1, 0.5, np.inf, -np.inf))
    vectors, width, pitch, at, write = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.write
    second, position, team_total = of_row.second, of_row.position, team.total
    plus, rounded, group = make_sums(t, plan)

    @t.device
    def extremes(held, start, end):
        upper, lower, dominant, at_dominant = lowest, lowest, zero, zero
        for v in range(vectors):
            if position(v, start) < end:
                for q in range(width):
                    slot = at(v) + q * pitch
                    g = held[slot + second]
                    upper, lower = larger(upper, g), larger(lower, -g)
                    if held[slot] > half:
                        dominant += one
                        at_dominant += g
        return upper, lower, dominant, at_dominant

    @t.device
    def centre_of(upper, lower, dominant, at_dominant):
        centre = upper if upper < zero else -lower if lower < zero else zero
        if dominant > zero:
            centre = at_dominant
        return centre if abs(centre) < infinity else zero

    @t.device
    def dot_of(held, centre, scratch):
        high, low, of_group = zero, zero, zero
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                of_group += held[slot] * (held[slot + second] - centre)
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
        high, low = plus(high, low, of_group)
        return team_total(high, low, scratch, 4)

    @t.device
    def sum_of(held, scratch):
        high, low = zero, zero
        for v in range(vectors):
            for q in range(width):
                high, low = plus(high, low, held[at(v) + q * pitch])
        return team_total(high, low, scratch, 6)

    @t.device
    def finish(out, held, centre, dot, low, base, start, end, inner):
        # dx_i = y_i * ((g_i - c) - sum_j (g_j - c) y_j)
        dot = rounded(dot, low)
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] *= (held[slot + second] - centre) - dot
        write(out, base, start, end, inner, held)

    return _Steps(extremes, centre_of, dot_of, sum_of, finish)


def _make_combine(t, plan, team, centre_of):
    number, larger, threads, segment = t.number, t.max, plan.threads, plan.segment
    lane, team_max, team_sum, team_total = team.lane, team.max, team.sum, team.total
    zero, lowest, plus, fma = number(0), number(-np.inf), make_sums(t, plan).plus, t.fma

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
        centre = centre_of(upper, lower, dominant, at_dominant)
        high, low = zero, zero
        for i in range(lane(), segments, threads):
            k = first + i * PARTIAL
            own = centre_of(partials[k], partials[k + 1], partials[k + 2], partials[k + 3])
            further, total = own - centre, partials[k + 6]
            product = further * total
            low += fma(further, total, -product) + further * partials[k + 7]
            high, low = plus(high, low + partials[k + 5], partials[k + 4])
            high, low = plus(high, low, product)
        high, low = team_total(high, low, scratch, 4)
        return centre, high, low

    return combine
