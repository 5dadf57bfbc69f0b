/* One unit of compilation: the kernels of a CPU level, LEVEL; or, of one op of it, OP, those for rows of few entries.
 * Units know nothing of Python: one that was compiled serves every environment (setup.py). All but what they give
 * each other is in anonymous namespaces: a template that two levels share would be merged by the linker, and a CPU
 * without AVX-512 could get the copy that has it. For the same reason no header of the C++ library is used. */
#ifdef OP
#include "few.hpp"

template <class Level, enum op which, class R> ptrdiff_t few(const Call *c) {
    const Arrays<R> x = arrays_of<R>(c);
    switch (c->s.n) {
    case 1: return tiles_of_rows<which, 1>(c, x);
    case 2: return tiles_of_rows<which, 2>(c, x);
    case 3: return tiles_of_rows<which, 3>(c, x);
    case 4: return tiles_of_rows<which, 4>(c, x);
    case 5: return tiles_of_rows<which, 5>(c, x);
    case 6: return tiles_of_rows<which, 6>(c, x);
    case 7: return tiles_of_rows<which, 7>(c, x);
    case 8: return tiles_of_rows<which, 8>(c, x);
    case 9: return tiles_of_rows<which, 9>(c, x);
    case 10: return tiles_of_rows<which, 10>(c, x);
    default: return 0;
    }
}
template ptrdiff_t few<LEVEL, OP, float>(const Call *);
template ptrdiff_t few<LEVEL, OP, double>(const Call *);

#else
#include "drive.hpp"
#include "mode.h"

static void run(const Call *c) {
    const unsigned mode = take_mode();
    if (c->single)
        run_call<float>(c);
    else
        run_call<double>(c);
    restore_mode(mode);
}

#define JOINED(a, b) JOINED_AS_THEY_ARE(a, b)
#define JOINED_AS_THEY_ARE(a, b) a##_##b
#define TEXT_OF(name) TEXT(name)
#define TEXT(name) #name
extern "C" const Kernels JOINED(kernels, LEVEL) = {TEXT_OF(LEVEL), VECTOR_BYTES, run, exact_sum<float>, exact_sum<double>};
#endif
