"""The entire exponential integral Ein, on the tensor's own device.

    Ein(q) = integral from 0 to q of (1 - e^-t)/t dt
           = q - q^2/(2*2!) + q^3/(3*3!) - ...
           = gamma + log q + E1(q)

The KL term of a complex weight under variational dropout is Ein(|mu|^2/sigma^2), for every weight
of a network in every training step, and torch has no exponential integral. Here it is a handful of
elementwise operations, without branches that depend on the data.

Reference: Abramowitz and Stegun (1964), 5.1.39; gamma is Euler's constant.
"""

import math

import torch
from torch import Tensor

EULER = 0.57721566490153286

# float32: Ein(q) = log(1 + q) + (1 - u)^2 P(u), u = 4/(4 + q). The difference from the logarithm is
# smooth in u all the way from q = 0 (u = 1) to infinity (u = 0, where it is gamma), and no two
# large terms cancel: one formula where series and E1 would make two. Minimax fit of the relative
# error (Lawson's weights, 400 Chebyshev nodes, values of mpmath): 4.8e-7.
_SCALE = 4.0
_FIT = (
    0.577210605, 0.905389249, 0.974142372, 1.560032964, -4.473323345,
    23.128204346, -56.165252686, 69.988269806, -44.005947113, 11.510937691,
)  # fmt: skip

_SPLIT = 2.5  # float64: series up to here, continued fraction above
_SERIES_TERMS = 28  # 2.5^29/(29*29!) = 1.4e-21
_FRACTION_TERMS = 36  # more change no bit of Ein(2.5)
_FAR = 60.0  # Ein(e^n) = gamma + n from here on; e^n overflows float32 from 88.7 on


def ein(q: Tensor) -> Tensor:
    """Ein(q) for q in [0, inf]: Ein(0) = 0, Ein(inf) = inf. For gradients see `ein_slope`.

    Args:
        q: any shape; float32 (relative error below 1e-6) or float64 (below 1e-14). Other floating
            types are computed in float32.

    Returns:
        q's shape and dtype.
    """
    if q.dtype == torch.float64:
        return _ein_double(q, q.log())
    if q.dtype != torch.float32:
        return ein(q.float()).to(q.dtype)

    return _smooth_part(q).add_(q.log1p())


def ein_exp(n: Tensor) -> Tensor:
    """Ein(e^n) for n in [-inf, inf], also where e^n overflows; precision as for `ein`."""
    if n.dtype == torch.float64:
        return _ein_double(n.exp(), n)
    if n.dtype != torch.float32:
        return ein_exp(n.float()).to(n.dtype)

    return ein(n.clamp_max(_FAR).exp()) + (n - _FAR).clamp_min(0)


def ein_slope(q: Tensor) -> Tensor:
    """dEin/dq = (1 - e^-q)/q for 0 < q < inf, to the precision of q's dtype.

    Without expm1 where it may be differentiated, since the derivative of its quotient cancels, and
    under torch.compile: Inductor (torch 2.13, CPU) computes it as exp(x) - 1, which is 0 for q
    below 6e-8.
    """
    if not (torch.compiler.is_compiling() or torch.is_grad_enabled()):
        return -torch.expm1(-q) / q

    n_terms = 17 if q.dtype == torch.float64 else 10  # 1/18! = 2e-16, 1/11! = 3e-8
    small = q.clamp_max(1)
    series = torch.zeros_like(q)
    for k in range(n_terms, 0, -1):
        series = series * small + (-1) ** (k + 1) / math.factorial(k)

    return torch.where(q < 1, series, (1 - q.neg().exp()) / q)


def _smooth_part(q: Tensor) -> Tensor:
    """Ein(q) - log(1 + q) in float32, by Horner's rule."""
    u = _SCALE / (q + _SCALE)
    p = u * _FIT[-1] + _FIT[-2]
    for c in _FIT[-3::-1]:
        p = p.mul_(u).add_(c)
    return p.mul_((1 - u).square())


def _ein_double(q: Tensor, n: Tensor) -> Tensor:
    """Ein(q), n = log q. Both forms at every element, then a choice: for checks, not for speed."""
    small = q.clamp_max(_SPLIT)
    series = torch.zeros_like(q)
    for k in range(_SERIES_TERMS, 0, -1):
        series = small * ((-1) ** (k + 1) / (k * math.factorial(k)) + series)

    # E1(q) = e^-q/(q + 1 - 1/(q + 3 - 4/(q + 5 - 9/(q + 7 - ...)))) (Abramowitz and Stegun 1964,
    # 5.1.22, contracted)
    large = q.clamp_min(_SPLIT)
    fraction = large + (2 * _FRACTION_TERMS + 1)
    for k in range(_FRACTION_TERMS, 0, -1):
        fraction = large + (2 * k - 1) - k * k / fraction

    return torch.where(q < _SPLIT, series, EULER + n.clamp_min(0) + (-large).exp() / fraction)
