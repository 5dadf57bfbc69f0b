/* The tables of all levels that were compiled: LEVELS(EACH) is from setup.py. */
#pragma once
#include "call.h"
#include <string.h>

#define DECLARE(level) extern const Kernels kernels_##level;
LEVELS(DECLARE)

/* The table of a level, or NULL. */
static const Kernels *kernels_of(const char *level) {
#define ADDRESS(level) &kernels_##level,
    static const Kernels *const all[] = {LEVELS(ADDRESS)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->level, level)) return all[i];
    return NULL;
}
