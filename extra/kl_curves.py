"""The KL terms of one weight as curves over log alpha: exact by scipy, as fits used elsewhere, by Monte Carlo.

With n = -log alpha and q = e^n = |mu|^2/sigma^2 (DESIGN 4). What is here is a second way to the terms of
`cplxnet.nn.kl`, in numpy and float64, for looking at and for checking; training never calls it.

The posterior is w ~ N(mu, sigma^2), or CN(mu, sigma^2, 0). Variational dropout has the improper prior p(w) = 1/|w|
(complex: 1/|w|^2), so its KL = E log q(w) - E log p(w) has no natural zero; its limit for alpha -> infinity is taken
off. Written with w = sigma (x + eps), x = sqrt(q), sigma cancels and what is left is

    real     E log|x + eps| - E log|eps|         = integral of 2 D(t) over t = 0 .. sqrt(q/2), D Dawson's function
    complex  E log|x + eps|^2 - E log|eps|^2     = gamma + n + E1(q)

Automatic relevance determination has the prior N(0, tau^2) at the best tau^2, which is |mu|^2 + sigma^2: log(1 + q),
half of it for a real weight.

References: Molchanov, Ashukha and Vetrov (2017), equation 14 (the real fit); Louizos, Ullrich and Welling (2017),
appendix, and Hron, Matthews and Ghahramani (2018) on Dawson's function; Nazarov and Burnaev (2020), section 3.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import integrate, special

from cplxnet.nn import GaussianWeight

Array = np.ndarray


class Term(NamedTuple):
    """KL in nats and its gradient g = dKL/dn, as functions of n = -log alpha (any shape)."""

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


def _dawson_gradient(n: Array) -> Array:
    u = np.sqrt(np.exp(n) / 2)
    return u * special.dawsn(u)


def _dawson_value(n: Array) -> Array:
    """The integral of the gradient over n from -infinity; below -80 it is under 1e-34."""
    n = np.asarray(n, float)
    flat = [
        integrate.quad(_dawson_gradient, -80, end, epsabs=1e-12, limit=500)[0] for end in n.ravel()
    ]
    return np.reshape(flat, n.shape)


def _sigmoid_fit(k1: float, k2: float, k3: float, *, parts: int) -> Term:
    """parts/2 softplus(n) + k1 sigmoid(k3 n - k2): the approximation of Molchanov et al.; parts: 1 real, 2 complex."""

    def value(n: Array) -> Array:
        return parts / 2 * np.logaddexp(0, n) + k1 * special.expit(k3 * n - k2)

    def gradient(n: Array) -> Array:
        s = special.expit(k3 * n - k2)
        return parts / 2 * special.expit(n) + k1 * k3 * s * (1 - s)

    return Term(value, gradient)


EXACT: Mapping[str, Term] = {
    "complex VD": Term(
        lambda n: np.euler_gamma + n + special.exp1(np.exp(n)), lambda n: -np.expm1(-np.exp(n))
    ),
    "complex ARD": Term(lambda n: np.logaddexp(0, n), special.expit),
    "real VD": Term(_dawson_value, _dawson_gradient),
    "real ARD": Term(lambda n: np.logaddexp(0, n) / 2, lambda n: special.expit(n) / 2),
}
FITS: Mapping[str, Term] = {
    "complex VD, fit": _sigmoid_fit(
        0.57810, 1.45926, 1.36526, parts=2
    ),  # cplxmodule 2022.6, CplxLinearVDApprox
    "real VD, fit": _sigmoid_fit(
        0.63576, 1.87320, 1.48695, parts=1
    ),  # Molchanov et al. (2017), equation 14
}


def monte_carlo(
    name: str, log_alpha: Array, *, draws: int = 100_000, seed: int = 0
) -> tuple[Array, Array]:
    """The KL of the term `name` of `EXACT` from its definition: the mean of log q(w) - log p(w) over draws of w from q.

    With mu = 1 and sigma^2 = alpha, `draws` of them at every log alpha. No special function and nothing of the
    derivation above goes in, except, for VD, the limit for alpha -> infinity that is taken off.

    Returns:
        mean and standard error, float64, shape of log_alpha (points,).

    Raises:
        ValueError: an unknown term, or fewer than 2 draws.
    """
    if name not in EXACT:
        raise ValueError(f"expected a term of {', '.join(EXACT)}, got {name!r}")
    if draws < 2:
        raise ValueError(f"expected 2 draws at least, got {draws}: a standard error needs them")
    rng, cplx, ard = np.random.default_rng(seed), name.startswith("complex"), name.endswith("ARD")
    means, errors = [], []
    for alpha in np.exp(log_alpha):
        log_ratio = _log_ratio(rng, draws, alpha, cplx=cplx, ard=ard)
        means.append(log_ratio.mean())
        errors.append(log_ratio.std(ddof=1) / np.sqrt(draws))
    return np.array(means) - (0.0 if ard else _limit(cplx=cplx)), np.array(errors)


def _log_ratio(
    rng: np.random.Generator, draws: int, alpha: float, *, cplx: bool, ard: bool
) -> Array:
    """log q(w) - log p(w) of draws w ~ q: (draws,)."""
    parts = 2 if cplx else 1
    eps = rng.standard_normal((draws, parts)) / np.sqrt(parts)  # E|eps|^2 = 1
    w = np.sqrt(alpha) * eps
    w[:, 0] += 1.0  # mu
    distance, square = (eps**2).sum(1), (w**2).sum(1)
    log_q = _log_normal(distance, alpha, parts)
    log_p = (
        _log_normal(square / (1 + alpha), 1 + alpha, parts) if ard else -parts / 2 * np.log(square)
    )
    return log_q - log_p


def _log_normal(standard: Array, variance: float, parts: int) -> Array:
    """log density at the squared standard distance: -|z|^2 - log(pi v) complex, -(z^2 + log(2 pi v))/2 real."""
    return -parts / 2 * (standard + np.log(2 * np.pi * variance / parts))


def _limit(*, cplx: bool) -> float:
    """The mean of log q(w) - log p(w) under VD for alpha -> infinity, from E log of an exponential and of a chi^2_1."""
    if cplx:
        return -1 - np.log(np.pi) - np.euler_gamma  # E log|eps|^2 = -gamma
    return -(1 + np.log(2 * np.pi) + np.euler_gamma + np.log(2)) / 2  # E log eps^2 = -gamma - log 2


def of_layer(kind: type[GaussianWeight], log_alpha: Array) -> tuple[Array, Array]:
    """KL and -dKL/dlog alpha of a linear layer of this package (`CplxLinearVD`, `LinearARD`, ...): (points,) each.

    Its weights are 1 and its log_sigma2 the given log alphas, so what it says of `penalty` and by autograd of its
    gradient is the curve. float64.
    """
    layer: Any = kind(len(log_alpha), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.log_sigma2.copy_(torch.from_numpy(log_alpha)[None])
    value = layer.penalty
    value.sum().backward()
    return value.detach().numpy()[0], -layer.log_sigma2.grad.numpy()[0]


def distances(pairs: Mapping[str, tuple[Term, Term]], log_alpha: Array) -> pd.DataFrame:
    """How far apart two terms are over the grid log_alpha (points,): a row a pair, name -> (a term, its reference).

    Columns: the largest absolute difference of the KL, nats, and of its gradient, each with the log alpha where it is.
    """
    rows = {}
    for name, (one, other) in pairs.items():
        row: dict[str, float] = {}
        for what in ("value", "gradient"):
            gap = np.abs(getattr(one, what)(-log_alpha) - getattr(other, what)(-log_alpha))
            row |= {what: gap.max(), f"{what}, at log alpha": log_alpha[gap.argmax()]}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")
