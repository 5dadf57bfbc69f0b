/* What the language has no word for, as macros; and headers of C. All else in src_cy/ is C++17 without its library. */
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define ALWAYS __attribute__((always_inline)) /* of members and lambdas */
#define PASS static __attribute__((noinline, unused, aligned(64)))
#define COLD __attribute__((noinline, cold))

/* 64 bytes at x86-64-v4, 32 at v3, 16 elsewhere (SSE, NEON). */
#if defined(__AVX512F__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define HAS_FMA 1
#else
#define HAS_FMA 0
#endif

/* The CPU level (setup.py), whose name is part of the names of what units of it give each other. */
#ifndef LEVEL
#define LEVEL host
#endif
struct LEVEL;
