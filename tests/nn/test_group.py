"""Noise of channels: its moments by Monte Carlo, its KL by quadrature; whole channels masked."""

import pytest
import torch
from layer_cases import FAMILIES, Family, ids
from scipy import integrate, special
from torch import nn

from cplxnet import nn as cplx
from cplxnet.nn import group

every_family = pytest.mark.parametrize("family", FAMILIES, ids=ids(FAMILIES))


def mean_power(layer: nn.Module) -> torch.Tensor:
    """The mean of |w|^2 of each channel."""
    return layer.weight.detach().abs().square().flatten(1).mean(1)


@torch.no_grad()
def set_log_alpha(layer: nn.Module, log_alpha: float | torch.Tensor) -> None:
    layer.log_sigma2_out.copy_(log_alpha + mean_power(layer).log())


def grouped(family: Family, form: str = "GroupVD") -> nn.Module:
    torch.manual_seed(5)
    layer = family.make(getattr(group, family.name + form))
    with torch.no_grad():
        set_log_alpha(layer, torch.linspace(-2, 1, len(layer.weight), dtype=torch.float64))
    return layer


@every_family
def test_evaluation_is_the_mean_layers(family):
    layer, dense = grouped(family).eval(), family.make(family.dense)
    dense.load_state_dict(layer.state_dict(), strict=False)
    x = family.input()
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-12, atol=1e-12)


@every_family
def test_noise_multiplies_a_channel_of_an_example_by_one_number(family):
    layer = grouped(family)
    x = family.input(4000)
    mean = layer.eval()(x)
    noisy = layer.train()(x)
    channels = -1 if "Linear" in family.name else 1
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (x.dim() - 2))
    factor = (
        ((noisy - bias) / (mean - bias))
        .movedim(channels, 1)
        .reshape(4000, mean.shape[channels], -1)
    )
    z = factor[..., :1]

    # along a convolution the same number; its mean is 1, its variance alpha
    torch.testing.assert_close(factor, z.expand_as(factor), rtol=1e-6, atol=1e-6)
    alpha = layer.log_sigma2_out.detach().exp() / mean_power(layer)
    assert ((z.mean(0).squeeze() - 1).abs() < 4.5 * (alpha / 4000).sqrt()).all()
    spread = (z - 1).abs().square().mean(0).squeeze()
    torch.testing.assert_close(spread, alpha, rtol=0.12, atol=0)
    if family.cplx:  # circular: E (z - 1)^2 = 0
        assert ((z - 1).square().mean(0).squeeze().abs() < 4.5 * alpha / 4000**0.5).all()


@pytest.mark.parametrize("log_alpha", [-8.0, -2.0, 0.0, 2.0])
def test_penalties_are_those_of_one_weight_of_mean_1(log_alpha):
    q = float(torch.tensor(-log_alpha, dtype=torch.float64).exp())
    ein = integrate.quad(lambda t: -special.expm1(-t) / t, 0, q, epsabs=1e-12, limit=500)[0]
    expected = {"VD": ein, "ARD": float(special.log1p(q))}
    for prior, value in expected.items():
        layer = getattr(group, f"CplxLinearGroup{prior}")(7, 3, dtype=torch.float64)
        set_log_alpha(layer, log_alpha)
        assert layer.penalty.shape == (3,)
        assert float(cplx.kl_sum(layer).detach()) == pytest.approx(3 * value, rel=1e-8)
        assert float(cplx.kl_sum(layer, "mean").detach()) == pytest.approx(value, rel=1e-8)
        real = getattr(group, f"Conv1dGroup{prior}")(2, 3, 3, dtype=torch.float64)
        set_log_alpha(real, log_alpha)
        if prior == "ARD":
            assert float(cplx.kl_sum(real).detach()) == pytest.approx(1.5 * value, rel=1e-8)


@pytest.mark.parametrize("prior", ["VD", "ARD"])
def test_gradients_of_the_kl_are_its_slopes(prior):
    layer = grouped(FAMILIES[0], f"Group{prior}")
    value = cplx.kl_backward(layer, 2.0)
    assert float(value) == pytest.approx(float(cplx.kl_sum(layer).detach()), rel=1e-12)

    # slope of the KL by -log alpha: that of Ein(q) is 1 - e^-q, that of log(1 + q) is q/(1 + q)
    power = mean_power(layer)
    q = power / layer.log_sigma2_out.detach().exp()
    slope = -torch.expm1(-q) if prior == "VD" else q / (1 + q)
    torch.testing.assert_close(layer.log_sigma2_out.grad, -2 * slope, rtol=1e-9, atol=0)
    # d log(mean |w|^2)/dw = 2 w/(n mean |w|^2): towards zero, along the weights of the channel
    weight = layer.weight.detach()
    expected = 2 * slope * 2 / (power * weight[0].numel())
    gradient = torch.view_as_complex(layer.weight_ri.grad)
    torch.testing.assert_close(gradient, expected.view(-1, *[1] * (weight.dim() - 1)) * weight)


@every_family
def test_a_channel_without_weights_is_irrelevant_and_finite(family):
    layer = grouped(family)
    with torch.no_grad():
        layer.weight[0] = 0
    x = family.input()
    layer(x).abs().sum().backward()
    cplx.kl_backward(layer, 1.0)
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    assert not layer.relevance(20.0)[0].any() and layer.log_alpha_out[0] == torch.inf
    assert float(layer.penalty[0].detach()) == 0


@every_family
@pytest.mark.parametrize("form", ["GroupVD", "BothVD"])
def test_a_channel_without_weights_is_trained_as_that_of_the_mean_layer(family, form):
    """As a network begins whose channels were masked: its gradient was 10^7 times as large."""
    layer, dense = grouped(family, form), family.make(family.dense)
    with torch.no_grad():
        layer.weight[0] = 0
        if form == "BothVD":
            layer.log_sigma2.fill_(-60)
    dense.load_state_dict(layer.state_dict(), strict=False)
    x = family.input()
    results = []
    for each in (layer, dense):
        y = each(x)
        first = y[..., 0] if "Linear" in family.name else y[:, 0]
        (first - 1).abs().square().sum().backward()
        gradient = next(p.grad for name, p in each.named_parameters() if name.startswith("weight"))
        results.append((first.detach(), gradient[0]))
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-2)  # the variance has a floor


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d"])
@pytest.mark.parametrize("form", ["GroupVD", "BothVD"])
def test_a_real_convolution_takes_one_example_alone(name, form):
    layer = getattr(cplx, name + form)(2, 3, 2)
    x = torch.randn(2, *[4] * (layer.weight.dim() - 2))  # as many positions as channels
    noisy = []
    for example in (x, x[None]):
        torch.manual_seed(7)
        noisy.append(layer(example))
    torch.testing.assert_close(noisy[0], noisy[1][0])


@every_family
def test_masks_are_whole_channels(family):
    layer = grouped(family)
    mask = layer.relevance(-0.5)
    assert mask.shape == layer.weight.shape
    kept = torch.linspace(-2, 1, len(mask)) <= -0.5
    assert 0 < int(kept.sum()) < len(kept)
    assert torch.equal(mask.flatten(1).all(1), kept) and torch.equal(mask.flatten(1).any(1), kept)


def both(family: Family, form: str = "BothVD") -> nn.Module:
    """A layer with noise of channels, and of weights that are about as noisy."""
    layer = grouped(family, form)
    with torch.no_grad():
        layer.log_sigma2.copy_(layer.weight.abs().square().log() + torch.randn(layer.weight.shape))
    return layer


@every_family
def test_noise_of_channels_multiplies_that_of_weights(family):
    layer = both(family)
    n = 4000
    x = family.input(1).expand(n, *family.shape[1:])
    channels = -1 if "Linear" in family.name else 1
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (x.dim() - 2))
    with torch.no_grad():
        mean = layer.eval()(x[:1]) - bias
        noise = layer.train()(x) - bias - mean
        variance = layer.variance(x[:1].abs().square())

    # E |z W x - mu x|^2 = alpha |mu x|^2 + (1 + alpha) sigma^2 |x|^2 where E z = 1
    alpha = layer.log_sigma2_out.detach().exp() / mean_power(layer)
    alpha = alpha if channels == -1 else alpha.view(-1, *[1] * (x.dim() - 2))
    expected = alpha * mean.abs().square() + (1 + alpha) * variance
    assert (noise.mean(0).abs() < 5 * (expected[0] / n).sqrt()).all()
    torch.testing.assert_close(noise.abs().square().mean(0), expected[0], rtol=0.25, atol=0)


@every_family
@pytest.mark.parametrize("prior", ["VD", "ARD"])
def test_both_kl_are_added(family, prior):
    layer = both(family, f"Both{prior}")
    apart = {
        kind: family.make(cls)
        for kind, cls in (
            ("channels", getattr(group, f"{family.name}Group{prior}")),
            ("weights", family.vd if prior == "VD" else family.ard),
        )
    }
    for one in apart.values():
        one.load_state_dict(layer.state_dict(), strict=False)
    values = [cplx.kl_sum(one) for one in apart.values()]
    total = float(sum(values).detach())
    assert float(cplx.kl_sum(layer).detach()) == pytest.approx(total, rel=1e-12)
    assert float(layer.penalty.detach().sum()) == pytest.approx(total, rel=1e-12)
    average = total / layer.weight.numel()
    assert float(cplx.kl_sum(layer, "mean").detach()) == pytest.approx(average, rel=1e-12)

    # the pass that training makes: value, gradients, and squares of what the gradients have become
    ((7.0 * values[0] + values[1]) * 3.0).backward()
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    norm = cplx.GradientNorm()
    value = cplx.kl_backward(layer, 3.0, norm=norm, channels=7.0)
    total = float((7.0 * values[0] + values[1]).detach())
    assert float(value) == pytest.approx(total, rel=1e-12)
    assert float(cplx.kl_sum(layer, channels=7.0).detach()) == pytest.approx(total, rel=1e-12)
    expected = {
        "weight": sum(one.get_parameter(stored(one)).grad for one in apart.values()),
        "log_sigma2": apart["weights"].log_sigma2.grad,
        "log_sigma2_out": apart["channels"].log_sigma2_out.grad,
    }
    for name, gradient in expected.items():
        parameter = layer.get_parameter(stored(layer) if name == "weight" else name)
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)
        if parameter in norm.squares:
            torch.testing.assert_close(
                norm.squares[parameter].double(), gradient.square().sum(), rtol=1e-6, atol=0
            )


def stored(layer: nn.Module) -> str:
    return "weight_ri" if hasattr(layer, "weight_ri") else "weight"


@every_family
def test_a_weight_is_relevant_if_it_and_its_channel_are(family):
    layer = both(family)
    alone = layer.log_alpha.detach() <= -0.5
    channel = (torch.linspace(-2, 1, len(layer.weight)) <= -0.5).view(-1, *[1] * (alone.dim() - 1))
    assert 0 < int(alone.sum()) < alone.numel()
    assert torch.equal(layer.relevance(-0.5), alone & channel)
    zeros, total = cplx.sparsity(layer, -0.5)[stored(layer)]
    parts = 2 if family.cplx else 1
    assert (zeros, total) == (parts * int((~(alone & channel)).sum()), parts * alone.numel())
    assert set(cplx.sparsity(layer, -0.5)) == {stored(layer)} | (
        {"bias_ri" if family.cplx else "bias"} if layer.bias is not None else set()
    )


@pytest.mark.parametrize("form", ["GroupVD", "BothVD"])
def test_a_network_hands_its_channels_to_the_masked_one_and_gets_small(form):
    from cplxnet.musicnet.networks import build

    torch.manual_seed(0)
    x = torch.randn(2, 1, 4096, dtype=torch.complex64)
    net = build(f"complex.DeepConvNet{form}", x)
    for name, layer in net.named_modules():
        if isinstance(layer, group.GroupNoise) and name != "fc2":
            nn.init.constant_(layer.log_sigma2_out[::2], 10.0)

    masks = cplx.relevance_masks(net, -0.5)
    masked = build("complex.DeepConvNetMasked", x)
    masked.load_state_dict(net.state_dict(), strict=False)
    cplx.deploy_masks(masked, masks)
    small = cplx.compact(masked.eval(), measure=False)
    torch.testing.assert_close(small(x), masked(x), rtol=1e-4, atol=1e-4)
    widths = [stage.weight.shape[0] for stage in small.stages]
    assert widths == [8, 16, 32, 32, 64, 64, 1024, 84]
