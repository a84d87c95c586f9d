"""Gates against their published distribution: quadrature over its CDF, and Monte Carlo."""

import math

import pytest
import torch
from layer_cases import FAMILIES, Family, ids, stored
from scipy import integrate
from torch import nn

from cplxnet import nn as cplx
from cplxnet.nn import l0

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1  # Louizos et al. 2018, section 4
LOGITS = (-3.0, -1.0, 0.0, 0.7, 3.0)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=ids(FAMILIES))


def gated(family: Family) -> nn.Module:
    torch.manual_seed(4)
    layer = family.make(getattr(l0, family.name + "L0"))
    with torch.no_grad():
        layer.gate_logit.normal_(0, 3)
    return layer


def cdf(t: float, a: float) -> float:
    """P(z <= t) for 0 <= t < 1: of the stretched concrete distribution, equation 24."""
    s = (t - GAMMA) / (ZETA - GAMMA)
    return 1 / (1 + math.exp(a - BETA * math.log(s / (1 - s))))


def mean(a: float) -> float:
    """E z = integral over [0, 1] of P(z > t)."""
    return integrate.quad(lambda t: 1 - cdf(t, a), 0, 1, epsabs=1e-10)[0]


def many(a: float, n: int = 100_000) -> nn.Module:
    layer = l0.LinearL0(n, 1, dtype=torch.float64)
    nn.init.constant_(layer.gate_logit, a)
    return layer


@pytest.mark.parametrize("a", LOGITS)
def test_gates_have_the_published_distribution(a):
    layer = many(a)
    z = layer.drawn_gate().detach()
    assert z.min() >= 0 and z.max() <= 1
    for t in (0.0, 0.2, 0.5, 0.9):
        assert float((z <= t).double().mean()) == pytest.approx(cdf(t, a), abs=4 * 0.5 / 316)
    assert float(z.mean()) == pytest.approx(mean(a), abs=4 * 0.5 / 316)


@pytest.mark.parametrize("a", LOGITS)
def test_the_gradient_of_a_draw_is_that_of_the_mean(a):
    layer = many(a)
    z = layer.drawn_gate()
    z.sum().backward()
    by_a = layer.gate_logit.grad
    expected = (mean(a + 1e-4) - mean(a - 1e-4)) / 2e-4
    error = float(by_a.std()) / math.sqrt(by_a.numel())
    assert float(by_a.mean()) == pytest.approx(expected, abs=4.5 * error)


@pytest.mark.parametrize("a", LOGITS)
def test_the_penalty_is_the_probability_that_a_gate_is_not_shut(a):
    layer = many(a)
    expected = 1 - cdf(0.0, a)
    torch.testing.assert_close(
        layer.penalty, torch.full_like(layer.gate_logit, expected), rtol=1e-12, atol=0
    )
    share = float((layer.drawn_gate() > 0).double().mean())
    assert share == pytest.approx(expected, abs=4 * 0.5 / 316)

    by_a = torch.autograd.grad(layer.kl(), layer.gate_logit)[0]
    slope = (cdf(0.0, a - 1e-5) - cdf(0.0, a + 1e-5)) / 2e-5
    torch.testing.assert_close(by_a, torch.full_like(by_a, slope), rtol=1e-6, atol=0)


@every_family
def test_in_evaluation_it_is_the_dense_layer_with_gated_weights(family):
    layer, dense, x = gated(family), family.make(family.dense), family.input()
    dense.load_state_dict(layer.state_dict(), strict=False)
    gate = (torch.sigmoid(layer.gate_logit) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
    with torch.no_grad():
        dense.weight.mul_(gate)
    layer.eval()
    torch.testing.assert_close(layer(x), dense(x))
    assert torch.equal(layer.relevance(-0.5), gate > 0)
    assert 0 < layer.relevance(-0.5).double().mean() < 1


@every_family
def test_in_training_one_draw_gates_whole_weights(family):
    layer, dense, x = gated(family), family.make(family.dense), family.input()
    dense.load_state_dict(layer.state_dict(), strict=False)
    torch.manual_seed(9)
    y = layer(x)
    torch.manual_seed(9)
    with torch.no_grad():
        dense.weight.mul_(layer.drawn_gate())
    torch.testing.assert_close(y, dense(x))
    y.abs().sum().backward()
    assert stored(layer).grad.any() and layer.gate_logit.grad.any()


@every_family
def test_it_starts_as_the_dense_layer_and_takes_its_weights(family):
    layer, dense, x = (
        family.make(getattr(l0, family.name + "L0")),
        family.make(family.dense),
        family.input(),
    )
    layer.eval().load_state_dict(dense.state_dict(), strict=False)
    torch.testing.assert_close(layer(x), dense(x))
    assert layer.relevance(-0.5).all()


def net() -> nn.Sequential:
    return nn.Sequential(cplx.CplxLinearL0(5, 4), cplx.CplxLinearVD(4, 3), cplx.LinearL0(3, 2))


def test_the_sum_of_a_network_and_its_gradient_go_the_way_of_the_kl():
    torch.manual_seed(5)
    model = net()
    for layer in model:
        nn.init.normal_(layer.get_parameter(layer.own[0]))
    total = cplx.kl_sum(model)
    expected = sum(layer.penalty.sum() for layer in model)
    torch.testing.assert_close(total, expected)
    (0.3 * total).backward()
    by_sum = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.testing.assert_close(cplx.kl_backward(model, 0.3), total.detach())
    for by_backward, other in zip(
        (p.grad for p in model.parameters() if p.grad is not None), by_sum, strict=True
    ):
        torch.testing.assert_close(by_backward, other)
    averaged = sum(layer.penalty.mean() for layer in model)
    torch.testing.assert_close(cplx.kl_sum(model, "mean"), averaged)


def test_shut_gates_are_the_zeros_that_are_counted():
    model = net()
    with torch.no_grad():
        model[0].gate_logit.flatten()[:7] = -2.5  # shut below log(0.1/1.1) = -2.398
        model[0].gate_logit.flatten()[7:9] = -2.3
    counts = cplx.sparsity(model, -0.5)
    assert counts["0.weight_ri"] == (14, 40) and counts["2.weight"] == (0, 6)
    assert not any("gate" in name for name in counts)
    assert int((~cplx.relevance_masks(model, -0.5)["0"]).sum()) == 7


def test_a_network_with_gates_is_made_compact_as_it_computes():
    torch.manual_seed(6)
    model = nn.Sequential(
        cplx.CplxConv1dL0(1, 3, 4), cplx.Split(nn.ReLU()), nn.Flatten(), cplx.CplxLinearL0(15, 4)
    ).eval()
    for layer in (model[0], model[3]):
        nn.init.normal_(layer.gate_logit, std=4)
    x = torch.randn(2, 1, 8, dtype=torch.complex64)
    torch.testing.assert_close(cplx.compact(model)(x), model(x), rtol=1e-4, atol=1e-5)
