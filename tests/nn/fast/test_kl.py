"""The KL sum in C against the formulas in float64 and mpmath: values, gradients, extremes, NaN."""

import math

import mpmath
import pytest
import torch
from c_functions import in_c, plain
from kl_cases import TERMS, at, every_term, log_fraction
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn.fast import native
from cplxnet.nn.fast.clipping import GradientNorm
from cplxnet.nn.fast.dispatch import native_usable
from cplxnet.nn.kl import Term, penalty, penalty_backward, penalty_sum

SHAPES = pytest.mark.parametrize(
    "n", [1, 63, 4095, 4096, 4097, 3 * 4096 + 17]
)  # blocks are of 4096


def summed(
    weight: Tensor, log_sigma2: Tensor, term: Term, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """`scale` times the KL sum, and its two gradients."""
    weight, log_sigma2 = weight.detach().requires_grad_(), log_sigma2.detach().requires_grad_()
    value = scale * penalty_sum(weight, log_sigma2, term)
    return value.detach(), *torch.autograd.grad(value, (weight, log_sigma2))


def in_double(weight: Tensor, log_sigma2: Tensor, term: Term) -> tuple[Tensor, Tensor, Tensor]:
    """The KL of every weight in float64, which test_kl checks, and the gradients of their sum."""
    weight, log_sigma2 = weight.double().requires_grad_(), log_sigma2.double().requires_grad_()
    values = penalty(weight, log_sigma2, term)
    return values.detach(), *torch.autograd.grad(values.sum(), (weight, log_sigma2))


@in_c
@pytest.mark.parametrize("repeat", [1, 64])  # the loop's tail, and its vectors
@pytest.mark.parametrize("log_sigma2", [-20.0, 0.0, 3.0])
@pytest.mark.parametrize("name", TERMS)
def test_kl_value_and_gradients(name: str, log_sigma2: float, repeat: int) -> None:
    term, n = TERMS[name], torch.linspace(-30, 30, 121)
    weight, spread = at(n, term, log_sigma2)
    assert native_usable(weight, spread)
    values = [
        penalty_sum(w.repeat(repeat, 1), s.repeat(repeat), term)
        for w, s in zip(weight, spread, strict=True)
    ]
    wanted, by_weight, by_spread = in_double(weight, spread, term)
    torch.testing.assert_close(torch.stack(values).double() / repeat, wanted, rtol=1e-5, atol=0)
    _, *grads = summed(
        weight.repeat_interleave(repeat, 0), spread.repeat_interleave(repeat), term, 3.0
    )
    for grad, exact in zip(grads, (by_weight, by_spread), strict=True):
        torch.testing.assert_close(
            grad.double(), 3 * exact.repeat_interleave(repeat, 0), rtol=1e-6, atol=0
        )


@in_c
@pytest.mark.parametrize("name", TERMS)
def test_kl_value_against_mpmath(name: str) -> None:
    weight, spread = at(torch.linspace(-30, 30, 21), TERMS[name], 0.0)
    square = weight.double().square()
    for w, s, q in zip(weight, spread, square.sum(-1) if TERMS[name].cplx else square, strict=True):
        value = penalty_sum(w.repeat(16, 1), s.repeat(16), TERMS[name]).item() / 16
        assert value == pytest.approx(float(log_fraction(mpmath.mpf(float(q)), name)), rel=1e-5)


@in_c
@SHAPES
@every_term
def test_kl_sum_over_any_number_of_weights(term: Term, n: int) -> None:
    weight, spread = torch.randn((n, 2) if term.cplx else (n,)), torch.randn(n) * 3
    values, by_weight, by_spread = in_double(weight, spread, term)
    value, *grads = summed(weight, spread, term)
    assert value.item() == pytest.approx(values.sum().item(), rel=1e-6)
    torch.testing.assert_close(
        [g.double() for g in grads], [by_weight, by_spread], rtol=1e-5, atol=1e-12
    )


@in_c
@pytest.mark.parametrize("n", [1, 71, 2 * native.BLOCK + 5])
@pytest.mark.parametrize("scale", [1.0, -2.5e-5])
@every_term
def test_one_pass_adds_what_two_give(term: Term, scale: float, n: int) -> None:
    weight, spread = torch.randn((n, 2) if term.cplx else (n,)), torch.randn(n) * 3
    for place, extreme in enumerate((-1000.0, -69.0, 1000.0, math.inf, math.nan)[: n // 8]):
        spread[7 * place] = extreme
    value, *grads = summed(weight, spread, term)
    parameters = nn.Parameter(weight), nn.Parameter(spread)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    got = penalty_backward(*parameters, term, torch.tensor(scale))
    torch.testing.assert_close(got, value, rtol=1e-6, atol=0, equal_nan=True)
    for parameter, grad in zip(parameters, grads, strict=True):
        torch.testing.assert_close(
            parameter.grad, 1 + scale * grad, rtol=2e-6, atol=1e-6, equal_nan=True
        )


@in_c
@pytest.mark.parametrize("n", [1, 71, 513, 2 * native.BLOCK + 5])
@every_term
def test_one_pass_gives_the_sums_of_squares_of_the_gradients_it_leaves(term: Term, n: int) -> None:
    parameters = (
        nn.Parameter(torch.randn((n, 2) if term.cplx else (n,))),
        nn.Parameter(torch.randn(n) * 3),
    )
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    norm = GradientNorm()
    penalty_backward(*parameters, term, torch.tensor(0.3), norm)
    assert list(norm.squares) == list(parameters)
    for parameter, found in norm.squares.items():
        assert parameter.grad is not None and found.dtype == torch.float64
        assert found.item() == pytest.approx(
            parameter.grad.double().square().sum().item(), rel=1e-6
        )

    norm = GradientNorm()
    with plain():
        penalty_backward(*parameters, term, torch.tensor(0.3), norm)
    assert not norm.squares  # that would be a pass of its own


@in_c
@every_term
def test_without_gradients_to_add_to_one_pass_makes_them(term: Term) -> None:
    weight, spread = torch.randn((71, 2) if term.cplx else (71,)), torch.randn(71)
    value, *grads = summed(weight, spread, term)
    parameters = nn.Parameter(weight), nn.Parameter(spread)
    assert torch.equal(penalty_backward(*parameters, term, torch.tensor(1.0)), value)
    assert all(
        torch.equal(parameter.grad, grad) for parameter, grad in zip(parameters, grads, strict=True)
    )


@in_c
def test_kl_sum_of_many_small_terms_is_accurate() -> None:
    # equal terms of about 1e-3 round alike: a float32 sum over a whole block is off by 3e-6
    weight, spread = at(torch.full((1 << 21,), -7.0), TERMS["complex-vd"])
    one = penalty(weight[:1].double(), spread[:1].double(), TERMS["complex-vd"]).item()
    assert penalty_sum(weight, spread, TERMS["complex-vd"]).item() == pytest.approx(
        one * 2**21, rel=1e-6
    )


@in_c
@every_term
def test_kl_of_no_weights(term: Term) -> None:
    value, *grads = summed(torch.empty((0, 2) if term.cplx else (0,)), torch.empty(0), term)
    assert value.item() == 0.0 and [g.numel() for g in grads] == [0, 0]


@in_c
@every_term
@pytest.mark.parametrize("log_sigma2", [-1000.0, -100.0, -69.0, -30.0, 0.0, 60.0, 1000.0])
@pytest.mark.parametrize("modulus", [0.0, 1e-3, 1.0, 1e3])
def test_kl_at_the_ends(term: Term, log_sigma2: float, modulus: float) -> None:
    weight, spread = (
        torch.full((19, 2) if term.cplx else (19,), modulus),
        torch.full((19,), log_sigma2),
    )
    value, *grads = summed(weight, spread, term)
    with plain():
        wanted, *by_plain = summed(weight, spread, term)
    torch.testing.assert_close(value, wanted, rtol=2e-6, atol=0)
    torch.testing.assert_close(grads, by_plain, rtol=2e-6, atol=1e-29)
    values, *by_double = in_double(weight, spread.clamp(-200), term)  # float64 counts down to -300
    values += (-200 - spread.double()).clamp_min(0) * term.far * (modulus > 0)
    assert value.item() == pytest.approx(values.sum().item(), rel=2e-6)
    torch.testing.assert_close([g.double() for g in grads], by_double, rtol=2e-6, atol=1e-29)
    assert modulus or (value == 0 and not grads[0].any())


@in_c
@every_term
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "log_sigma2"])
@pytest.mark.parametrize("place", [5, 70])  # of 71: in a vector, and in the tail
def test_nan_and_infinity_show(term: Term, bad: float, where: str, place: int) -> None:
    weight, spread = torch.randn((71, 2) if term.cplx else (71,)), torch.randn(71)
    clean = summed(weight, spread, term)
    (weight if where == "weight" else spread)[place] = bad
    got = summed(weight, spread, term)
    with plain():
        wanted = summed(weight, spread, term)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=0, equal_nan=True)
    if math.isnan(bad):
        assert got[0].isnan() and all(g[place].isnan().all() for g in got[1:])
    others = torch.arange(71) != place
    assert all(torch.equal(g[others], c[others]) for g, c in zip(got[1:], clean[1:], strict=True))


@in_c
def test_nan_in_one_part_only_shows_in_both() -> None:
    weight, spread = torch.randn(71, 2), torch.randn(71)
    weight[3, 0], weight[70, 1] = math.nan, math.nan
    for term in (TERMS["complex-vd"], TERMS["complex-ard"]):
        value, by_weight, by_spread = summed(weight, spread, term)
        assert (
            value.isnan() and by_weight[[3, 70]].isnan().all() and by_spread[[3, 70]].isnan().all()
        )
        assert by_weight.isnan().sum() == 4 and by_spread.isnan().sum() == 2


@in_c
@every_term
@pytest.mark.parametrize("scale", [0.0, -2.5, math.nan, math.inf])
def test_the_upstream_gradient_is_a_factor(term: Term, scale: float) -> None:
    weight, spread = torch.randn((37, 2) if term.cplx else (37,)), torch.randn(37)
    one, times = summed(weight, spread, term)[1:], summed(weight, spread, term, scale)[1:]
    torch.testing.assert_close(
        times, tuple(scale * g for g in one), rtol=1e-6, atol=0, equal_nan=True
    )


@in_c
@every_term
def test_other_layouts_and_types_take_the_plain_formula(term: Term) -> None:
    weight, spread = torch.randn((6, 8, 2) if term.cplx else (6, 8)), torch.randn(6, 8)
    wanted = summed(weight, spread, term)
    turned = weight.transpose(0, 1).contiguous().transpose(0, 1)
    assert (
        not native_usable(turned)
        and not native_usable(spread.double())
        and not native_usable(spread.to("meta"))
    )
    torch.testing.assert_close(summed(turned, spread, term), wanted, rtol=2e-6, atol=0)


@in_c
def test_kl_sum_without_gradients() -> None:
    net = nn.Sequential(
        cplx.CplxLinearVD(40, 30),
        cplx.CplxConv1dARD(3, 5, 4),
        cplx.LinearVD(20, 9),
        cplx.Conv1dARD(2, 3, 4),
    )
    with torch.no_grad():
        for layer in net:
            layer.log_sigma2.normal_(-2, 2)
    wanted = cplx.kl_sum(net)
    exact = sum(p.double().sum() for p in cplx.named_penalties(net).values())
    assert wanted.requires_grad and wanted.item() == pytest.approx(exact.item(), rel=1e-6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value = cplx.kl_sum(net)
        assert not value.requires_grad and torch.equal(value, wanted.detach())


# -- terms that C does not know --------------------------------------------------------------------


@in_c
@pytest.mark.parametrize("code", [-1, 4, 1 << 40])
@pytest.mark.parametrize("name", ["kl_value", "kl_grad", "kl_value_grad"])
def test_a_term_that_c_does_not_know_is_an_error(name: str, code: int) -> None:
    pairs, numbers = torch.ones(3, 2), torch.ones(3)
    arguments = {
        "kl_value": (torch.zeros(1, dtype=torch.float64),),
        "kl_grad": (torch.ones(()), pairs.clone(), numbers.clone()),
        "kl_value_grad": (torch.ones(()), pairs.clone(), numbers.clone(), torch.zeros(3)),
    }[name]
    with pytest.raises(RuntimeError, match=f"the C function {name} knows no such case: .{code}, 3"):
        native.call(name, code, 3, pairs, numbers, *arguments)


def test_a_term_of_ones_own_is_computed_by_its_formula() -> None:
    term = Term(False, torch.sqrt, lambda q: 0.5 / q.sqrt(), 0.0)  # KL = |mu|/sigma, g = KL/2
    weight = nn.Parameter(torch.randn(71))
    log_sigma2 = nn.Parameter(torch.randn(71))
    wanted = (weight.abs() * (-log_sigma2 / 2).exp()).sum()
    by_weight, by_log_sigma2 = torch.autograd.grad(wanted, (weight, log_sigma2))

    torch.testing.assert_close(penalty_sum(weight, log_sigma2, term), wanted)
    for _ in range(2):  # without gradients to add to, and with
        penalty_backward(weight, log_sigma2, term, torch.tensor(0.5))
    torch.testing.assert_close((weight.grad, log_sigma2.grad), (by_weight, by_log_sigma2))
