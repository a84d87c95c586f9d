/* The passes of a training step that are many small ones in tensor operations, each as one pass over memory.
 *
 * float32, CPU. Every function has its plain formula in Python (kl.py, gaussian.py, whitening.py), which runs where this
 * cannot be compiled; a test holds the two together. Sums are formed per block and added in order, so that a result
 * depends neither on the number of threads nor on their timing.
 */
#ifndef __FAST_MATH__
#define __FAST_MATH__ 1 /* glibc declares its vector expf, logf, ... only under this macro; the flags stay precise */
#endif
#include <math.h>
#include <stdint.h>

#define BLOCK 4096  /* elements that a thread takes at a time; their sum is formed in one go */
#define RUN 512     /* weights whose KL is formed in one go; what a run needs besides stays in the nearest cache */

/* ---- KL terms (kl.py), for q = |mu|^2/sigma^2: value(q) = far log(1 + q) + rest(q), and slope(q) = g/q ---------------- */

enum { COMPLEX_VD, COMPLEX_ARD, REAL_VD, REAL_ARD };
enum { VALUE = 1, SLOPES = 2, ADDED = 7 }; /* what a pass makes; ADDED: both, the gradients added to what is there */

static const float K1 = 0.63576f, K2 = 1.87320f, K3 = 1.48695f; /* Molchanov et al. (2017), equation 14 */
static const float LOW = -69.0f, MOST = 1e37f, LEAST = 1e-30f;  /* keep 1/sigma^2, q and their products finite */
static const float SMALL = 1e-3f; /* below it log(1 + q) is three terms of its series, above it a factor of a product */

/* Unlike fmaxf and fminf these keep a NaN in x: a NaN that training made must show. */
static inline float at_least(float x, float low) { return x < low ? low : x; }
static inline float at_most(float x, float high) { return x > high ? high : x; }

/* x y + z rounded once. The flags let the compiler reorder a sum of floats; it cannot reorder this one. */
static inline float multiply_add(float x, float y, float z) {
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(x, y, z);
#else
    return (float)((double)x * y + z);
#endif
}

/* e^x = power (1 + small), power = 2^n and |small| < 0.42, for x from -88 (power 0) to 88; a NaN is kept in small.
 * 1 - e^x needs small by itself: near x = 0 the difference would cancel. */
struct exponential { float power, small; };
static inline struct exponential exponential(float x) {
    float n = rintf(x * 1.44269504f), r = multiply_add(n, -0.693145752f, x); /* log 2 in two parts */
    r = multiply_add(n, -1.42860677e-6f, r);
    float s = r * r, high = multiply_add(r, 1.0f / 5040.0f, 1.0f / 720.0f), mid = multiply_add(r, 1.0f / 120.0f, 1.0f / 24.0f);
    float p = multiply_add(multiply_add(high, s, mid), s, multiply_add(r, 1.0f / 6.0f, 0.5f));
    union { uint32_t bits; float number; } power = {(uint32_t)((int32_t)n + 127) << 23};
    return (struct exponential){power.number, multiply_add(p, s, r)};
}

static inline float exp_minus(float x) { /* e^-x for x from -88 to 88 */
    struct exponential e = exponential(-x);
    return e.power + e.power * e.small;
}

static inline float one_minus_exp_minus(float q) { /* 1 - e^-q for q >= 0, to the relative precision of a float */
    struct exponential e = exponential(-at_most(q, 88.0f));
    return multiply_add(-e.power, e.small, 1 - e.power); /* exactly -small for the power 1 */
}

static inline float smooth_part(float q) { /* expint.py: Ein(q) - log(1 + q) = (1 - u)^2 P(u), u = 4/(4 + q) */
    static const float P[10] = {0.577210605f, 0.905389249f,    0.974142372f,  1.560032964f,   -4.473323345f,
                                23.128204346f, -56.165252686f, 69.988269806f, -44.005947113f, 11.510937691f};
    float u = 4.0f / (4.0f + q), p = P[9];
    for (int k = 8; k >= 0; k--) p = p * u + P[k];
    return p * (1 - u) * (1 - u);
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static inline float rest(int term, float q) {
    switch (term) {
        case COMPLEX_VD: return smooth_part(q);
        case REAL_VD: return K1 * sigmoid(K3 * logf(q) - K2);
        default: return 0;
    }
}

static inline float slope(int term, float q) {
    switch (term) {
        case COMPLEX_VD: return one_minus_exp_minus(q) / q;
        case COMPLEX_ARD: return 1.0f / (1.0f + q);
        case REAL_VD: {
            float s = sigmoid(K3 * logf(q) - K2);
            return 0.5f / (1.0f + q) + K1 * K3 * s * (1 - s) / q;
        }
        default: return 0.5f / (1.0f + q);
    }
}

/* Sum of log(1 + q) over RUN numbers, as the logarithm of their product: of eight at a time in double, where eight floats
 * cannot overflow, and of those products the exponents by themselves. */
static double sum_log(const float *q) {
    double product[RUN / 8], mantissas = 1, sizes = 0;
    int64_t exponents = 0;
    for (int k = 0; k < RUN / 8; k++) product[k] = 1.0 + q[k];
    for (int j = RUN / 8; j < RUN; j += RUN / 8)
        for (int k = 0; k < RUN / 8; k++) product[k] *= 1.0 + q[j + k];
    for (int k = 0; k < RUN / 8; k++) {
        union { double number; uint64_t bits; } p = {product[k]};
        exponents += (int64_t)(p.bits >> 52) - 1023;
        p.bits = (p.bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u; /* from 1 to 2 */
        mantissas *= p.number, sizes += 0x1p-10 * product[k];
    }
    return sizes < HUGE_VAL ? log(mantissas) + 0.69314718055994531 * exponents : sizes; /* else infinite or NaN */
}

/* Whether one of n numbers is not from low to high; a NaN is not. */
static inline int outside(int64_t n, const float *x, float low, float high) {
    int found = 0;
    for (int64_t i = 0; i < n; i++) found |= (x[i] >= low ? 0 : -1) | (x[i] <= high ? 0 : -1);
    return found;
}

/* x, or where one of n numbers is not from low to high a copy with that one at the limit; a NaN stays. */
static inline const float *within(int64_t n, const float *x, float low, float high, float *copy) {
    if (!outside(n, x, low, high)) return x;
    for (int64_t i = 0; i < n; i++) copy[i] = at_most(at_least(x[i], low), high);
    return copy;
}

/* Up to RUN weights; returns their KL, adds to `squares` (of the gradients). `term` and `made` are constants where this is
 * called, so that the loops vectorise. They are many and short: a processor looks some hundred instructions ahead, and what
 * follows within one weight waits for what goes before. */
static inline __attribute__((always_inline)) double kl_run(int term, int made, int64_t n, const float *restrict w,
                                                           const float *restrict log_sigma2, float scale,
                                                           float *restrict by_w, float *restrict by_log_sigma2,
                                                           double *squares) {
    const int cplx = term == COMPLEX_VD || term == COMPLEX_ARD;
    const float far = cplx ? 1.0f : 0.5f;
    float precision[RUN], q[RUN], limited_s[RUN], limited_q[RUN];
    const float *s = within(n, log_sigma2, LOW, 88.0f, limited_s);
    for (int64_t i = 0; i < n; i++) precision[i] = exp_minus(s[i]);
    for (int64_t i = 0; i < n; i++)
        q[i] = precision[i] * (cplx ? w[2 * i] * w[2 * i] + w[2 * i + 1] * w[2 * i + 1] : w[i] * w[i]);
    if (made & SLOPES) {
        float g[RUN], of_w = 0, of_log_sigma2 = 0;
        const float *inside = within(n, q, LEAST, MOST, limited_q);
        for (int64_t i = 0; i < n; i++) g[i] = scale * slope(term, inside[i]);
        for (int64_t i = 0; i < n; i++) {
            float d = (made == ADDED ? by_log_sigma2[i] : 0.0f) - g[i] * inside[i], factor = 2 * g[i] * precision[i];
            by_log_sigma2[i] = d, of_log_sigma2 += d * d;
            if (cplx) {
                float re = (made == ADDED ? by_w[2 * i] : 0.0f) + factor * w[2 * i];
                float im = (made == ADDED ? by_w[2 * i + 1] : 0.0f) + factor * w[2 * i + 1];
                by_w[2 * i] = re, by_w[2 * i + 1] = im, of_w += re * re + im * im;
            } else {
                float m = (made == ADDED ? by_w[i] : 0.0f) + factor * w[i];
                by_w[i] = m, of_w += m * m;
            }
        }
        if (made == ADDED) squares[0] += of_w, squares[1] += of_log_sigma2;
    }
    if (!(made & VALUE)) return 0;
    float others[RUN];
    double sum = 0;
    if (s != log_sigma2) /* what LOW took off log q */
        for (int64_t i = 0; i < n; i++) sum += far * at_least(LOW - log_sigma2[i], 0.0f) * at_most(q[i], 1.0f);
    for (int64_t i = 0; i < n; i++) {
        float series = q[i] - q[i] * q[i] * (0.5f - q[i] * (1.0f / 3.0f));
        others[i] = rest(term, q[i]) + far * (q[i] < SMALL ? series : 0.0f);
        q[i] = q[i] < SMALL ? 0.0f : q[i];
    }
    for (int64_t i = n; i < RUN; i++) q[i] = others[i] = 0;
    for (int64_t i = 0; i < RUN / 2; i++) sum += others[i] + others[RUN / 2 + i]; /* half as many made double */
    return sum + far * sum_log(q);
}

/* The same for a term and results known only when it runs. */
static double kl_run_of(int64_t term, int made, int64_t n, const float *w, const float *log_sigma2, float scale, float *by_w,
                        float *by_log_sigma2, double *squares) {
#define KL_RUN(TERM, MADE) kl_run(TERM, MADE, n, w, log_sigma2, scale, by_w, by_log_sigma2, squares)
#define KL_RUNS(TERM) made == VALUE ? KL_RUN(TERM, VALUE) : made == SLOPES ? KL_RUN(TERM, SLOPES) : KL_RUN(TERM, ADDED)
    switch (term) {
        case COMPLEX_VD: return KL_RUNS(COMPLEX_VD);
        case COMPLEX_ARD: return KL_RUNS(COMPLEX_ARD);
        case REAL_VD: return KL_RUNS(REAL_VD);
        default: return KL_RUNS(REAL_ARD);
    }
}

static void kl_pass(int64_t term, int made, int64_t n, const float *w, const float *log_sigma2, float scale, float *by_w,
                    float *by_log_sigma2, double *partial) {
    const int64_t wide = term == COMPLEX_VD || term == COMPLEX_ARD ? 2 : 1, blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t hi = (b + 1) * BLOCK < n ? (b + 1) * BLOCK : n;
        double total = 0, squares[2] = {0, 0};
        for (int64_t i = b * BLOCK; i < hi; i += RUN)
            total += kl_run_of(term, made, hi - i < RUN ? hi - i : RUN, w + wide * i, log_sigma2 + i, scale,
                               by_w + wide * i, by_log_sigma2 + i, squares);
        if (made == VALUE) partial[b] = total;
        if (made == ADDED) partial[3 * b] = total, partial[3 * b + 1] = squares[0], partial[3 * b + 2] = squares[1];
    }
}

void kl_value(int64_t term, int64_t n, const float *w, const float *log_sigma2, double *partial) {
    kl_pass(term, VALUE, n, w, log_sigma2, 0, 0, 0, partial);
}

void kl_grad(int64_t term, int64_t n, const float *w, const float *log_sigma2, const float *grad, float *by_w,
             float *by_log_sigma2) {
    kl_pass(term, SLOPES, n, w, log_sigma2, *grad, by_w, by_log_sigma2, 0);
}

/* Value and gradients in one pass, the gradients added to what is there already; partial[block] has the value and the sums
 * of squares of both gradients as they are then. */
void kl_value_grad(int64_t term, int64_t n, const float *w, const float *log_sigma2, const float *grad, float *by_w,
                   float *by_log_sigma2, double *partial) {
    kl_pass(term, ADDED, n, w, log_sigma2, *grad, by_w, by_log_sigma2, partial);
}

/* ---- |x|^2 of complex numbers as pairs, and its gradient 2 g x on top of one h (variational.py) ------------------------ */

/* Re(x conj y); |x|^2 for y = x. */
void dot_pairs(int64_t n, const float *restrict x, const float *restrict y, float *restrict out) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) out[i] = x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1];
}

void square_pairs_grad(int64_t n, const float *restrict h, const float *restrict g, const float *restrict x,
                       float *restrict out) {
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++)
        out[2 * i] = h[2 * i] + 2 * g[i] * x[2 * i], out[2 * i + 1] = h[2 * i + 1] + 2 * g[i] * x[2 * i + 1];
}

/* ---- noise of the local reparameterisation (gaussian.py) --------------------------------------------------------------
 * y = mean + sqrt(max(variance, floor)) * eps. eps is a function of (seed, index) alone. A block's numbers come from
 * sixteen xoshiro128++ generators side by side (Blackman and Vigna 2021), started by Philox4x32-10 (Salmon et al. 2011);
 * Box and Muller (1958) make them normal. Philox for every number would cost six times as much: its long products do not
 * vectorise well. */

/* One call of Philox4x32-10: four words of 32 random bits from a counter (four words, in x) and a key (two words). */
#define PHILOX(x0, x1, x2, x3, k0, k1)                                                         \
    for (int round = 0; round < 10; round++) {                                                 \
        uint64_t p0 = (uint64_t)0xD2511F53u * x0, p1 = (uint64_t)0xCD9E8D57u * x2;             \
        uint32_t y0 = (uint32_t)(p1 >> 32) ^ x1 ^ (k0 + round * 0x9E3779B9u);                  \
        uint32_t y2 = (uint32_t)(p0 >> 32) ^ x3 ^ (k1 + round * 0xBB67AE85u);                  \
        x1 = (uint32_t)p1, x3 = (uint32_t)p0, x0 = y0, x2 = y2;                                \
    }

/* sin(2 pi t) for |t| <= 1/4: Taylor's polynomial of degree 13, error below 1e-8. */
static inline float sine(float t) {
    const float turn = 6.28318530717958648f;
    float x = turn * t, s = x * x, p = 1.0f / 6227020800.0f;
    p = p * s - 1.0f / 39916800.0f, p = p * s + 1.0f / 362880.0f, p = p * s - 1.0f / 5040.0f;
    p = p * s + 1.0f / 120.0f, p = p * s - 1.0f / 6.0f;
    return x + x * s * p;
}

/* Two independent standard normals from two words: radius and angle (Box and Muller). The uniforms have 24 bits; the one
 * under the logarithm lies in (0, 1]. */
static inline void normal_pair(uint32_t first, uint32_t second, float *x, float *y) {
    float u = (float)(int32_t)((first >> 8) + 1) * 0x1p-24f, t = (float)(int32_t)(second >> 8) * 0x1p-24f - 0.5f;
    float radius = sqrtf(-2.0f * logf(u)), side = t < 0 ? -t : t, folded = 0.5f - side < side ? 0.5f - side : side;
    *x = radius * sine(0.25f - side);           /* cos(2 pi t) */
    *y = radius * sine(t < 0 ? -folded : folded); /* sin(2 pi t) */
}

#define LANES 8
typedef uint32_t lanes __attribute__((vector_size(4 * LANES)));

static inline lanes rotated(lanes x, int by) { return (x << by) | (x >> (32 - by)); }

/* The next word of eight xoshiro128++ generators, of state s. */
static inline lanes next_words(lanes *s) {
    lanes out = rotated(s[0] + s[3], 7) + s[0], shifted = s[1] << 9;
    s[2] ^= s[0], s[3] ^= s[1], s[1] ^= s[2], s[0] ^= s[3], s[2] ^= shifted, s[3] = rotated(s[3], 11);
    return out;
}

/* States of the generators number `first` to `first` + 7 of block b: Philox of (number, b, 0, 0), never all zero. */
static inline void start(uint32_t first, uint32_t b, const uint32_t *key, lanes *s) {
    for (uint32_t k = 0; k < LANES; k++) {
        uint32_t w0 = first + k, w1 = b, w2 = 0, w3 = 0;
        PHILOX(w0, w1, w2, w3, key[0], key[1])
        s[0][k] = w0 | 1u, s[1][k] = w1, s[2][k] = w2, s[3][k] = w3;
    }
}

/* The noise of block b: x and y hold BLOCK standard normals each. Words for radii and for angles have generators of their
 * own, which also lets the processor work at both at a time. */
static void normals(uint32_t b, const uint32_t *key, float *restrict x, float *restrict y) {
    lanes radii[4], angles[4], words[2][BLOCK / LANES];
    start(0, b, key, radii), start(LANES, b, key, angles);
    for (int32_t j = 0; j < BLOCK / LANES; j++) words[0][j] = next_words(radii), words[1][j] = next_words(angles);
    const uint32_t *first = (const uint32_t *)words[0], *second = (const uint32_t *)words[1];
#pragma omp simd
    for (int32_t i = 0; i < BLOCK; i++) normal_pair(first[i], second[i], x + i, y + i);
}

/* For the tests: n words of each of the eight generators, from their states; (n, 8). */
void xoshiro_words(int64_t n, const uint32_t *states, uint32_t *words) {
    lanes s[4];
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < LANES; k++) s[i][k] = states[i * LANES + k];
    for (int64_t j = 0; j < n; j++) {
        lanes out = next_words(s);
        for (int k = 0; k < LANES; k++) words[j * LANES + k] = out[k];
    }
}

#define HALF_ROOT 0.70710678118654752f

/* out = mean + deviation eps, and slope = d out / d variance = eps/(4 deviation), deviation = sqrt(variance/2): 0 under the
 * floor. */
void noise_pairs(int64_t n, const float *restrict mean, const float *restrict variance, float floor_, const uint32_t *key,
                 float *restrict out, float *restrict slope) {
    int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float x[BLOCK], y[BLOCK];
        normals((uint32_t)b, key, x, y);
        int32_t size = n - b * BLOCK < BLOCK ? (int32_t)(n - b * BLOCK) : BLOCK;
        const float *restrict m = mean + 2 * b * BLOCK, *restrict v = variance + b * BLOCK;
        float *restrict o = out + 2 * b * BLOCK, *restrict d = slope + 2 * b * BLOCK;
        for (int32_t i = 0; i < size; i++) {
            float deviation = HALF_ROOT * sqrtf(at_least(v[i], floor_)), by = v[i] < floor_ ? 0.0f : 0.25f / deviation;
            o[2 * i] = m[2 * i] + deviation * x[i], o[2 * i + 1] = m[2 * i + 1] + deviation * y[i];
            d[2 * i] = by * x[i], d[2 * i + 1] = by * y[i];
        }
    }
}

/* For the tests: Philox on n counters of four words each, in place. */
void philox_words(int64_t n, uint32_t *words, const uint32_t *key) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t *x = words + 4 * i;
        PHILOX(x[0], x[1], x[2], x[3], key[0], key[1])
    }
}

/* ---- complex batch normalisation (fast/batchnorm.py) -------------------------------------------------------------------
 * x, y, g: (n, c) complex as (n, c, 2) floats. Sums go to partial[block][column]; the caller adds the blocks in order. */

#define ROWS(b) int64_t lo = (b) * rows, hi = lo + rows < n ? lo + rows : n;

void column_sums(int64_t n, int64_t c, int64_t rows, const float *restrict x, float *restrict partial) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < (n + rows - 1) / rows; b++) {
        ROWS(b)
        float *restrict sum = partial + b * 2 * c;
        for (int64_t k = 0; k < 2 * c; k++) sum[k] = 0;
        for (int64_t r = lo; r < hi; r++)
            for (int64_t k = 0; k < 2 * c; k++) sum[k] += x[r * 2 * c + k];
    }
}

/* y = M x + s for a row of pairs: y[k] = same[k] x[k] + other[k] (x[k + 1] or x[k - 1], its partner) + shift[k]. */
struct map {
    const float *same, *other, *shift;
};
#define MAPPED_RE(f, x) ((f).same[k] * (x)[k] + (f).other[k] * (x)[k + 1] + (f).shift[k])
#define MAPPED_IM(f, x) ((f).same[k + 1] * (x)[k + 1] + (f).other[k + 1] * (x)[k] + (f).shift[k + 1])

/* The map of columns from `from` on: m is (2, c, 2), `same` and `other`, and s is (c, 2). */
static inline struct map map_of(int64_t c, int64_t from, const float *m, const float *s) {
    return (struct map){m + from, m + 2 * c + from, s + from};
}

/* What may follow y = M x + s in the same pass: nothing; the split ReLU; or that and the average of two neighbours along the
 * `length` rows of a sample, where an odd last row goes no further. */
enum { AFFINE, RELU, RELU_POOL };

/* A call with its tail as a constant, so that the loops vectorise. */
#define BY_TAIL(tail, call)               \
    switch (tail) {                       \
        case AFFINE: call(AFFINE); break; \
        case RELU: call(RELU); break;     \
        default: call(RELU_POOL);         \
    }

static inline float rectified(float x) { return x < 0 ? 0 : x; } /* keeps a NaN */

static inline __attribute__((always_inline)) void affine_row(int tail, int64_t r, int64_t c, int64_t length,
                                                             const float *x, const struct map f, float *y) {
    const int64_t first = tail == RELU_POOL ? r / (length / 2) * length + r % (length / 2) * 2 : r;
    const float *z = x + first * 2 * c, *next = z + 2 * c;
    float *o = y + r * 2 * c;
#pragma GCC ivdep
    for (int64_t k = 0; k < 2 * c; k += 2) {
        float re = MAPPED_RE(f, z), im = MAPPED_IM(f, z);
        if (tail != AFFINE) re = rectified(re), im = rectified(im);
        if (tail == RELU_POOL) {
            re = 0.5f * (re + rectified(MAPPED_RE(f, next)));
            im = 0.5f * (im + rectified(MAPPED_IM(f, next)));
        }
        o[k] = re, o[k + 1] = im;
    }
}

/* n rows of y = M x + s and its tail. */
void affine_pairs(int64_t tail, int64_t n, int64_t c, int64_t length, const float *x, const float *m, const float *s,
                  float *y) {
    const struct map f = map_of(c, 0, m, s);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
#define AFFINE_ROW(tail) affine_row(tail, r, c, length, x, f, y)
        BY_TAIL(tail, AFFINE_ROW)
#undef AFFINE_ROW
}

#define TILE 256 /* floats of a row taken at a time, in arrays that the compiler sees to be apart */

/* The gradient by M x + s, from g, that by what its tail makes of it: `width` columns from `from` on of row r. z is x there,
 * f the map there. Points into g, or to `made`, where it has been put. */
static inline __attribute__((always_inline)) const float *before_tail(int tail, int64_t r, int64_t c, int64_t length,
                                                                      int64_t from, int64_t width, const float *g,
                                                                      const float *z, const struct map f, float *made) {
    if (tail == AFFINE) return g + r * 2 * c + from;
    const int64_t pair = r % length / 2;
    if (tail == RELU_POOL && pair >= length / 2) {
        for (int64_t k = 0; k < width; k++) made[k] = 0;
        return made;
    }
    const float *u = g + (tail == RELU_POOL ? r / length * (length / 2) + pair : r) * 2 * c + from;
    const float share = tail == RELU_POOL ? 0.5f : 1.0f;
#pragma GCC ivdep
    for (int64_t k = 0; k < width; k += 2) {
        float re = MAPPED_RE(f, z), im = MAPPED_IM(f, z), g_re = share * u[k], g_im = share * u[k + 1];
        made[k] = re <= 0 ? 0 : g_re, made[k + 1] = im <= 0 ? 0 : g_im;
    }
    return made;
}

static inline __attribute__((always_inline)) void pair_sums_of(int tail, int64_t lo, int64_t hi, int64_t c, int64_t length,
                                                               const float *g, const float *g_mean, const float *x,
                                                               const float *mean, const float *m, const float *s,
                                                               float *sums) {
    for (int64_t from = 0; from < 2 * c; from += TILE) {
        float plain[TILE] = {0}, same[TILE] = {0}, across[TILE] = {0}, made[TILE], *out = sums + from;
        const int64_t width = 2 * c - from < TILE ? 2 * c - from : TILE;
        const float *a = mean + from, *b = g_mean + from;
        const struct map f = map_of(c, from, m, s);
        for (int64_t r = lo; r < hi; r++) {
            const float *z = x + r * 2 * c + from;
            const float *u = before_tail(tail, r, c, length, from, width, g, z, f, made);
            for (int64_t k = 0; k < width; k += 2) {
                float re = z[k] - a[k], im = z[k + 1] - a[k + 1], g_re = u[k] - b[k], g_im = u[k + 1] - b[k + 1];
                plain[k] += g_re, plain[k + 1] += g_im;
                same[k] += g_re * re, same[k + 1] += g_im * im;
                across[k] += g_re * im, across[k + 1] += g_im * re;
            }
        }
        for (int64_t k = 0; k < width; k++) out[k] = plain[k], out[2 * c + k] = same[k], out[4 * c + k] = across[k];
    }
}

/* With g' = g - g_mean, g the gradient by M x + s (see before_tail), and x' = x - mean: sums over rows of g' (re, im), of
 * (g'_re x'_re, g'_im x'_im) and of (g'_re x'_im, g'_im x'_re), to partial[block][3][c][2]. */
void pair_sums(int64_t tail, int64_t n, int64_t c, int64_t length, int64_t rows, const float *g, const float *g_mean,
               const float *x, const float *mean, const float *m, const float *s, float *partial) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < (n + rows - 1) / rows; b++) {
        ROWS(b)
#define PAIR_SUMS(tail) pair_sums_of(tail, lo, hi, c, length, g, g_mean, x, mean, m, s, partial + b * 6 * c)
        BY_TAIL(tail, PAIR_SUMS)
#undef PAIR_SUMS
    }
}

/* Not inline: where the compiler knows that these pointers are sums, it does not see that their elements are neighbours. */
static __attribute__((noinline)) void map_row(int64_t width, const struct map f, const float *restrict x, float *restrict y) {
#pragma GCC ivdep
    for (int64_t k = 0; k < width; k += 2) y[k] = MAPPED_RE(f, x), y[k + 1] = MAPPED_IM(f, x);
}

static inline __attribute__((always_inline)) void affine_two_of(int tail, int64_t r, int64_t c, int64_t length,
                                                                const float *g, const float *back, const float *x,
                                                                const float *around, const float *shift, const float *m,
                                                                const float *s, float *dx) {
    for (int64_t from = 0; from < 2 * c; from += TILE) {
        float made[TILE], mapped[TILE], *o = dx + r * 2 * c + from;
        const int64_t width = 2 * c - from < TILE ? 2 * c - from : TILE;
        const float *z = x + r * 2 * c + from;
        const float *u = before_tail(tail, r, c, length, from, width, g, z, map_of(c, from, m, s), made);
        const struct map by_g = map_of(c, from, back, shift), by_x = {around + from, around + 2 * c + from, mapped};
        map_row(width, by_g, u, mapped);
        map_row(width, by_x, z, o);
    }
}

/* dx = B g + A x + t, g the gradient by M x + s (see before_tail): `back`, `around`, m are (2, c, 2), `shift` and s (c, 2). */
void affine_two(int64_t tail, int64_t n, int64_t c, int64_t length, const float *g, const float *back, const float *x,
                const float *around, const float *shift, const float *m, const float *s, float *dx) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
#define AFFINE_TWO(tail) affine_two_of(tail, r, c, length, g, back, x, around, shift, m, s, dx)
        BY_TAIL(tail, AFFINE_TWO)
#undef AFFINE_TWO
}

/* Of each channel (whitening.py): R = (V + eps I)^(-1/2) for V = [[a, b], [b, d]] - eps I, and what it is made of. */
struct root {
    double a, b, d, s, t, r00, r01, r11;
    int guarded;
};

static struct root inverse_root(double v00, double v01, double v11, double eps) {
    struct root f = {.a = v00 + eps, .b = v01, .d = v11 + eps};
    double det = f.a * f.d - f.b * f.b, least = eps * (f.a + f.d - eps);
    f.guarded = det < least;
    f.s = sqrt(f.guarded ? least : det), f.t = sqrt(f.a + f.d + 2 * f.s);
    f.r00 = (f.d + f.s) / (f.s * f.t), f.r11 = (f.a + f.s) / (f.s * f.t), f.r01 = -f.b / (f.s * f.t);
    return f;
}

/* The scale matrix W of channel k, I/sqrt(2) where there is none, and M = W R: row by row. */
static void scaled(int64_t c, int64_t k, const float *weight, const struct root f, double *w, double *m) {
    for (int i = 0; i < 4; i++) w[i] = weight ? weight[i * c + k] : i % 3 ? 0 : 0.70710678118654752;
    m[0] = w[0] * f.r00 + w[1] * f.r01, m[1] = w[0] * f.r01 + w[1] * f.r11;
    m[2] = w[2] * f.r00 + w[3] * f.r01, m[3] = w[2] * f.r01 + w[3] * f.r11;
}

/* A 2x2 matrix as a map of channel k has it: what each part has of itself, and what it has of the other. */
static inline void put(int64_t c, int64_t k, double m00, double m01, double m10, double m11, float *map) {
    map[2 * k] = m00, map[2 * k + 1] = m11, map[2 * (c + k)] = m01, map[2 * (c + k) + 1] = m10;
}

/* M = W R to `m` (2, c, 2) and s = b - M mean to `s` (c, 2): `cov` and `weight` are (2, 2, c), `mean` is (c, 2), `bias` (2, c). */
void whitening_map(int64_t c, const float *mean, const float *cov, const float *weight, const float *bias, float eps,
                   float *m, float *s) {
    for (int64_t k = 0; k < c; k++) {
        struct root f = inverse_root(cov[k], cov[c + k], cov[3 * c + k], eps);
        double w[4], wr[4], re = mean[2 * k], im = mean[2 * k + 1];
        scaled(c, k, weight, f, w, wr);
        put(c, k, wr[0], wr[1], wr[2], wr[3], m);
        s[2 * k] = (bias ? bias[k] : 0) - (wr[0] * re + wr[1] * im);
        s[2 * k + 1] = (bias ? bias[c + k] : 0) - (wr[2] * re + wr[3] * im);
    }
}

/* The gradient of the inputs, from `sums` (3, c, 2) of pair_sums: by W (2, 2, c), by b (2, c), and the maps of
 * dx = B g + A x + t, B = M^T and A = (gV + gV^T)/n as (2, c, 2), t (c, 2) (whitening.py). */
void whitening_gradient(int64_t c, int64_t n, const double *sums, const float *mean, const float *cov, const float *weight,
                        float eps, float *by_weight, float *by_bias, float *back, float *around, float *shift) {
    for (int64_t k = 0; k < c; k++) {
        struct root f = inverse_root(cov[k], cov[c + k], cov[3 * c + k], eps);
        double g[4] = {sums[2 * (c + k)], sums[2 * (2 * c + k)], sums[2 * (2 * c + k) + 1], sums[2 * (c + k) + 1]};
        double w[4], m[4], re = sums[2 * k], im = sums[2 * k + 1], mean_re = mean[2 * k], mean_im = mean[2 * k + 1];
        scaled(c, k, weight, f, w, m);
        by_bias[k] = re, by_bias[c + k] = im;
        by_weight[k] = g[0] * f.r00 + g[1] * f.r01, by_weight[c + k] = g[0] * f.r01 + g[1] * f.r11;
        by_weight[2 * c + k] = g[2] * f.r00 + g[3] * f.r01, by_weight[3 * c + k] = g[2] * f.r01 + g[3] * f.r11;
        /* by R = W^T g, then by the steps of inverse_root from the last to the first */
        double g00 = w[0] * g[0] + w[2] * g[2], g11 = w[1] * g[1] + w[3] * g[3];
        double g01 = w[0] * g[1] + w[2] * g[3] + w[1] * g[0] + w[3] * g[2], q = f.s * f.t;
        double by_q = -(g00 * f.r00 + g01 * f.r01 + g11 * f.r11) / q, by_t = by_q * f.s;
        double by_s = (g00 + g11) / q + by_q * f.t + by_t / f.t, by_det = by_s / (2 * f.s);
        double by_a = g11 / q + by_t / (2 * f.t) + by_det * (f.guarded ? eps : f.d);
        double by_d = g00 / q + by_t / (2 * f.t) + by_det * (f.guarded ? eps : f.a);
        double by_b = -g01 / q - (f.guarded ? 0 : 2 * f.b * by_det);
        double a00 = 2 * by_a / n, a01 = by_b / n, a11 = 2 * by_d / n;
        put(c, k, m[0], m[2], m[1], m[3], back);
        put(c, k, a00, a01, a01, a11, around);
        shift[2 * k] = -(m[0] * re + m[2] * im) / n - (a00 * mean_re + a01 * mean_im);
        shift[2 * k + 1] = -(m[1] * re + m[3] * im) / n - (a01 * mean_re + a11 * mean_im);
    }
}

/* ---- Sparse stages of a compact network (compaction/backends.py) ------------------------------------------------------
 *
 * z[b, r, j] = bias[r] + sum over k in [start[r], start[r + 1]) of value[k] * x[b, channel[k] * pitch + tap[k] + j]
 *
 * for j < length, then ReLU and pooling along j. A weight is loaded once for up to 64 outputs, which stay in registers
 * (direct sparse convolution: Park et al. 2017, "Faster CNNs with Direct Sparse Convolutions and Guided Pruning").
 */

#define WIDE 8 /* floats in a vector: one AVX2 register; other processors get it in pieces */
typedef float vec __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

struct sparse {
    const int32_t *channel, *tap;
    const float *value;
};

/* n vectors of outputs at j = 0, 8, ..., the last at `last`: a remainder overlaps its neighbour. */
static inline __attribute__((always_inline)) void tile(int n, int64_t last, const struct sparse w, int64_t from, int64_t to,
                                                       const float *x, int64_t pitch, float bias, float *z) {
    vec sum[8];
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) sum[t] = (vec){0} + bias;
    for (int64_t k = from; k < to; k++) {
        const float *in = x + w.channel[k] * pitch + w.tap[k], v = w.value[k];
#pragma GCC unroll 8
        for (int t = 0; t < n; t++) sum[t] += v * *(const vec *)(in + (t < n - 1 ? t * WIDE : last));
    }
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) *(vec *)(z + (t < n - 1 ? t * WIDE : last)) = sum[t];
}

static void sparse_row(int64_t length, const struct sparse w, int64_t from, int64_t to, const float *x, int64_t pitch,
                       float bias, float *z) {
    if (length < WIDE) {
        for (int64_t j = 0; j < length; j++) {
            float sum = 0;
            for (int64_t k = from; k < to; k++) sum += w.value[k] * x[w.channel[k] * pitch + w.tap[k] + j];
            z[j] = bias + sum;
        }
        return;
    }
    for (int64_t j = 0; j < length; j += 8 * WIDE) {
        int64_t rest = length - j < 8 * WIDE ? length - j : 8 * WIDE, back = 0;
        if (rest < WIDE) back = WIDE - rest, rest = WIDE;
        int64_t n = (rest + WIDE - 1) / WIDE, last = rest - WIDE;
        const float *in = x + j - back;
        float *out = z + j - back;
#define CASE(n) case n: tile(n, last, w, from, to, in, pitch, bias, out); break;
        switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
    }
}

enum { POOL_NONE, POOL_AVERAGE, POOL_MAXIMUM };

static void pool_row(int64_t kind, int64_t size, int64_t stride, int64_t out_length, const float *z, float *y) {
    for (int64_t j = 0; j < out_length; j++) {
        const float *in = z + j * stride;
        float found = in[0];
        for (int64_t s = 1; s < size; s++) found = kind == POOL_AVERAGE ? found + in[s] : (in[s] <= found ? found : in[s]);
        y[j] = kind == POOL_AVERAGE ? found / size : found;
    }
}

#define LONGEST 16384 /* outputs of a row that is pooled: they lie on the stack until then; also in backends.py */

/* x is [batch][sample], y [batch][rows][out_length]. */
void sparse_rows(int64_t batch, int64_t rows, int64_t length, int64_t sample, int64_t pitch, const float *x,
                 const int32_t *start, const int32_t *channel, const int32_t *tap, const float *value, const float *bias,
                 int64_t relu, int64_t kind, int64_t size, int64_t stride, int64_t out_length, int64_t per_block,
                 float *y) {
    const struct sparse w = {channel, tap, value};
    int64_t blocks = (rows + per_block - 1) / per_block;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t block = 0; block < blocks; block++) {
            float scratch[LONGEST];
            int64_t hi = (block + 1) * per_block < rows ? (block + 1) * per_block : rows;
            for (int64_t r = block * per_block; r < hi; r++) {
                float *out = y + (b * rows + r) * out_length;
                float *z = kind == POOL_NONE ? out : scratch;
                sparse_row(length, w, start[r], start[r + 1], x + b * sample, pitch, bias[r], z);
                if (relu)
                    for (int64_t j = 0; j < length; j++) z[j] = z[j] < 0 ? 0 : z[j]; /* keeps a NaN */
                if (kind != POOL_NONE) pool_row(kind, size, stride, out_length, z, out);
            }
        }
}
