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

from .launch import kernel_op, launch_over
from .noise import load, load_pairs, place, store, store_pairs


@triton.jit
def _leading(x):
    """x to 11 significant bits, which TF32 holds; round half up in magnitude."""
    bits = x.to(tl.uint32, bitcast=True)
    return ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def _store_split(stack, i, ok, size, x, LOW: tl.constexpr, SPLIT: tl.constexpr):
    """x to one entry of a stack; if SPLIT lo to entry LOW, and hi to the other two.

    size: numbers of an entry.
    """
    if SPLIT:
        high = _leading(x)
        tl.store(stack + i, high, mask=ok)
        tl.store(stack + LOW * size + i, x - high, mask=ok)
        tl.store(stack + (3 - LOW) * size + i, high, mask=ok)
    else:
        tl.store(stack + i, x, mask=ok)


@triton.jit
def _load_sum(stack, i, ok, size, STACK: tl.constexpr):
    """The sum of a stack's entries."""
    total = tl.load(stack + i, mask=ok, other=0.0)
    for k in tl.static_range(1, STACK):
        total += tl.load(stack + k * size + i, mask=ok, other=0.0)
    return total


@triton.jit
def _rows_kernel(x, rows, n, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Pairs (B, in, 2) -> rows (2B, in, 2): (re, -im), then (im, re); n = B in."""
    i, ok = place(2 * n, 2 * BLOCK)
    re, im = load_pairs(x, n, BLOCK)
    upper = tl.reshape(tl.join(re, -im), (2 * BLOCK,))
    lower = tl.reshape(tl.join(im, re), (2 * BLOCK,))

    _store_split(rows, i, ok, 4 * n, upper, 1, SPLIT)
    _store_split(rows + 2 * n, i, ok, 4 * n, lower, 1, SPLIT)


@triton.jit
def _rows_grad_kernel(by_rows, dx, n, STACK: tl.constexpr, BLOCK: tl.constexpr):
    i, ok = place(2 * n, 2 * BLOCK)
    upper = _load_sum(by_rows, i, ok, 4 * n, STACK)
    lower = _load_sum(by_rows + 2 * n, i, ok, 4 * n, STACK)

    a, b = tl.split(tl.reshape(upper, (BLOCK, 2)))
    c, d = tl.split(tl.reshape(lower, (BLOCK, 2)))
    store_pairs(dx, a + d, c - b, n, BLOCK)


@triton.jit
def _join_kernel(parts, bias, y, n, columns, STACK: tl.constexpr, BLOCK: tl.constexpr):
    """Parts (stack, 2B, out), the real ones first -> y (B, out, 2) + bias (out, 2); n = B out."""
    i, ok = place(n, BLOCK)
    re = _load_sum(parts, i, ok, 2 * n, STACK)
    im = _load_sum(parts + n, i, ok, 2 * n, STACK)

    pairs, inside = place(2 * n, 2 * BLOCK)
    y_pairs = tl.reshape(tl.join(re, im), (2 * BLOCK,))
    if bias is not None:
        y_pairs += tl.load(bias + pairs % (2 * columns), mask=inside, other=0.0)

    tl.store(y + pairs, y_pairs, mask=inside)


@triton.jit
def _take_kernel(values, parts, n, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Pairs (B, out, 2) -> parts (stack, 2B, out), the real ones first."""
    i, ok = place(n, BLOCK)
    re, im = load_pairs(values, n, BLOCK)

    _store_split(parts, i, ok, 2 * n, re, 2, SPLIT)
    _store_split(parts + n, i, ok, 2 * n, im, 2, SPLIT)


@triton.jit
def _split_kernel(weight, mask, split, n, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """weight (n) -> (2, n) = hi, lo; or only masked.

    The mask has an entry for each pair of numbers.
    """
    w = load(weight, n, BLOCK)
    if mask is not None:
        i, ok = place(n, BLOCK)
        w = tl.where(tl.load(mask + i // 2, mask=ok, other=0) != 0, w, 0.0)

    if SPLIT:
        high = _leading(w)
        store(split, high, n, BLOCK)
        store(split + n, w - high, n, BLOCK)
    else:
        store(split, w, n, BLOCK)


# ---- operators -----------------------------------------------------------------------------------


@kernel_op()
def linear_rows(x: Tensor, split: bool) -> Tensor:
    """Rows (3 or 1, 2B, 2 in) of pairs (B, in, 2)."""
    b, inputs, _ = x.shape
    rows = x.new_empty(3 if split else 1, 2 * b, 2 * inputs)
    launch_over(_rows_kernel, b * inputs, x, rows, SPLIT=split)
    return rows


@kernel_op()
def linear_rows_grad(by_rows: Tensor) -> Tensor:
    """dL/dx (B, in, 2) from a stack (.., 2B, 2 in) whose sum is the gradient by the rows."""
    stack, rows, columns = by_rows.shape
    dx = by_rows.new_empty(rows // 2, columns // 2, 2)
    launch_over(_rows_grad_kernel, dx.numel() // 2, by_rows, dx, STACK=stack)
    return dx


@kernel_op()
def join_parts(parts: Tensor, bias: Tensor | None) -> Tensor:
    """Pairs (B, out, 2), plus a bias (out, 2), from a stack of parts (.., 2B, out).

    The real parts come first.
    """
    stack, rows, columns = parts.shape
    y = parts.new_empty(rows // 2, columns, 2)
    launch_over(_join_kernel, y.numel() // 2, parts, bias, y, columns=columns, STACK=stack)
    return y


@kernel_op()
def take_parts(pairs: Tensor, split: bool) -> Tensor:
    """Parts (3 or 1, 2B, out), real ones first, of pairs (B, out, 2)."""
    b, columns, _ = pairs.shape
    parts = pairs.new_empty(3 if split else 1, 2 * b, columns)
    launch_over(_take_kernel, b * columns, pairs, parts, SPLIT=split)
    return parts


@kernel_op()
def split_weight(weight: Tensor, mask: Tensor | None, split: bool) -> Tensor:
    """(2 or 1, out, 2 in) of a stored weight (out, in, 2): hi and lo, or the masked weight."""
    out, inputs, _ = weight.shape
    forms = weight.new_empty(2 if split else 1, out, 2 * inputs)
    launch_over(_split_kernel, weight.numel(), weight, mask, forms, SPLIT=split)
    return forms
