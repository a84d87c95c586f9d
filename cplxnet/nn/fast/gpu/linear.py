"""What lies around the real matrix products of a complex linear layer.

Rows (Re x, -Im x) and (Im x, Re x) under each other, times the weight as it is stored, give the
parts of W x (`linear.cplx_linear`). In float32 each product is made of three in TF32, whose matrix
units are several times as fast: x = hi + lo, hi the leading 11 bits, and
x w = hi hi' + lo hi' + hi lo', what is left out being below 2^-22 of it. The splitting is done
where rows and parts are made, and the three are added where they are read.

Stacks: rows (3, 2B, 2 in) = hi, lo, hi; parts of the gradient (3, 2B, out) = hi, hi, lo, so that
the gradient by the weight is one product of all of them. In TF32 or bfloat16 stacks hold one entry.
"""

import triton
import triton.language as tl
from torch import Tensor

from .launch import ceil_div, kernel_op, launch
from .noise import load_pairs, store_pairs

_BLOCK = 1024


@triton.jit
def _leading(x):
    """x to 11 significant bits, which TF32 holds; round half up in magnitude."""
    bits = x.to(tl.uint32, bitcast=True)
    return ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def _rows_kernel(x, rows, n, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Pairs (B, in, 2) -> rows (2B, in, 2): (re, -im), then (im, re); n = B in."""
    pairs = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    ok = pairs < 2 * n
    half = 2 * n

    re, im = load_pairs(x, n, BLOCK)
    upper = tl.reshape(tl.join(re, -im), (2 * BLOCK,))
    lower = tl.reshape(tl.join(im, re), (2 * BLOCK,))

    if SPLIT:
        high = _leading(upper)
        tl.store(rows + pairs, high, mask=ok)
        tl.store(rows + 2 * half + pairs, upper - high, mask=ok)
        tl.store(rows + 4 * half + pairs, high, mask=ok)

        high = _leading(lower)
        tl.store(rows + half + pairs, high, mask=ok)
        tl.store(rows + 3 * half + pairs, lower - high, mask=ok)
        tl.store(rows + 5 * half + pairs, high, mask=ok)
    else:
        tl.store(rows + pairs, upper, mask=ok)
        tl.store(rows + half + pairs, lower, mask=ok)


@triton.jit
def _rows_grad_kernel(by_rows, dx, n, STACK: tl.constexpr, BLOCK: tl.constexpr):
    pairs = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    ok = pairs < 2 * n
    half = 2 * n

    upper = tl.load(by_rows + pairs, mask=ok, other=0.0)
    lower = tl.load(by_rows + half + pairs, mask=ok, other=0.0)

    for k in tl.static_range(1, STACK):
        upper += tl.load(by_rows + 2 * k * half + pairs, mask=ok, other=0.0)
        lower += tl.load(by_rows + (2 * k + 1) * half + pairs, mask=ok, other=0.0)

    a, b = tl.split(tl.reshape(upper, (BLOCK, 2)))
    c, d = tl.split(tl.reshape(lower, (BLOCK, 2)))
    store_pairs(dx, a + d, c - b, n, BLOCK)


@triton.jit
def _join_kernel(
    parts, bias, y, n, columns, STACK: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr
):
    """Parts (stack, 2B, out), the real ones first -> y (B, out, 2) + bias (out, 2); n = B out."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    pairs = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    ok = i < n

    re = tl.load(parts + i, mask=ok, other=0.0)
    im = tl.load(parts + n + i, mask=ok, other=0.0)

    for k in tl.static_range(1, STACK):
        re += tl.load(parts + 2 * k * n + i, mask=ok, other=0.0)
        im += tl.load(parts + (2 * k + 1) * n + i, mask=ok, other=0.0)

    y_pairs = tl.reshape(tl.join(re, im), (2 * BLOCK,))
    if HAS_BIAS:
        y_pairs += tl.load(bias + pairs % (2 * columns), mask=pairs < 2 * n, other=0.0)

    tl.store(y + pairs, y_pairs, mask=pairs < 2 * n)


@triton.jit
def _take_kernel(values, parts, n, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Pairs (B, out, 2) -> parts (stack, 2B, out), the real ones first."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = i < n

    re, im = load_pairs(values, n, BLOCK)

    if SPLIT:
        high = _leading(re)
        tl.store(parts + i, high, mask=ok)
        tl.store(parts + 2 * n + i, high, mask=ok)
        tl.store(parts + 4 * n + i, re - high, mask=ok)

        high = _leading(im)
        tl.store(parts + n + i, high, mask=ok)
        tl.store(parts + 3 * n + i, high, mask=ok)
        tl.store(parts + 5 * n + i, im - high, mask=ok)
    else:
        tl.store(parts + i, re, mask=ok)
        tl.store(parts + n + i, im, mask=ok)


@triton.jit
def _split_kernel(
    weight, mask, split, n, MASKED: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr
):
    """weight (n) -> (2, n) = hi, lo; or only masked.

    The mask has an entry for each pair of numbers.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ok = i < n

    w = tl.load(weight + i, mask=ok, other=0.0)

    if MASKED:
        w = tl.where(tl.load(mask + i // 2, mask=ok, other=0) != 0, w, 0.0)

    if SPLIT:
        high = _leading(w)
        tl.store(split + i, high, mask=ok)
        tl.store(split + n + i, w - high, mask=ok)
    else:
        tl.store(split + i, w, mask=ok)


# ---- operators -----------------------------------------------------------------------------------


@kernel_op
def linear_rows(x: Tensor, split: bool) -> Tensor:
    """Rows (3 or 1, 2B, 2 in) of pairs (B, in, 2)."""
    b, inputs, _ = x.shape
    n = b * inputs
    rows = x.new_empty(3 if split else 1, 2 * b, 2 * inputs)

    launch(_rows_kernel, (ceil_div(n, _BLOCK),), SPLIT=split, BLOCK=_BLOCK)(x, rows, n)
    return rows


@kernel_op
def linear_rows_grad(by_rows: Tensor) -> Tensor:
    """dL/dx (B, in, 2) from a stack (.., 2B, 2 in) whose sum is the gradient by the rows."""
    stack, rows, columns = by_rows.shape
    dx = by_rows.new_empty(rows // 2, columns // 2, 2)
    n = dx.numel() // 2

    launch(_rows_grad_kernel, (ceil_div(n, _BLOCK),), STACK=stack, BLOCK=_BLOCK)(by_rows, dx, n)
    return dx


@kernel_op
def join_parts(parts: Tensor, bias: Tensor | None) -> Tensor:
    """Pairs (B, out, 2), plus a bias (out, 2), from a stack of parts (.., 2B, out).

    The real parts come first.
    """
    stack, rows, columns = parts.shape
    y = parts.new_empty(rows // 2, columns, 2)
    n = y.numel() // 2

    launch(
        _join_kernel, (ceil_div(n, _BLOCK),), STACK=stack, HAS_BIAS=bias is not None, BLOCK=_BLOCK
    )(parts, bias, y, n, columns)
    return y


@kernel_op
def take_parts(pairs: Tensor, split: bool) -> Tensor:
    """Parts (3 or 1, 2B, out), real ones first, of pairs (B, out, 2)."""
    b, columns, _ = pairs.shape
    n = b * columns
    parts = pairs.new_empty(3 if split else 1, 2 * b, columns)

    launch(_take_kernel, (ceil_div(n, _BLOCK),), SPLIT=split, BLOCK=_BLOCK)(pairs, parts, n)
    return parts


@kernel_op
def split_weight(weight: Tensor, mask: Tensor | None, split: bool) -> Tensor:
    """(2 or 1, out, 2 in) of a stored weight (out, in, 2): hi and lo, or the masked weight."""
    out, inputs, _ = weight.shape
    n = weight.numel()
    forms = weight.new_empty(2 if split else 1, out, 2 * inputs)

    launch(
        _split_kernel, (ceil_div(n, _BLOCK),), MASKED=mask is not None, SPLIT=split, BLOCK=_BLOCK
    )(weight, mask, forms, n)
    return forms
