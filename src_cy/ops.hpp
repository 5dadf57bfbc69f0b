/* The ops of call.h by number, but batched Jacobians, which take all rows at once. Uses a file an op. */
#pragma once
#include "cross_entropy.hpp"
#include "jacobian.hpp"
#include "log_softmax.hpp"
#include "products.hpp"
#include "soft_cross_entropy.hpp"
#include "softmax.hpp"
#include "solve.hpp"
#include "weighted.hpp"

namespace {
/* f(Op<op>{}) */
template <class F> INLINE void with_op(enum op op, F f) {
    switch (op) {
    case SOFTMAX: return f(Op<SOFTMAX>{});
    case LOG_SOFTMAX: return f(Op<LOG_SOFTMAX>{});
    case LOGSUMEXP: return f(Op<LOGSUMEXP>{});
    case SOFTMAX_VJP: return f(Op<SOFTMAX_VJP>{});
    case LOG_SOFTMAX_VJP: return f(Op<LOG_SOFTMAX_VJP>{});
    case LOG_SOFTMAX_JVP: return f(Op<LOG_SOFTMAX_JVP>{});
    case CROSS_ENTROPY: return f(Op<CROSS_ENTROPY>{});
    case SOFTMAX_JACOBIAN_DIAGONAL: return f(Op<SOFTMAX_JACOBIAN_DIAGONAL>{});
    case LOG_SOFTMAX_JACOBIAN_DIAGONAL: return f(Op<LOG_SOFTMAX_JACOBIAN_DIAGONAL>{});
    case SOFT_CROSS_ENTROPY: return f(Op<SOFT_CROSS_ENTROPY>{});
    case SOFTMAX_SOLVE: return f(Op<SOFTMAX_SOLVE>{});
    case WEIGHTED_LOGSUMEXP: return f(Op<WEIGHTED_LOGSUMEXP>{});
    case SOFTMAX_JACOBIAN:
    case LOG_SOFTMAX_JACOBIAN: return;
    }
}

template <class R> void op_grid(enum op op, const Rows<R> &r) {
    const Rows<R> own = r; /* in registers, as pass_over has it */
    with_op(op, [&](auto of) ALWAYS { of.template grid<false>(own); });
}
} // namespace
