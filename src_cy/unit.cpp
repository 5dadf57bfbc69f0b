/* One unit of compilation: the kernels of a CPU level, LEVEL; or, of one op of it, OP, those for rows of few entries.
 * Units know nothing of Python: one that was compiled serves every environment (setup.py). All but what they give
 * each other is in anonymous namespaces: a template that two levels share would be merged by the linker, and a CPU
 * without AVX-512 could get the copy that has it. For the same reason no header of the C++ library is used. */
#ifdef OP
#include "few.hpp"

template <enum op which, int most, class R> INLINE ptrdiff_t few_of(const Call *c) {
    if constexpr (most == 0)
        return 0;
    else
        return c->s.n == most ? tiles_of_rows<which, most>(c, arrays_of<R>(c)) : few_of<which, most - 1, R>(c);
}
template <class Level, enum op which, class R> ptrdiff_t few(const Call *c) { return few_of<which, 10, R>(c); }
template ptrdiff_t few<LEVEL, OP, float>(const Call *);
template ptrdiff_t few<LEVEL, OP, double>(const Call *);

#else
#include "convert.hpp"
#include "mode.h"
#include "segments.hpp"

template <class R> static void run_reals(const Call *c) {
    if (c->segments)
        run_segments<R>(c);
    else if (c->conversion)
        run_converted<R>(c);
    else
        run_call<R>(c);
}

static void run(const Call *c) {
    const unsigned mode = take_mode();
    if (c->single)
        run_reals<float>(c);
    else
        run_reals<double>(c);
    restore_mode(mode);
}

#define JOINED(a, b) JOINED_AS_THEY_ARE(a, b)
#define JOINED_AS_THEY_ARE(a, b) a##_##b
#define TEXT_OF(name) TEXT(name)
#define TEXT(name) #name
extern "C" const Kernels JOINED(kernels, LEVEL) = {
    TEXT_OF(LEVEL), VECTOR_BYTES, run, exact_sum<float>, exact_sum<double>, room_bytes, widen, narrow, blend<float>, blend<double>};
#endif
