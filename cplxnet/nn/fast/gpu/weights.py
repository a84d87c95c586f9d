"""The kernels of complex convolutions as real products take them, and the way back for gradients.

A complex w (out, in, k) becomes the real block [[Re w, -Im w], [Im w, Re w]], its parts
interleaved, channels last: `conv.block_weight`, with the mask where there is one. A variational
layer's sigma^2 = e^log_sigma2 takes the same form without the block. Both are also made transposed,
for the gradient by the input: entry (p, i), (v, o) of that is w[o, (T - 1 - v) step + p, i],
T = ceil(k / step), or 0 where there is no such tap.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv, next_power_of_2

from .conv import transposed_shape
from .launch import kernel_op, launch_over

_GRAD_TILE, _SHARES = 2048, 64  # numbers that a program loads at a time, from so many parts at most


@triton.jit
def _form_kernel(
    weight, mask, log_sigma2, block, transposed, sigma2, sigma2_transposed,
    n, outputs, inputs, taps, step, padded,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Over (out, in, padded taps): both forms of the block and, with a log_sigma2 of sigma^2."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tap = i % padded
    column = (i // padded) % inputs
    out = i // (padded * inputs)
    ok = i < n
    real = ok & (tap < taps)
    at_w = (out * inputs + column) * taps + tap

    re = tl.load(weight + 2 * at_w, mask=real, other=0.0)
    im = tl.load(weight + 2 * at_w + 1, mask=real, other=0.0)

    if mask is not None:
        kept = tl.load(mask + at_w, mask=real, other=0) != 0
        re = tl.where(kept, re, 0.0)
        im = tl.where(kept, im, 0.0)

    # (2 out, taps, 2 in)
    width = 2 * inputs * taps
    at = block + 2 * out * width + tap * 2 * inputs + 2 * column
    tl.store(at, re, mask=real)
    tl.store(at + 1, -im, mask=real)
    tl.store(at + width, im, mask=real)
    tl.store(at + width + 1, re, mask=real)

    # (step 2 in, T, 2 out)
    turns = padded // step
    v = turns - 1 - tap // step
    deep = 2 * outputs * turns
    at = transposed + ((tap % step) * 2 * inputs + 2 * column) * deep + v * 2 * outputs + 2 * out
    tl.store(at, re, mask=ok)
    tl.store(at + 1, im, mask=ok)
    tl.store(at + deep, -im, mask=ok)
    tl.store(at + deep + 1, re, mask=ok)

    if log_sigma2 is not None:
        s = tl.where(real, tl.exp(tl.load(log_sigma2 + at_w, mask=real, other=0.0)), 0.0)
        tl.store(sigma2 + (out * taps + tap) * inputs + column, s, mask=real)
        at = ((tap % step) * inputs + column) * (outputs * turns) + v * outputs + out
        tl.store(sigma2_transposed + at, s, mask=ok)


@triton.jit
def _form_grad_kernel(
    partial, partial_sigma2, mask, log_sigma2, by_weight, by_log_sigma2,
    shares, shares_sigma2, n, inputs, taps,
    SHARES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dL/dRe w = B00 + B11, dL/dIm w = B10 - B01, dL/dlog_sigma2 = sigma2 dL/dsigma2.

    B and dL/dsigma2 are sums of shares.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # over (out, in, taps)
    ok = i < n

    tap = i % taps
    column = (i // taps) % inputs
    out = i // (taps * inputs)
    width = 2 * inputs * taps
    at = 2 * out * width + tap * 2 * inputs + 2 * column

    sum_re = tl.zeros((SHARES, BLOCK), tl.float32)
    sum_im = tl.zeros((SHARES, BLOCK), tl.float32)

    for first in range(0, shares, SHARES):
        share = (first + tl.arange(0, SHARES)).to(tl.int64)
        inside = (share < shares)[:, None] & ok[None, :]

        place = partial + share[:, None] * 4 * n + at[None, :]
        sum_re += tl.load(place, mask=inside, other=0.0)
        sum_re += tl.load(place + width + 1, mask=inside, other=0.0)
        sum_im += tl.load(place + width, mask=inside, other=0.0)
        sum_im -= tl.load(place + 1, mask=inside, other=0.0)

    re = tl.sum(sum_re, 0)
    im = tl.sum(sum_im, 0)
    if mask is not None:
        kept = tl.load(mask + i, mask=ok, other=0) != 0
        re = tl.where(kept, re, 0.0)
        im = tl.where(kept, im, 0.0)

    tl.store(by_weight + 2 * i, re, mask=ok)
    tl.store(by_weight + 2 * i + 1, im, mask=ok)

    if log_sigma2 is not None:
        at = (out * taps + tap) * inputs + column
        total = tl.zeros((SHARES, BLOCK), tl.float32)

        for first in range(0, shares_sigma2, SHARES):
            share = (first + tl.arange(0, SHARES)).to(tl.int64)
            inside = (share < shares_sigma2)[:, None] & ok[None, :]
            place = partial_sigma2 + share[:, None] * n + at[None, :]
            total += tl.load(place, mask=inside, other=0.0)

        by_s = tl.sum(total, 0)
        s = tl.exp(tl.load(log_sigma2 + i, mask=ok, other=0.0))
        tl.store(by_log_sigma2 + i, s * by_s, mask=ok)


@kernel_op()
def form_weight(
    weight: Tensor, mask: Tensor | None, log_sigma2: Tensor | None, step: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Block (2 out, k, 2 in), and the same transposed; sigma^2 (out, k, in), and that transposed.

    The last two are (0,) without a `log_sigma2`.

    Args:
        weight: stored kernel (out, in, k, 2), float32, contiguous; mask: bool (out, in, k).
        log_sigma2: (out, in, k); step: the convolution's stride.
    """
    out, inputs, taps, _ = weight.shape
    noisy = log_sigma2 is not None

    block = weight.new_empty(2 * out, taps, 2 * inputs)
    transposed = weight.new_empty(transposed_shape(2 * out, taps, 2 * inputs, step))
    sigma2 = weight.new_empty((out, taps, inputs) if noisy else 0)
    sigma2_transposed = weight.new_empty(transposed_shape(out, taps, inputs, step) if noisy else 0)

    padded = cdiv(taps, step) * step
    arrays = (weight, mask, log_sigma2, block, transposed, sigma2, sigma2_transposed)
    sizes = {"outputs": out, "inputs": inputs, "taps": taps, "step": step, "padded": padded}
    launch_over(_form_kernel, out * inputs * padded, *arrays, **sizes, BLOCK=256)
    return block, transposed, sigma2, sigma2_transposed


@kernel_op()
def form_weight_grad(
    partial: Tensor,
    partial_sigma2: Tensor | None,
    mask: Tensor | None,
    log_sigma2: Tensor | None,
    shape: list[int],
) -> tuple[Tensor, Tensor]:
    """Gradients by the stored kernel (out, in, k, 2) and by log_sigma2 ((0,) without one).

    Args:
        partial: (shares, 2 out, k 2 in), `conv.conv_weight_grad` of the block.
        partial_sigma2: that of sigma^2.
        shape: out, in, k.
    """
    out, inputs, taps = shape
    by_weight = partial.new_empty(out, inputs, taps, 2)
    by_log_sigma2 = partial.new_empty(0 if log_sigma2 is None else tuple(shape))

    shares = min(next_power_of_2(len(partial)), _SHARES)
    arrays = (partial, partial_sigma2, mask, log_sigma2, by_weight, by_log_sigma2)
    sizes = {"shares": len(partial), "inputs": inputs, "taps": taps}
    sizes["shares_sigma2"] = 0 if partial_sigma2 is None else len(partial_sigma2)
    options = {"SHARES": shares, "BLOCK": _GRAD_TILE // shares}
    launch_over(_form_grad_kernel, out * inputs * taps, *arrays, **sizes, **options)
    return by_weight, by_log_sigma2
