"""The objective against a computation by hand."""

import math

import pytest
import torch
from mpmath import expint, mp
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Term
from cplxnet.auto.train.objective import Objective

TERMS = {
    "loss": Term(name="bce_with_logits"),
    "kl_div": Term(name="kl", reduction="sum", coef=1e-5),
    "kl_mean": Term(name="kl", reduction="mean", coef=0.5),
    "loss_sum": Term(name="bce_with_logits", reduction="sum"),
}


@pytest.fixture
def net() -> nn.Sequential:
    """Two variational layers, the real part of the last as logits; in eval mode: no noise."""
    net = nn.Sequential(
        cplx.CplxLinearVD(3, 4), cplx.CplxLinearVD(4, 2, bias=False), cplx.CplxToReal()
    ).eval()
    with torch.no_grad():
        for layer in net[:2]:
            layer.log_sigma2.uniform_(-4, 1)
    return net


X = torch.randn(5, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
TARGET = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def bce_by_hand(net: nn.Sequential) -> list[float]:
    """-log p(target) of each entry, from two matrix products and the logistic function."""
    first, second = (layer.weight.detach() for layer in net[:2])
    logit = ((X @ first.T + net[0].bias.detach()) @ second.T).real.tolist()
    rows = zip(logit, TARGET.tolist(), strict=True)
    return [
        -math.log(1 / (1 + math.exp(-z if t else z)))
        for zs, ts in rows
        for z, t in zip(zs, ts, strict=True)
    ]


def kl_by_hand(layer: nn.Module) -> list[float]:
    """gamma + log q + E1(q) of each weight, from mpmath."""
    q = layer.weight.detach().abs().square().double() / layer.log_sigma2.detach().double().exp()
    return [float(mp.euler + mp.log(value) + expint(1, value)) for value in q.flatten().tolist()]


def test_value_is_mean_bce_plus_weighted_sum_of_kl(net):
    value = Objective(TERMS, {"loss": 1.0, "kl_div": 250.0})(net, X, TARGET)
    bce, kl = bce_by_hand(net), [kl_by_hand(layer) for layer in net[:2]]
    total_kl = sum(map(sum, kl))
    assert value.loss.item() == pytest.approx(sum(bce) / len(bce), rel=1e-5)
    assert value.kl.item() == pytest.approx(total_kl, rel=1e-5)
    assert value.total.item() == pytest.approx(
        sum(bce) / len(bce) + 250.0 * 1e-5 * total_kl, rel=1e-5
    )


def test_reductions(net):
    value = Objective(TERMS, {"loss_sum": 0.5, "kl_mean": 3.0})(net, X, TARGET)
    by_layer = [kl_by_hand(layer) for layer in net[:2]]
    mean = sum(sum(kl) / len(kl) for kl in by_layer)  # averaged within a layer, layers added
    assert value.loss.item() == pytest.approx(0.5 * sum(bce_by_hand(net)), rel=1e-5)
    assert value.kl.item() == pytest.approx(mean, rel=1e-5)
    assert value.total.item() == pytest.approx(
        0.5 * sum(bce_by_hand(net)) + 3.0 * 0.5 * mean, rel=1e-5
    )


def test_gradient_is_that_of_the_weighted_sum(net):
    Objective(TERMS, {"loss": 1.0, "kl_div": 1e4})(net, X, TARGET).total.backward()
    layer = net[1]
    q = layer.weight.detach().abs().square() / layer.log_sigma2.detach().exp()
    torch.testing.assert_close(
        layer.log_sigma2.grad, -0.1 * (1 - (-q).exp()), rtol=1e-5, atol=1e-7
    )  # DESIGN 4


@pytest.mark.parametrize(
    "weights",
    [
        {"loss": 1.0},
        {"loss": 1.0, "kl_div": 1e4},
        {"loss_sum": 0.5, "kl_mean": 3.0},
        {"kl_div": 1e3},
    ],
    ids=repr,
)
def test_the_backward_pass_of_the_trainer_is_that_of_the_formula(net, weights):
    objective = Objective(TERMS, weights)
    gradients, values = [], []
    for backward in (lambda: objective(net, X, TARGET), lambda: objective.backward(net, X, TARGET)):
        net.zero_grad()
        torch.manual_seed(3)  # the noise of the layers
        value = backward()
        if value.total.requires_grad:
            value.total.backward()
        values.append([part.detach().item() for part in value])
        gradients.append(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
        )
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_kl_is_not_computed_where_its_coefficient_is_zero(net, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    monkeypatch.setattr(cplx, "kl_sum", refuse)
    for weights in ({"loss": 1.0}, {"loss": 1.0, "kl_div": 0.0}):
        value = Objective(TERMS, weights)(net, X, TARGET)
        assert value.kl.item() == 0.0 and value.total.item() == value.loss.item()
    with pytest.raises(AssertionError, match="computed"):
        Objective(TERMS, {"loss": 1.0, "kl_div": 1e-9})(net, X, TARGET)
    zero = {**TERMS, "kl_div": Term(name="kl", coef=0.0)}
    assert Objective(zero, {"loss": 1.0, "kl_div": 1.0})(net, X, TARGET).kl.item() == 0.0


def test_a_penalty_alone_is_an_objective(net):
    value = Objective(TERMS, {"kl_div": 1.0})(net, X, TARGET)
    assert value.loss.item() == 0.0
    assert value.total.item() == pytest.approx(
        1e-5 * sum(sum(kl_by_hand(layer)) for layer in net[:2]), rel=1e-5
    )


def test_a_kl_of_a_dense_network_is_an_error():
    dense = nn.Sequential(cplx.CplxLinear(3, 2), cplx.CplxToReal())
    with pytest.raises(ValueError, match="expected variational layers"):
        Objective(TERMS, {"loss": 1.0, "kl_div": 1.0})(dense, X, TARGET)
