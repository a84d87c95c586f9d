"""Noise of the local reparameterisation, and |x|^2, of complex numbers as pairs (..., 2).

    y = mean + sqrt(max(variance, floor)/2) (e_re, e_im),   e_re, e_im ~ N(0, 1)

`gaussian.with_noise` has the plain formula (Kingma, Salimans and Welling 2015, section 2.3). The
noise of element i is a function of the key and i alone: Philox4x32-10 of the counter i // 2 (Salmon
et al. 2011), made normal by Box and Muller. The backward pass draws the same numbers again in place
of keeping them. The key is two words from torch's generator of the device, so that seeds hold,
checkpoints resume, and a replayed CUDA graph draws new noise.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cplxnet.nn.fast.noise import VARIANCE_FLOOR

from .launch import kernel_op, launch_over

_FLOOR = tl.constexpr(VARIANCE_FLOOR)

# ---- arrays of n numbers or pairs: this program's BLOCK of them ----------------------------------


@triton.jit
def place(n, BLOCK: tl.constexpr):
    """Their indices, and which of them are there."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return i, i < n


@triton.jit
def load(base, n, BLOCK: tl.constexpr):
    """Numbers (n), 0 beyond n."""
    i, ok = place(n, BLOCK)
    return tl.load(base + i, mask=ok, other=0.0)


@triton.jit
def store(base, values, n, BLOCK: tl.constexpr):
    i, ok = place(n, BLOCK)
    tl.store(base + i, values, mask=ok)


@triton.jit
def load_pairs(base, n, BLOCK: tl.constexpr):
    """Parts (re, im), each (BLOCK,), of pairs (n, 2); 0 beyond n."""
    i = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    return tl.split(tl.reshape(tl.load(base + i, mask=i < 2 * n, other=0.0), (BLOCK, 2)))


@triton.jit
def store_pairs(base, re, im, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    tl.store(base + i, tl.reshape(tl.join(re, im), (2 * BLOCK,)), mask=i < 2 * n)


# ---- noise ---------------------------------------------------------------------------------------


@triton.jit
def _sine(t):
    """sin(2 pi t) for |t| <= 1/4: Taylor's polynomial of degree 13, error below 1e-8."""
    x = 6.283185307179586 * t
    s = x * x
    p = 1.6059043836821613e-10 * s - 2.505210838544172e-08
    p = p * s + 2.7557319223985893e-06
    p = p * s - 0.0001984126984126984
    p = p * s + 0.008333333333333333
    p = p * s - 0.16666666666666666
    return x + x * s * p


@triton.jit
def _normal_pair(first, second):
    """Two independent standard normals from two words of 32 random bits, 24 of each.

    Box and Muller 1958. The uniform under the logarithm lies in (0, 1], the angle, in turns, in
    [-1/2, 1/2).
    """
    u = ((first.to(tl.uint32, bitcast=True) >> 8).to(tl.float32) + 1.0) * 5.9604644775390625e-08
    t = (second.to(tl.uint32, bitcast=True) >> 8).to(tl.float32) * 5.9604644775390625e-08 - 0.5
    radius = tl.sqrt(-2.0 * tl.log(u))

    side = tl.abs(t)
    folded = tl.where(0.5 - side < side, 0.5 - side, side)
    cosine = _sine(0.25 - side)
    sine = _sine(tl.where(t < 0, -folded, folded))
    return radius * cosine, radius * sine


@triton.jit
def _noise(key, BLOCK: tl.constexpr):
    """(e_re, e_im), each (BLOCK,), of this program's numbers. Two of them come from a counter."""
    counter = tl.program_id(0).to(tl.int64) * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
    w0, w1, w2, w3 = tl.randint4x(tl.load(key), counter)
    even_re, even_im = _normal_pair(w0, w1)
    odd_re, odd_im = _normal_pair(w2, w3)

    e_re = tl.reshape(tl.join(even_re, odd_re), (BLOCK,))
    e_im = tl.reshape(tl.join(even_im, odd_im), (BLOCK,))
    return e_re, e_im


@triton.jit
def _noise_kernel(mean, variance, key, out, n, BLOCK: tl.constexpr):
    e_re, e_im = _noise(key, BLOCK)
    v = load(variance, n, BLOCK)
    deviation = tl.sqrt(0.5 * tl.where(v < _FLOOR, _FLOOR, v))

    m_re, m_im = load_pairs(mean, n, BLOCK)
    store_pairs(out, m_re + deviation * e_re, m_im + deviation * e_im, n, BLOCK)


@triton.jit
def _noise_grad_kernel(grad, variance, key, by_variance, n, BLOCK: tl.constexpr):
    """dL/dvariance = (g_re e_re + g_im e_im)/(4 deviation), 0 under the floor."""
    e_re, e_im = _noise(key, BLOCK)
    v = load(variance, n, BLOCK)
    g_re, g_im = load_pairs(grad, n, BLOCK)

    slope = 0.25 / tl.sqrt(0.5 * tl.where(v < _FLOOR, _FLOOR, v))
    by = tl.where(v < _FLOOR, 0.0, slope * (g_re * e_re + g_im * e_im))
    store(by_variance, by, n, BLOCK)


@triton.jit
def _square_kernel(x, square, n, BLOCK: tl.constexpr):
    re, im = load_pairs(x, n, BLOCK)
    store(square, re * re + im * im, n, BLOCK)


@triton.jit
def _square_grad_kernel(h, g, x, dx, n, BLOCK: tl.constexpr):
    """dx = h + 2 g x: h the gradient by x itself (pairs), g that by |x|^2."""
    re, im = load_pairs(x, n, BLOCK)
    h_re, h_im = load_pairs(h, n, BLOCK)
    twice = 2.0 * load(g, n, BLOCK)

    store_pairs(dx, h_re + twice * re, h_im + twice * im, n, BLOCK)


# ---- operators -----------------------------------------------------------------------------------


@kernel_op()
def noise_pairs(mean: Tensor, variance: Tensor, key: Tensor) -> Tensor:
    """mean (..., 2) plus noise of this variance (...), float32 and contiguous; key: int64 (1,)."""
    out = torch.empty_like(mean)
    launch_over(_noise_kernel, variance.numel(), mean, variance, key, out)
    return out


@kernel_op()
def noise_pairs_grad(grad: Tensor, variance: Tensor, key: Tensor) -> Tensor:
    """dL/dvariance from dL/dy (..., 2)."""
    by = torch.empty_like(variance)
    launch_over(_noise_grad_kernel, variance.numel(), grad, variance, key, by)
    return by


@kernel_op()
def square_pairs(x: Tensor) -> Tensor:
    """|x|^2 (...) of pairs (..., 2), float32 and contiguous."""
    square = x.new_empty(x.shape[:-1])
    launch_over(_square_kernel, square.numel(), x, square)
    return square


@kernel_op()
def square_pairs_grad(h: Tensor, g: Tensor, x: Tensor) -> Tensor:
    """h + 2 g x: the gradient by x where both x and |x|^2 go on."""
    dx = torch.empty_like(x)
    launch_over(_square_grad_kernel, g.numel(), h, g, x, dx)
    return dx
