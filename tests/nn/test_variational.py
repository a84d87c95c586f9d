"""Contract of every layer with a Gaussian posterior: noise, gradients, casts, state, optimiser."""

import itertools
import math

import pytest
import torch
from layer_cases import FAMILIES, Family, ids
from torch import nn
from torch.nn import functional as F

FORMS = [(family, form) for family in FAMILIES for form in ("vd", "ard")]
every_form = pytest.mark.parametrize(
    ("family", "form"), FORMS, ids=[f"{i}-{f}" for i in ids(FAMILIES) for f in ("vd", "ard")]
)


def make(
    family: Family, form: str, log_sigma2: float | None = None, dtype: torch.dtype = torch.float64
) -> nn.Module:
    torch.manual_seed(5)
    layer = family.make(getattr(family, form), dtype)
    if log_sigma2 is not None:
        with torch.no_grad():
            layer.log_sigma2.normal_(log_sigma2, 0.5)
    return layer


@every_form
def test_in_evaluation_it_is_exactly_the_mean_layer(family: Family, form: str) -> None:
    layer, dense = make(family, form, 0.0).eval(), family.make(family.dense)
    missing, unexpected = dense.load_state_dict(layer.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["log_sigma2"])
    x = family.input()
    assert torch.equal(layer(x), dense(x))


@every_form
def test_log_sigma2_starts_at_minus_ten(family: Family, form: str) -> None:
    layer = make(family, form)
    assert torch.equal(layer.log_sigma2, torch.full(layer.weight.shape, -10.0, dtype=torch.float64))
    layer.log_sigma2.data.zero_()
    layer.reset_parameters()
    assert (layer.log_sigma2 == -10).all()


@every_form
def test_noise_has_the_mean_and_variance_of_the_formula(family: Family, form: str) -> None:
    # the weights themselves are sampled with the variance that log_sigma2 states: the layer must do
    # as a random W does
    layer = make(family, form, -1.0, torch.float32)
    x = family.input(1, dtype=torch.float32)
    n = 20_000
    with torch.no_grad():
        y = layer(x.expand(n, *x.shape[1:]))
        mean = layer.eval()(x)
        # variance through the mean layer itself: real kernel e^log_sigma2 on |x|^2, bias taken off
        probe = family.make(family.dense, torch.float32)
        probe.weight.copy_(layer.log_sigma2.exp())
        if probe.bias is not None:
            probe.bias.zero_()
        energy = x.abs().square()
        variance = probe(energy.to(x.dtype))
        variance = variance.real if family.cplx else variance
    residual = y - mean
    spread = residual.abs().square().mean(0, keepdim=True)
    assert (residual.mean(0).abs() / variance[0].sqrt()).max() < 5 / math.sqrt(n)
    # var of |eps|^2 is 1 for a circular normal, 2 for a real one
    assert (spread / variance - 1).abs().max() < 5 * math.sqrt((1 if family.cplx else 2) / n)
    if family.cplx:  # circular: no correlation of the parts, each with half of the variance
        pseudo = (residual * residual).mean(0)
        assert (pseudo.abs() / variance[0]).max() < 6 / math.sqrt(n)
    outputs = residual.flatten(1) / variance.flatten(1).sqrt()
    correlation = (outputs.T @ outputs.conj() / n).abs()
    assert (correlation - torch.diag(correlation.diag())).max() < 6 / math.sqrt(n)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.cplx], ids=lambda f: f.name)
@pytest.mark.parametrize("form", ["vd", "ard"])
def test_autocast_changes_no_random_number(family: Family, form: str) -> None:
    layer = make(family, form, -1.0, torch.float32)
    x = family.input(dtype=torch.float32)

    torch.manual_seed(7)
    exact = layer(x)
    torch.manual_seed(7)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x)

    scale = exact.abs().max().item()  # bfloat16 has 8 bits
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.03 * scale)


@every_form
def test_one_output_behaves_as_a_random_weight_does(family: Family, form: str) -> None:
    layer = make(family, form, 0.0)
    x = family.input(1)
    n = 4000
    dense = family.make(family.dense)
    dense.load_state_dict(layer.state_dict(), strict=False)
    mean, total = layer.weight.detach().clone(), 0.0
    with torch.no_grad():
        centre = dense(x)
        for _ in range(n):
            dense.weight.copy_(
                mean + layer.log_sigma2.mul(0.5).exp() * torch.randn_like(mean)
            )  # complex randn is CN(0, 1)
            total = total + (dense(x) - centre).abs().square()
        variance = layer.variance(x.abs().square())
    assert (total / n / variance - 1).abs().max() < 6 * math.sqrt((1 if family.cplx else 2) / n)


@every_form
def test_gradcheck(family: Family, form: str) -> None:
    layer, x = make(family, form, -1.0), family.input().requires_grad_()
    parameters = dict(layer.named_parameters())

    def forward(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(11)  # the same noise at each evaluation
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *parameters.values()))
    assert torch.autograd.gradgradcheck(forward, (x, *parameters.values()))


@every_form
def test_penalty_sees_an_in_place_write_into_the_weight(family: Family, form: str) -> None:
    layer = make(family, form, -2.0)
    with torch.no_grad():
        layer.weight.flatten()[0] = 3.0
        layer.weight.flatten()[1] = 0.0
    alpha = layer.log_sigma2.flatten().exp() / layer.weight.flatten().abs() ** 2
    torch.testing.assert_close(layer.log_alpha.flatten()[0], alpha[0].log())
    assert layer.log_alpha.flatten()[1] == math.inf and layer.penalty.flatten()[1] == 0
    torch.testing.assert_close(layer.kl(), layer.penalty.sum())


@every_form
def test_relevance_keeps_up_to_and_including_the_threshold(family: Family, form: str) -> None:
    layer = make(family, form)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.log_sigma2.fill_(1.0)
        layer.log_sigma2.flatten()[:3] = torch.tensor([-0.5, -0.4999, -7.0], dtype=torch.float64)
    kept = layer.relevance(-0.5).flatten()
    assert (
        kept.dtype == torch.bool and kept[:3].tolist() == [True, False, True] and not kept[3:].any()
    )


@every_form
def test_casting_keeps_values(family: Family, form: str) -> None:
    layer = make(family, form, -1.0)
    before, log_sigma2 = layer.weight.detach().clone(), layer.log_sigma2.detach().clone()
    layer.float()
    torch.testing.assert_close(layer.weight.detach().to(before.dtype), before, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(layer.log_sigma2.detach().double(), log_sigma2, rtol=1e-6, atol=1e-6)
    assert layer(family.input(dtype=torch.float32)).dtype == (
        torch.complex64 if family.cplx else torch.float32
    )


@every_form
def test_dense_to_variational_to_masked_by_state_dict(family: Family, form: str) -> None:
    dense, layer, masked = family.make(family.dense), make(family, form), family.make(family.masked)
    missing, unexpected = layer.load_state_dict(dense.state_dict(), strict=False)
    assert (missing, unexpected) == (["log_sigma2"], [])
    missing, unexpected = masked.load_state_dict(layer.state_dict(), strict=False)
    assert (missing, unexpected) == (["mask"], ["log_sigma2"])
    x = family.input()
    assert torch.equal(masked(x), dense(x))


@every_form
def test_fused_adam_lowers_the_penalty(family: Family, form: str) -> None:
    layer = make(family, form, -4.0, torch.float32)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2, fused=True)
    values = []
    for _ in range(20):
        optimiser.zero_grad()
        value = layer.kl()
        (value + 1e-6 * layer(family.input(dtype=torch.float32)).abs().sum()).backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.1 and all(b < a for a, b in itertools.pairwise(values))


def test_conv1d_variance_agrees_with_a_plain_convolution() -> None:
    family = FAMILIES[1]
    layer, x = make(family, "vd", 0.0), family.input()
    square = x.abs().square()
    plain = F.conv1d(square, layer.log_sigma2.exp(), None, 2, 1, 1, 2)
    torch.testing.assert_close(layer.variance(square), plain)


@every_form
def test_a_variance_clamped_between_forward_passes_has_the_gradients_of_both(
    family: Family, form: str
) -> None:
    """As by a hook, where the losses of two batches are added before the backward pass."""

    def gradient(*limits: float, together: bool) -> torch.Tensor:
        layer = make(family, form, 0.0)
        x = family.input(dtype=torch.float64)
        losses = []
        for limit in limits:
            with torch.no_grad():
                layer.log_sigma2.clamp_(max=limit)
            losses.append(layer(x).abs().square().sum())
            if not together:
                losses.pop().backward()
        if together:
            sum(losses).backward()
        return layer.log_sigma2.grad

    torch.testing.assert_close(
        gradient(0.0, -1.0, together=True), gradient(0.0, -1.0, together=False)
    )
