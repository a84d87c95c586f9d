"""Figures of the KL terms over log alpha: exact curves, gradients, Monte Carlo against them, how far fits are off."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from cplxnet.auto.report import style
from cplxnet.auto.report.style import COLOURS

from .kl_curves import EXACT, FITS, Term, monte_carlo

LOG_ALPHA = "log alpha"
# VD solid, ARD dashed, so that none rests on colour alone
STYLES = {
    "complex VD": {"color": COLOURS[0], "ls": "-"},
    "complex ARD": {"color": COLOURS[0], "ls": "--"},
    "real VD": {"color": COLOURS[1], "ls": "-"},
    "real ARD": {"color": COLOURS[1], "ls": "--"},
    "complex VD, fit": {"color": COLOURS[2], "ls": "-."},
    "real VD, fit": {"color": COLOURS[4], "ls": "-."},
}


@style.styled
def values_and_gradients(log_alpha: np.ndarray, *, threshold: float = -0.5) -> Figure:
    """The four exact terms, and the pull of each on log alpha: -dKL/dlog alpha = dKL/dn; the threshold as a line."""
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
def monte_carlo_errors(log_alpha: np.ndarray, *, draws: int, seed: int = 0) -> Figure:
    """Monte Carlo less the exact value for each term, with bars of two standard errors; zero is agreement."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 5), sharex=True)
    for i, (axes, (name, term)) in enumerate(zip(panels.flat, EXACT.items(), strict=True)):
        mean, error = monte_carlo(name, log_alpha, draws=draws, seed=seed + i)
        axes.errorbar(
            log_alpha,
            mean - term.value(-log_alpha),
            2 * error,
            fmt="o",
            ms=3,
            capsize=2,
            color=STYLES[name]["color"],
        )
        axes.axhline(0, color="0.3", lw=1)
        axes.set_title(name, loc="left", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel(LOG_ALPHA)
        axes.xaxis.set_major_locator(MultipleLocator(2))
    figure.supylabel("Monte Carlo less exact, nats", fontsize=10)
    return figure


@style.styled
def approximations(log_alpha: np.ndarray, *, threshold: float = -0.5) -> Figure:
    """Fits (above) and ARD (below) less the exact VD term of the same field: KL on the left, gradients on the right."""
    others: Mapping[str, Mapping[str, Term]] = {
        "fits": FITS,
        "ARD": {n: t for n, t in EXACT.items() if "ARD" in n},
    }
    figure, panels = plt.subplots(2, 2, figsize=(10, 6), sharex=True)
    for (left, right), (title, terms) in zip(panels, others.items(), strict=True):
        for name, term in terms.items():
            exact = EXACT[f"{name.split()[0]} VD"]
            left.plot(
                log_alpha,
                term.value(-log_alpha) - exact.value(-log_alpha),
                label=name,
                **STYLES[name],
            )
            right.plot(
                log_alpha, term.gradient(-log_alpha) - exact.gradient(-log_alpha), **STYLES[name]
            )
        left.set_title(f"{title} less exact VD: KL, nats", loc="left", fontsize=10)
        right.set_title(f"{title} less exact VD: -dKL / dlog alpha, nats", loc="left", fontsize=10)
        for axes in (left, right):
            axes.axhline(0, color="0.3", lw=1)
            _finish(axes, threshold, below=title == "ARD")
        left.legend()
    return figure


def _finish(axes: Axes, threshold: float, *, below: bool = True) -> None:
    axes.axvline(threshold, color="0.5", lw=1, ls=":", label=f"threshold, {threshold:g}")
    axes.xaxis.set_major_locator(MultipleLocator(2))
    axes.set_xlabel(LOG_ALPHA if below else "")
