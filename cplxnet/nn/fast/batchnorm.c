/* Complex batch normalisation (nn/whitening.py, fast/batchnorm.py), with ReLU and pooling in the
 * same pass if asked.
 *
 * x, y, g: (n, c) complex numbers as (n, c, 2) floats. A real 2x2 matrix of each channel is a map
 * (2, c, 2): the diagonal first (M_00, M_11), then the off-diagonal (M_01, M_10). Sums over rows go
 * to block_sums[block][column]; the caller adds the blocks in order.
 */
#include "shared.h"

/* What follows y = M x + s in the same pass: nothing; the split ReLU; or ReLU and the average of
 * two neighbours along the `length` rows of a sample, where an odd last row is left out. */
enum tail { AFFINE, RELU, RELU_POOL };

static inline int is_tail(int64_t code) {
    return AFFINE <= code && code <= RELU_POOL;
}

/* y[k] = same[k] x[k] + other[k] x[partner of k] + shift[k] for a row of pairs. */
struct map {
    const float *same;
    const float *other;
    const float *shift;
};

/* The map of the columns from `from` on: m is (2, c, 2) and s is (c, 2). */
static inline struct map map_of(int64_t c, int64_t from, const float *m, const float *s) {
    return (struct map){m + from, m + 2 * c + from, s + from};
}

/* y[k] from x[k] and its partner. */
ALWAYS_INLINE float mapped(const struct map f, int64_t k, float x, float partner) {
    return f.same[k] * x + f.other[k] * partner + f.shift[k];
}

/* ---- sums of x ------------------------------------------------------------------------------- */

/* Sums over the rows of each block, to block_sums (blocks, c, 2). */
int column_sums(int64_t n, int64_t c, int64_t rows, const float *restrict x,
                float *restrict block_sums) {
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < (n + rows - 1) / rows; b++) {
        int64_t end = smaller((b + 1) * rows, n);
        float *restrict sum = block_sums + b * 2 * c;
        for (int64_t k = 0; k < 2 * c; k++)
            sum[k] = 0;
        for (int64_t r = b * rows; r < end; r++)
            for (int64_t k = 0; k < 2 * c; k++)
                sum[k] += x[r * 2 * c + k];
    }
    return OK;
}

/* ---- forward: y = M x + s and its tail ------------------------------------------------------- */

static inline float rectified(float x) {
    return x < 0 ? 0 : x; /* keeps a NaN */
}

/* Row r of the result. `tail` is a constant in each call, so that the loop vectorises. */
ALWAYS_INLINE void affine_row(enum tail tail, int64_t r, int64_t c, int64_t length, const float *x,
                              const struct map f, float *y) {
    const int64_t first = tail == RELU_POOL ? r / (length / 2) * length + r % (length / 2) * 2 : r;
    const float *z = x + first * 2 * c;
    const float *next = z + 2 * c;
    float *o = y + r * 2 * c;
#pragma GCC ivdep
    for (int64_t k = 0; k < 2 * c; k += 2) {
        float re = mapped(f, k, z[k], z[k + 1]);
        float im = mapped(f, k + 1, z[k + 1], z[k]);
        if (tail != AFFINE) {
            re = rectified(re);
            im = rectified(im);
        }
        if (tail == RELU_POOL) {
            re = 0.5f * (re + rectified(mapped(f, k, next[k], next[k + 1])));
            im = 0.5f * (im + rectified(mapped(f, k + 1, next[k + 1], next[k])));
        }
        o[k] = re;
        o[k + 1] = im;
    }
}

/* n rows of the result. */
int affine_pairs(int64_t tail, int64_t n, int64_t c, int64_t length, const float *x, const float *m,
                 const float *s, float *y) {
    if (!is_tail(tail))
        return REFUSED;

    const struct map f = map_of(c, 0, m, s);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
        switch ((enum tail)tail) {
            case AFFINE:
                affine_row(AFFINE, r, c, length, x, f, y);
                break;
            case RELU:
                affine_row(RELU, r, c, length, x, f, y);
                break;
            case RELU_POOL:
                affine_row(RELU_POOL, r, c, length, x, f, y);
                break;
        }
    return OK;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* floats of a row taken at a time, in arrays that the compiler sees do not overlap */
#define TILE 256

/* Backward through ReLU and pooling, from dL/d(output) g to dL/d(M x + s): `width` columns from
 * `from` on of row r. z points to those of x, and f is the map there. Returns a pointer into g if
 * there is no tail, else `out`. */
ALWAYS_INLINE const float *before_tail(enum tail tail, int64_t r, int64_t c, int64_t length,
                                       int64_t from, int64_t width, const float *g, const float *z,
                                       const struct map f, float *out) {
    if (tail == AFFINE)
        return g + r * 2 * c + from;

    const int64_t pair = r % length / 2;
    if (tail == RELU_POOL && pair >= length / 2) {
        for (int64_t k = 0; k < width; k++)
            out[k] = 0;
        return out;
    }

    const float *u = g + (tail == RELU_POOL ? r / length * (length / 2) + pair : r) * 2 * c + from;
    const float share = tail == RELU_POOL ? 0.5f : 1.0f;
#pragma GCC ivdep
    for (int64_t k = 0; k < width; k += 2) {
        float re = mapped(f, k, z[k], z[k + 1]);
        float im = mapped(f, k + 1, z[k + 1], z[k]);
        float g_re = share * u[k];
        float g_im = share * u[k + 1];
        out[k] = re <= 0 ? 0 : g_re;
        out[k + 1] = im <= 0 ? 0 : g_im;
    }
    return out;
}

/* pair_sums over the rows from lo to hi, to sums (3, c, 2). */
ALWAYS_INLINE void pair_sums_of(enum tail tail, int64_t lo, int64_t hi, int64_t c, int64_t length,
                                const float *g, const float *g_mean, const float *x,
                                const float *mean, const float *m, const float *s, float *sums) {
    for (int64_t from = 0; from < 2 * c; from += TILE) {
        float plain[TILE] = {0};
        float same[TILE] = {0};
        float across[TILE] = {0};
        float upstream[TILE];
        float *out = sums + from;
        const int64_t width = smaller(2 * c - from, TILE);
        const float *a = mean + from;
        const float *b = g_mean + from;
        const struct map f = map_of(c, from, m, s);
        for (int64_t r = lo; r < hi; r++) {
            const float *z = x + r * 2 * c + from;
            const float *u = before_tail(tail, r, c, length, from, width, g, z, f, upstream);
            for (int64_t k = 0; k < width; k += 2) {
                float re = z[k] - a[k];
                float im = z[k + 1] - a[k + 1];
                float g_re = u[k] - b[k];
                float g_im = u[k + 1] - b[k + 1];
                plain[k] += g_re;
                plain[k + 1] += g_im;
                same[k] += g_re * re;
                same[k + 1] += g_im * im;
                across[k] += g_re * im;
                across[k + 1] += g_im * re;
            }
        }
        for (int64_t k = 0; k < width; k++) {
            out[k] = plain[k];
            out[2 * c + k] = same[k];
            out[4 * c + k] = across[k];
        }
    }
}

/* Sums over rows of g' = (g'_re, g'_im), of (g'_re x'_re, g'_im x'_im) and of (g'_re x'_im, g'_im
 * x'_re), to block_sums (blocks, 3, c, 2). g' = dL/d(M x + s) - g_mean, from the gradient g after
 * the tail, and x' = x - mean. */
int pair_sums(int64_t tail, int64_t n, int64_t c, int64_t length, int64_t rows, const float *g,
              const float *g_mean, const float *x, const float *mean, const float *m,
              const float *s, float *block_sums) {
    if (!is_tail(tail))
        return REFUSED;

#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < (n + rows - 1) / rows; b++) {
        int64_t lo = b * rows;
        int64_t hi = smaller(lo + rows, n);
        float *sums = block_sums + b * 6 * c;
        switch ((enum tail)tail) {
            case AFFINE:
                pair_sums_of(AFFINE, lo, hi, c, length, g, g_mean, x, mean, m, s, sums);
                break;
            case RELU:
                pair_sums_of(RELU, lo, hi, c, length, g, g_mean, x, mean, m, s, sums);
                break;
            case RELU_POOL:
                pair_sums_of(RELU_POOL, lo, hi, c, length, g, g_mean, x, mean, m, s, sums);
                break;
        }
    }
    return OK;
}

/* Not inline: where the compiler knows that these pointers are sums, it does not see that their
 * elements are neighbours. `mapped` is written out: as a call the compiler adds the last columns in
 * another order, with other last bits. */
static __attribute__((noinline)) void map_row(int64_t width, const struct map f,
                                              const float *restrict x, float *restrict y) {
#pragma GCC ivdep
    for (int64_t k = 0; k < width; k += 2) {
        y[k] = f.same[k] * x[k] + f.other[k] * x[k + 1] + f.shift[k];
        y[k + 1] = f.same[k + 1] * x[k + 1] + f.other[k + 1] * x[k] + f.shift[k + 1];
    }
}

ALWAYS_INLINE void affine_two_of(enum tail tail, int64_t r, int64_t c, int64_t length,
                                 const float *g, const float *back, const float *x,
                                 const float *around, const float *shift, const float *m,
                                 const float *s, float *dx) {
    for (int64_t from = 0; from < 2 * c; from += TILE) {
        float upstream[TILE];
        float mapped[TILE];
        float *o = dx + r * 2 * c + from;
        const int64_t width = smaller(2 * c - from, TILE);
        const float *z = x + r * 2 * c + from;
        const float *u =
            before_tail(tail, r, c, length, from, width, g, z, map_of(c, from, m, s), upstream);
        const struct map by_g = map_of(c, from, back, shift);
        const struct map by_x = {around + from, around + 2 * c + from, mapped};
        map_row(width, by_g, u, mapped);
        map_row(width, by_x, z, o);
    }
}

/* dx = B dL/d(M x + s) + A x + t, from the gradient g after the tail. The maps `back` (B), `around`
 * (A) and m are (2, c, 2), the shifts `shift` (t) and s are (c, 2). */
int affine_two(int64_t tail, int64_t n, int64_t c, int64_t length, const float *g,
               const float *back, const float *x, const float *around, const float *shift,
               const float *m, const float *s, float *dx) {
    if (!is_tail(tail))
        return REFUSED;

#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < n; r++)
        switch ((enum tail)tail) {
            case AFFINE:
                affine_two_of(AFFINE, r, c, length, g, back, x, around, shift, m, s, dx);
                break;
            case RELU:
                affine_two_of(RELU, r, c, length, g, back, x, around, shift, m, s, dx);
                break;
            case RELU_POOL:
                affine_two_of(RELU_POOL, r, c, length, g, back, x, around, shift, m, s, dx);
                break;
        }
    return OK;
}

/* ---- 2x2 algebra of each channel, in double -------------------------------------------------- */

/* R = (V + eps I)^(-1/2) for V + eps I = [[a, b], [b, d]], and the steps to it; see
 * whitening.inverse_root. */
struct root {
    double a, b, d;
    double s, t;
    double r00, r01, r11;
    int guarded;
};

static struct root inverse_root(double v00, double v01, double v11, double eps) {
    struct root f = {.a = v00 + eps, .b = v01, .d = v11 + eps};
    double det = f.a * f.d - f.b * f.b;
    double least = eps * (f.a + f.d - eps);
    f.guarded = det < least;
    f.s = sqrt(f.guarded ? least : det);
    f.t = sqrt(f.a + f.d + 2 * f.s);
    f.r00 = (f.d + f.s) / (f.s * f.t);
    f.r11 = (f.a + f.s) / (f.s * f.t);
    f.r01 = -f.b / (f.s * f.t);
    return f;
}

/* The scale matrix W of channel k, I/sqrt(2) if `weight` is null, and M = W R; both row by row. */
static void scaled(int64_t c, int64_t k, const float *weight, const struct root f, double *w,
                   double *m) {
    for (int i = 0; i < 4; i++)
        w[i] = weight ? weight[i * c + k] : i % 3 ? 0 : 0.70710678118654752;
    m[0] = w[0] * f.r00 + w[1] * f.r01;
    m[1] = w[0] * f.r01 + w[1] * f.r11;
    m[2] = w[2] * f.r00 + w[3] * f.r01;
    m[3] = w[2] * f.r01 + w[3] * f.r11;
}

/* Write the matrix of channel k into a map (2, c, 2). */
static inline void put(int64_t c, int64_t k, double m00, double m01, double m10, double m11,
                       float *map) {
    map[2 * k] = m00;
    map[2 * k + 1] = m11;
    map[2 * (c + k)] = m01;
    map[2 * (c + k) + 1] = m10;
}

/* M = W R to the map m, and s = b - M mean (c, 2). `cov` and `weight` are (2, 2, c), `mean` is (c,
 * 2), `bias` (2, c); `weight` and `bias` may be null. */
int whitening_map(int64_t c, const float *mean, const float *cov, const float *weight,
                  const float *bias, float eps, float *m, float *s) {
    for (int64_t k = 0; k < c; k++) {
        struct root f = inverse_root(cov[k], cov[c + k], cov[3 * c + k], eps);
        double w[4], wr[4];
        double re = mean[2 * k];
        double im = mean[2 * k + 1];
        scaled(c, k, weight, f, w, wr);
        put(c, k, wr[0], wr[1], wr[2], wr[3], m);
        s[2 * k] = (bias ? bias[k] : 0) - (wr[0] * re + wr[1] * im);
        s[2 * k + 1] = (bias ? bias[c + k] : 0) - (wr[2] * re + wr[3] * im);
    }
    return OK;
}

/* From `sums` (3, c, 2) of pair_sums: the gradients by W (2, 2, c) and by b (2, c), and dx = B g +
 * A x + t with the maps B = M^T and A = (gV + gV^T)/n and t (c, 2), as whitening.py has it. */
int whitening_gradient(int64_t c, int64_t n, const double *sums, const float *mean,
                       const float *cov, const float *weight, float eps, float *by_weight,
                       float *by_bias, float *back, float *around, float *shift) {
    for (int64_t k = 0; k < c; k++) {
        struct root f = inverse_root(cov[k], cov[c + k], cov[3 * c + k], eps);
        double w[4], m[4];
        scaled(c, k, weight, f, w, m);

        double re = sums[2 * k];
        double im = sums[2 * k + 1];
        by_bias[k] = re;
        by_bias[c + k] = im;

        /* g = dL/dM, row by row; then dL/dW = g R^T */
        double g[4] = {sums[2 * (c + k)], sums[2 * (2 * c + k)], sums[2 * (2 * c + k) + 1],
                       sums[2 * (c + k) + 1]};
        by_weight[k] = g[0] * f.r00 + g[1] * f.r01;
        by_weight[c + k] = g[0] * f.r01 + g[1] * f.r11;
        by_weight[2 * c + k] = g[2] * f.r00 + g[3] * f.r01;
        by_weight[3 * c + k] = g[2] * f.r01 + g[3] * f.r11;

        /* dL/dR = W^T g, then the steps of inverse_root from the last to the first */
        double g00 = w[0] * g[0] + w[2] * g[2];
        double g11 = w[1] * g[1] + w[3] * g[3];
        double g01 = w[0] * g[1] + w[2] * g[3] + w[1] * g[0] + w[3] * g[2];
        double q = f.s * f.t;
        double by_q = -(g00 * f.r00 + g01 * f.r01 + g11 * f.r11) / q;
        double by_t = by_q * f.s;
        double by_s = (g00 + g11) / q + by_q * f.t + by_t / f.t;
        double by_det = by_s / (2 * f.s);
        double by_a = g11 / q + by_t / (2 * f.t) + by_det * (f.guarded ? eps : f.d);
        double by_d = g00 / q + by_t / (2 * f.t) + by_det * (f.guarded ? eps : f.a);
        double by_b = -g01 / q - (f.guarded ? 0 : 2 * f.b * by_det);

        double a00 = 2 * by_a / n;
        double a01 = by_b / n;
        double a11 = 2 * by_d / n;
        double mean_re = mean[2 * k];
        double mean_im = mean[2 * k + 1];
        put(c, k, m[0], m[2], m[1], m[3], back);
        put(c, k, a00, a01, a01, a11, around);
        shift[2 * k] = -(m[0] * re + m[2] * im) / n - (a00 * mean_re + a01 * mean_im);
        shift[2 * k + 1] = -(m[1] * re + m[3] * im) / n - (a01 * mean_re + a11 * mean_im);
    }
    return OK;
}
