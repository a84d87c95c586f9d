"""The KL curves against mpmath, a minimum over the prior, Monte Carlo, and the layers of the
package.
"""

import matplotlib
import mpmath
import numpy as np
import pytest
from scipy import optimize, stats

from cplxnet import nn
from extra import kl_divergence
from extra.kl_divergence import EXACT, FITS

matplotlib.use("Agg")

LOG_ALPHA = np.array([-9.0, -5.0, -2.0, -0.5, 0.0, 1.5, 4.0, 9.0])
MPMATH = {  # of n = -log alpha; the real VD value is u^2 2F2(1, 1; 3/2, 2; -u^2), u^2 = q/2
    "complex VD": lambda n: mpmath.euler + n + mpmath.e1(mpmath.exp(n)),
    "complex ARD": lambda n: mpmath.log1p(mpmath.exp(n)),
    "real VD": lambda n: mpmath.exp(n) / 2 * mpmath.hyp2f2(1, 1, 1.5, 2, -mpmath.exp(n) / 2),
    "real ARD": lambda n: mpmath.log1p(mpmath.exp(n)) / 2,
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_values_and_gradients_are_those_of_mpmath(name: str) -> None:
    with mpmath.workdps(40):
        values = [float(MPMATH[name](mpmath.mpf(-a))) for a in LOG_ALPHA]
        slopes = [float(mpmath.diff(MPMATH[name], mpmath.mpf(-a))) for a in LOG_ALPHA]
    np.testing.assert_allclose(EXACT[name].value(-LOG_ALPHA), values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(EXACT[name].gradient(-LOG_ALPHA), slopes, rtol=1e-9)


@pytest.mark.parametrize(("name", "parts"), [("real ARD", 1), ("complex ARD", 2)])
def test_ard_is_the_least_kl_over_priors(name: str, parts: int) -> None:
    for log_alpha in (-3.0, 0.0, 2.0):
        alpha = np.exp(log_alpha)

        def kl(
            log_tau2: float, alpha: float = alpha
        ) -> float:  # of N(1, alpha) from N(0, tau^2), textbook form
            tau2 = np.exp(log_tau2)
            return parts / 2 * (log_tau2 - np.log(alpha) + (alpha + 1) / tau2 - 1)

        best = optimize.minimize_scalar(kl, bracket=(-1, 1)).fun
        assert EXACT[name].value(np.array(-log_alpha)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_monte_carlo_agrees_within_its_errors_and_would_see_another_constant(name: str) -> None:
    points = np.linspace(-6, 6, 13)
    mean, error = kl_divergence.monte_carlo(name, points, draws=50_000, seed=1)
    z = (mean - EXACT[name].value(-points)) / error
    assert 1e-3 < stats.chi2.sf((z**2).sum(), len(z)) < 1 - 1e-3
    wrong = (mean + 0.03 - EXACT[name].value(-points)) / error
    assert stats.chi2.sf((wrong**2).sum(), len(wrong)) < 1e-6
    # the other prior's curve is far outside
    other = name.replace("VD", "ARD") if name.endswith("VD") else name.replace("ARD", "VD")
    assert np.abs((mean - EXACT[other].value(-points)) / error).max() > 20


def test_monte_carlo_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(
        ValueError, match="expected a term of complex VD, complex ARD, real VD, real ARD, got 'VD'"
    ):
        kl_divergence.monte_carlo("VD", LOG_ALPHA)
    with pytest.raises(ValueError, match="expected 2 draws at least, got 1"):
        kl_divergence.monte_carlo("real VD", LOG_ALPHA, draws=1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (nn.CplxLinearVD, "complex VD"),
        (nn.CplxLinearARD, "complex ARD"),
        (nn.LinearVD, "real VD, fit"),
        (nn.LinearARD, "real ARD"),
    ],
)
def test_layers_have_these_curves(kind: type, name: str) -> None:
    value, gradient = kl_divergence.of_layer(kind, LOG_ALPHA)
    term = {**EXACT, **FITS}[name]
    np.testing.assert_allclose(value, term.value(-LOG_ALPHA), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gradient, term.gradient(-LOG_ALPHA), rtol=1e-12, atol=1e-14)


def test_fits_as_published_and_their_slopes() -> None:
    n = -LOG_ALPHA
    sigmoid = 1 / (1 + np.exp(-(1.87320 - 1.48695 * n)))  # of k2 + k3 log alpha
    published = (
        0.63576 * sigmoid - 0.5 * np.log1p(np.exp(n)) - 0.63576
    )  # minus KL, Molchanov et al. (2017), eq. 14
    np.testing.assert_allclose(FITS["real VD, fit"].value(n), -published, rtol=1e-12, atol=1e-14)
    for term in FITS.values():
        slope = (term.value(n + 1e-5) - term.value(n - 1e-5)) / 2e-5
        np.testing.assert_allclose(term.gradient(n), slope, rtol=1e-6, atol=1e-10)


def test_distances_find_the_largest_gap_and_where() -> None:
    one = kl_divergence.Term(lambda n: np.zeros_like(n), lambda n: np.zeros_like(n))
    other = kl_divergence.Term(lambda n: 3 - np.abs(n + 1), lambda n: -np.exp(n))
    row = kl_divergence.distances({"pair": (one, other)}, np.linspace(-2, 2, 41)).loc["pair"]
    assert row["value"] == pytest.approx(3) and row["value, at log alpha"] == pytest.approx(1)
    assert row["gradient"] == pytest.approx(np.exp(2)) and row["gradient, at log alpha"] == -2


def test_figures_show_the_curves_and_the_errors() -> None:
    grid = np.linspace(-8, 6, 15)
    left, right = kl_divergence.plot_exact(grid).axes
    curves = {line.get_label(): line.get_ydata() for line in left.get_lines()}
    np.testing.assert_allclose(curves["real VD"], EXACT["real VD"].value(-grid))
    np.testing.assert_allclose(
        right.get_lines()[1].get_ydata(), EXACT["complex ARD"].gradient(-grid)
    )
    assert "nats" in left.get_ylabel() and left.get_xlabel() == "log alpha"

    panels = kl_divergence.plot_monte_carlo(grid, draws=500, seed=3).axes
    (dots, *_), (bars,) = panels[2].containers[0][0:1], panels[2].containers[0][2]
    mean, error = kl_divergence.monte_carlo(
        "real VD", grid, draws=500, seed=5
    )  # the third term: seed 3 + 2
    np.testing.assert_allclose(dots.get_ydata(), mean - EXACT["real VD"].value(-grid))
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 4 * error)

    top = kl_divergence.plot_approximations(grid).axes[0]
    gap = next(
        line for line in top.get_lines() if line.get_label() == "complex VD, fit"
    ).get_ydata()
    np.testing.assert_allclose(
        gap, FITS["complex VD, fit"].value(-grid) - EXACT["complex VD"].value(-grid)
    )
