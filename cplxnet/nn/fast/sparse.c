/* Sparse stages of a compact network (compaction/backends.py):
 *
 *     z[b, r, j] = bias[r] + sum over k in [start[r], start[r + 1]) of
 *                  value[k] x[b, channel[k] * pitch + tap[k] + j]
 *
 * for j < length, then ReLU and pooling along j. A weight is loaded once for up to 64 outputs,
 * which stay in registers (direct sparse convolution: Park et al. 2017, "Faster CNNs with Direct
 * Sparse Convolutions and Guided Pruning").
 */
#include "shared.h"

#define WIDE 8 /* floats in a vector: one AVX2 register; other processors take it in pieces */
typedef float vec __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

struct sparse {
    const int32_t *channel;
    const int32_t *tap;
    const float *value;
};

/* n vectors of outputs at j = 0, 8, ..., the last at `last`, where it may overlap another. */
ALWAYS_INLINE void tile(int n, int64_t last, const struct sparse w, int64_t from, int64_t to,
                        const float *x, int64_t pitch, float bias, float *z) {
    vec sum[8];
#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        sum[t] = (vec){0} + bias;

    for (int64_t k = from; k < to; k++) {
        const float *in = x + w.channel[k] * pitch + w.tap[k];
        const float v = w.value[k];
#pragma GCC unroll 8
        for (int t = 0; t < n; t++)
            sum[t] += v * *(const vec *)(in + (t < n - 1 ? t * WIDE : last));
    }

#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        *(vec *)(z + (t < n - 1 ? t * WIDE : last)) = sum[t];
}

/* One row of outputs, before ReLU and pooling. */
static void sparse_row(int64_t length, const struct sparse w, int64_t from, int64_t to,
                       const float *x, int64_t pitch, float bias, float *z) {
    if (length < WIDE) {
        for (int64_t j = 0; j < length; j++) {
            float sum = 0;
            for (int64_t k = from; k < to; k++)
                sum += w.value[k] * x[w.channel[k] * pitch + w.tap[k] + j];
            z[j] = bias + sum;
        }
        return;
    }

    for (int64_t j = 0; j < length; j += 8 * WIDE) {
        int64_t left = smaller(length - j, 8 * WIDE);
        int64_t back = 0;
        if (left < WIDE) { /* fewer than a vector: compute some outputs again */
            back = WIDE - left;
            left = WIDE;
        }
        const int64_t n = (left + WIDE - 1) / WIDE;
        const int64_t last = left - WIDE;
        const float *in = x + j - back;
        float *out = z + j - back;
        switch (n) { /* from 1 to 8 */
            case 1:
                tile(1, last, w, from, to, in, pitch, bias, out);
                break;
            case 2:
                tile(2, last, w, from, to, in, pitch, bias, out);
                break;
            case 3:
                tile(3, last, w, from, to, in, pitch, bias, out);
                break;
            case 4:
                tile(4, last, w, from, to, in, pitch, bias, out);
                break;
            case 5:
                tile(5, last, w, from, to, in, pitch, bias, out);
                break;
            case 6:
                tile(6, last, w, from, to, in, pitch, bias, out);
                break;
            case 7:
                tile(7, last, w, from, to, in, pitch, bias, out);
                break;
            case 8:
                tile(8, last, w, from, to, in, pitch, bias, out);
                break;
        }
    }
}

enum pool { POOL_NONE, POOL_AVERAGE, POOL_MAXIMUM }; /* the numbers in backends.py */

static void pool_row(enum pool pool, int64_t size, int64_t stride, int64_t out_length,
                     const float *z, float *y) {
    for (int64_t j = 0; j < out_length; j++) {
        const float *in = z + j * stride;
        float pooled = in[0];
        for (int64_t s = 1; s < size; s++)
            pooled = pool == POOL_AVERAGE ? pooled + in[s] : (in[s] <= pooled ? pooled : in[s]);
        y[j] = pool == POOL_AVERAGE ? pooled / size : pooled;
    }
}

/* outputs of a row that is pooled: they lie on the stack until then; also in backends.py */
#define LONGEST 16384

/* x is (batch, sample), y is (batch, rows, out_length). `per_block` rows are a thread's share at a
 * time. */
int sparse_rows(int64_t batch, int64_t rows, int64_t length, int64_t sample, int64_t pitch,
                const float *x, const int32_t *start, const int32_t *channel, const int32_t *tap,
                const float *value, const float *bias, int64_t relu, int64_t pool, int64_t size,
                int64_t stride, int64_t out_length, int64_t per_block, float *y) {
    if (pool < POOL_NONE || pool > POOL_MAXIMUM || (pool != POOL_NONE && length > LONGEST))
        return REFUSED;

    const struct sparse w = {channel, tap, value};
    int64_t blocks = (rows + per_block - 1) / per_block;
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t block = 0; block < blocks; block++) {
            float scratch[LONGEST];
            int64_t end = smaller((block + 1) * per_block, rows);
            for (int64_t r = block * per_block; r < end; r++) {
                float *out = y + (b * rows + r) * out_length;
                float *z = pool == POOL_NONE ? out : scratch;
                sparse_row(length, w, start[r], start[r + 1], x + b * sample, pitch, bias[r], z);
                if (relu)
                    for (int64_t j = 0; j < length; j++)
                        z[j] = z[j] < 0 ? 0 : z[j]; /* keeps a NaN */
                if (pool != POOL_NONE)
                    pool_row((enum pool)pool, size, stride, out_length, z, out);
            }
        }
    return OK;
}
