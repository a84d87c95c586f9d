"""The objective against a computation by hand."""

import math

import pytest
import torch
from mpmath import expint, mp
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Distill, Term
from cplxnet.auto.train.objective import Distillation, Objective

TERMS = {
    "loss": Term(name="bce_with_logits"),
    "kl_div": Term(name="kl", reduction="sum", coef=1e-5),
    "kl_mean": Term(name="kl", reduction="mean", coef=0.5),
    "loss_sum": Term(name="bce_with_logits", reduction="sum"),
}


def softened(**options) -> Distill:
    return Distill(teacher="dense", **options)


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


def backward(objective, net) -> tuple[float, float]:
    """Loss and KL of the batch; the gradients are in the parameters. As in the trainer's step."""
    net.zero_grad()
    loss = objective.loss(net(X), TARGET, X)
    if loss.requires_grad:
        loss.backward()
    kl = objective.add_kl(net)
    return loss.item(), kl.item()


def test_loss_is_mean_bce_and_kl_the_sum_without_coefficient(net):
    loss, kl = backward(Objective(TERMS, {"loss": 1.0, "kl_div": 250.0}), net)
    bce = bce_by_hand(net)
    assert loss == pytest.approx(sum(bce) / len(bce), rel=1e-5)
    assert kl == pytest.approx(sum(sum(kl_by_hand(layer)) for layer in net[:2]), rel=1e-5)


def test_reductions(net):
    loss, kl = backward(Objective(TERMS, {"loss_sum": 0.5, "kl_mean": 3.0}), net)
    by_layer = [kl_by_hand(layer) for layer in net[:2]]
    mean = sum(sum(kl) / len(kl) for kl in by_layer)  # averaged within a layer, layers added
    assert loss == pytest.approx(0.5 * sum(bce_by_hand(net)), rel=1e-5)
    assert kl == pytest.approx(mean, rel=1e-5)


def test_gradient_is_that_of_the_weighted_sum(net):
    backward(Objective(TERMS, {"loss": 1.0, "kl_div": 1e4}), net)
    layer = net[1]
    q = layer.weight.detach().abs().square() / layer.log_sigma2.detach().exp()
    torch.testing.assert_close(
        layer.log_sigma2.grad, -0.1 * (1 - (-q).exp()), rtol=1e-5, atol=1e-7
    )  # dKL/dlog_sigma2 = -g


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
def test_the_gradient_in_two_passes_is_that_of_the_formula_in_one(net, weights):
    net.train()
    objective = Objective(TERMS, weights)
    torch.manual_seed(3)  # the noise of the layers
    backward(objective, net)
    gradients = [
        torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()
    ]

    net.zero_grad()
    torch.manual_seed(3)
    total = objective.loss(net(X), TARGET, X)
    for name, weight in weights.items():
        if TERMS[name].name == "kl":
            total = total + weight * TERMS[name].coef * cplx.kl_sum(net, TERMS[name].reduction)
    total.backward()
    for by_parts, p in zip(gradients, net.parameters(), strict=True):
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(by_parts, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weights", [{"loss": 1.0}, {"loss": 1.0, "kl_div": 1e5}], ids=repr)
def test_the_norm_is_that_of_all_gradients_and_they_are_scaled_to_the_limit(net, weights):
    objective = Objective(TERMS, weights)
    backward(objective, net)
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    norm = math.sqrt(sum(grad.double().square().sum().item() for grad in before))
    assert objective.clip(net, None).item() == pytest.approx(norm, rel=1e-6)
    assert all(
        torch.equal(p.grad, grad)
        for p, grad in zip((p for p in net.parameters() if p.grad is not None), before, strict=True)
    )
    assert objective.clip(net, 1e-3).item() == pytest.approx(norm, rel=1e-6)
    after = [p.grad for p in net.parameters() if p.grad is not None]
    for grad, clipped in zip(before, after, strict=True):
        torch.testing.assert_close(clipped, grad * 1e-3 / norm, rtol=1e-3, atol=1e-9)


def test_the_kl_is_not_computed_where_its_coefficient_is_zero(net, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    monkeypatch.setattr(cplx, "kl_backward", refuse)
    for weights in ({"loss": 1.0}, {"loss": 1.0, "kl_div": 0.0}):
        objective = Objective(TERMS, weights)
        assert objective.add_kl(net).item() == 0.0 and not objective.has_kl
    with pytest.raises(AssertionError, match="computed"):
        Objective(TERMS, {"loss": 1.0, "kl_div": 1e-9}).add_kl(net)
    zero = {**TERMS, "kl_div": Term(name="kl", coef=0.0)}
    assert Objective(zero, {"loss": 1.0, "kl_div": 1.0}).add_kl(net).item() == 0.0


def test_a_penalty_alone_is_an_objective(net):
    loss, kl = backward(Objective(TERMS, {"kl_div": 1.0}), net)
    assert loss == 0.0
    assert kl == pytest.approx(sum(sum(kl_by_hand(layer)) for layer in net[:2]), rel=1e-5)
    assert all(p.grad is not None for layer in net[:2] for p in (layer.weight_ri, layer.log_sigma2))


def test_a_kl_of_a_dense_network_is_an_error():
    dense = nn.Sequential(cplx.CplxLinear(3, 2), cplx.CplxToReal())
    with pytest.raises(ValueError, match="expected variational layers"):
        Objective(TERMS, {"loss": 1.0, "kl_div": 1.0}).add_kl(dense)


# -- a weight of the KL that changes, and a teacher ------------------------------------------------


def test_the_kl_weighs_its_own_weight_times_the_last_factor(net):
    objective = Objective(TERMS, {"loss": 0.0, "kl_div": 1e4})
    gradients = []
    for factor in (None, 0.5, 0.25, 0.0, 1.0):
        if factor is not None:
            objective.scale_kl(factor)
        _, kl = backward(objective, net)
        gradients.append(net[0].log_sigma2.grad.clone())
    assert kl == pytest.approx(sum(sum(kl_by_hand(layer)) for layer in net[:2]), rel=1e-5)
    for gradient, factor in zip(gradients, (1.0, 0.5, 0.25, 0.0, 1.0), strict=True):
        torch.testing.assert_close(gradient, factor * gradients[0])


def test_off_the_cpu_the_weight_is_a_tensor_changed_in_place():
    objective = Objective(TERMS, {"kl_div": 1e4}, device="meta")
    (scale,) = objective._scales
    objective.scale_kl(0.5)
    assert objective._scales[0] is scale and scale.device.type == "meta"


def test_a_tensor_of_the_weight_does_what_the_number_does(net):
    number = cplx.kl_backward(net, 0.25).item()
    by_number = [layer.weight_ri.grad.clone() for layer in net[:2]]
    net.zero_grad()
    assert cplx.kl_backward(net, torch.tensor(0.25)).item() == number
    for layer, expected in zip(net[:2], by_number, strict=True):
        assert torch.equal(layer.weight_ri.grad, expected)


@pytest.fixture
def teacher(net):
    """Another network of this kind, in training mode: with noise."""
    other = nn.Sequential(cplx.CplxLinearVD(3, 4), cplx.CplxLinearVD(4, 2), cplx.CplxToReal())
    with torch.no_grad():
        for layer in other[:2]:
            layer.log_sigma2.fill_(2.0)
    return other.train()


def test_the_teachers_softened_outputs_are_targets(net, teacher):
    distillation = Distillation(teacher, softened(weight=0.3, temperature=2.0))
    objective = Objective(TERMS, {"loss": 0.5}, distillation=distillation)
    first, second = (layer.weight.detach() for layer in teacher[:2])
    hidden = X @ first.T + teacher[0].bias.detach()
    soft = 1 / (1 + (-(hidden @ second.T + teacher[1].bias.detach()).real.double() / 2).exp())
    p = 1 / (1 + (-net(X).double() / 2).exp())
    entropy = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean().item()

    expected = 0.5 * sum(bce_by_hand(net)) / TARGET.numel() + 0.3 * 2.0**2 * entropy
    assert objective.loss(net(X), TARGET, X).item() == pytest.approx(expected, rel=1e-5)


def test_a_teacher_draws_no_noise_and_is_not_trained(net, teacher):
    before = torch.get_rng_state()
    distillation = Distillation(teacher, softened(weight=1.0, temperature=1.0))
    Objective(TERMS, {"loss": 1.0}, distillation=distillation).loss(net(X), TARGET, X).backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in teacher.parameters())
    assert net[0].weight_ri.grad.any()


def test_one_who_agrees_with_the_teacher_has_nothing_to_learn_from_it(net):
    distillation = Distillation(net, softened(weight=1.0, temperature=3.0))
    objective = Objective(TERMS, {"loss": 0.0}, distillation=distillation)
    objective.loss(net(X), TARGET, X).backward()
    assert net[0].weight_ri.grad.abs().max() < 1e-7


def test_kl_of_channels_weighs_by_a_factor_of_its_own():
    net = nn.Sequential(cplx.CplxLinearBothVD(3, 4), cplx.CplxToReal()).eval()
    with torch.no_grad():
        net[0].log_sigma2.uniform_(-4, 1)
        net[0].log_sigma2_out.uniform_(-4, 1)
    objective = Objective(TERMS, {"loss": 1.0, "kl_div": 10.0}, kl_channels=30.0)
    kl = objective.add_kl(net)

    layer = net[0]
    power = layer.weight.detach().abs().square().double().mean(1)
    ratio = power / layer.log_sigma2_out.detach().double().exp()
    channels = [float(mp.euler + mp.log(value) + expint(1, value)) for value in ratio.tolist()]
    assert float(kl) == pytest.approx(sum(kl_by_hand(layer)) + 30 * sum(channels), rel=1e-5)
    slope = -torch.expm1(-ratio).float()  # of a channel's KL by log_sigma2_out, but for its sign
    torch.testing.assert_close(layer.log_sigma2_out.grad, -10 * 1e-5 * 30 * slope)
