/* What the C files share. float32, CPU.
 *
 * Each function computes what a formula in Python says, in fewer passes over memory; the formula
 * runs where this cannot be compiled, and tests hold the two together. Sums are formed per block
 * and added in order, so a result depends neither on the number of threads nor on their timing.
 *
 * A function returns OK, or REFUSED where an argument is not one that it knows; Python raises an
 * error then.
 */
#ifndef CPLXNET_SHARED_H
#define CPLXNET_SHARED_H

#ifndef __FAST_MATH__
/* glibc declares its vector expf, logf, ... only under this macro; the flags stay precise */
#define __FAST_MATH__ 1
#endif
#include <math.h>
#include <stdint.h>

#define BLOCK 4096 /* numbers that a thread takes at a time; also in native.py */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum { OK, REFUSED };

/* Unlike fmaxf and fminf these keep a NaN in x: a NaN that training made must show. */
static inline float at_least(float x, float low) {
    return x < low ? low : x;
}

static inline float at_most(float x, float high) {
    return x > high ? high : x;
}

static inline int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

#endif
