/* |x|^2 and the noise of the local reparameterisation (nn/variational.py, nn/gaussian.py). Complex
 * numbers are pairs (n, 2).
 *
 * y = mean + sqrt(max(variance, floor)) eps, eps ~ CN(0, 1, 0), where eps depends on (key, index)
 * alone. The numbers of a block come from sixteen xoshiro128++ generators side by side (Blackman
 * and Vigna 2021), started by Philox4x32-10 (Salmon et al. 2011), and become normal by Box and
 * Muller (1958). Philox for every number would cost six times as much: its long products do not
 * vectorise well.
 */
#include "shared.h"

/* ---- |x|^2 ----------------------------------------------------------------------------------- */

/* Re(x conj y), which is |x|^2 for y = x. */
int dot_pairs(int64_t n, const float *restrict x, const float *restrict y, float *restrict out) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++)
        out[i] = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
    return OK;
}

/* h + 2 g x: the gradient by x, from that by x itself (h) and that by |x|^2 (g). */
int square_pairs_grad(int64_t n, const float *restrict h, const float *restrict g,
                      const float *restrict x, float *restrict out) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) {
        out[2 * i] = h[2 * i] + 2 * g[i] * x[2 * i];
        out[2 * i + 1] = h[2 * i + 1] + 2 * g[i] * x[2 * i + 1];
    }
    return OK;
}

/* ---- random words ---------------------------------------------------------------------------- */

/* Philox4x32-10: four words of 32 random bits, in place of a counter of four words. */
static inline void philox(uint32_t *x, const uint32_t *key) {
    for (uint32_t round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * x[0];
        uint64_t p1 = (uint64_t)0xCD9E8D57u * x[2];
        x[0] = (uint32_t)(p1 >> 32) ^ x[1] ^ (key[0] + round * 0x9E3779B9u);
        x[1] = (uint32_t)p1;
        x[2] = (uint32_t)(p0 >> 32) ^ x[3] ^ (key[1] + round * 0xBB67AE85u);
        x[3] = (uint32_t)p0;
    }
}

#define LANES 8
typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

static inline lanes rotated(lanes x, int by) {
    return (x << by) | (x >> (32 - by));
}

/* The next word of eight xoshiro128++ generators, of state s. */
static inline lanes next_words(lanes *s) {
    lanes out = rotated(s[0] + s[3], 7) + s[0];
    lanes shifted = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotated(s[3], 11);
    return out;
}

/* States of the generators `first` to `first` + 7 of block b: Philox of (number, b, 0, 0), never
 * all zero. */
static inline void start(uint32_t first, uint32_t b, const uint32_t *key, lanes *s) {
    for (uint32_t k = 0; k < LANES; k++) {
        uint32_t words[4] = {first + k, b, 0, 0};
        philox(words, key);
        s[0][k] = words[0] | 1u;
        s[1][k] = words[1];
        s[2][k] = words[2];
        s[3][k] = words[3];
    }
}

/* ---- normal numbers -------------------------------------------------------------------------- */

/* sin(2 pi t) for |t| <= 1/4: Taylor's polynomial of degree 13, error below 1e-8. */
static inline float sine(float t) {
    const float turn = 6.28318530717958648f;
    float x = turn * t;
    float s = x * x;
    float p = 1.0f / 6227020800.0f;
    p = p * s - 1.0f / 39916800.0f;
    p = p * s + 1.0f / 362880.0f;
    p = p * s - 1.0f / 5040.0f;
    p = p * s + 1.0f / 120.0f;
    p = p * s - 1.0f / 6.0f;
    return x + x * s * p;
}

/* Two independent standard normals from two words, for radius and angle (Box and Muller). The
 * uniforms have 24 bits; the one under the logarithm lies in (0, 1]. */
static inline void normal_pair(uint32_t first, uint32_t second, float *x, float *y) {
    float u = (float)(int32_t)((first >> 8) + 1) * 0x1p-24f;
    float t = (float)(int32_t)(second >> 8) * 0x1p-24f - 0.5f;
    float radius = sqrtf(-2.0f * logf(u));
    float side = t < 0 ? -t : t;
    float folded = 0.5f - side < side ? 0.5f - side : side;
    *x = radius * sine(0.25f - side);             /* cos(2 pi t) */
    *y = radius * sine(t < 0 ? -folded : folded); /* sin(2 pi t) */
}

/* The noise of block b: x and y receive BLOCK standard normals each. Radii and angles have
 * generators of their own, so that the processor works at both at a time. */
static void normals(uint32_t b, const uint32_t *key, float *restrict x, float *restrict y) {
    lanes radii[4], angles[4], words[2][BLOCK / LANES];
    start(0, b, key, radii);
    start(LANES, b, key, angles);
    for (int32_t j = 0; j < BLOCK / LANES; j++) {
        words[0][j] = next_words(radii);
        words[1][j] = next_words(angles);
    }

    const uint32_t *first = (const uint32_t *)words[0];
    const uint32_t *second = (const uint32_t *)words[1];
#pragma omp simd
    for (int32_t i = 0; i < BLOCK; i++)
        normal_pair(first[i], second[i], x + i, y + i);
}

#define HALF_ROOT 0.70710678118654752f

/* out = mean + deviation eps, and slope = d out/d variance = eps/(4 deviation), with deviation =
 * sqrt(variance/2). The slope is 0 below the floor. */
int noise_pairs(int64_t n, const float *restrict mean, const float *restrict variance, float least,
                const uint32_t *key, float *restrict out, float *restrict slope) {
    int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float x[BLOCK], y[BLOCK];
        normals((uint32_t)b, key, x, y);

        const int32_t size = (int32_t)smaller(n - b * BLOCK, BLOCK);
        const float *restrict m = mean + 2 * b * BLOCK;
        const float *restrict v = variance + b * BLOCK;
        float *restrict o = out + 2 * b * BLOCK;
        float *restrict d = slope + 2 * b * BLOCK;
        for (int32_t i = 0; i < size; i++) {
            float deviation = HALF_ROOT * sqrtf(at_least(v[i], least));
            float factor = v[i] < least ? 0.0f : 0.25f / deviation;
            o[2 * i] = m[2 * i] + deviation * x[i];
            o[2 * i + 1] = m[2 * i + 1] + deviation * y[i];
            d[2 * i] = factor * x[i];
            d[2 * i + 1] = factor * y[i];
        }
    }
    return OK;
}
