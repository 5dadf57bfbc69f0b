/* One unit of compilation: the kernels of a CPU level, LEVEL; or, of one op of it, OP, those for rows of few entries.
 * Units know nothing of Python: one that was compiled serves every environment (setup.py). */
#ifdef OP
#define PART "tiles.h"
#include "kernels.h"
#else
#define PART "drive.h"
#include "kernels.h"
#include "mode.h"

static void run(const Call *c) {
    unsigned mode = take_mode();
    if (c->single)
        run_f32(c);
    else
        run_f64(c);
    restore_mode(mode);
}

#define TEXT(name) #name
#define TEXT_OF(name) TEXT(name)
const Kernels JOINED(kernels, LEVEL) = {TEXT_OF(LEVEL), VECTOR_BYTES, run, exact_sum_f32, exact_sum_f64};
#endif
