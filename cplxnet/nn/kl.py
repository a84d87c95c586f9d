"""KL divergence of each weight's Gaussian posterior from its prior, with gradients in closed form.

A weight has posterior mean mu and variance sigma^2. With q = |mu|^2/sigma^2 = e^n, n = -log_alpha,
the terms are

    COMPLEX_VD   Ein(q)                                 g = dKL/dn = 1 - e^-q
    COMPLEX_ARD  log(1 + q)                             g = q/(1 + q)
    REAL_VD      log(1 + q)/2 + k1 sigmoid(k3 n - k2)   g = q/(1 + q)/2 + k1 k3 s (1 - s)
    REAL_ARD     log(1 + q)/2                           g = q/(1 + q)/2

with s the sigmoid of REAL_VD. All are 0 at q = 0. VD is variational dropout under the improper
prior 1/|w|^2 (complex) or 1/|w| (real), up to its additive constant. ARD is the KL from N(0, tau^2)
at the best tau. REAL_VD is the published fit; the exact gradient is g = x D(x), x = sqrt(q/2), with
Dawson's function D, which torch does not have.

Gradients need no special function: dKL/dlog_sigma2 = -g and dKL/dmu = 2 g mu/|mu|^2 = 2 (g/q)
mu/sigma^2. The last form is finite, and 0, at mu = 0.

Weights are given as they are stored: real, with a last axis (real part, imaginary part) for a
complex term. The sums are computed in C where that is possible (`fast/kl.py`).

References:
    Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks",
        section 3.
    Molchanov, Ashukha and Vetrov (2017), "Variational Dropout Sparsifies Deep Neural Networks",
        equation 14.
    Kharitonov, Molchanov and Vetrov (2018), "Variational Dropout via Empirical Bayes" (ARD).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .expint import ein, ein_slope
from .fast import kl as kl_in_c
from .fast.clipping import GradientNorm
from .fast.dispatch import native_usable

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695  # Molchanov et al. (2017), equation 14


class Term(NamedTuple):
    """A KL term as two elementwise functions of q in [0, inf).

    Attributes:
        cplx: whether weights are complex, stored as (..., 2).
        value: the KL of q.
        slope: g/q for q > 0.
        far: the factor of the logarithm for large q, where value(q) = far * log(q) + constant.
        code: its number in fast/kl.c and fast/gpu/kl.py; None: it is computed by its formula.
    """

    cplx: bool
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    far: float
    code: int | None = None


def _log1p_half(q: Tensor) -> Tensor:
    return q.log1p() / 2


def _real_vd_value(q: Tensor) -> Tensor:
    return _log1p_half(q) + _K1 * torch.sigmoid(_K3 * q.log() - _K2)


def _real_vd_slope(q: Tensor) -> Tensor:
    s = torch.sigmoid(_K3 * q.log() - _K2)
    return 0.5 / (1 + q) + _K1 * _K3 * s * (1 - s) / q


COMPLEX_VD = Term(True, ein, ein_slope, 1.0, code=0)
COMPLEX_ARD = Term(True, torch.log1p, lambda q: 1 / (1 + q), 1.0, code=1)
REAL_VD = Term(False, _real_vd_value, _real_vd_slope, 0.5, code=2)
REAL_ARD = Term(False, _log1p_half, lambda q: 0.5 / (1 + q), 0.5, code=3)


def penalty(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """The exact KL of every weight, differentiable.

    Args:
        weight: posterior means, real storage: (..., 2) for a complex term, else (...).
        log_sigma2: (...), real.
        term: the KL term.

    Returns:
        (...), in log_sigma2's dtype.
    """
    return _Penalty.apply(weight, log_sigma2, term)


def penalty_sum(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """The sum of `penalty` over all weights, added in float64: a scalar.

    Differentiable; where it is computed in C, once.
    """
    if term.code is not None and native_usable(weight, log_sigma2):
        return kl_in_c.PenaltySum.apply(weight, log_sigma2, term.code)

    return penalty(weight, log_sigma2, term).sum(dtype=torch.float64).to(log_sigma2.dtype)


@torch.no_grad()
def penalty_backward(
    weight: nn.Parameter,
    log_sigma2: nn.Parameter,
    term: Term,
    scale: Tensor,
    norm: GradientNorm | None = None,
) -> Tensor:
    """`(scale * penalty_sum(weight, log_sigma2, term)).backward()`, and the sum.

    In C both come from one pass over the weights, with half the memory traffic of autograd: the
    gradients are added to `.grad` where they are computed. That needs gradients to add to, so it
    follows the loss's own backward pass.

    Args:
        weight, log_sigma2, term: as for `penalty`.
        scale: a scalar on the weights' device.
        norm: is told the sums of squares of both gradients after the addition, where C computes
            them.
    """
    gradients = [p.grad for p in (weight, log_sigma2) if p.requires_grad and p.grad is not None]
    has_all = len(gradients) == 2
    if term.code is None or not has_all or not native_usable(weight, log_sigma2, scale, *gradients):
        with torch.enable_grad():
            return add_gradient(penalty_sum(weight, log_sigma2, term), scale)

    value, weight_square, log_sigma2_square = kl_in_c.add_gradients(
        weight, log_sigma2, term.code, scale, *gradients
    )
    if norm is not None:
        norm.add(weight, weight_square)
        norm.add(log_sigma2, log_sigma2_square)

    return value.to(log_sigma2.dtype)


def add_gradient(value: Tensor, scale: Tensor) -> Tensor:
    """Add the gradient of `scale * value` to `.grad` where anything is trained; `value` itself."""
    if value.requires_grad:
        value.backward(scale)
    return value.detach()


def squared_modulus(weight: Tensor, cplx: bool) -> Tensor:
    """|mu|^2 from the real storage: (..., 2) if `cplx`, else (...)."""
    if not cplx:
        return weight.square()

    re, im = weight.unbind(-1)
    return torch.addcmul(re * re, im, im)


class _Penalty(torch.autograd.Function):
    """The KL of every weight, with the gradient in closed form."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
        return _values(squared_modulus(weight, term.cplx), log_sigma2, term)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, log_sigma2, ctx.term = inputs
        ctx.save_for_backward(weight, log_sigma2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, log_sigma2 = ctx.saved_tensors
        square = squared_modulus(weight, ctx.term.cplx)
        by_weight, by_log_sigma2 = _slopes(square, log_sigma2, grad, ctx.term)
        factor = by_weight.unsqueeze(-1) if ctx.term.cplx else by_weight

        return weight * factor, by_log_sigma2, None


def _values(square: Tensor, log_sigma2: Tensor, term: Term) -> Tensor:
    """KL of every weight from |mu|^2.

    log_sigma2 is clamped so that q stays finite. Since the KL is logarithmic there, what the clamp
    takes off log(q) is added back as `beyond`.
    """
    low, _ = _limits(log_sigma2.dtype)
    q = square * log_sigma2.clamp_min(low).neg().exp()
    beyond = (low - log_sigma2).clamp_min(0) * term.far

    return torch.addcmul(term.value(q), beyond, q.clamp_max(1))


def _slopes(square: Tensor, log_sigma2: Tensor, grad: Tensor, term: Term) -> tuple[Tensor, Tensor]:
    """`grad` times (dKL/dmu)/mu, and `grad` times dKL/dlog_sigma2; both real, of its shape."""
    low, high = _limits(log_sigma2.dtype)
    precision = log_sigma2.clamp_min(low).neg().exp()
    q = (square * precision).clamp(1e-30, high)  # g/q has its limit at 1e-30 already
    slope = term.slope(q) * grad

    return 2 * slope * precision, -slope * q


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """The least log_sigma2 and the largest q that keep 1/sigma^2, q and their products finite.

    Raises:
        TypeError: float16, which cannot hold them.
    """
    if dtype == torch.float16:
        raise TypeError(
            "expected log_sigma2 in float32, float64 or bfloat16, got float16, in which "
            "1/sigma^2 overflows; try torch.autocast"
        )
    return (-300.0, 1e300) if dtype == torch.float64 else (-69.0, 1e37)
