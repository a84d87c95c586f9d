"""The networks: sizes by hand arithmetic, values by torch's complex operations, all names."""

import re
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cplxnet.musicnet.experiments import SAME_COST, SAME_SIZE
from cplxnet.musicnet.features import as_channels, features
from cplxnet.musicnet.networks import MODELS, build
from cplxnet.nn import deploy_masks, relevance_masks

LENGTH = 740  # a window that every network takes, if barely
FIELDS, NETS, KINDS = (
    ("complex", "real"),
    ("DeepConvNet", "ShallowConvNet", "TwoLayerDense"),
    ("", "VD", "ARD", "GroupVD", "GroupARD", "BothVD", "BothARD", "L0", "Masked"),
)
NAMES = [f"{field}.{net}{kind}" for field in FIELDS for net in NETS for kind in KINDS]


def after(length: int, size: int, stride: int) -> int:
    """Positions at which a window of `size` fits, `stride` apart, counted one by one."""
    return sum(1 for _ in range(0, length - size + 1, stride))


def affine(fan_in: int, out: int) -> int:
    return out * fan_in + out


def deep(field: str, length: int, first: int, channels: int = 1) -> int:
    """Real numbers of the deep network; complex weights count twice, batch norm 2x2 + 2."""
    cplx = field == "complex"
    widths, strides = (
        ([16, 32, 64, 64, 128, 128], [2, 2, 1, 1, 1, 1])
        if cplx
        else ([64, 64, 128, 128, 256, 256], [3, 2, 1, 1, 1, 1])
    )
    parts, norm, total = (2, 6, 0) if cplx else (1, 2, 0)
    for layer, (out, stride) in enumerate(zip(widths, strides, strict=True)):
        size = first if layer == 0 else 3
        total += parts * out * channels * size
        length = after(length, size, stride)
        if layer == 4:  # a bias in place of batch norm, and no pooling
            total += parts * out
        else:
            total += norm * out
            length = after(length, 2, 2)
        channels = out
    return total + parts * (affine(channels * length, 2048) + affine(2048, 84))


def shallow(field: str, length: int, channels: int = 1) -> int:
    parts, width = (2, 32) if field == "complex" else (1, 64)
    flat = width * after(after(length, 512, 16), 4, 2)
    return parts * (affine(channels * 512, width) + affine(flat, 2048) + affine(2048, 84))


def dense(field: str, length: int, channels: int = 1) -> int:
    return (2 if field == "complex" else 1) * (affine(channels * length, 2048) + affine(2048, 84))


def by_hand(name: str, length: int, channels: int = 1) -> int:
    field, net = name.split(".")
    if net == "DeepConvNet":
        return deep(field, length, 6 if field == "complex" else 7, channels)
    return (shallow if net == "ShallowConvNet" else dense)(field, length, channels)


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("complex.DeepConvNet", 15_742_344),
        ("complex.ShallowConvNet", 14_930_152),
        ("complex.TwoLayerDense", 17_125_544),
        ("real.DeepConvNet", 9_994_260),
        ("real.ShallowConvNet", 14_755_988),
        ("real.TwoLayerDense", 8_562_772),
    ],
)
def test_parameter_counts_at_4096(name: str, count: int) -> None:
    with torch.device("meta"):  # shapes only: nothing of these sizes is filled
        network = MODELS[name]()
    assert size(network) == by_hand(name, 4096) == count


def test_the_deep_network_flattens_to_3712() -> None:
    # 4096 -> 2046 -> 1023 -> 511 -> 255 -> 253 -> 126 -> 124 -> 62 -> 60 -> 58 -> 29
    length = 4096
    for kernel, stride, pool in ((6, 2, 2), (3, 2, 2), (3, 1, 2), (3, 1, 2), (3, 1, 1), (3, 1, 2)):
        length = after(after(length, kernel, stride), pool, pool)
    with torch.device("meta"):
        assert MODELS["complex.DeepConvNet"]().fc1.in_features == 128 * length == 3712


def cost(name: str, channels: int, **options: float) -> tuple[int, int]:
    """Real numbers of a network, and real multiply-adds of a window by torch's own counter."""
    dtype = torch.complex64 if name.startswith("complex") else torch.float32
    network = MODELS[name](in_channels=channels, **options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, 4096, dtype=dtype))
    return size(network), counter.get_total_flops() // 2


def test_real_networks_of_the_complex_ones_size_and_cost() -> None:
    n_par, n_products = cost("complex.DeepConvNet", 1)
    for channels in (1, 2):  # magnitudes; real and imaginary parts
        found, _ = cost("real.DeepConvNet", channels, width=SAME_SIZE)
        assert found == pytest.approx(n_par, rel=0.01)
    _, found = cost("real.DeepConvNet", 2, width=SAME_COST)
    assert found == pytest.approx(n_products, rel=0.01)
    with pytest.raises(ValueError, match="a width above 0, got -1"):
        MODELS["real.DeepConvNet"](width=-1)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_and_counts(name: str) -> None:
    torch.manual_seed(1)
    cplx = name.startswith("complex")
    x = torch.randn(3, 1, LENGTH, dtype=torch.complex64 if cplx else torch.float32)
    network = build(name, x)
    logit = network(x)
    assert logit.shape == (3, 84) and logit.dtype == torch.float32 and logit.isfinite().all()
    assert (logit[0] - logit[1]).abs().min() > 0  # each window has its own
    base = re.sub("(Group|Both)?(VD|ARD)$", "", name)
    base = base.removesuffix("L0").removesuffix("Masked")
    own = ("log_sigma2", "log_sigma2_out", "gate_logit")
    weights = [n for n, _ in network.named_parameters() if not n.endswith(own)]
    assert sum(network.get_parameter(n).numel() for n in weights) == by_hand(base, LENGTH)
    extras = {"VD": "log_sigma2", "ARD": "log_sigma2", "L0": "gate_logit", "Masked": "mask"}
    extras |= {"GroupVD": "log_sigma2_out", "GroupARD": "log_sigma2_out"}
    extras |= {"BothVD": "log_sigma2 log_sigma2_out", "BothARD": "log_sigma2 log_sigma2_out"}
    expected = extras.get(name.removeprefix(base), "").split()
    affine_layers = [n for n, m in network.named_children() if n.startswith(("conv", "fc"))]
    for extra in (*own, "mask"):
        layers = [n.rpartition(".")[0] for n in network.state_dict() if n.endswith(f".{extra}")]
        assert layers == (affine_layers if extra in expected else [])


def test_names_and_unknown_names() -> None:
    assert sorted(MODELS) == sorted(NAMES) and len(NAMES) == 54
    with pytest.raises(
        ValueError,
        match=r"expected a network of complex\.DeepConvNet, .*, got 'complex\.DeepConvNetv2'",
    ):
        build("complex.DeepConvNetv2", torch.zeros(1, 1, 4096))


def native_forward(net: Any, x: Tensor) -> Tensor:
    """The complex deep network by torch's complex convolutions and scipy's whitening."""
    for i in range(1, 7):
        conv = getattr(net, f"conv{i}")
        x = F.conv1d(x, conv.weight, conv.bias, stride=(2, 2, 1, 1, 1, 1)[i - 1])
        if i != 5:
            x = whiten(getattr(net, f"norm{i}"), x)
        x = torch.complex(x.real.clamp(min=0), x.imag.clamp(min=0))
        if i != 5:
            even = x.shape[-1] // 2 * 2
            x = (x[..., 0:even:2] + x[..., 1:even:2]) / 2
    x = x.flatten(1) @ net.fc1.weight.t() + net.fc1.bias
    x = torch.complex(x.real.clamp(min=0), x.imag.clamp(min=0))
    return (x @ net.fc2.weight.t() + net.fc2.bias).real


def whiten(norm: Any, x: Tensor) -> Tensor:
    z = x - torch.complex(norm.running_mean[0], norm.running_mean[1])[:, None]
    covs = norm.running_var.permute(2, 0, 1).numpy() + norm.eps * np.eye(2)
    roots = torch.from_numpy(np.stack([linalg.inv(linalg.sqrtm(v)) for v in covs]))
    matrix = norm.weight.permute(2, 0, 1) @ roots  # (C, 2, 2)
    parts = (
        torch.einsum("cij,bcjl->ibcl", matrix, torch.stack((z.real, z.imag), 2))
        + norm.bias[:, None, :, None]
    )
    return torch.complex(parts[0], parts[1])


@torch.no_grad()
def test_complex_deep_network_by_native_operations() -> None:
    net = MODELS["complex.DeepConvNet"](length=500).double()
    x = torch.randn(6, 1, 500, dtype=torch.complex128)
    for parameter in net.parameters():
        parameter.add_(
            0.02 * torch.randn_like(parameter)
        )  # biases and batch-norm weights that are not at their start
    net(x), net(x)  # running statistics of their own
    net.eval()
    torch.testing.assert_close(net(x), native_forward(net, x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_real_deep_network_by_torch_operations() -> None:
    net: Any = MODELS["real.DeepConvNet"](length=760).eval()
    x = y = torch.randn(2, 1, 760)
    for i in range(1, 7):
        conv = getattr(net, f"conv{i}")
        y = F.conv1d(y, conv.weight, conv.bias, stride=(3, 2, 1, 1, 1, 1)[i - 1])
        y = y if i == 5 else y / (1 + 1e-5) ** 0.5  # batch norm at its start: mean 0, variance 1
        y = y.clamp(min=0)
        y = y if i == 5 else F.max_pool1d(y, 2)
    wanted = F.linear(
        F.linear(y.flatten(1), net.fc1.weight, net.fc1.bias).relu(), net.fc2.weight, net.fc2.bias
    )
    torch.testing.assert_close(net(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("field", FIELDS)
def test_shallow_networks_by_torch_operations(field: str) -> None:
    cplx = field == "complex"
    net: Any = MODELS[f"{field}.ShallowConvNet"](length=LENGTH)
    x = torch.randn(2, 1, LENGTH, dtype=torch.complex64 if cplx else torch.float32)

    def relu(z: Tensor) -> Tensor:
        return torch.complex(z.real.relu(), z.imag.relu()) if cplx else z.relu()

    y = relu(F.conv1d(x, net.conv1.weight, net.conv1.bias, stride=16)).unfold(2, 4, 2)
    y = (y.mean(-1) if cplx else y.amax(-1)).flatten(1)
    y = relu(y @ net.fc1.weight.t() + net.fc1.bias) @ net.fc2.weight.t() + net.fc2.bias
    torch.testing.assert_close(net(x), y.real if cplx else y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("field", "start"), [("complex", 0.0), ("real", -5.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_last_bias(field: str, start: float, kind: str) -> None:
    net: Any = MODELS[f"{field}.TwoLayerDense{kind}"](length=4)
    assert (net.fc2.bias == start).all()
    assert net.fc2.bias.requires_grad and not (net.fc1.bias == -5).any()


def test_complex_head_is_the_real_part() -> None:
    net: Any = MODELS["complex.TwoLayerDense"](length=16)
    x = torch.randn(2, 1, 16, dtype=torch.complex64)
    assert torch.equal(net(x), net[:-1](x).real) and net[:-1](x).is_complex()
    with torch.no_grad():
        net.fc2.bias = torch.full((84,), 100j)
    assert torch.equal(net(x), net[:-1](x).real) and net(x).abs().max() < 50


def test_slices_are_networks_of_the_same_field() -> None:
    net: Any = MODELS["real.TwoLayerDense"](length=16, in_channels=2)
    z = torch.randn(2, 1, 16, dtype=torch.complex64)
    assert torch.equal(net[:2](z), net.fc1(as_channels(z).flatten(1)))
    assert net[-2] is net.fc2 and list(dict(net[:2].named_children())) == ["flatten", "fc1"]


@pytest.mark.parametrize("field", FIELDS)
def test_first_kernel_may_be_three(field: str) -> None:
    net: Any = MODELS[f"{field}.DeepConvNet"](length=LENGTH, kernel_size=3)
    assert net.conv1.weight.shape == ((16, 1, 3) if field == "complex" else (64, 1, 3))
    assert size(net) == deep(field, LENGTH, 3)
    assert (
        build(f"{field}.DeepConvNet", torch.zeros(1, 1, LENGTH), kernel_size=3).conv2.weight.shape[
            2
        ]
        == 3
    )


def test_complex_features_enter_a_real_network_as_two_channels() -> None:
    signal = torch.randn(3, LENGTH)
    z = features(signal, "fft")
    net: Any = build("real.ShallowConvNet", z)
    assert net.conv1.weight.shape == (64, 2, 512) and size(net) == by_hand(
        "real.ShallowConvNet", LENGTH, channels=2
    )
    wanted = net(torch.stack((z.real[:, 0], z.imag[:, 0]), 1))
    assert torch.equal(net(z), wanted)
    assert (net(z.conj()) - wanted).abs().max() > 1e-3  # the imaginary part is heard
    magnitudes = features(signal, "fft", cplx=False)
    assert build("real.ShallowConvNet", magnitudes).conv1.weight.shape == (64, 1, 512)


def test_real_features_enter_a_complex_network_as_real_parts() -> None:
    x = torch.randn(3, 2, 32)
    net = build("complex.TwoLayerDense", x)
    assert torch.equal(net(x), net(torch.complex(x, torch.zeros_like(x))))
    assert size(net) == by_hand("complex.TwoLayerDense", 32, channels=2)


def test_short_time_features_enter_as_channels() -> None:
    z = features(torch.randn(2, 4096), "stft")
    net = build("complex.TwoLayerDense", z)
    assert z.shape == (2, 61, 70) and size(net) == by_hand("complex.TwoLayerDense", 70, channels=61)
    assert net(z).shape == (2, 84)


@pytest.mark.parametrize(
    ("name", "shortest"),
    [
        ("complex.DeepConvNet", 488),
        ("real.DeepConvNet", 730),
        ("complex.ShallowConvNet", 560),
        ("real.ShallowConvNet", 560),
    ],
)
def test_too_short_windows(name: str, shortest: int) -> None:
    with pytest.raises(
        ValueError, match=f"expected windows long enough .* got {shortest - 1} samples; try 4096"
    ):
        MODELS[name](length=shortest - 1)
    assert size(MODELS[name](length=shortest)) == by_hand(name, shortest)


def pair(name: str, kind: str) -> tuple[Any, Any, Tensor]:
    """A dense network that has seen data, its weights in one of another kind, an input."""
    x = torch.randn(
        4, 1, LENGTH, dtype=torch.complex64 if name.startswith("complex") else torch.float32
    )
    one, two = build(name, x), build(name + kind, x)
    one(x)
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert not unexpected and all(m.endswith(("log_sigma2", "mask")) for m in missing)
    return one.eval(), two.eval(), x


@pytest.mark.parametrize("name", [f"{f}.{n}" for f in FIELDS for n in NETS[:2]])
def test_full_masks_change_nothing(name: str) -> None:
    one, two, x = pair(name, "Masked")
    assert torch.equal(one(x), two(x))


@pytest.mark.parametrize("kind", ["VD", "ARD"])
@pytest.mark.parametrize("field", FIELDS)
def test_variational_networks_in_eval_mode_are_the_dense_ones(field: str, kind: str) -> None:
    one, two, x = pair(f"{field}.DeepConvNet", kind)
    assert torch.equal(one(x), two(x))
    assert not torch.equal(two.train()(x), two(x))  # noise of its own each time


@pytest.mark.parametrize("field", FIELDS)
def test_masks_are_the_same_as_zero_weights(field: str) -> None:
    dense_net, vd, x = pair(f"{field}.DeepConvNet", "VD")
    masked = build(f"{field}.DeepConvNetMasked", x)
    for _, parameter in (p for p in vd.named_parameters() if p[0].endswith("log_sigma2")):
        with torch.no_grad():
            parameter.uniform_(-10, 2)
    masks = relevance_masks(vd, -0.5)
    masked.load_state_dict(dense_net.state_dict(), strict=False)
    deploy_masks(masked.eval(), masks)
    with torch.no_grad():
        for name, mask in masks.items():
            layer = dense_net.get_submodule(name)
            layer.weight.mul_(mask)
    assert all(0.01 < mask.float().mean() < 0.99 for mask in masks.values())
    torch.testing.assert_close(masked(x), dense_net(x), rtol=1e-6, atol=1e-6)


def test_a_waveform_passes_at_most_14_modules_to_a_logit() -> None:
    """Counted by a profiler: whoever follows a window through the house opens so many files."""
    signal = torch.randn(2, 4096)
    net = build("complex.DeepConvNet", features(signal)).eval()
    modules = set()

    def profile(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call":
            modules.add(frame.f_globals.get("__name__", ""))

    sys.setprofile(profile)
    try:
        logits = net(features(signal))
    finally:
        sys.setprofile(None)
    ours = sorted(name for name in modules if name.startswith("cplxnet"))
    assert logits.shape == (2, 84) and len(ours) <= 14, ours
