"""The noise kernels, in Triton's interpreter: statistics, gradients, the same key the same bits."""

import numpy as np
import pytest
import torch
from interpreted import error, interpreted

noise = interpreted("noise")
FLOOR = 1e-8


def draw(n, key):
    """n standard complex normals of variance 2, as pairs."""
    return noise.noise_pairs(torch.zeros(n, 2), torch.full((n,), 2.0), torch.tensor([key]))


def test_the_noise_is_standard_normal_and_independent():
    scipy_stats = pytest.importorskip("scipy.stats")
    e = draw(40_000, 7).double().cpu().numpy()
    for part in e.T:
        assert scipy_stats.kstest(part, "norm").pvalue > 1e-3
    tied = np.stack((e[:-1, 0], e[1:, 0], e[:-1, 1], e[1:, 1], e[:-1, 0] ** 2, e[:-1, 1] ** 2))
    correlation = np.corrcoef(tied)
    limit = 4.5 / np.sqrt(len(e))
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3), (4, 5)]
    assert max(abs(correlation[i, j]) for i, j in pairs) < limit


def test_variance_and_mean():
    mean, variance = torch.randn(30_000, 2), torch.rand(30_000) * 9
    y = noise.noise_pairs(mean, variance, torch.tensor([3]))
    scaled = (y - mean).square().sum(-1) / variance  # E = 1, variance 1: exponential
    assert abs(scaled.mean() - 1) < 4.5 / 30_000**0.5


def test_same_key_same_bits_whatever_follows():
    long, short = draw(5000, 11), draw(1234, 11)
    assert torch.equal(long[:1234], short)
    assert not torch.equal(draw(1234, 12), short)


def test_gradient_by_the_variance():
    n = 1500
    variance = torch.rand(n) * 2
    variance[:4] = torch.tensor([-1e-9, 0.0, 1e-41, 5e-9])  # below the floor
    grad, key = torch.randn(n, 2), torch.tensor([5])
    e = draw(n, 5).double()
    wide = variance.double().requires_grad_()
    (wide.clamp_min(FLOOR) / 2).sqrt().unsqueeze(-1).mul(e).backward(grad.double())

    by = noise.noise_pairs_grad(grad, variance, key)
    assert error(by, wide.grad) < 1e-6 and (by[:4] == 0).all()


def test_square_and_its_gradient():
    x, h, g = torch.randn(33, 5, 2), torch.randn(33, 5, 2), torch.randn(33, 5)
    x[0], h[0], g[0] = 1e-41, 1e-42, 0.0  # denormal: dx is h
    assert torch.allclose(noise.square_pairs(x), x.square().sum(-1))
    right = h + 2 * g.unsqueeze(-1) * x
    dx = noise.square_pairs_grad(h, g, x)
    assert torch.allclose(dx, right, atol=1e-6) and torch.equal(dx[0], h[0])


def test_nan_stays():
    y = noise.noise_pairs(torch.zeros(2, 2), torch.tensor([float("nan"), 1.0]), torch.tensor([1]))
    assert torch.isnan(y[0]).all() and torch.isfinite(y[1]).all()
