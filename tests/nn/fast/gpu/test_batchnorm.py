"""Batch norm's kernels, in Triton's interpreter, against the formula in float64."""

import pytest
import torch
from interpreted import error, interpreted

from cplxnet.nn import whitening

batchnorm = interpreted("batchnorm")
EPS = 1e-5


def formula(x, weight, bias, relu, pool):
    """The plain formula and its tail; y, mean and covariance."""
    b, length, c, _ = x.shape
    matrix_free = x.reshape(-1, c, 2)
    mean = matrix_free.mean(0)
    centred = matrix_free - mean
    cov = torch.einsum("nci,ncj->ijc", centred, centred) / len(centred)
    root = whitening.inverse_root(cov, EPS)
    weight = torch.eye(2, dtype=x.dtype)[..., None] * 0.5**0.5 if weight is None else weight
    y = torch.einsum("ijc,jkc,nck->nci", weight.expand(2, 2, c), root, centred)
    y = (y if bias is None else y + bias.t()).view(b, length, c, 2)
    y = y.relu() if relu else y
    if pool:
        y = y[:, : length // 2 * 2].reshape(b, length // 2, 2, c, 2).mean(2)
    return y, mean.t(), cov


def correlated(b, length, c):
    """Parts of different means and scales that lean on each other."""
    x = torch.randn(b, length, c, 2) * 3 + torch.randn(c, 2) * 5
    x[..., 1] += 0.7 * x[..., 0]
    return x


CASES = [(3, 7, 5, True, True), (2, 33, 16, True, False), (5, 130, 3, False, False)]
CASES += [(1, 9, 70, True, True), (2, 2, 1, True, True), (1, 600, 1, False, False)]


@pytest.mark.parametrize(("b", "length", "c", "relu", "pool"), CASES)
@pytest.mark.parametrize("affine", [True, False])
def test_values_and_gradients(b, length, c, relu, pool, affine):
    x = correlated(b, length, c)
    if c > 1:
        x[..., 0, :] *= 1e-41  # denormal: a channel of variance 0, and of the largest gradient
    weight = torch.randn(2, 2, c) if affine else None
    bias = torch.randn(2, c) if affine else None
    given = [t.double().requires_grad_() for t in (x, weight, bias) if t is not None]
    y_right, mean_right, cov_right = formula(
        *(given if affine else [*given, None, None]), relu, pool
    )
    grad = torch.randn(y_right.shape)
    right = torch.autograd.grad(y_right, given, grad.double())

    y, mean, cov, affine_map = batchnorm.batchnorm_forward(
        x, weight, bias, None, None, None, 0.1, EPS, relu, pool
    )
    dx, by_weight, by_bias = batchnorm.batchnorm_backward(
        grad, x, mean, cov, affine_map, weight, EPS, relu, pool
    )

    assert error(y, y_right) < 2e-6 and error(mean, mean_right) < 1e-6
    assert error(cov, cov_right) < 2e-6
    assert error(dx, right[0]) < 2e-5
    if affine:
        assert error(by_weight, right[1]) < 5e-6 and error(by_bias, right[2]) < 5e-6


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics(momentum):
    x = correlated(4, 11, 6)
    mean, cov, count = torch.randn(2, 6), torch.randn(2, 2, 6), torch.tensor(3)
    mean_before, cov_before = mean.double(), cov.double()

    batchnorm.batchnorm_forward(x, None, None, mean, cov, count, momentum, EPS, False, False)

    _, mean_now, cov_now = formula(x.double(), None, None, False, False)
    rate = 0.25 if momentum is None else momentum
    assert count == 4
    assert error(mean, mean_before + rate * (mean_now - mean_before)) < 1e-6
    unbiased = cov_now * 44 / 43
    assert error(cov, cov_before + rate * (unbiased - cov_before)) < 1e-6


def test_the_mean_may_be_far_from_zero():
    x = torch.randn(4, 500, 2, 2) + 3000.0  # E x^2 - (E x)^2 in float32 would have no digit left
    _, _, cov, _ = batchnorm.batchnorm_forward(
        x, None, None, None, None, None, 0.1, EPS, False, False
    )
    _, _, right = formula(x.double(), None, None, False, False)
    assert error(cov, right) < 1e-4


def test_nearly_dependent_parts_are_guarded():
    re = torch.randn(2, 50, 3)
    x = torch.stack((re, re * (1 + 1e-7)), -1)
    y, *_ = batchnorm.batchnorm_forward(x, None, None, None, None, None, 0.1, EPS, False, False)
    right, _, _ = formula(x.double(), None, None, False, False)
    assert torch.isfinite(y).all() and error(y, right) < 1e-2


def test_nan_stays():
    x = torch.randn(2, 4, 2, 2)
    x[0, 1, 0, 0] = float("nan")
    y, *_ = batchnorm.batchnorm_forward(x, None, None, None, None, None, 0.1, EPS, True, True)
    assert torch.isnan(y[..., 0, :]).all() and not torch.isnan(y[..., 1, :]).any()


def test_a_given_map_is_applied():
    x = torch.randn(2, 6, 3, 2)
    affine = torch.randn(6, 3)
    y = batchnorm.batchnorm_apply(x, affine, True, True)
    matrix, shift = affine[:4].view(2, 2, 3), affine[4:]
    right = torch.einsum("ijc,blcj->blci", matrix, x) + shift.t()
    right = right.relu().view(2, 3, 2, 3, 2).mean(2)
    assert torch.allclose(y, right, atol=1e-6)
