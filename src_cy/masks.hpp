/* What is masked out of an array. Uses language.hpp. */
#pragma once
#include "language.hpp"

namespace {
/* to = x where the mask holds, else fill; x may be where it is written. The compiler makes vectors of it. */
template <class R> void blend(const R *x, const uint8_t *mask, R *to, ptrdiff_t n, double fill) {
    const R other = (R)fill;
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < n; i++) to[i] = mask[i] ? x[i] : other;
}
} // namespace
