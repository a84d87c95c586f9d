"""KL divergence of each weight's Gaussian posterior from its prior, with gradients in closed form.

A weight has posterior mean mu and variance sigma^2; with q = |mu|^2/sigma^2 = e^n, n = -log_alpha, the terms are

    COMPLEX_VD   Ein(q)                                   g = dKL/dn = 1 - e^-q
    COMPLEX_ARD  log(1 + q)                               g = q/(1 + q)
    REAL_VD      log(1 + q)/2 + k1 sigmoid(k3 n - k2)     g = q/(1 + q)/2 + k1 k3 s (1 - s), s the sigmoid
    REAL_ARD     log(1 + q)/2                             g = q/(1 + q)/2

all 0 at q = 0. VD is variational dropout under the improper prior 1/|w|^2 (complex) or 1/|w| (real), up to its additive
constant; ARD is the KL from N(0, tau^2) at the best tau. REAL_VD is the published fit; the exact one has
g = x D(x), x = sqrt(q/2), with Dawson's function D, which torch does not have.
Gradients need no special function: dKL/dlog_sigma2 = -g and dKL/dmu = 2 g mu/|mu|^2 = 2 (g/q) mu/sigma^2; the last form
is finite, and 0, at mu = 0.

References: Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks", section 3;
Molchanov, Ashukha and Vetrov (2017), "Variational Dropout Sparsifies Deep Neural Networks", equation 14;
Kharitonov, Molchanov and Vetrov (2018), "Variational Dropout via Empirical Bayes" (ARD).
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .expint import ein, ein_slope
from .fast import native
from .fast.fusing import fused, kernels_compiled

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. (2017), equation 14
_CHUNK = 1 << 16  # weights at a time on the CPU: the temporaries of a chunk stay in the cache
_FUSED_CHUNK = 1 << 20  # compiled kernels have few temporaries, and every call costs


Squares = MutableMapping[nn.Parameter, Tensor]  # of a parameter's gradient, the sum of squares


class Term(NamedTuple):
    """A KL term as two elementwise functions of q in [0, inf): value(q), and slope(q) = g/q for q > 0."""

    cplx: bool  # weights are stored as (..., 2)
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    far: float  # value(q) = far * log q + constant for large q


def _real_vd_value(q: Tensor) -> Tensor:
    return q.log1p() / 2 + _K1 * torch.sigmoid(_K3 * q.log() - _K2)


def _real_vd_slope(q: Tensor) -> Tensor:
    s = torch.sigmoid(_K3 * q.log() - _K2)
    return 0.5 / (1 + q) + _K1 * _K3 * s * (1 - s) / q


def _log1p_half(q: Tensor) -> Tensor:
    return q.log1p() / 2


COMPLEX_VD = Term(True, ein, ein_slope, 1.0)
COMPLEX_ARD = Term(True, torch.log1p, lambda q: 1 / (1 + q), 1.0)
REAL_VD = Term(False, _real_vd_value, _real_vd_slope, 0.5)
REAL_ARD = Term(False, _log1p_half, lambda q: 0.5 / (1 + q), 0.5)
TERMS = (COMPLEX_VD, COMPLEX_ARD, REAL_VD, REAL_ARD)  # in the order of native.c


def squared_modulus(weight: Tensor, cplx: bool) -> Tensor:
    """|mu|^2 from the real storage: (..., 2) if `cplx`, else (...)."""
    if not cplx:
        return weight.square()
    re, im = weight.unbind(-1)
    return torch.addcmul(re * re, im, im)


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """The least log_sigma2 and the largest q counted with, so that 1/sigma^2, q and their products stay finite."""
    return (-300.0, 1e300) if dtype == torch.float64 else (-69.0, 1e37)


def _values(square: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """KL of every weight. What the limit takes off log q comes back as `beyond`: the term is logarithmic there."""
    low, _ = _limits(log_sigma2.dtype)
    q = square * log_sigma2.clamp_min(low).neg().exp()
    beyond = (low - log_sigma2).clamp_min(0) * term.far
    return torch.addcmul(term.value(q), beyond, q.clamp_max(1))


def _slopes(square: Tensor, log_sigma2: Tensor, scale: Tensor, term: Term) -> tuple[Tensor, Tensor]:
    """`scale` times (dKL/dmu)/mu, and `scale` times dKL/dlog_sigma2; both real, of log_sigma2's shape.

    From |mu|^2, not from the stored pairs: with those inside, the compiled kernel takes several times as
    long.
    """
    low, most = _limits(log_sigma2.dtype)
    precision = log_sigma2.clamp_min(low).neg().exp()
    q = (square * precision).clamp(1e-30, most)  # g/q has its limit at 1e-30 already
    slope = term.slope(q) * scale
    return 2 * slope * precision, -slope * q


def _sum(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    return _values(squared_modulus(weight, term.cplx), log_sigma2, term).sum(dtype=torch.float64)


class _Penalty(torch.autograd.Function):
    """KL of every weight, shape of log_sigma2."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
        ctx.save_for_backward(weight, log_sigma2)
        ctx.term = term
        return _values(squared_modulus(weight, term.cplx), log_sigma2, term)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, log_sigma2 = ctx.saved_tensors
        factor, by_log_sigma2 = _slopes(
            squared_modulus(weight, ctx.term.cplx), log_sigma2, grad, ctx.term
        )
        return weight * (factor.unsqueeze(-1) if ctx.term.cplx else factor), by_log_sigma2, None


class _PenaltySum(torch.autograd.Function):
    """Sum of the KL over a layer's weights: a pass for the value, a pass for both gradients, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
        ctx.save_for_backward(weight, log_sigma2)
        ctx.term = term
        if native.usable(weight, log_sigma2):
            partial = torch.empty(-(-log_sigma2.numel() // native.BLOCK), dtype=torch.float64)
            native.call(
                "kl_value", TERMS.index(term), log_sigma2.numel(), weight, log_sigma2, partial
            )
            return partial.sum().to(log_sigma2.dtype)
        parts = [fused(_sum, w, s, term) for w, s in _chunks(term, (weight,), (log_sigma2,))]
        return torch.stack(parts).sum().to(log_sigma2.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, log_sigma2 = ctx.saved_tensors
        by_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
        by_log_sigma2 = torch.empty_like(log_sigma2, memory_format=torch.contiguous_format)
        if native.usable(weight, log_sigma2, grad):
            inputs = (TERMS.index(ctx.term), log_sigma2.numel(), weight, log_sigma2, grad)
            native.call("kl_grad", *inputs, by_weight, by_log_sigma2)
            return by_weight, by_log_sigma2, None
        for w, dw, s, ds in _chunks(ctx.term, (weight, by_weight), (log_sigma2, by_log_sigma2)):
            factor, slope = fused(_slopes, squared_modulus(w, ctx.term.cplx), s, grad, ctx.term)
            ds.copy_(slope)
            for part, out in (
                zip(w.unbind(-1), dw.unbind(-1), strict=True) if ctx.term.cplx else [(w, dw)]
            ):
                torch.mul(part, factor, out=out)  # twice as fast as a broadcast over pairs
        return by_weight, by_log_sigma2, None


@torch.no_grad()
def penalty_backward(
    weight: nn.Parameter,
    log_sigma2: nn.Parameter,
    term: Term,
    scale: Tensor,
    squares: Squares | None = None,
) -> Tensor:
    """`(scale * penalty_sum(weight, log_sigma2, term)).backward()` and the sum, in one pass over the weights.

    Half the memory traffic of the way through autograd: value and gradients share a pass, and the gradients are added
    to `.grad` where they are computed. scale: a scalar on the weights' device. squares: takes the sums of squares of
    both gradients as they are then, where they cost no pass of their own (float64; on the CPU, by the C functions).
    """
    places = [place for place in (weight.grad, log_sigma2.grad) if place is not None]
    if len(places) < 2 or not native.usable(weight, log_sigma2, scale, *places):
        with torch.enable_grad():
            value = penalty_sum(weight, log_sigma2, term)
        value.backward(scale)
        return value.detach()
    partial = torch.empty(-(-log_sigma2.numel() // native.BLOCK), 3, dtype=torch.float64)
    native.call(
        "kl_value_grad",
        TERMS.index(term),
        log_sigma2.numel(),
        weight,
        log_sigma2,
        scale,
        *places,
        partial,
    )
    value, by_weight, by_log_sigma2 = partial.sum(0)
    if squares is not None:
        squares.update({weight: by_weight, log_sigma2: by_log_sigma2})
    return value.to(log_sigma2.dtype)


def _chunks(
    term: Term, weights: tuple[Tensor, ...], others: tuple[Tensor, ...]
) -> Iterator[tuple[Tensor, ...]]:
    """Views of all the tensors, flattened to one axis (two for pairs) and cut alike: on the CPU to fit the cache."""
    size = _FUSED_CHUNK if kernels_compiled() else _CHUNK
    size = size if others[0].device.type == "cpu" else max(others[0].numel(), 1)
    flat = [w.detach().reshape(-1, 2) if term.cplx else w.detach().reshape(-1) for w in weights]
    flat += [t.detach().reshape(-1) for t in others]
    return zip(*(t.split(size) for t in flat), strict=True)


def penalty(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """The exact KL of every weight, differentiable once.

    weight: real storage, (..., 2) for a complex term; log_sigma2: (...). Returns (...), in log_sigma2's dtype.
    """
    return _Penalty.apply(weight, log_sigma2, term)


def penalty_sum(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """The sum of `penalty` over all weights as one scalar, differentiable once: what a training step uses."""
    return _PenaltySum.apply(weight, log_sigma2, term)
