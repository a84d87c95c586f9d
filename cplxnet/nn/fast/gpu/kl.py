"""The KL of all variational layers of a network, and its gradients.

The gradients are added to `.grad`, and their sums of squares are formed too. The terms are those of
`kl.py`, for q = |mu|^2/sigma^2 (Nazarov and Burnaev 2020; Molchanov et al. 2017, equation 14):
value(q), and slope(q) = g/q with dKL/dmu = 2 slope mu/sigma^2, dKL/dlog_sigma2 = -q slope. One pass
over each layer's weights; sums are formed by program and added in order.
"""

import itertools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import cdiv

from .launch import kernel_op, launch, launch_over
from .noise import load, load_pairs, place, store, store_pairs

TERMS = range(4)  # the numbers of the terms that are known here, `kl.Term.code`

_BLOCK = 1024

_LOW = tl.constexpr(-69.0)  # limits that keep 1/sigma^2, q and their products finite, as in kl.py
_MOST = tl.constexpr(1e37)
_LEAST = tl.constexpr(1e-30)


@triton.jit
def _log1p(q):
    """log(1 + q): the series q - q^2/2 + q^3/3 below 1e-3, where 1 + q has lost the digits of q."""
    return tl.where(q < 1e-3, q * (1.0 - q * (0.5 - q * 0.3333333333333333)), tl.log(1.0 + q))


@triton.jit
def _one_minus_exp_minus(q):
    """1 - e^-q: the series below 0.1, where the difference cancels."""
    series = q * (
        1.0
        - q * (0.5 - q * (0.16666667 - q * (0.041666668 - q * (0.008333334 - q * 0.0013888889))))
    )
    return tl.where(q < 0.1, series, 1.0 - tl.exp(-q))


@triton.jit
def _smooth_part(q):
    """Ein(q) - log(1 + q) = (1 - u)^2 P(u), u = 4/(4 + q): the fit of expint.py."""
    u = 4.0 / (4.0 + q)
    p = 11.510937691 * u - 44.005947113
    p = p * u + 69.988269806
    p = p * u - 56.165252686
    p = p * u + 23.128204346
    p = p * u - 4.473323345
    p = p * u + 1.560032964
    p = p * u + 0.974142372
    p = p * u + 0.905389249
    p = p * u + 0.577210605

    return p * (1.0 - u) * (1.0 - u)


@triton.jit
def _value(q, TERM: tl.constexpr):
    if TERM == 0:
        return _log1p(q) + _smooth_part(q)
    elif TERM == 1:
        return _log1p(q)
    elif TERM == 2:
        return 0.5 * _log1p(q) + 0.63576 * tl.sigmoid(1.48695 * tl.log(q) - 1.87320)
    else:
        return 0.5 * _log1p(q)


@triton.jit
def _slope(q, TERM: tl.constexpr):
    if TERM == 0:
        return _one_minus_exp_minus(q) / q
    elif TERM == 1:
        return 1.0 / (1.0 + q)
    elif TERM == 2:
        s = tl.sigmoid(1.48695 * tl.log(q) - 1.87320)
        return 0.5 / (1.0 + q) + (0.63576 * 1.48695) * s * (1.0 - s) / q
    else:
        return 0.5 / (1.0 + q)


@triton.jit
def _within(x, low, high):
    """x between two limits; a NaN stays, so that it shows."""
    x = tl.where(x < low, low, x)
    return tl.where(x > high, high, x)


@triton.jit
def _kl_kernel(
    weight, log_sigma2, scale, by_weight, by_log_sigma2, partial, n, first, share,
    TERM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add the gradients of one block of weights in place, and sum up the block.

    partial[first + block] = (KL, squares of both gradients).
    """
    CPLX: tl.constexpr = TERM < 2
    FAR: tl.constexpr = 1.0 if TERM < 2 else 0.5

    by = tl.load(scale) * share
    s = load(log_sigma2, n, BLOCK)
    precision = tl.exp(-_within(s, _LOW, 88.0))

    if CPLX:
        re, im = load_pairs(weight, n, BLOCK)
        q = precision * (re * re + im * im)
    else:
        w = load(weight, n, BLOCK)
        q = precision * w * w

    inside = _within(q, _LEAST, _MOST)
    slope = by * _slope(inside, TERM)
    d_s = load(by_log_sigma2, n, BLOCK) - slope * inside
    store(by_log_sigma2, d_s, n, BLOCK)

    factor = 2.0 * slope * precision
    if CPLX:
        old_re, old_im = load_pairs(by_weight, n, BLOCK)
        d_re = old_re + factor * re
        d_im = old_im + factor * im

        store_pairs(by_weight, d_re, d_im, n, BLOCK)
        square_w = d_re * d_re + d_im * d_im
    else:
        d_w = load(by_weight, n, BLOCK) + factor * w
        store(by_weight, d_w, n, BLOCK)
        square_w = d_w * d_w

    # what the limit took off log q
    beyond = tl.where(s < _LOW, _LOW - s, 0.0) * FAR * _within(q, 0.0, 1.0)
    value = _value(q, TERM) + beyond

    _, ok = place(n, BLOCK)
    at = partial + 3 * (first + tl.program_id(0))
    tl.store(at, tl.sum(tl.where(ok, value, 0.0).to(tl.float64), 0))
    tl.store(at + 1, tl.sum(tl.where(ok, square_w, 0.0).to(tl.float64), 0))
    tl.store(at + 2, tl.sum(tl.where(ok, d_s * d_s, 0.0).to(tl.float64), 0))


@triton.jit
def _total_kernel(partial, out, FIRSTS: tl.constexpr, BLOCK: tl.constexpr):
    """out[layer, column] = the sum of this layer's rows of partial, in order.

    The rows are FIRSTS[layer] to FIRSTS[layer + 1].
    """
    layer = tl.program_id(0)
    column = tl.program_id(1)
    first = 0
    last = 0

    for k in tl.static_range(len(FIRSTS) - 1):
        first = tl.where(layer == k, FIRSTS[k], first)
        last = tl.where(layer == k, FIRSTS[k + 1], last)

    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(first, last, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(partial + 3 * i + column, mask=i < last, other=0.0)

    tl.store(out + 3 * layer + column, tl.sum(total, 0))


@kernel_op("by_weights", "by_log_sigma2")
def kl_backward(
    weights: list[Tensor],
    log_sigma2: list[Tensor],
    terms: list[int],
    scale: Tensor,
    by_weights: list[Tensor],
    by_log_sigma2: list[Tensor],
    shares: list[float],
) -> Tensor:
    """KL of each layer and the squares of its two gradients, float64 (layers, 3).

    Args:
        weights: stored means, (..., 2) of complex layers; log_sigma2: (...); float32, contiguous.
        terms: their numbers, of `TERMS`.
        scale: float32 (), what every KL is multiplied by before its gradient is added.
        by_weights, by_log_sigma2: the gradients, added to in place.
        shares: what each layer's KL is multiplied by beside `scale`, for the gradients.
    """
    unknown = [term for term in terms if term not in TERMS]
    if unknown:
        raise ValueError(f"expected the number of a KL term, {list(TERMS)}, got {unknown[0]}")

    n_blocks = [cdiv(s.numel(), _BLOCK) for s in log_sigma2]
    firsts = [0, *itertools.accumulate(n_blocks)]  # where each layer's blocks begin

    partial = scale.new_empty(firsts[-1], 3, dtype=torch.float64)
    layers = zip(
        weights, log_sigma2, terms, by_weights, by_log_sigma2, shares, firsts[:-1], strict=True
    )
    for w, s, term, by_w, by_s, share, first in layers:
        arrays = (w, s, scale, by_w, by_s, partial)
        options = {"first": first, "share": share, "TERM": term, "BLOCK": _BLOCK}
        launch_over(_kl_kernel, s.numel(), *arrays, **options)

    out = scale.new_empty(len(weights), 3, dtype=torch.float64)
    options = {"FIRSTS": tuple(firsts), "BLOCK": 4096, "num_warps": 8}
    launch(_total_kernel, (len(weights), 3), partial, out, **options)
    return out
