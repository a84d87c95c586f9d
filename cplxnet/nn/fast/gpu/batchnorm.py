"""Complex batch normalisation, with the split ReLU and average pooling after it, and its gradient.

    y = pool(relu(M (x - m) + b)),   M = W (V + eps I)^(-1/2)

m and V are the mean and covariance of (real, imaginary) over the N rows of a channel.
`whitening.py` has the plain formula, the gradient and the references. Activations lie in memory as
(B, L, C, 2), channels last, parts together.

Passes over x: moments, then the map (2x2 algebra of each channel, in float64), then y. Backward:
sums of g and g x'^T (g before the tail is made again from x), the gradient's map, then dx. Each
program of a sum writes its own row of `partial`, and these rows are added in order: the same bits
whatever the timing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv, next_power_of_2

from .launch import kernel_op, launch

_PROGRAMS = 512  # programs that share a sum: about four for each multiprocessor of an H100
# complex numbers that a program holds at a time, forward and backward
_TILE = 1024
_GRAD_TILE = 512
_MAP = {"BLOCK_C": 4, "num_warps": 8}  # programs of the 2x2 algebra


# ---- pairs in registers --------------------------------------------------------------------------


@triton.jit
def _place(rows, row_ok, c, BLOCK_C: tl.constexpr):
    """Offsets of these rows of an (N, C, 2) array, this program's channels; which are there."""
    cols = tl.program_id(1) * 2 * BLOCK_C + tl.arange(0, 2 * BLOCK_C)
    return rows[:, None] * (2 * c) + cols[None, :], row_ok[:, None] & (cols < 2 * c)[None, :]


@triton.jit
def _load_pairs(base, rows, row_ok, c, BLOCK_C: tl.constexpr):
    """(re, im), each (rows, BLOCK_C), of `rows` of an (N, C, 2) array; 0 outside.

    Loads are contiguous.
    """
    at, inside = _place(rows, row_ok, c, BLOCK_C)
    values = tl.load(base + at, mask=inside, other=0.0)
    return tl.split(tl.reshape(values, (rows.shape[0], BLOCK_C, 2)))


@triton.jit
def _store_pairs(base, rows, row_ok, c, re, im, BLOCK_C: tl.constexpr):
    at, inside = _place(rows, row_ok, c, BLOCK_C)
    values = tl.reshape(tl.join(re, im), (rows.shape[0], 2 * BLOCK_C))
    tl.store(base + at, values, mask=inside)


@triton.jit
def _load_rows(base, c, channels, COUNT: tl.constexpr, DTYPE: tl.constexpr = tl.float32):
    """The rows of an array (COUNT, C) for some channels; 0 outside."""
    rows = ()
    for k in tl.static_range(COUNT):
        row = tl.load(base + k * c + channels, mask=channels < c, other=0.0)
        rows += (row.to(DTYPE),)  # type: ignore[assignment]
    return rows


@triton.jit
def _load_partial(partial, c, channels, n, COUNT: tl.constexpr, BLOCK_P: tl.constexpr):
    """The rows of n arrays (COUNT, C) for some channels, each (BLOCK_P, channels), in float64."""
    p = tl.arange(0, BLOCK_P).to(tl.int64)
    inside = (p < n)[:, None] & (channels < c)[None, :]
    at = partial + p[:, None] * COUNT * c + channels[None, :]
    rows = ()
    for k in tl.static_range(COUNT):
        row = tl.load(at + k * c, mask=inside, other=0.0)
        rows += (row.to(tl.float64),)  # type: ignore[assignment]
    return rows


@triton.jit
def _store_rows(base, c, channels, rows):
    """Write the rows of an array (len(rows), C) for some channels."""
    for k in tl.static_range(len(rows)):
        tl.store(base + k * c + channels, rows[k].to(tl.float32), mask=channels < c)


@triton.jit
def _mapped(by, re, im):
    """M x + s by a map: m00, m01, m10, m11, s0, s1."""
    m00, m01, m10, m11, s0, s1 = by
    return m00 * re + m01 * im + s0, m10 * re + m11 * im + s1


@triton.jit
def _plus(sums, terms):
    """The sums with a term added to each."""
    added = ()
    for k in tl.static_range(len(sums)):
        added += (sums[k] + terms[k],)
    return added


@triton.jit
def _channels(BLOCK_C: tl.constexpr):
    """The channels (BLOCK_C) of this program."""
    return tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)


# ---- forward -------------------------------------------------------------------------------------


@triton.jit
def _moments_kernel(x, partial, n, c, rows_each, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):
    """Mean (re, im) and centred sums (re re, im im, re im) of this program's rows.

    They are its row of partial (programs, 5, C).
    """
    program = tl.program_id(0).to(tl.int64)
    first = program * rows_each
    last = tl.minimum(first + rows_each, n)
    channels = _channels(BLOCK_C)
    lanes = tl.arange(0, BLOCK_N)

    # Sums of x - pivot, the pivot a row of these: E x^2 - (E x)^2 alone would cancel.
    pivot_re = tl.load(x + first * 2 * c + 2 * channels, mask=channels < c, other=0.0)[None, :]
    pivot_im = tl.load(x + first * 2 * c + 2 * channels + 1, mask=channels < c, other=0.0)[None, :]

    sums = (tl.zeros((BLOCK_N, BLOCK_C), tl.float32),) * 5
    for start in range(first, last, BLOCK_N):
        rows = start + lanes
        ok = rows < last
        re, im = _load_pairs(x, rows, ok, c, BLOCK_C)
        re = tl.where(ok[:, None], re - pivot_re, 0.0)
        im = tl.where(ok[:, None], im - pivot_im, 0.0)
        sums = _plus(sums, (re, im, re * re, im * im, re * im))

    count = (last - first).to(tl.float32)
    re, im, rr, ii, ri = [tl.sum(s, 0) for s in sums]

    means = (tl.sum(pivot_re, 0) + re / count, tl.sum(pivot_im, 0) + im / count)
    squares = (rr - re * re / count, ii - im * im / count)
    product = ri - re * im / count
    _store_rows(partial + program * 5 * c, c, channels, means + squares + (product,))


@triton.jit
def _inverse_root(v00, v01, v11, eps):
    """(V + eps I)^(-1/2) and what it is made of, float64: see `whitening.inverse_root`."""
    a = v00 + eps
    d = v11 + eps
    det = a * d - v01 * v01
    least = eps * (a + d - eps)
    guarded = det < least
    s = tl.sqrt(tl.where(guarded, least, det))
    t = tl.sqrt(a + d + 2 * s)
    root = ((d + s) / (s * t), -v01 / (s * t), (a + s) / (s * t))
    return a, v01, d, s, t, guarded, root


@triton.jit
def _load_weight(weight, c, channels):
    """W of some channels in float64; I/sqrt(2) where there is none."""
    if weight is not None:
        return _load_rows(weight, c, channels, 4, tl.float64)

    zero = tl.zeros_like(channels).to(tl.float64)
    root = zero + 0.70710678118654752
    return root, zero, zero, root


@triton.jit
def _times(matrix, root):
    """A general matrix, row by row, times a symmetric one (r00, r01, r11)."""
    m00, m01, m10, m11 = matrix
    r00, r01, r11 = root
    return (
        m00 * r00 + m01 * r01,
        m00 * r01 + m01 * r11,
        m10 * r00 + m11 * r01,
        m10 * r01 + m11 * r11,
    )


@triton.jit
def _move_rows(base, c, channels, rate, rows):
    """old + rate (new - old) in the place of each row of an array (len(rows), C)."""
    old = _load_rows(base, c, channels, len(rows), tl.float64)
    moved = ()
    for k in tl.static_range(len(rows)):
        moved += (old[k] + rate * (rows[k] - old[k]),)
    _store_rows(base, c, channels, moved)


@triton.jit
def _map_kernel(
    partial, weight, bias, mean, cov, affine, running_mean, running_var, n_tracked,
    n, c, rows_each, n_partial, eps, momentum,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean (2, C), covariance (2, 2, C) and the map (6, C) from the partial moments.

    The running statistics are updated too.
    """
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)

    parts = _load_partial(partial, c, channels, n_partial, 5, BLOCK_P)
    part_re, part_im, part_rr, part_ii, part_ri = parts
    first = tl.arange(0, BLOCK_P).to(tl.int64) * rows_each
    count = tl.maximum(tl.minimum(rows_each, n - first), 0).to(tl.float64)[:, None]

    size = n.to(tl.float64)
    mean_re = tl.sum(count * part_re, 0) / size
    mean_im = tl.sum(count * part_im, 0) / size

    # Chan, Golub and LeVeque 1983: the centred sums of the parts, plus what their means differ from
    # the mean of the whole.
    d_re = part_re - mean_re[None, :]
    d_im = part_im - mean_im[None, :]
    v00 = tl.sum(part_rr + count * d_re * d_re, 0) / size
    v11 = tl.sum(part_ii + count * d_im * d_im, 0) / size
    v01 = tl.sum(part_ri + count * d_re * d_im, 0) / size

    _store_rows(mean, c, channels, (mean_re, mean_im))
    _store_rows(cov, c, channels, (v00, v01, v01, v11))

    # M = W (V + eps I)^(-1/2), s = b - M m
    _, _, _, _, _, _, root = _inverse_root(v00, v01, v11, eps)
    m00, m01, m10, m11 = _times(_load_weight(weight, c, channels), root)
    s0 = -(m00 * mean_re + m01 * mean_im)
    s1 = -(m10 * mean_re + m11 * mean_im)
    if bias is not None:
        b0, b1 = _load_rows(bias, c, channels, 2, tl.float64)
        s0 += b0
        s1 += b1
    _store_rows(affine, c, channels, (m00, m01, m10, m11, s0, s1))

    if running_mean is not None:  # the covariance unbiased
        if momentum is None:
            rate = 1.0 / (tl.load(n_tracked) + 1).to(tl.float64)
        else:
            rate = tl.zeros_like(mean_re) + momentum

        unbiased = size / (size - 1)
        v = (unbiased * v00, unbiased * v01, unbiased * v01, unbiased * v11)
        _move_rows(running_mean, c, channels, rate, (mean_re, mean_im))
        _move_rows(running_var, c, channels, rate, v)


@triton.jit
def _activated(x, rows, ok, c, by, RELU: tl.constexpr, BLOCK_C: tl.constexpr):
    """M x + s and the split ReLU of some rows."""
    re, im = _load_pairs(x, rows, ok, c, BLOCK_C)
    re, im = _mapped(by, re, im)
    if RELU:  # keeps a NaN, which a maximum may drop
        re = tl.where(re < 0, 0.0, re)
        im = tl.where(im < 0, 0.0, im)
    return re, im


@triton.jit
def _apply_kernel(
    x, affine, y, n_tracked, n_out, c, length,
    RELU: tl.constexpr, POOL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y = M x + s and its tail, a tile of output rows.

    The number of batches is counted here, after it was read.
    """
    if n_tracked is not None and tl.program_id(0) + tl.program_id(1) == 0:
        tl.store(n_tracked, tl.load(n_tracked) + 1)

    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = _channels(BLOCK_C)
    ok = rows < n_out
    by = _load_rows(affine, c, channels[None, :], 6)

    source = rows
    if POOL:  # output row k of a sample is the mean of its input rows 2k and 2k + 1
        half = length // 2
        source = (rows // half) * length + (rows % half) * 2

    re, im = _activated(x, source, ok, c, by, RELU, BLOCK_C)
    if POOL:
        next_re, next_im = _activated(x, source + 1, ok, c, by, RELU, BLOCK_C)
        re = 0.5 * (re + next_re)
        im = 0.5 * (im + next_im)

    _store_pairs(y, rows, ok, c, re, im, BLOCK_C)


# ---- backward ------------------------------------------------------------------------------------


@triton.jit
def _with_gradient(
    x, grad, rows, ok, c, length, by, RELU: tl.constexpr, POOL: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Rows of x, and dL/d(M x + s) there from dL/dy: through pooling and the split ReLU.

    An odd last row has no output of the pooling.
    """
    re, im = _load_pairs(x, rows, ok, c, BLOCK_C)
    if POOL:
        half = length // 2
        pair = (rows % length) // 2
        ok = ok & (pair < half)
        rows = (rows // length) * half + pair

    g_re, g_im = _load_pairs(grad, rows, ok, c, BLOCK_C)
    if POOL:
        g_re = 0.5 * g_re
        g_im = 0.5 * g_im

    if RELU:
        y_re, y_im = _mapped(by, re, im)
        g_re = tl.where(y_re > 0, g_re, 0.0)
        g_im = tl.where(y_im > 0, g_im, 0.0)

    return re, im, g_re, g_im


@triton.jit
def _gradient_sums_kernel(
    grad, x, mean, affine, partial, n, c, rows_each, length,
    RELU: tl.constexpr, POOL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of g_re, g_im and of g_i x'_j (00, 01, 10, 11) over this program's rows.

    They are its row of partial (programs, 6, C).
    """
    program = tl.program_id(0).to(tl.int64)
    first = program * rows_each
    last = tl.minimum(first + rows_each, n)
    channels = _channels(BLOCK_C)
    lanes = tl.arange(0, BLOCK_N)

    by = _load_rows(affine, c, channels[None, :], 6)
    mean_re, mean_im = _load_rows(mean, c, channels[None, :], 2)

    sums = (tl.zeros((BLOCK_N, BLOCK_C), tl.float32),) * 6
    for start in range(first, last, BLOCK_N):
        rows = start + lanes
        ok = rows < last
        values = _with_gradient(x, grad, rows, ok, c, length, by, RELU, POOL, BLOCK_C)
        re, im, g_re, g_im = values

        re -= mean_re
        im -= mean_im
        sums = _plus(sums, (g_re, g_im, g_re * re, g_re * im, g_im * re, g_im * im))

    _store_rows(partial + program * 6 * c, c, channels, [tl.sum(s, 0) for s in sums])


@triton.jit
def _gradient_map_kernel(
    partial, mean, cov, weight, by_weight, by_bias, back,
    n, c, n_partial, eps, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of W and b, and the map of dx = M^T g + A x + t.

    back (9, C) holds M^T (4), t (2), A (3).
    """
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)

    parts = _load_partial(partial, c, channels, n_partial, 6, BLOCK_P)
    re, im, g00, g01, g10, g11 = [tl.sum(part, 0) for part in parts]

    mean_re, mean_im = _load_rows(mean, c, channels, 2, tl.float64)
    v00, v01, _, v11 = _load_rows(cov, c, channels, 4, tl.float64)
    a, b, d, s, t, guarded, root = _inverse_root(v00, v01, v11, eps)
    r00, r01, r11 = root
    w = _load_weight(weight, c, channels)
    w00, w01, w10, w11 = w

    _store_rows(by_bias, c, channels, (re, im))
    _store_rows(by_weight, c, channels, _times((g00, g01, g10, g11), root))

    # by R = W^T g, then by the steps of `_inverse_root` from the last to the first
    h00 = w00 * g00 + w10 * g10
    h11 = w01 * g01 + w11 * g11
    h01 = w00 * g01 + w10 * g11 + w01 * g00 + w11 * g10

    q = s * t
    by_q = -(h00 * r00 + h01 * r01 + h11 * r11) / q
    by_t = by_q * s
    by_s = (h00 + h11) / q + by_q * t + by_t / t
    by_det = by_s / (2 * s)
    by_a = h11 / q + by_t / (2 * t) + by_det * tl.where(guarded, eps, d)
    by_d = h00 / q + by_t / (2 * t) + by_det * tl.where(guarded, eps, a)
    by_b = -h01 / q - tl.where(guarded, 0.0, 2 * b * by_det)

    size = n.to(tl.float64)
    a00 = 2 * by_a / size
    a01 = by_b / size
    a11 = 2 * by_d / size

    m00, m01, m10, m11 = _times(w, root)
    t0 = -(m00 * re + m10 * im) / size - (a00 * mean_re + a01 * mean_im)
    t1 = -(m01 * re + m11 * im) / size - (a01 * mean_re + a11 * mean_im)
    _store_rows(back, c, channels, (m00, m10, m01, m11, t0, t1, a00, a01, a11))


@triton.jit
def _gradient_kernel(
    grad, x, affine, back, dx, n, c, length,
    RELU: tl.constexpr, POOL: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dx = M^T g + A x + t, a tile of rows."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    channels = _channels(BLOCK_C)
    ok = rows < n
    by = _load_rows(affine, c, channels[None, :], 6)
    values = _with_gradient(x, grad, rows, ok, c, length, by, RELU, POOL, BLOCK_C)
    re, im, g_re, g_im = values

    b00, b01, b10, b11, t0, t1, a00, a01, a11 = _load_rows(back, c, channels[None, :], 9)
    d_re = b00 * g_re + b01 * g_im + a00 * re + a01 * im + t0
    d_im = b10 * g_re + b11 * g_im + a01 * re + a11 * im + t1

    _store_pairs(dx, rows, ok, c, d_re, d_im, BLOCK_C)


# ---- operators -----------------------------------------------------------------------------------


def _tiles(n: int, c: int, size: int) -> tuple[dict[str, int], tuple[int, int]]:
    """Rows and channels of a tile of so many numbers, and how many tiles cover (n, C)."""
    block_c = min(next_power_of_2(c), 64)
    block_n = size // block_c
    return {"BLOCK_N": block_n, "BLOCK_C": block_c}, (cdiv(n, block_n), cdiv(c, block_c))


def _shares(n: int, block_n: int) -> tuple[int, int]:
    """Rows that a program sums, in whole tiles, and the number of programs."""
    rows_each = cdiv(cdiv(n, _PROGRAMS), block_n) * block_n
    return rows_each, cdiv(n, rows_each)


def _apply(x: Tensor, affine: Tensor, n_tracked: Tensor | None, relu: bool, pool: bool) -> Tensor:
    b, length, c, _ = x.shape
    y = x.new_empty(b, length // 2 if pool else length, c, 2)
    rows_out = b * y.shape[1]
    tile, grid = _tiles(rows_out, c, _TILE)
    tail = {"RELU": relu, "POOL": pool, **tile}
    launch(_apply_kernel, grid, x, affine, y, n_tracked, rows_out, c, length, **tail)
    return y


@kernel_op("running_mean", "running_var", "n_tracked")
def batchnorm_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    n_tracked: Tensor | None,
    momentum: float | None,
    eps: float,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean (2, C), covariance (2, 2, C) and the map (6, C) of x (B, L, C, 2).

    All are float32 and contiguous.

    Args:
        weight: (2, 2, C); bias: (2, C); None: I/sqrt(2) and 0.
        running_mean: (2, C), running_var: (2, 2, C), updated in place; None: not kept.
        n_tracked: int64 (), the number of batches before this one, counted up.
        momentum: rate of the running statistics; None: a cumulative average.
        relu: the split ReLU follows; pool: then the average of two neighbours along L.
    """
    b, length, c, _ = x.shape
    n = b * length
    tile, (_, tiles_c) = _tiles(n, c, _TILE)
    rows_each, programs = _shares(n, tile["BLOCK_N"])
    partial = x.new_empty(programs, 5, c)
    launch(_moments_kernel, (programs, tiles_c), x, partial, n, c, rows_each, **tile)

    mean = x.new_empty(2, c)
    cov = x.new_empty(2, 2, c)
    affine = x.new_empty(6, c)
    running = (running_mean, running_var, n_tracked)
    sizes = (n, c, rows_each, programs, eps, momentum)
    options = {"BLOCK_P": next_power_of_2(programs), **_MAP}
    grid = (cdiv(c, _MAP["BLOCK_C"]),)
    launch(_map_kernel, grid, partial, weight, bias, mean, cov, affine, *running, *sizes, **options)

    y = _apply(x, affine, n_tracked, relu, pool)
    return y, mean, cov, affine


@kernel_op()
def batchnorm_backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    cov: Tensor,
    affine: Tensor,
    weight: Tensor | None,
    eps: float,
    relu: bool,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dL/dW (2, 2, C) and dL/db (2, C) from dL/dy, and what `batchnorm_forward` gave."""
    b, length, c, _ = x.shape
    n = b * length
    tile, grid = _tiles(n, c, _GRAD_TILE)
    tail = {"RELU": relu, "POOL": pool, **tile}
    rows_each, programs = _shares(n, tile["BLOCK_N"])
    partial = x.new_empty(programs, 6, c)
    sizes = (n, c, rows_each, length)
    grid_sums = (programs, grid[1])
    launch(_gradient_sums_kernel, grid_sums, grad, x, mean, affine, partial, *sizes, **tail)

    back = x.new_empty(9, c)
    by_weight = x.new_empty(2, 2, c)
    by_bias = x.new_empty(2, c)
    arrays = (partial, mean, cov, weight, by_weight, by_bias, back)
    options = {"BLOCK_P": next_power_of_2(programs), **_MAP}
    grid_map = (cdiv(c, _MAP["BLOCK_C"]),)
    launch(_gradient_map_kernel, grid_map, *arrays, n, c, programs, eps, **options)

    dx = torch.empty_like(x)
    launch(_gradient_kernel, grid, grad, x, affine, back, dx, n, c, length, **tail)
    return dx, by_weight, by_bias


@kernel_op()
def batchnorm_apply(x: Tensor, affine: Tensor, relu: bool, pool: bool) -> Tensor:
    """y = M x + s and its tail by a map (6, C) that is given: evaluation, without a gradient."""
    return _apply(x, affine, None, relu, pool)
