"""Products with the Jacobian of log-softmax, from its output.

VJP: ``dx_i = g_i - exp(logy_i) * sum_j g_j``; JVP: ``t_i - sum_j exp(logy_j) * t_j``.
"""

from collections import namedtuple

from fastsoftmax._cuda.arithmetic import make_exp
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

PARTIAL = 1
REDUCTIONS = 1

_Steps = namedtuple("_Steps", "total finish")


def whole(t, plan, op):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, second, team_sum = team.locate, of_row.read, of_row.second, team.sum
    total_of, finish = _STEPS[op](t, plan, of_row)

    def log_product_whole(logy, g, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        _, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        finish(out, held, team_sum(total_of(held), scratch, 0), base, start, end, inner)

    return log_product_whole


def partial(t, plan, op):
    """The sum over each segment of longer rows."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, second, team_sum = team.lane, team.locate, of_row.read, of_row.second, team.sum
    total_of, _ = _STEPS[op](t, plan, of_row)

    def log_product_partial(logy, g, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        total = team_sum(total_of(held), scratch, 0)
        if lane() == 0 and start < end:
            partials[row * ((n + segment - 1) // segment) + start // segment] = total

    return log_product_partial


def combined(t, plan, op):
    """Longer rows, from the sums of their segments."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    locate, read, second, team_sum = team.locate, of_row.read, of_row.second, team.sum
    lane, threads, zero = team.lane, plan.threads, t.number(0)
    _, finish = _STEPS[op](t, plan, of_row)

    def log_product_combined(logy, g, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        total = zero
        segments = (n + segment - 1) // segment if start < end else 0
        for i in range(lane(), segments, threads):
            total += partials[row * segments + i]
        finish(out, held, team_sum(total, scratch, 0), base, start, end, inner)

    return log_product_combined


def _vjp(t, plan, of_row):
    exp, zero, write = make_exp(t, plan).exp, t.number(0), of_row.write
    vectors, width, pitch, at, second = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.second

    @t.device
    def total_of(held):
        total = zero
        for v in range(vectors):
            of_vector = zero
            for q in range(width):
                of_vector += held[at(v) + q * pitch + second]
            total += of_vector
        return total

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = held[slot + second] - exp(held[slot]) * total
        write(out, base, start, end, inner, held)

    return _Steps(total_of, finish)


def _jvp(t, plan, of_row):
    exp, zero, write = make_exp(t, plan).exp, t.number(0), of_row.write
    vectors, width, pitch, at, second = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.second

    @t.device
    def total_of(held):
        total = zero
        for v in range(vectors):
            of_vector = zero
            for q in range(width):
                slot = at(v) + q * pitch
                of_vector += exp(held[slot]) * held[slot + second]
            total += of_vector
        return total

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = held[slot + second] - total
        write(out, base, start, end, inner, held)

    return _Steps(total_of, finish)


_STEPS = {"log_softmax_vjp": _vjp, "log_softmax_jvp": _jvp}
