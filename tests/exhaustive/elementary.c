/* The elementary functions of the kernels as a library, one for each level. */
#include "kernels.h"

#define REAL float
#define NAME(x) x##_f32
#define PASS_NAME(x) SEEN(x, f32)
#include "elementary.h"

#define REAL double
#define NAME(x) x##_f64
#define PASS_NAME(x) SEEN(x, f64)
#include "elementary.h"
