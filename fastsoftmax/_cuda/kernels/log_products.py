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
    locate, read, word, rounded = team.locate, of_row.read, t.word, make_sums(t, plan).rounded
    total_of, finish = _make_total(t, plan, team, of_row, op), _FINISH[op](t, plan, of_row)

    def log_product_whole(logy, g, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        _, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
        high, low = total_of(held, scratch)
        finish(out, held, rounded(high, low), base, start, end, inner)

    return log_product_whole


def partial(t, plan, op):
    """The sum over each segment of longer rows."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0, arrays=2)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word, segment = t.word, plan.segment
    lane, locate, read = team.lane, team.locate, of_row.read
    total_of = _make_total(t, plan, team, of_row, op)

    def log_product_partial(logy, g, partials, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
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
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    word, segment = t.word, plan.segment
    locate, read, team_total = team.locate, of_row.read, team.total
    lane, threads, zero, sums = team.lane, plan.threads, t.number(0), make_sums(t, plan)
    plus, rounded, finish = sums.plus, sums.rounded, _FINISH[op](t, plan, of_row)

    def log_product_combined(logy, g, partials, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        row, base, start, end = locate(m, n, inner)
        read(logy, base, start, end, inner, held, 0)
        read(g, base, start, end, inner, held, 1)
        high, low = zero, zero
        segments = (n + segment - 1) // segment if start < end else 0
        for i in range(lane(), segments, threads):
            k = PARTIAL * (row * segments + i)
            high, low = plus(high, low + partials[k + 1], partials[k])
        high, low = team_total(high, low, scratch, 0)
        finish(out, held, rounded(high, low), base, start, end, inner)

    return log_product_combined


def _make_total(t, plan, team, of_row, op):
    cuda, number, exp, zero = t.cuda, t.number, make_exp(t, plan).exp, t.number(0)
    vectors, width, take, team_total, weighted = (
        of_row.vectors,
        of_row.width,
        of_row.take,
        team.total,
        op == "log_softmax_jvp",
    )
    plus, _, group = make_sums(t, plan)

    @t.device
    def total_of(held, scratch):
        logy, g = cuda.local.array(width, number), cuda.local.array(width, number)
        high, low, of_group = zero, zero, zero
        for v in range(vectors()):
            if weighted:
                take(held, v, 0, logy)
            take(held, v, 1, g)
            for q in range(width):
                of_group += exp(logy[q]) * g[q] if weighted else g[q]
                if (v * width + q) % group == group - 1:
                    high, low = plus(high, low, of_group)
                    of_group = zero
        high, low = plus(high, low, of_group)
        return team_total(high, low, scratch, 0)

    return total_of


def _finish_vjp(t, plan, of_row):
    cuda, number, exp = t.cuda, t.number, make_exp(t, plan).exp
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # dx_i = g_i - exp(logy_i) * sum_j g_j
        logy, g = cuda.local.array(width, number), cuda.local.array(width, number)
        for v in range(vectors()):
            take(held, v, 0, logy)
            take(held, v, 1, g)
            for q in range(width):
                g[q] -= exp(logy[q]) * total
            put(out, base, start, end, inner, v, g)

    return finish


def _finish_jvp(t, plan, of_row):
    cuda, number = t.cuda, t.number
    vectors, width, take, put = of_row.vectors, of_row.width, of_row.take, of_row.put

    @t.device
    def finish(out, held, total, base, start, end, inner):
        # d(log y)_i = t_i - sum_j exp(logy_j) * t_j
        line = cuda.local.array(width, number)
        for v in range(vectors()):
            take(held, v, 1, line)
            for q in range(width):
                line[q] -= total
            put(out, base, start, end, inner, v, line)

    return finish


_FINISH = {"log_softmax_vjp": _finish_vjp, "log_softmax_jvp": _finish_jvp}
