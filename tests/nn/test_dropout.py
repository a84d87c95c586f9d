"""Dropout of whole complex numbers: parts together, mean and variance by formula."""

import pytest
import torch

from cplxnet.nn import CplxDropout


def test_parts_go_together_and_what_stays_is_scaled() -> None:
    z, p = torch.randn(40, 500, dtype=torch.complex64), 0.3
    y = CplxDropout(p)(z)
    dropped = y == 0
    assert torch.equal(dropped, y.real == 0) and torch.equal(dropped, y.imag == 0)
    torch.testing.assert_close(y[~dropped], z[~dropped] / 0.7)
    # 20 000 draws: five deviations of the share are 5 sqrt(0.3 0.7/20000) = 0.016
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.016)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_mean_and_variance(p: float) -> None:
    z = torch.full((400_000,), 1 - 2j, dtype=torch.complex128)
    y = CplxDropout(p)(z)
    variance = 5 * p / (1 - p)  # |z|^2 p/(1 - p)
    error = (variance / len(z)) ** 0.5
    assert abs(y.mean().item() - (1 - 2j)) < 5 * error
    assert (y - z).abs().square().mean().item() == pytest.approx(variance, rel=0.02)
    # both parts carry one and the same draw: their noises are proportional
    torch.testing.assert_close((y - z).imag, -2 * (y - z).real)


def test_draws_differ_between_calls_and_positions() -> None:
    layer, z = CplxDropout(0.5), torch.ones(64, 64, dtype=torch.complex64)
    first, second = layer(z) != 0, layer(z) != 0
    assert (first & second).float().mean().item() == pytest.approx(0.25, abs=0.035)
    assert (first[0] != first[1]).any() and (first[:, 0] != first[:, 1]).any()


def test_ends_and_eval() -> None:
    z = torch.randn(5, 6, dtype=torch.complex64)
    assert torch.equal(CplxDropout(0.0)(z), z)
    assert not CplxDropout(1.0)(z).any()
    assert torch.equal(CplxDropout(0.9).eval()(z), z)


def test_gradient_is_the_mask() -> None:
    z = torch.randn(50, 6, dtype=torch.complex128, requires_grad=True)
    y = CplxDropout(0.4)(z)
    (grad,) = torch.autograd.grad(y.real.sum(), z)
    torch.testing.assert_close(grad, torch.where(y == 0, 0, 1 / 0.6).to(torch.complex128))


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_bad_probability(p: float) -> None:
    with pytest.raises(ValueError, match=rf"expected a probability p in \[0, 1\], got {p}"):
        CplxDropout(p)
