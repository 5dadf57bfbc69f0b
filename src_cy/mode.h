/* The floating-point mode that kernels need: subnormal numbers as they are, rounding to nearest, no traps. A thread has the
 * mode of the one that made it, or what its program sets (torch.set_flush_denormal). take_mode returns what it replaces;
 * memory is not read or written across either. */
#pragma once
#include <stdint.h>

#if defined(__SSE2__)
#include <immintrin.h>
#define MODE 0x1f80u
static inline unsigned mode(void) { return _mm_getcsr(); }
static inline void set_mode(unsigned m) { _mm_setcsr(m); }
#define MODE_BITS 0xffc0u /* the others are flags of what has happened */
#elif defined(__aarch64__)
#define MODE 0u
#define MODE_BITS ~0u
static inline unsigned mode(void) {
    uint64_t m;
    __asm__ volatile("mrs %0, fpcr" : "=r"(m));
    return (unsigned)m;
}
static inline void set_mode(unsigned m) { __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)m)); }
#else
#define MODE 0u
#define MODE_BITS 0u
static inline unsigned mode(void) { return 0; }
static inline void set_mode(unsigned m) { (void)m; }
#endif
static inline unsigned take_mode(void) {
    unsigned before = mode();
    if ((before & MODE_BITS) != MODE) set_mode(MODE);
    __asm__ volatile("" ::: "memory");
    return before;
}
static inline void restore_mode(unsigned before) {
    __asm__ volatile("" ::: "memory");
    if ((before & MODE_BITS) != MODE) set_mode(before);
}
