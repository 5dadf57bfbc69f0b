/* A short row alone (call.h): gone over without passes, whose calls take longer than its vectors; sums in the order that a lane
 * of a panel has them in. Uses sums.hpp. */
#pragma once
#include "sums.hpp"

namespace {
/* body(first entry, how many) for each vector of a row; of the last it may be a part. */
template <class R, class Body> INLINE void each_vector(ptrdiff_t n, Body body) {
    for (ptrdiff_t j = 0; j < n; j += LANES<R>) body(j, n - j < LANES<R> ? n - j : LANES<R>);
}

template <class R> INLINE vec<R> load_some(const R *x, ptrdiff_t count, R fill) {
    return count == LANES<R> ? load(x) : load_part(x, count, splat<vec<R>>(fill));
}

template <class R> INLINE void store_some(R *x, ptrdiff_t count, vec<R> v) {
    if (count == LANES<R>)
        store(x, v);
    else
        store_part(x, count, v);
}

/* In every lane; NaN is passed over. */
template <class R> INLINE vec<R> short_max(const R *x, ptrdiff_t n) {
    vec<R> most = splat<vec<R>>(-INFINITY);
    each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS { most = max(load_some(x + j, count, R(-INFINITY)), most); });
    return splat<vec<R>>(max_lane(most));
}

template <class R> INLINE void short_exps(const R *x, ptrdiff_t n, const Shift<vec<R>> &s, R *e) {
    each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
        vec<R> a = load_some(x + j, count, R(-INFINITY));
        exp_biased<1, 1, MIXED>(&a, &s);
        store_some(e + j, count, a);
    });
}

template <class R> INLINE void short_times(const R *e, ptrdiff_t n, Ratio<vec<R>> q, R *out) {
    each_vector<R>(n, [&](ptrdiff_t j, ptrdiff_t count) ALWAYS {
        store_some(out + j, count, times(load_some(e + j, count, R(0)), q));
    });
}

/* The sum of the exps of a row. */
template <class R> INLINE Sum<R> sum_in_order(const R *e, ptrdiff_t n) {
    Sum<R> sum = Sum<R>::from(Constants<R>::above);
    for (ptrdiff_t j = 0; j < n; j++) sum.add_smaller(splat<vec<R>>(e[j]));
    sum.take_start(Constants<R>::above);
    return sum;
}

/* The same without those of maxima, and how many these are. */
template <class R> INLINE Sum<R> others_in_order(const R *x, R most, const R *e, ptrdiff_t n, Sum<R> *maxima) {
    Sum<R> sum = Sum<R>::from(0);
    R count = 0;
    for (ptrdiff_t j = 0; j < n; j++)
        if (x[j] == most)
            count += 1;
        else
            sum.add(splat<vec<R>>(e[j]));
    *maxima = Sum<R>::from(count);
    return sum;
}
} // namespace
