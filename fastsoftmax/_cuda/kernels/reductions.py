"""Sums over all rows, in one block and in float64: what "mean" divides by, and the loss."""

import numpy as np

from fastsoftmax._cuda.arithmetic import make_sums
from fastsoftmax._cuda.teams import make_team


def total_weight(t, plan, weighted):
    """``scale`` becomes the weight of the labels that take part, and its reciprocal (1 where it is 0)."""
    cuda, threads, team = t.cuda, plan.threads, make_team(t, plan, 2)
    scratch_size, team_total, double, sums = team.scratch, team.total, np.float64, make_sums(t, plan)
    plus, rounded = sums.plus, sums.rounded

    def total_weight_kernel(labels, weight, ignored, scale, m, n):
        scratch = cuda.shared.array(scratch_size, double)
        high, low = double(0), double(0)
        for i in range(cuda.threadIdx.x, m, threads):
            label = labels[i]
            if label != ignored and label >= 0 and label < n:
                high, low = plus(high, low, double(weight[label]) if weighted else double(1))
        high, low = team_total(high, low, scratch, 0)
        total = rounded(high, low)
        if cuda.threadIdx.x == 0:
            scale[0] = total
            scale[1] = double(1) / (total if total != 0 else double(1))

    return total_weight_kernel


def total_loss(t, plan, divisor):
    """The sum of ``loss``, by one, by the number of ``rows`` or by the total ``weight``."""
    cuda, threads, team = t.cuda, plan.threads, make_team(t, plan, 2)
    scratch_size, team_total, double, store, number = team.scratch, team.total, np.float64, t.store, t.number
    sums = make_sums(t, plan)
    plus, rounded, by_weight, by_rows = sums.plus, sums.rounded, divisor == "weight", divisor == "rows"

    def total_loss_kernel(loss, scale, out, m):
        scratch = cuda.shared.array(scratch_size, double)
        high, low = double(0), double(0)
        for i in range(cuda.threadIdx.x, m, threads):
            high, low = plus(high, low, double(loss[i]))
        high, low = team_total(high, low, scratch, 0)
        total = rounded(high, low)
        if cuda.threadIdx.x == 0:
            if by_weight:
                total /= scale[0]
            if by_rows:
                total /= double(m)
            store(out, 0, number(total))

    return total_loss_kernel
