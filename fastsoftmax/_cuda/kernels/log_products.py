"""Products with the Jacobian of log-softmax, from its output.

VJP: ``dx_i = g_i - exp(logy_i) * sum_j g_j``; JVP: ``t_i - sum_j exp(logy_j) * t_j``.
"""

from fastsoftmax._cuda.arithmetic import make_exp, make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

PARTIAL = 2
REDUCTIONS = 2


def whole(t, plan, op):
    """Rows that a team holds, read once."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    locate, read, second, rounded = team.locate, of_row.read, of_row.second, make_sums(t, plan).rounded
    total_of, finish = _make_total(t, plan, team, of_row, op), _FINISH[op](t, plan, of_row)

    def log_product_whole(logy, g, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        _, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        high, low = total_of(held, scratch)
        finish(out, held, rounded(high, low), base, start, end, inner)

    return log_product_whole


def partial(t, plan, op):
    """The sum over each segment of longer rows."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    lane, locate, read, second = team.lane, team.locate, of_row.read, of_row.second
    total_of = _make_total(t, plan, team, of_row, op)

    def log_product_partial(logy, g, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        high, low = total_of(held, scratch)
        if lane() == 0 and start < end:
            i = PARTIAL * (row * ((n + segment - 1) // segment) + start // segment)
            partials[i] = high
            partials[i + 1] = low

    return log_product_partial


def combined(t, plan, op):
    """Longer rows, from the sums of their segments."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, segment, size, scratch_size = t.cuda, t.number, plan.segment, of_row.size, team.scratch
    locate, read, second, team_total = team.locate, of_row.read, of_row.second, team.total
    lane, threads, zero, sums = team.lane, plan.threads, t.number(0), make_sums(t, plan)
    plus, rounded, finish = sums.plus, sums.rounded, _FINISH[op](t, plan, of_row)

    def log_product_combined(logy, g, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, second)
        high, low = zero, zero
        segments = (n + segment - 1) // segment if start < end else 0
        for i in range(lane(), segments, threads):
            k = PARTIAL * (row * segments + i)
            high, low = plus(high, low + partials[k + 1], partials[k])
        high, low = team_total(high, low, scratch, 0)
        finish(out, held, rounded(high, low), base, start, end, inner)

    return log_product_combined


def _make_total(t, plan, team, of_row, op):
    exp, zero, team_total, weighted = make_exp(t, plan).exp, t.number(0), team.total, op == "log_softmax_jvp"
    vectors, width, pitch, at, second = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.second
    plus, _, group = make_sums(t, plan)

    @t.device
    def total_of(held, scratch):
        high, low, of_group = zero, zero, zero
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                of_group += exp(held[slot]) * held[slot + second] if weighted else held[slot + second]
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
        high, low = plus(high, low, of_group)
        return team_total(high, low, scratch, 0)

    return total_of


def _finish_vjp(t, plan, of_row):
    exp, write = make_exp(t, plan).exp, of_row.write
    vectors, width, pitch, at, second = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.second

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = held[slot + second] - exp(held[slot]) * total
        write(out, base, start, end, inner, held)

    return finish


def _finish_jvp(t, plan, of_row):
    write = of_row.write
    vectors, width, pitch, at, second = of_row.vectors, of_row.width, of_row.pitch, of_row.at, of_row.second

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = held[slot + second] - total
        write(out, base, start, end, inner, held)

    return finish


_FINISH = {"log_softmax_vjp": _finish_vjp, "log_softmax_jvp": _finish_jvp}
