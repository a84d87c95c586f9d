"""The KL of a weight over log alpha, for `kl_divergence.ipynb`: exact, as fits, by Monte Carlo.

With n = -log alpha and q = e^n = |mu|^2/sigma^2 (extra/design.md). What is here is a second way to
the terms of `cplxnet.nn.kl`, in numpy and float64, for looking at and for checking; training never
calls it.

The posterior is w ~ N(mu, sigma^2), or CN(mu, sigma^2, 0). Variational dropout has the improper
prior p(w) = 1/|w| (complex: 1/|w|^2), so its KL = E log q(w) - E log p(w) has no natural zero; its
limit for alpha -> infinity is taken off. Written with w = sigma (x + eps), x = sqrt(q), sigma
cancels and what is left is

    real     E log|x + eps| - E log|eps|      = integral of 2 D(t) over t = 0 .. sqrt(q/2)
    complex  E log|x + eps|^2 - E log|eps|^2  = gamma + n + E1(q)

where D is Dawson's function. Automatic relevance determination has the prior N(0, tau^2) at the
best tau^2, which is |mu|^2 + sigma^2: log(1 + q), half of it for a real weight.

References: Molchanov, Ashukha and Vetrov (2017), equation 14 (the real fit); Louizos, Ullrich and
Welling (2017), appendix, and Hron, Matthews and Ghahramani (2018) on Dawson's function; Nazarov and
Burnaev (2020), section 3.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from scipy import integrate, special

from cplxnet.auto.report import style
from cplxnet.auto.report.style import COLOURS
from cplxnet.nn import GaussianWeight

Array = np.ndarray

# VD is solid and ARD dashed, so that no reading rests on colour alone.
STYLES = {
    "complex VD": {"color": COLOURS[0], "ls": "-"},
    "complex ARD": {"color": COLOURS[0], "ls": "--"},
    "real VD": {"color": COLOURS[1], "ls": "-"},
    "real ARD": {"color": COLOURS[1], "ls": "--"},
    "complex VD, fit": {"color": COLOURS[2], "ls": "-."},
    "real VD, fit": {"color": COLOURS[4], "ls": "-."},
}
_LOG_ALPHA = "log alpha"  # an axis


class Term(NamedTuple):
    """KL in nats and its gradient g = dKL/dn, as functions of n = -log alpha (any shape)."""

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


def _dawson_gradient(n: Array) -> Array:
    """u D(u) with u = sqrt(q/2)."""
    u = np.sqrt(np.exp(n) / 2)
    return u * special.dawsn(u)


def _dawson_value(n: Array) -> Array:
    """The integral of the gradient over n from -infinity; below -80 it is under 1e-34."""
    n = np.asarray(n, float)
    values = [
        integrate.quad(_dawson_gradient, -80, end, epsabs=1e-12, limit=500)[0] for end in n.ravel()
    ]
    return np.reshape(values, n.shape)


def _sigmoid_fit(k1: float, k2: float, k3: float, *, parts: int) -> Term:
    """parts/2 softplus(n) + k1 sigmoid(k3 n - k2), the approximation of Molchanov et al.

    Args:
        k1, k2, k3: constants of the fit.
        parts: 1 for a real weight, 2 for a complex one.
    """

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
    # cplxmodule 2022.6, CplxLinearVDApprox
    "complex VD, fit": _sigmoid_fit(0.57810, 1.45926, 1.36526, parts=2),
    # Molchanov et al. (2017), equation 14
    "real VD, fit": _sigmoid_fit(0.63576, 1.87320, 1.48695, parts=1),
}


def monte_carlo(
    name: str, log_alpha: Array, *, draws: int = 100_000, seed: int = 0
) -> tuple[Array, Array]:
    """The KL from its definition: the mean of log q(w) - log p(w) over draws of w from q.

    With mu = 1 and sigma^2 = alpha. No special function and nothing of the derivation above goes
    in, except, for VD, the limit for alpha -> infinity that is taken off.

    Args:
        name: a term of `EXACT`.
        log_alpha: (points,).
        draws: at every point.
        seed: of the draws.

    Returns:
        Mean and standard error, float64 (points,) each.

    Raises:
        ValueError: an unknown term, or fewer than 2 draws.
    """
    if name not in EXACT:
        raise ValueError(f"expected a term of {', '.join(EXACT)}, got {name!r}")
    if draws < 2:
        raise ValueError(f"expected 2 draws at least, got {draws}: a standard error needs them")

    rng = np.random.default_rng(seed)
    cplx = name.startswith("complex")
    ard = name.endswith("ARD")
    means = []
    errors = []
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

    log_q = _log_normal((eps**2).sum(1), alpha, parts)
    square = (w**2).sum(1)
    if ard:
        log_p = _log_normal(square / (1 + alpha), 1 + alpha, parts)
    else:
        log_p = -parts / 2 * np.log(square)
    return log_q - log_p


def _log_normal(standard: Array, variance: float, parts: int) -> Array:
    """log density: -|z|^2 - log(pi v) for complex z, -(z^2 + log(2 pi v))/2 for real z.

    Args:
        standard: |z|^2, the squared distance from the mean over the variance v.
        variance: v.
        parts: 1 for real numbers, 2 for complex ones.
    """
    return -parts / 2 * (standard + np.log(2 * np.pi * variance / parts))


def _limit(*, cplx: bool) -> float:
    """The mean of log q(w) - log p(w) under VD for alpha -> infinity."""
    if cplx:
        return -1 - np.log(np.pi) - np.euler_gamma  # E log|eps|^2 = -gamma, of an exponential
    # E log eps^2 = -gamma - log 2, of a chi^2 with one degree of freedom
    return -(1 + np.log(2 * np.pi) + np.euler_gamma + np.log(2)) / 2


def of_layer(kind: type[GaussianWeight], log_alpha: Array) -> tuple[Array, Array]:
    """KL and -dKL/dlog alpha as a layer of this package computes them: (points,) each, float64.

    The layer's weights are 1 and its log_sigma2 the given log alphas, so that `penalty` and its
    gradient by autograd are the curves.

    Args:
        kind: a variational linear layer, `CplxLinearVD` or `LinearARD` say.
        log_alpha: (points,).
    """
    layer: Any = kind(len(log_alpha), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.log_sigma2.copy_(torch.from_numpy(log_alpha)[None])

    value = layer.penalty
    value.sum().backward()
    return value.detach().numpy()[0], -layer.log_sigma2.grad.numpy()[0]


def distances(pairs: Mapping[str, tuple[Term, Term]], log_alpha: Array) -> pd.DataFrame:
    """How far apart two terms are: a row a pair.

    Args:
        pairs: name -> (a term, its reference).
        log_alpha: (points,), where to compare.

    Returns:
        The largest absolute difference of the KL, nats, and of its gradient, each with its place.
    """
    rows = {}
    for name, (term, reference) in pairs.items():
        row: dict[str, float] = {}
        for what in ("value", "gradient"):
            gap = np.abs(getattr(term, what)(-log_alpha) - getattr(reference, what)(-log_alpha))
            row[what] = gap.max()
            row[f"{what}, at log alpha"] = log_alpha[gap.argmax()]
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


@style.styled
def plot_exact(log_alpha: Array, *, threshold: float = -0.5) -> Figure:
    """The four exact terms, and how each pulls on log alpha: -dKL/dlog alpha = dKL/dn."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for name, term in EXACT.items():
        left.plot(log_alpha, term.value(-log_alpha), label=name, **STYLES[name])
        right.plot(log_alpha, term.gradient(-log_alpha), **STYLES[name])

    left.set_ylabel("KL, nats per weight")
    right.set_ylabel("-dKL / dlog alpha, nats")
    for axes in (left, right):
        _finish(axes, threshold)
    left.legend()
    return figure


@style.styled
def plot_monte_carlo(log_alpha: Array, *, draws: int, seed: int = 0) -> Figure:
    """Monte Carlo less the exact value for each term, with bars of two standard errors."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 5), sharex=True)
    for i, (axes, (name, term)) in enumerate(zip(panels.flat, EXACT.items(), strict=True)):
        mean, error = monte_carlo(name, log_alpha, draws=draws, seed=seed + i)
        gap = mean - term.value(-log_alpha)
        look = {"fmt": "o", "ms": 3, "capsize": 2, "color": STYLES[name]["color"]}
        axes.errorbar(log_alpha, gap, 2 * error, **look)
        axes.axhline(0, color=style.GUIDE, lw=1)
        axes.set_title(name, loc="left", fontsize=10)

    for axes in panels[-1]:
        axes.set_xlabel(_LOG_ALPHA)
        axes.xaxis.set_major_locator(MultipleLocator(2))
    figure.supylabel("Monte Carlo less exact, nats", fontsize=10)
    return figure


@style.styled
def plot_approximations(log_alpha: Array, *, threshold: float = -0.5) -> Figure:
    """Fits (above) and ARD (below) less exact VD: the KL on the left, its gradient on the right."""
    others: Mapping[str, Mapping[str, Term]] = {
        "fits": FITS,
        "ARD": {name: term for name, term in EXACT.items() if "ARD" in name},
    }
    figure, panels = plt.subplots(2, 2, figsize=(10, 6), sharex=True)

    for (left, right), (title, terms) in zip(panels, others.items(), strict=True):
        for name, term in terms.items():
            exact = EXACT[f"{name.split()[0]} VD"]
            value_gap = term.value(-log_alpha) - exact.value(-log_alpha)
            gradient_gap = term.gradient(-log_alpha) - exact.gradient(-log_alpha)
            left.plot(log_alpha, value_gap, label=name, **STYLES[name])
            right.plot(log_alpha, gradient_gap, **STYLES[name])

        left.set_title(f"{title} less exact VD: KL, nats", loc="left", fontsize=10)
        right.set_title(f"{title} less exact VD: -dKL / dlog alpha, nats", loc="left", fontsize=10)
        for axes in (left, right):
            axes.axhline(0, color=style.GUIDE, lw=1)
            _finish(axes, threshold, labelled=title == "ARD")
        left.legend()
    return figure


def _finish(axes: Axes, threshold: float, *, labelled: bool = True) -> None:
    """The threshold as a dotted line, ticks every 2, and the axis's label."""
    axes.axvline(threshold, color=style.GUIDE, lw=1, ls=":", label=f"threshold, {threshold:g}")
    axes.xaxis.set_major_locator(MultipleLocator(2))
    axes.set_xlabel(_LOG_ALPHA if labelled else "")
