"""Batched Jacobians, line by line.

Of softmax ``J_ij = y_i * ((i == j) - y_j)``, of log-softmax ``(i == j) - exp(logy_j)``. A line is to the plan
what a row is to other kernels: its team reads the row of ``y``, which the lines of one block of the result
share in the cache.
"""

from fastsoftmax._cuda.arithmetic import make_exp, make_polynomial, make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

REDUCTIONS = 2


def line(t, plan, op):
    """Each line, or segment of one: there are ``m``, of ``n`` entries."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    vectors, width, threads, locate, lane = of_row.vectors, of_row.width, plan.threads, team.locate, team.lane
    word, read, take, put, load, store = t.word, of_row.read, of_row.take, of_row.put, t.load, t.store
    entry, diagonal = _make_entries(t, plan, team) if op == "softmax_jacobian" else _make_log_entries(t, plan)
    zero = number(0)

    def jacobian_line(y, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, word, alignment=16) if shared else cuda.local.array(size, number)
        i, base, start, end = locate(m, n, inner)
        first = i // n * n
        y_i = load(y, i) if start < end else zero
        read(y, first, start, end, inner, held, 0)
        on_diagonal = diagonal(y, first, i - first, n, y_i, scratch)
        y_j = cuda.local.array(width, number)
        for v in range(vectors()):
            take(held, v, 0, y_j)
            for q in range(width):
                y_j[q] = entry(y_i, y_j[q])
            put(out, base, start, end, inner, v, y_j)
        # The thread that wrote the diagonal's entry writes it again: a test in the loop took registers.
        i -= first
        if i >= start and i < end and (i - start) // width % threads == lane():
            store(out, base + i, on_diagonal)

    return jacobian_line


def _make_entries(t, plan, team):
    number, load, lane, threads, team_total = t.number, t.load, team.lane, plan.threads, team.total
    zero, half, one = number(0), number(0.5), number(1)
    sums = make_sums(t, plan)
    plus, rounded = sums.plus, sums.rounded

    @t.device
    def entry(y_i, y_j):
        return -(y_i * y_j)

    @t.device
    def diagonal(y, first, i, n, y_i, scratch):
        # 1 - y_i of a dominant entry is the sum of the others, without its cancellation.
        high, low = zero, zero
        if y_i > half:
            for j in range(lane(), n, threads):
                if j != i:
                    high, low = plus(high, low, load(y, first + j))
        high, low = team_total(high, low, scratch, 0)
        return y_i * (rounded(high, low) if y_i > half else one - y_i)

    return entry, diagonal


def _make_log_entries(t, plan):
    number, fma = t.number, t.fma
    exp, polynomial = make_exp(t, plan).exp, make_polynomial(t, plan.arithmetic)
    zero, quarter, half, one = number(0), number(0.25), number(0.5), number(1)

    @t.device
    def entry(_, logy_j):
        return -exp(logy_j)

    @t.device
    def diagonal(logy, first, i, n, logy_i, scratch):
        # Near 0 it is -h (1 + h / 4), h being 2 (exp(logy_i / 2) - 1).
        r = logy_i * half
        h = fma(logy_i * r, polynomial(r), logy_i)
        return zero - h * (one + h * quarter) if logy_i > -half else one - exp(logy_i)

    return entry, diagonal
