"""KL terms by their formulas, against mpmath, quadrature, Monte Carlo and finite differences.

fast/test_kl.py holds the C functions against these.
"""

import math
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest
import torch
from c_functions import plain
from kl_cases import TERMS, at, every_term, log_fraction
from scipy import integrate, special, stats

from cplxnet import nn as cplx
from cplxnet.nn.kl import COMPLEX_VD, REAL_VD, Term, penalty, penalty_sum


@pytest.fixture(autouse=True)
def _without_c() -> Iterator[None]:
    with plain():
        yield


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
@pytest.mark.parametrize("name", TERMS)
def test_value_against_mpmath(name: str, dtype: torch.dtype, tolerance: float) -> None:
    mpmath.mp.dps = 40
    weight, log_sigma2 = at(torch.linspace(-30, 30, 121, dtype=dtype), TERMS[name], -20.0)
    square = weight.double().square()
    q = [
        mpmath.mpf(float(m)) * mpmath.exp(20)
        for m in (square.sum(-1) if TERMS[name].cplx else square)
    ]
    wanted = torch.tensor([float(log_fraction(v, name)) for v in q], dtype=torch.float64)
    torch.testing.assert_close(
        penalty(weight, log_sigma2, TERMS[name]).double(), wanted, rtol=tolerance, atol=0
    )


def test_complex_vd_is_the_elbo_integral_up_to_a_constant() -> None:
    # KL(CN(mu, s2) || 1/|w|^2) = -log(s2) + E log|w|^2 + constant: only differences have a meaning
    rng = np.random.default_rng(0)
    eps = (rng.standard_normal(400_000) + 1j * rng.standard_normal(400_000)) / math.sqrt(2)
    alphas = np.array([0.05, 0.3, 1.0, 4.0, 50.0])
    sampled = [np.log(np.abs(1 + math.sqrt(a) * eps) ** 2).mean() - math.log(a) for a in alphas]
    weight, log_sigma2 = at(-torch.tensor(alphas).log(), COMPLEX_VD)
    exact = penalty(weight, log_sigma2, COMPLEX_VD).numpy()
    assert np.diff(exact) == pytest.approx(np.diff(sampled), abs=0.01)


def test_real_vd_fit_is_close_to_the_elbo_integral() -> None:
    # the same with 1/|w|: -log(s2)/2 + E log|w|; constant fixed by 0 at mu = 0
    def exact(n: float) -> float:
        m = math.exp(n / 2)
        f = lambda z: math.log(abs(m + z)) * stats.norm.pdf(z) if m + z else 0.0  # noqa: E731
        return (
            integrate.quad(f, -m - 10, 10, points=[-m], limit=200)[0]
            - (special.digamma(0.5) + math.log(2)) / 2
        )

    n = torch.linspace(-8, 6, 15, dtype=torch.float64)
    fit = penalty(*at(n, REAL_VD), REAL_VD).numpy()
    assert fit == pytest.approx([exact(float(v)) for v in n], abs=0.01)
    assert (np.diff(fit) > 0).all() and fit[0] > 0 and fit[0] < 1e-3


def test_real_vd_gradient_is_close_to_dawsons() -> None:
    n = torch.linspace(-10, 10, 81, dtype=torch.float64)
    weight, log_sigma2 = at(n, REAL_VD)
    log_sigma2.requires_grad_()
    penalty(weight, log_sigma2, REAL_VD).sum().backward()
    x = np.exp(n.numpy() / 2) / math.sqrt(2)
    assert -log_sigma2.grad.numpy() == pytest.approx(x * special.dawsn(x), abs=0.02)


@pytest.mark.parametrize("name", ["complex-ard", "real-ard"])
def test_ard_is_the_kl_at_the_best_prior_variance(name: str) -> None:
    term, parts = TERMS[name], 2 if name == "complex-ard" else 1
    n = torch.tensor([-4.0, -0.5, 0.5, 3.0], dtype=torch.float64)
    weight, log_sigma2 = at(n, term)
    share = math.exp(-3.0) / parts  # posterior variance of each real part
    energy = n.exp() * share  # |mu|^2 split evenly over the parts
    log_tau2 = torch.linspace(-8, 4, 200_001, dtype=torch.float64)
    prior = log_tau2.exp()
    grid = 0.5 * parts * (log_tau2 - math.log(share) + (share + energy[:, None]) / prior - 1)
    torch.testing.assert_close(
        penalty(weight, log_sigma2, term), grid.min(1).values, rtol=1e-6, atol=1e-8
    )


@every_term
def test_gradcheck(term: Term) -> None:
    torch.manual_seed(0)
    shape = (3, 4, 2) if term.cplx else (3, 4)
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    log_sigma2 = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, s: penalty(w, s, term), (weight, log_sigma2))
    assert torch.autograd.gradcheck(lambda w, s: penalty_sum(w, s, term), (weight, log_sigma2))


def reverse_twice(f: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    hessian: torch.Tensor = torch.func.jacrev(torch.func.jacrev(f))(x)
    return hessian


@pytest.mark.parametrize("name", TERMS)
def test_second_derivatives_against_mpmath(name: str) -> None:
    """d^2 KL/d log_sigma2^2 = d^2 KL/dn^2, also where q is so small that (1 - e^-q)/q cancels."""
    mpmath.mp.dps = 40
    n = torch.tensor([-18.0, -9.0, -1.0, 0.0, 0.5, 3.0, 12.0], dtype=torch.float64)
    weight, log_sigma2 = at(n, TERMS[name])

    def total(log_sigma2: torch.Tensor) -> torch.Tensor:
        return penalty_sum(weight, log_sigma2, TERMS[name])

    wanted = [
        float(mpmath.diff(lambda m: log_fraction(mpmath.exp(m), name), float(at_n), 2))
        for at_n in n
    ]
    for hessian in (torch.autograd.functional.hessian, reverse_twice):
        torch.testing.assert_close(
            hessian(total, log_sigma2).diag(), torch.tensor(wanted).double(), rtol=1e-6, atol=0
        )


@every_term
def test_gradgradcheck(term: Term) -> None:
    weight, log_sigma2 = at(torch.linspace(-6, 6, 7, dtype=torch.float64), term)
    assert torch.autograd.gradgradcheck(
        lambda *given: penalty(*given, term), (weight.requires_grad_(), log_sigma2.requires_grad_())
    )


@every_term
def test_sum_agrees_with_penalty(term: Term) -> None:
    weight = torch.randn((5, 8, 2) if term.cplx else (5, 8), requires_grad=True)
    log_sigma2 = torch.randn(5, 8, requires_grad=True)

    total = penalty_sum(weight, log_sigma2, term)
    by_sum = torch.autograd.grad(3 * total, (weight, log_sigma2))
    each = penalty(weight, log_sigma2, term)
    by_each = torch.autograd.grad(3 * each.sum(), (weight, log_sigma2))

    torch.testing.assert_close(total, each.double().sum().float())
    torch.testing.assert_close(by_sum, by_each)


@every_term
def test_memory_order_does_not_matter(term: Term) -> None:
    torch.manual_seed(2)
    weight = torch.randn((2, 3, 4, 5, 2) if term.cplx else (2, 3, 4, 5), requires_grad=True)
    log_sigma2 = torch.randn(2, 3, 4, 5)
    shuffled = log_sigma2.contiguous(memory_format=torch.channels_last).requires_grad_()
    plain = log_sigma2.clone().requires_grad_()
    one = torch.autograd.grad(penalty_sum(weight, shuffled, term), (weight, shuffled))
    two = torch.autograd.grad(penalty_sum(weight, plain, term), (weight, plain))
    torch.testing.assert_close(one, two, rtol=0, atol=0)


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_sigma2", [-1000.0, -60.0, 0.0, 30.0, 1000.0])
def test_weight_zero_has_no_penalty_and_no_gradient(
    term: Term, dtype: torch.dtype, log_sigma2: float
) -> None:
    weight = torch.zeros((1, 2) if term.cplx else (1,), dtype=dtype, requires_grad=True)
    spread = torch.full((1,), log_sigma2, dtype=dtype, requires_grad=True)
    for value in (penalty(weight, spread, term).sum(), penalty_sum(weight, spread, term)):
        by_weight, by_spread = torch.autograd.grad(value, (weight, spread))
        assert value.item() == 0.0
        assert not by_weight.any()
        assert by_spread.abs().max().item() < 1e-25


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_sigma2", [-60.0, -100.0, -2000.0])
def test_far_beyond_overflow_the_penalty_is_logarithmic(
    term: Term, dtype: torch.dtype, log_sigma2: float
) -> None:
    parts = (
        torch.tensor([[3.0, 4.0]], dtype=dtype) if term.cplx else torch.tensor([5.0], dtype=dtype)
    )
    weight, spread = (
        parts.requires_grad_(),
        torch.full((1,), log_sigma2, dtype=dtype, requires_grad=True),
    )
    n = math.log(25) - log_sigma2
    constant = {COMPLEX_VD: 0.5772156649, REAL_VD: 0.63576}.get(term, 0.0)
    value = penalty(weight, spread, term)
    by_weight, by_spread = torch.autograd.grad(value.sum(), (weight, spread))
    assert value.item() == pytest.approx(term.far * n + constant, rel=1e-6)
    assert by_spread.item() == pytest.approx(-term.far, rel=1e-5)
    torch.testing.assert_close(by_weight, 2 * term.far * parts.detach() / 25, rtol=1e-5, atol=0)


def test_sum_of_many_small_terms_is_accurate() -> None:
    # 2^21 equal terms of about 1e-3: a plain float32 running sum is off in the third digit
    weight, log_sigma2 = at(torch.full((1 << 21,), -7.0), COMPLEX_VD)
    one = penalty(weight[:1].double(), log_sigma2[:1].double(), COMPLEX_VD).item()
    assert penalty_sum(weight, log_sigma2, COMPLEX_VD).item() == pytest.approx(
        one * 2**21, rel=2e-6
    )


def test_float16_is_an_error_that_says_what_to_do() -> None:
    layer = cplx.LinearVD(4, 3).half()
    for value in (layer.kl, lambda: layer.penalty):
        with pytest.raises(
            TypeError, match=r"got float16, in which 1/sigma\^2 overflows; try torch\.aut"
        ):
            value()
    assert cplx.LinearVD(4, 3).bfloat16().kl().isfinite()
