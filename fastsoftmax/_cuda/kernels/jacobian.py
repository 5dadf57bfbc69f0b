"""Batched Jacobians as one stream of stores.

Of softmax ``J_ij = y_i * ((i == j) - y_j)``, of log-softmax ``(i == j) - exp(logy_j)``.
"""

import numpy as np

from fastsoftmax._cuda.arithmetic import make_exp, make_polynomial

THREADS = 256


def flat(t, plan, op):
    """Consecutive entries of the output, an access's worth a thread.

    Rows lie side by side in ``y``, and ``plan.width`` is the most that one access takes, whatever n is.
    """
    cuda, number, width, threads, load, put = t.cuda, t.number, plan.width, THREADS, t.load, t.put
    entry = _make_entry(t) if op == "softmax_jacobian" else _make_log_entry(t, plan)

    def jacobian_flat(y, out, m, n):
        held = cuda.local.array(width, number)
        first = (np.int64(cuda.blockIdx.x) * threads + cuda.threadIdx.x) * width
        end = m * n * n
        if first < end:
            line = first // n
            j = first - line * n
            base = line // n * n
            i = line - base
            y_i = load(y, line)
            for q in range(width):
                held[q] = entry(y, base, i, j, y_i, n)
                j += 1
                if j == n and first + q + 1 < end:
                    j, line = 0, line + 1
                    base = line // n * n
                    i = line - base
                    y_i = load(y, line)
            if first + width <= end:
                put(out, first, held, 0)
            else:
                store_tail(out, first, end, held)

    store = t.store

    @t.device
    def store_tail(out, first, end, held):
        for q in range(width):
            if first + q < end:
                store(out, first + q, held[q])

    return jacobian_flat


def _make_entry(t):
    number, load = t.number, t.load
    zero, half, one = number(0), number(0.5), number(1)

    @t.device
    def entry(y, base, i, j, y_i, n):
        if i == j:
            return y_i * (others(y, base, i, n) if y_i > half else one - y_i)
        return -(y_i * load(y, base + j)) if j < n else zero

    @t.device
    def others(y, base, i, n):
        # 1 - y_i of a dominant entry as the sum of the others, compensated (Neumaier): one thread
        # forms it, at one entry of the row's n^2.
        total, lost = zero, zero
        for j in range(n):
            v = load(y, base + j) if j != i else zero
            s = total + v
            lost += (total - s) + v if total > v else (v - s) + total
            total = s
        return total + lost

    return entry


def _make_log_entry(t, plan):
    number, load, fma = t.number, t.load, t.fma
    exp, polynomial = make_exp(t, plan).exp, make_polynomial(t, plan.arithmetic)
    zero, quarter, half, one = number(0), number(0.25), number(0.5), number(1)

    @t.device
    def entry(logy, base, i, j, logy_i, n):
        if i == j:
            return one_minus_exp(logy_i)
        return -exp(load(logy, base + j)) if j < n else zero

    @t.device
    def one_minus_exp(a):
        # Near 0 it is -h (1 + h / 4), h being 2 (exp(a / 2) - 1).
        r = a * half
        h = fma(a * r, polynomial(r), a)
        return zero - h * (one + h * quarter) if a > -half else one - exp(a)

    return entry
