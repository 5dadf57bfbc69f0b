/* The ops of call.h by number, but the Jacobian, which takes all rows at once. Uses a file an op. */
#pragma once
#include "cross_entropy.hpp"
#include "jacobian.hpp"
#include "log_softmax.hpp"
#include "products.hpp"
#include "softmax.hpp"

namespace {
template <class R> void op_row(enum op op, const Row<R> &r) {
    switch (op) {
    case SOFTMAX: return softmax_row(r);
    case LOG_SOFTMAX: return log_softmax_row(r);
    case LOGSUMEXP: *r.result = logsumexp_row(r); return;
    case SOFTMAX_VJP: return softmax_vjp_row(r);
    case LOG_SOFTMAX_VJP: return log_softmax_vjp_row(r);
    case LOG_SOFTMAX_JVP: return log_softmax_jvp_row(r);
    case CROSS_ENTROPY: *r.result = cross_entropy_row(r); return;
    case SOFTMAX_JACOBIAN: return;
    }
}

template <bool known, class R> INLINE void op_grid(enum op op, const Rows<R> &r) {
    switch (op) {
    case SOFTMAX: return softmax_grid<known>(r);
    case LOG_SOFTMAX: return log_softmax_grid<known>(r);
    case LOGSUMEXP: return logsumexp_grid<known>(r);
    case SOFTMAX_VJP: return softmax_vjp_grid<known>(r);
    case LOG_SOFTMAX_VJP: return log_softmax_vjp_grid<known>(r);
    case LOG_SOFTMAX_JVP: return log_softmax_jvp_grid<known>(r);
    case CROSS_ENTROPY: return cross_entropy_grid<known>(r);
    case SOFTMAX_JACOBIAN: return;
    }
}
} // namespace
