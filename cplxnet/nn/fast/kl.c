/* The KL of a layer's weights and its gradients (nn/kl.py), for q = |mu|^2/sigma^2.
 *
 * A term is value(q) = far log(1 + q) + remainder(q), and slope(q) = g/q. Complex weights are pairs
 * (n, 2).
 */
#include "shared.h"

/* weights computed at a time: what they need besides stays in the nearest cache */
#define RUN 512

enum term { COMPLEX_VD, COMPLEX_ARD, REAL_VD, REAL_ARD }; /* the numbers in kl.py */

/* What a pass computes. ADDED: both, and the gradients are added to those that are there. */
enum results { VALUE, SLOPES, ADDED };

/* Molchanov et al. (2017), equation 14 */
static const float K1 = 0.63576f;
static const float K2 = 1.87320f;
static const float K3 = 1.48695f;

/* limits of log_sigma2 and q that keep 1/sigma^2, q and their products finite */
static const float LEAST_LOG_SIGMA2 = -69.0f;
static const float MOST_LOG_SIGMA2 = 88.0f;
static const float LEAST_Q = 1e-30f;
static const float MOST_Q = 1e37f;

/* below it log(1 + q) is three terms of its series, above it a factor of a product */
static const float SMALL = 1e-3f;

static inline int is_complex(enum term term) {
    return term == COMPLEX_VD || term == COMPLEX_ARD;
}

/* ---- elementary functions -------------------------------------------------------------------- */

/* x y + z, rounded once. The flags let the compiler reorder a sum of floats; it cannot reorder this
 * one. */
static inline float multiply_add(float x, float y, float z) {
#ifdef __FP_FAST_FMAF
    return __builtin_fmaf(x, y, z);
#else
    return (float)((double)x * y + z);
#endif
}

/* e^x = power (1 + small) with power = 2^n and |small| < 0.42. */
struct exponential {
    float power;
    float small;
};

/* For x from -88 (power 0) to 88; a NaN is kept in `small`. 1 - e^x needs `small` by itself: near x
 * = 0 the difference would cancel. */
static inline struct exponential exponential(float x) {
    float n = rintf(x * 1.44269504f);
    float r = multiply_add(n, -0.693145752f, x); /* log 2 in two parts */
    r = multiply_add(n, -1.42860677e-6f, r);

    float s = r * r;
    float high = multiply_add(r, 1.0f / 5040.0f, 1.0f / 720.0f);
    float middle = multiply_add(r, 1.0f / 120.0f, 1.0f / 24.0f);
    float low = multiply_add(r, 1.0f / 6.0f, 0.5f);
    float p = multiply_add(multiply_add(high, s, middle), s, low);

    union {
        uint32_t bits;
        float number;
    } power = {(uint32_t)((int32_t)n + 127) << 23};
    return (struct exponential){power.number, multiply_add(p, s, r)};
}

/* e^-x for x from -88 to 88. */
static inline float exp_minus(float x) {
    struct exponential e = exponential(-x);
    return e.power + e.power * e.small;
}

/* 1 - e^-q for q >= 0, to the relative precision of a float. */
static inline float one_minus_exp_minus(float q) {
    struct exponential e = exponential(-at_most(q, 88.0f));
    return multiply_add(-e.power, e.small, 1 - e.power); /* exactly -small for the power 1 */
}

/* Ein(q) - log(1 + q) = (1 - u)^2 P(u), u = 4/(4 + q) (expint.py). */
static inline float smooth_part(float q) {
    static const float P[10] = {0.577210605f,   0.905389249f,  0.974142372f,   1.560032964f,
                                -4.473323345f,  23.128204346f, -56.165252686f, 69.988269806f,
                                -44.005947113f, 11.510937691f};
    float u = 4.0f / (4.0f + q);
    float p = P[9];
    for (int k = 8; k >= 0; k--)
        p = p * u + P[k];
    return p * (1 - u) * (1 - u);
}

static inline float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

/* ---- the terms ------------------------------------------------------------------------------- */

/* value(q) - far log(1 + q) */
static inline float remainder_of(enum term term, float q) {
    switch (term) {
        case COMPLEX_VD:
            return smooth_part(q);
        case REAL_VD:
            return K1 * sigmoid(K3 * logf(q) - K2);
        case COMPLEX_ARD:
        case REAL_ARD:
            return 0;
    }
    return NAN;
}

/* g/q, g = dKL/d(log q) */
static inline float slope(enum term term, float q) {
    switch (term) {
        case COMPLEX_VD:
            return one_minus_exp_minus(q) / q;
        case COMPLEX_ARD:
            return 1.0f / (1.0f + q);
        case REAL_VD: {
            float s = sigmoid(K3 * logf(q) - K2);
            return 0.5f / (1.0f + q) + K1 * K3 * s * (1 - s) / q;
        }
        case REAL_ARD:
            return 0.5f / (1.0f + q);
    }
    return NAN;
}

/* Sum of log(1 + q) over RUN numbers, as the logarithm of their product: of eight at a time in
 * double, where eight floats cannot overflow, and of those products the exponents by themselves. */
static double sum_log(const float *q) {
    double product[RUN / 8];
    for (int k = 0; k < RUN / 8; k++)
        product[k] = 1.0 + q[k];
    for (int j = RUN / 8; j < RUN; j += RUN / 8)
        for (int k = 0; k < RUN / 8; k++)
            product[k] *= 1.0 + q[j + k];

    double mantissas = 1;
    double sizes = 0; /* infinite or NaN as soon as a product is */
    int64_t exponents = 0;
    for (int k = 0; k < RUN / 8; k++) {
        union {
            double number;
            uint64_t bits;
        } p = {product[k]};
        exponents += (int64_t)(p.bits >> 52) - 1023;
        p.bits = (p.bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u; /* from 1 to 2 */
        mantissas *= p.number;
        sizes += 0x1p-10 * product[k];
    }
    return sizes < HUGE_VAL ? log(mantissas) + 0.69314718055994531 * exponents : sizes;
}

/* Whether one of n numbers is not from low to high; a NaN is not. */
static inline int outside(int64_t n, const float *x, float low, float high) {
    int any = 0;
    for (int64_t i = 0; i < n; i++)
        any |= (x[i] >= low ? 0 : -1) | (x[i] <= high ? 0 : -1);
    return any;
}

/* x, or if one of n numbers is not from low to high, a copy that is clamped; a NaN stays. */
static inline const float *clamped(int64_t n, const float *x, float low, float high, float *copy) {
    if (!outside(n, x, low, high))
        return x;
    for (int64_t i = 0; i < n; i++)
        copy[i] = at_most(at_least(x[i], low), high);
    return copy;
}

/* ---- one pass over the weights --------------------------------------------------------------- */

/* Up to RUN weights: returns their KL, writes or adds their gradients, and adds the squares of
 * added gradients to `squares`. `term` and `results` are constants in each call, so that the loops
 * vectorise. The loops are many and short: a processor looks some hundred instructions ahead, and
 * within one weight each step waits for the one before. */
ALWAYS_INLINE double kl_run(enum term term, enum results results, int64_t n,
                            const float *restrict w, const float *restrict log_sigma2, float scale,
                            float *restrict by_w, float *restrict by_log_sigma2, double *squares) {
    const int cplx = is_complex(term);
    const float far = cplx ? 1.0f : 0.5f;
    float precision[RUN], q[RUN], clamped_s[RUN], clamped_q[RUN];

    const float *s = clamped(n, log_sigma2, LEAST_LOG_SIGMA2, MOST_LOG_SIGMA2, clamped_s);
    for (int64_t i = 0; i < n; i++)
        precision[i] = exp_minus(s[i]);
    for (int64_t i = 0; i < n; i++)
        q[i] =
            precision[i] * (cplx ? w[2 * i] * w[2 * i] + w[2 * i + 1] * w[2 * i + 1] : w[i] * w[i]);

    if (results != VALUE) {
        const int added = results == ADDED;
        float g[RUN];
        float square_w = 0;
        float square_log_sigma2 = 0;
        const float *inside = clamped(n, q, LEAST_Q, MOST_Q, clamped_q);
        for (int64_t i = 0; i < n; i++)
            g[i] = scale * slope(term, inside[i]);
        for (int64_t i = 0; i < n; i++) {
            float d = (added ? by_log_sigma2[i] : 0.0f) - g[i] * inside[i];
            float factor = 2 * g[i] * precision[i];
            by_log_sigma2[i] = d;
            square_log_sigma2 += d * d;
            if (cplx) {
                float re = (added ? by_w[2 * i] : 0.0f) + factor * w[2 * i];
                float im = (added ? by_w[2 * i + 1] : 0.0f) + factor * w[2 * i + 1];
                by_w[2 * i] = re;
                by_w[2 * i + 1] = im;
                square_w += re * re + im * im;
            } else {
                float m = (added ? by_w[i] : 0.0f) + factor * w[i];
                by_w[i] = m;
                square_w += m * m;
            }
        }
        if (added) {
            squares[0] += square_w;
            squares[1] += square_log_sigma2;
        }
    }
    if (results == SLOPES)
        return 0;

    double sum = 0;
    if (s != log_sigma2) /* add what the least log_sigma2 took off log q */
        for (int64_t i = 0; i < n; i++)
            sum += far * at_least(LEAST_LOG_SIGMA2 - log_sigma2[i], 0.0f) * at_most(q[i], 1.0f);

    float remainders[RUN];
    for (int64_t i = 0; i < n; i++) {
        float series = q[i] - q[i] * q[i] * (0.5f - q[i] * (1.0f / 3.0f));
        remainders[i] = remainder_of(term, q[i]) + far * (q[i] < SMALL ? series : 0.0f);
        q[i] = q[i] < SMALL ? 0.0f : q[i];
    }
    for (int64_t i = n; i < RUN; i++)
        q[i] = remainders[i] = 0;
    for (int64_t i = 0; i < RUN / 2; i++) /* in pairs, so that half as many become double */
        sum += remainders[i] + remainders[RUN / 2 + i];
    return sum + far * sum_log(q);
}

/* kl_run for results known only when it runs. */
ALWAYS_INLINE double kl_run_of_term(enum term term, enum results results, int64_t n, const float *w,
                                    const float *log_sigma2, float scale, float *by_w,
                                    float *by_log_sigma2, double *squares) {
    switch (results) {
        case VALUE:
            return kl_run(term, VALUE, n, w, log_sigma2, scale, by_w, by_log_sigma2, squares);
        case SLOPES:
            return kl_run(term, SLOPES, n, w, log_sigma2, scale, by_w, by_log_sigma2, squares);
        case ADDED:
            return kl_run(term, ADDED, n, w, log_sigma2, scale, by_w, by_log_sigma2, squares);
    }
    return NAN;
}

/* kl_run for a term and results known only when it runs. */
static double kl_run_of(enum term term, enum results results, int64_t n, const float *w,
                        const float *log_sigma2, float scale, float *by_w, float *by_log_sigma2,
                        double *squares) {
    switch (term) {
        case COMPLEX_VD:
            return kl_run_of_term(COMPLEX_VD, results, n, w, log_sigma2, scale, by_w, by_log_sigma2,
                                  squares);
        case COMPLEX_ARD:
            return kl_run_of_term(COMPLEX_ARD, results, n, w, log_sigma2, scale, by_w,
                                  by_log_sigma2, squares);
        case REAL_VD:
            return kl_run_of_term(REAL_VD, results, n, w, log_sigma2, scale, by_w, by_log_sigma2,
                                  squares);
        case REAL_ARD:
            return kl_run_of_term(REAL_ARD, results, n, w, log_sigma2, scale, by_w, by_log_sigma2,
                                  squares);
    }
    return NAN;
}

static int kl_pass(int64_t code, enum results results, int64_t n, const float *w,
                   const float *log_sigma2, float scale, float *by_w, float *by_log_sigma2,
                   double *block_sums) {
    if (code < COMPLEX_VD || code > REAL_ARD)
        return REFUSED;

    const enum term term = (enum term)code;
    const int64_t width = is_complex(term) ? 2 : 1;
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t end = smaller((b + 1) * BLOCK, n);
        double total = 0;
        double squares[2] = {0, 0};
        for (int64_t i = b * BLOCK; i < end; i += RUN)
            total += kl_run_of(term, results, smaller(end - i, RUN), w + width * i, log_sigma2 + i,
                               scale, by_w + width * i, by_log_sigma2 + i, squares);
        if (results == VALUE)
            block_sums[b] = total;
        if (results == ADDED) {
            block_sums[3 * b] = total;
            block_sums[3 * b + 1] = squares[0];
            block_sums[3 * b + 2] = squares[1];
        }
    }
    return OK;
}

/* The KL of each block. */
int kl_value(int64_t term, int64_t n, const float *w, const float *log_sigma2, double *block_sums) {
    return kl_pass(term, VALUE, n, w, log_sigma2, 0, 0, 0, block_sums);
}

/* `grad` times the gradients of the KL. */
int kl_grad(int64_t term, int64_t n, const float *w, const float *log_sigma2, const float *grad,
            float *by_w, float *by_log_sigma2) {
    return kl_pass(term, SLOPES, n, w, log_sigma2, *grad, by_w, by_log_sigma2, 0);
}

/* Value and gradients in one pass. The gradients, times `grad`, are added to by_w and
 * by_log_sigma2; block_sums (blocks, 3) receives the KL, and the sums of squares of both gradients
 * after the addition. */
int kl_value_grad(int64_t term, int64_t n, const float *w, const float *log_sigma2,
                  const float *grad, float *by_w, float *by_log_sigma2, double *block_sums) {
    return kl_pass(term, ADDED, n, w, log_sigma2, *grad, by_w, by_log_sigma2, block_sums);
}
