"""Typed loops, compiled (src_cy/), at this CPU's level."""

import math

from fastsoftmax._isa import load
from fastsoftmax.registry import OPS

kernels, level = load()

softmax = kernels.softmax
log_softmax = kernels.log_softmax
logsumexp = kernels.logsumexp
softmax_vjp = kernels.softmax_vjp
log_softmax_vjp = kernels.log_softmax_vjp
log_softmax_jvp = kernels.log_softmax_jvp
softmax_jacobian = kernels.softmax_jacobian
cross_entropy = kernels.cross_entropy
cross_entropy_with_grad = kernels.cross_entropy_with_grad
softmax_jacobian_diagonal = kernels.softmax_jacobian_diagonal
log_softmax_jacobian = kernels.log_softmax_jacobian
log_softmax_jacobian_diagonal = kernels.log_softmax_jacobian_diagonal
soft_cross_entropy = kernels.soft_cross_entropy
soft_cross_entropy_with_grad = kernels.soft_cross_entropy_with_grad
segment_softmax = kernels.segment_softmax
segment_log_softmax = kernels.segment_log_softmax
segment_logsumexp = kernels.segment_logsumexp
segment_softmax_vjp = kernels.segment_softmax_vjp
softmax_solve = kernels.softmax_solve
weighted_logsumexp = kernels.weighted_logsumexp

for _jacobian in (softmax_jacobian, log_softmax_jacobian):
    _jacobian.elements = lambda canonical: math.prod(canonical) * canonical[1]  # those of the result


def _regime(op):
    return lambda dtype, canonical: f"{kernels.regime(op, dtype.itemsize, canonical)}, {level}"


for _name in OPS:
    _op = getattr(kernels, _name)
    _op.regime, _op.parallel, _op.elements_per_thread = _regime(_name), _op, kernels.share
