"""Real convolutions in one dimension, channels last.

Complex convolutions and their variances are computed with them:

    y[b, l, n] = bias[n] + sum over t, i of x[b, l step + t, i] w[n, t, i]

x (B, L, I), w (N, taps, I), y (B, L', N) with L' = (L - taps) // step + 1, float32. The taps under
an output lie one after another in memory, so the whole is a matrix product whose rows overlap. The
gradient by x is the same product of other rows (transposed weights, see `transposed_shape`). The
gradient by w is a sum over all outputs, formed in parts that are added in order.

Precision: "float32" makes each product of three in TF32, of the numbers' leading and trailing bits
(error of a convolution 1.6e-7). "tf32" rounds the numbers to 10 bits, "bfloat16" to 7; sums are
float32 in all of them.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv, next_power_of_2

from .launch import PRECISIONS, kernel_op, launch


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    if PRECISION == "bfloat16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), acc)
    else:
        return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _conv_kernel(
    x, weight, bias, y,
    m, rows_out, n, out_size, length, width, taps, step, offset,
    PRECISION: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y[b, j] (n numbers) = rows j step + offset, ... of x[b] times weight (n, taps, width).

    m = B rows_out outputs; a sample's outputs end after out_size numbers. With an offset, rows of x
    beyond its length are 0.
    """
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)

    sample = (rows // rows_out).to(tl.int64)
    j = rows % rows_out
    ok_m = rows < m
    ok_n = columns < n
    first = j * step if offset is None else j * step + offset
    start = (sample * length + first) * width

    # numbers that lie together in x: those under one tap where rows may be missing, or under all
    size = taps * width if offset is None else width

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(0, 1 if offset is None else taps):
        inside = ok_m
        if offset is not None:
            inside = ok_m & (first + tap >= 0) & (first + tap < length)

        at_x = x + (start + tap * width)[:, None] + k[None, :]
        at_w = weight + (columns * taps + tap)[None, :] * width + k[:, None]
        for k0 in range(0, size, BLOCK_K):
            if EVEN:
                a = tl.load(at_x, mask=inside[:, None], other=0.0)
                b = tl.load(at_w, mask=ok_n[None, :], other=0.0)
            else:
                ok_k = k0 + k < size
                a = tl.load(at_x, mask=inside[:, None] & ok_k[None, :], other=0.0)
                b = tl.load(at_w, mask=ok_n[None, :] & ok_k[:, None], other=0.0)

            acc = _dot(a, b, acc, PRECISION)
            at_x += BLOCK_K
            at_w += BLOCK_K

    if bias is not None:
        acc += tl.load(bias + columns, mask=ok_n, other=0.0)[None, :]

    place = j[:, None] * n + columns[None, :]
    at_y = y + (sample * out_size)[:, None] + place
    tl.store(at_y, acc, mask=ok_m[:, None] & ok_n[None, :] & (place < out_size))


@triton.jit
def _weight_grad_kernel(
    grad, x, log_weight, partial, m, rows_out, n, length, width, taps, step, rows_each,
    PRECISION: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """partial (shares, n, taps width): the sum of grad[output, n] x[its rows] over this share.

    A share is rows_each outputs.
    """
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    share = tl.program_id(2)
    first = share * rows_each
    last = tl.minimum(first + rows_each, m)

    size = taps * width
    lanes = tl.arange(0, BLOCK_M)

    acc = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
    for row in range(first, last, BLOCK_M):
        rows = row + lanes
        ok = rows < last
        start = ((rows // rows_out).to(tl.int64) * length + (rows % rows_out) * step) * width
        at_g = grad + rows.to(tl.int64)[None, :] * n + columns[:, None]
        g = tl.load(at_g, mask=ok[None, :] & (columns < n)[:, None], other=0.0)

        at_x = x + start[:, None] + k[None, :]
        under = tl.load(at_x, mask=ok[:, None] & (k < size)[None, :], other=0.0)

        acc = _dot(g, under, acc, PRECISION)

    inside = (columns < n)[:, None] & (k < size)[None, :]
    place = columns.to(tl.int64)[:, None] * size + k[None, :]
    if log_weight is not None:  # one share: the gradient by a logarithm
        acc *= tl.exp(tl.load(log_weight + place, mask=inside, other=0.0))
    tl.store(partial + share.to(tl.int64) * n * size + place, acc, mask=inside)


# ---- operators -----------------------------------------------------------------------------------


def transposed_shape(n: int, taps: int, width: int, step: int) -> tuple[int, int, int]:
    """Shape of the weights that give the gradient by x.

    `step` rows of the gradient are one row of step * width outputs.
    """
    return step * width, cdiv(taps, step), n


def _launch_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    rows_out: int,
    step: int,
    offset: int | None,
    precision: str,
) -> None:
    """Fill y (B, .., ..) by _conv_kernel.

    With an offset, rows of x before its beginning and beyond its length are 0.
    """
    b, length, width = x.shape
    n, taps, _ = weight.shape
    m = b * rows_out

    # tile sizes by measurement on an H200
    size = taps * width if offset is None else width
    block_m = 128
    block_n = min(max(next_power_of_2(n), 16), 64)
    block_k = min(max(next_power_of_2(size), 16), 32)

    sizes = (m, rows_out, n, y[0].numel(), length, width, taps, step, offset)
    options: dict[str, Any] = {"PRECISION": PRECISIONS[precision], "EVEN": size % block_k == 0}
    options |= {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k}
    options |= {"num_warps": 8, "num_stages": 3}

    grid = (cdiv(m, block_m), cdiv(n, block_n))
    launch(_conv_kernel, grid, x, weight, bias, y, *sizes, **options)


@kernel_op()
def conv_rows(x: Tensor, weight: Tensor, bias: Tensor | None, step: int, precision: str) -> Tensor:
    """y (B, L', N) of x (B, L, I), weight (N, taps, I), N numbers of bias; float32, contiguous."""
    b, length, _ = x.shape
    n, taps, _ = weight.shape
    rows_out = (length - taps) // step + 1
    y = x.new_empty(b, rows_out, n)
    _launch_conv(x, weight, bias, y, rows_out, step, None, precision)
    return y


@kernel_op()
def conv_rows_grad(
    grad: Tensor, transposed: Tensor, length: int, width: int, step: int, precision: str
) -> Tensor:
    """dL/dx (B, L, I) from dL/dy (B, L', N) and the transposed weights (step I, taps', N)."""
    dx = grad.new_empty(len(grad), length, width)
    offset = 1 - transposed.shape[1]
    _launch_conv(grad, transposed, None, dx, cdiv(length, step), 1, offset, precision)
    return dx


@kernel_op()
def conv_weight_grad(
    grad: Tensor, x: Tensor, log_weight: Tensor | None, taps: int, step: int, precision: str
) -> Tensor:
    """dL/dw (shares, N, taps I) from dL/dy (B, L', N) and x (B, L, I), in parts to add in order.

    With a `log_weight` w = e^log_weight (N, taps I), the gradient is that by it, in one part.
    """
    b, length, width = x.shape
    _, rows_out, n = grad.shape
    m = b * rows_out
    size = taps * width

    block_n = min(max(next_power_of_2(n), 16), 128)
    block_k = min(max(next_power_of_2(size), 16), 64)
    block_m = 32
    tiles = (cdiv(n, block_n), cdiv(size, block_k))

    # about two programs for each multiprocessor of an H100
    shares = max(1, min(264 // (tiles[0] * tiles[1]), m // (4 * block_m)))
    shares = 1 if log_weight is not None else shares
    rows_each = cdiv(cdiv(m, shares), block_m) * block_m
    partial = x.new_empty(cdiv(m, rows_each), n, size)

    # Here the operands lie the wrong way round for TF32 instructions, which are then slower than
    # the three products.
    products = PRECISIONS["float32" if precision == "tf32" else precision]

    sizes = (m, rows_out, n, length, width, taps, step, rows_each)
    options: dict[str, Any] = {"PRECISION": products}
    options |= {"BLOCK_N": block_n, "BLOCK_K": block_k, "BLOCK_M": block_m}
    options |= {"num_warps": 4, "num_stages": 3}

    grid = (*tiles, len(partial))
    launch(_weight_grad_kernel, grid, grad, x, log_weight, partial, *sizes, **options)
    return partial
