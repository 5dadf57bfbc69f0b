"""The batched Jacobian of softmax, line by line: ``J_ij = y_i * ((i == j) - y_j)``.

A line is to the plan what a row is to other kernels: its team reads the row of ``y``, which the lines of one
block of the result share in the cache.
"""

from fastsoftmax._cuda.arithmetic import make_sums
from fastsoftmax._cuda.held import make_held
from fastsoftmax._cuda.teams import make_team

REDUCTIONS = 2


def line(t, plan):
    """Each line, or segment of one: there are ``m``, of ``n`` entries."""
    team = make_team(t, plan, REDUCTIONS)
    of_row = make_held(t, plan, team, 0)
    cuda, number, shared, size, scratch_size = t.cuda, t.number, plan.shared, of_row.size, team.scratch
    vectors, width, pitch, at, threads = of_row.vectors, of_row.width, of_row.pitch, of_row.at, plan.threads
    locate, lane, read, write, load, store = (
        team.locate,
        team.lane,
        of_row.read,
        of_row.write,
        t.load,
        t.store,
    )
    zero, half, one, others = number(0), number(0.5), number(1), _make_others(t, plan, team)

    def jacobian_line(y, out, m, n, inner):
        scratch = cuda.shared.array(scratch_size, number)
        held = cuda.shared.array(0, number) if shared else cuda.local.array(size, number)
        i, base, start, end = locate(m, n, inner)
        first = i // n * n
        y_i = load(y, i) if start < end else zero
        read(y, first, start, end, inner, held, 0)
        rest = others(y, first, i - first, n, y_i > half, scratch)
        for v in range(vectors):
            for q in range(width):
                slot = at(v) + q * pitch
                held[slot] = -(y_i * held[slot])
        write(out, base, start, end, inner, held)
        # The thread that wrote the diagonal's entry writes it again: a test in the loop took registers.
        i -= first
        if i >= start and i < end and (i - start) // width % threads == lane():
            store(out, base + i, y_i * (rest if y_i > half else one - y_i))

    return jacobian_line


def _make_others(t, plan, team):
    load, zero, lane, threads, team_total = t.load, t.number(0), team.lane, plan.threads, team.total
    sums = make_sums(t, plan)
    plus, rounded = sums.plus, sums.rounded

    @t.device
    def others(y, first, i, n, wanted, scratch):
        # 1 - y_i of a dominant entry, without its cancellation.
        high, low = zero, zero
        if wanted:
            for j in range(lane(), n, threads):
                if j != i:
                    high, low = plus(high, low, load(y, first + j))
        high, low = team_total(high, low, scratch, 0)
        return rounded(high, low)

    return others
