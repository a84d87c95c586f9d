"""All networks made compact, held to the masked networks themselves, engine by engine."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cplxnet.musicnet.networks import MODELS
from cplxnet.nn import compact, deploy_masks, relevance_masks
from cplxnet.nn.compaction.network import Compact
from cplxnet.nn.fast.dispatch import native_usable
from cplxnet.nn.masked import Masked

LENGTH = 740  # a window that every network takes, if barely
NAMES = [
    f"{f}.{n}"
    for f in ("complex", "real")
    for n in ("DeepConvNet", "ShallowConvNet", "TwoLayerDense")
]


def example(name: str, batch: int = 9, channels: int = 1) -> Tensor:
    dtype = torch.complex64 if name.startswith("complex") else torch.float32
    return torch.randn(batch, channels, LENGTH, dtype=dtype) * 3


@torch.no_grad()
def trained(name: str, kind: str, channels: int = 1) -> Any:
    """A network with random biases and batch norm, the statistics from a few batches."""
    net = MODELS[name + kind](length=LENGTH, in_channels=channels)
    for key, value in net.named_parameters():
        if "bias" in key or "norm" in key:
            value.add_(0.3 * torch.randn_like(value))
    for _ in range(3):
        net(example(name, 4, channels))
    return net.eval()


def masked(net: Any, keep: float) -> None:
    """Masks at random, and on top of them whole units: rows and columns of every layer."""
    masks = {}
    for name, layer in net.named_modules():
        if isinstance(layer, Masked):
            mask = torch.rand(layer.mask.shape) < keep
            mask[torch.rand(len(mask)) < 0.3] = False
            mask[:, torch.rand(mask.shape[1]) < 0.2] = False
            masks[name] = mask
    deploy_masks(net, masks)


def on(model: Compact, engine: str) -> Compact:
    """`model` with that engine wherever it can be."""
    names = [engine if engine != "csr" or stage.whole else "dense" for stage in model.stages]
    model.plan = {1: names}
    return model


def assert_same(value: Tensor, expected: Tensor) -> None:
    assert value.shape == expected.shape and value.dtype == expected.dtype
    scale = float(expected.abs().max())
    assert float((value - expected).abs().max()) <= 1e-5 * scale
    certain = expected.abs() > 1e-6 * scale  # one float32 rounding of the largest
    assert torch.equal((value > 0)[certain], (expected > 0)[certain])


@torch.no_grad()
@pytest.mark.parametrize("keep", [1.0, 0.1, 0.004])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*every weight is masked:RuntimeWarning")
def test_the_masked_network_itself(name: str, keep: float) -> None:
    net = trained(name, "Masked")
    masked(net, keep)
    x = example(name)
    expected, made = net(x), compact(net, measure=False)
    assert_same(made(x), expected)
    for engine in ["dense", "csr", "rows"] if native_usable(torch.zeros(0)) else ["dense", "csr"]:
        for batch in (1, 9):
            assert_same(on(made, engine)(x[:batch]), expected[:batch])
    sizes = [len(stage.weight) for stage in made.stages[:-1]]
    layers = [layer for layer in net.modules() if isinstance(layer, Masked)]
    assert all(size < len(layer.mask) for size, layer in zip(sizes, layers, strict=False))


@torch.no_grad()
@pytest.mark.parametrize("name", ["complex.ShallowConvNet", "real.ShallowConvNet"])
def test_variational_networks_by_their_threshold(name: str) -> None:
    net, plain = (
        MODELS[f"{name}VD"](length=LENGTH).eval(),
        MODELS[f"{name}Masked"](length=LENGTH).eval(),
    )
    for layer in net.modules():
        if hasattr(layer, "log_sigma2"):
            layer.log_sigma2.uniform_(-16, 4)
    plain.load_state_dict(net.state_dict(), strict=False)
    deploy_masks(plain, relevance_masks(net, -2.0))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = example(name)
    assert_same(compact(net, threshold=-2.0, measure=False)(x), plain(x))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@torch.no_grad()
def test_channels_that_nobody_reads_and_other_input_types() -> None:
    net = MODELS["complex.DeepConvNetMasked"](length=LENGTH, in_channels=3).eval()
    net.conv1.mask[:, 1] = False
    made = compact(net, measure=False)
    assert made.inputs.tolist() == [0, 2]
    z = example("complex", channels=3)
    assert_same(made(z), net(z))
    assert_same(made(z.real), net(z.real))
    real = MODELS["real.TwoLayerDense"](length=LENGTH, in_channels=2).eval()
    z = example("complex")
    assert_same(compact(real, measure=False)(z), real(z))


@torch.no_grad()
@pytest.mark.parametrize("layer", ["conv3", "conv5", "fc1", "fc2"])
@pytest.mark.parametrize("field", ["complex", "real"])
def test_a_fully_masked_layer_makes_a_constant(field: str, layer: str) -> None:
    net: Any = trained(f"{field}.DeepConvNet", "Masked")
    net.get_submodule(layer).mask.zero_()
    with pytest.warns(RuntimeWarning, match=f"{layer}: every weight is masked"):
        made = compact(net, measure=False)
    x = example(field)
    expected = net(x)
    assert float((expected - expected[:1]).abs().max()) < 1e-5  # rows may differ in their last bits
    assert_same(made(x), expected)
    assert (
        sum(stage.weight.numel() for stage in made.stages) < 100_000
    )  # nothing that leads into it stays


@torch.no_grad()
def test_measured_engines_give_the_same() -> None:
    net = trained("complex.DeepConvNet", "Masked")
    masked(net, 0.4)
    made = compact(net, batch_sizes=(1, 4))
    assert set(made.plan) == {1, 4} and all(len(plan) == 8 for plan in made.plan.values())
    for batch in (1, 9):
        x = example("complex", batch)
        assert_same(made(x), net(x))
