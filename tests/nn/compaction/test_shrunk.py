"""Training a shrunk network against training the masked one, in full and in float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Optimizer
from cplxnet.auto.train.optim import load_named_state, make_optimizer, named_state
from cplxnet.nn import Shrunk, UnknownLayer
from cplxnet.nn.compaction import shrunk as module
from cplxnet.nn.compaction.sparse_linear import SparseLinear, is_sparse


@pytest.fixture(autouse=True, params=["dense", "sparse"])
def linear(request, monkeypatch) -> str:
    """How linear layers are trained, whatever their size."""
    monkeypatch.setattr(
        module,
        "is_sparse",
        lambda living: request.param == "sparse" and living.dim() == 2 and bool(living.any()),
    )
    return request.param


def cplx_conv_net(dtype: torch.dtype, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        cplx.CplxConv1dMasked(2, 6, 4, stride=2, bias=False),
        cplx.CplxBatchNorm1d(6),
        cplx.Split(nn.ReLU()),
        cplx.Split(nn.AvgPool1d(2, 2)),
        nn.Sequential(
            cplx.CplxConv1dMasked(6, 5, 3, padding=padding),
            cplx.Split(nn.ReLU()),
            # the gradient of a bias before batch norm is 0; in a constant channel, where the
            # variance is 0, float32 leaves noise of it in either network
            cplx.CplxConv1dMasked(5, 7, 1, bias=dtype == torch.float64),
            cplx.CplxBatchNorm1d(7),
            cplx.Split(nn.ReLU()),
        ),
        nn.Flatten(),
        cplx.CplxLinearMasked(7 * (5 + 2 * padding), 9),
        cplx.Split(nn.ReLU()),
        cplx.CplxLinearMasked(9, 4),
        cplx.CplxToReal(),
    ).to(dtype)


def real_conv_net(dtype: torch.dtype, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        cplx.Conv1dMasked(4, 6, 4, stride=2, bias=False),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.MaxPool1d(2, 2),
        cplx.Conv1dMasked(6, 5, 3, padding=padding),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Flatten(),
        cplx.LinearMasked(5 * (5 + 2 * padding), 9),
        nn.ReLU(),
        nn.Linear(9, 4),
    ).to(dtype)


def cplx_dense_net(dtype: torch.dtype, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        cplx.CplxBatchNorm1d(2), nn.Flatten(), cplx.CplxLinearMasked(80, 12), cplx.Split(nn.ReLU()),
        cplx.CplxLinearMasked(12, 4), cplx.CplxToReal(),
    ).to(dtype)  # fmt: skip


def real_dense_net(dtype: torch.dtype, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(
        cplx.LinearMasked(160, 12), nn.BatchNorm1d(12), nn.ReLU(), cplx.LinearMasked(12, 4)
    ).to(dtype)  # fmt: skip


NETS = [cplx_conv_net, real_conv_net, cplx_dense_net, real_dense_net]


def masked_layers(net: nn.Module) -> list[Any]:
    return [layer for layer in net.modules() if hasattr(layer, "mask")]


def sparse(build: Callable[..., nn.Sequential], dtype: torch.dtype, padding: int = 0) -> Any:
    """A masked network with units of every kind: unread, constant, read by the unread alone."""
    net = build(dtype, padding)
    masks = {}
    n_units = 1
    last = masked_layers(net)[-1]
    for name, layer in net.named_modules():
        if hasattr(layer, "mask"):
            mask = torch.rand(layer.mask.shape) < 0.4
            mask[1] = False  # a constant unit
            if layer is not last:
                mask[2] = True  # a unit that reads all, and is not read
            if n_units > 1:
                mask.view(len(mask), n_units, -1)[:2, 2:4] = False
                mask.view(len(mask), n_units, -1)[3:, 2:4] = False
            if layer is last:
                mask.view(len(mask), n_units, -1)[:, 2:4] = False
            masks[name] = mask
            n_units = len(mask)
    cplx.deploy_masks(net, masks)
    with torch.no_grad():  # what training leaves: no statistics or shifts of 0
        for layer in net.modules():
            if isinstance(layer, (cplx.CplxBatchNorm1d, nn.BatchNorm1d)):
                layer.running_mean.normal_()
                layer.weight.add_(0.1 * torch.randn_like(layer.weight))
                layer.bias.normal_()
    return net


def batch(net: nn.Module, dtype: torch.dtype, n: int = 6) -> tuple[Tensor, Tensor]:
    is_cplx = any(isinstance(layer, cplx.CplxToReal) for layer in net.modules())
    shape = (n, 2, 40) if is_cplx else ((n, 4, 40) if isinstance(net[0], nn.Conv1d) else (n, 160))
    if isinstance(net[0], (nn.Conv1d, cplx.CplxConv1d)):
        shape = (*shape[:2], 32)
    x = torch.randn(shape, dtype=dtype.to_complex() if is_cplx else dtype)
    return x, (torch.rand(n, 4) < 0.3).to(dtype)


def loss_of(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = nn.functional.binary_cross_entropy_with_logits(net(x), target)
    return loss


def close(value: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(value, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("build", NETS)
def test_one_pass_equals_the_masked_network(build, dtype, tolerance, padding, linear):
    full = sparse(build, dtype, padding)
    shrunk = Shrunk(full)
    small = shrunk.network
    n_full, n_small = (sum(p.numel() for p in net.parameters()) for net in (full, small))
    assert n_small < 0.9 * n_full
    assert any(isinstance(layer, SparseLinear) for layer in small.modules()) == (linear == "sparse")
    x, target = batch(full, dtype)

    logits = full(x), small(x)
    close(logits[1], logits[0], tolerance)
    for net in (full, small):
        loss_of(net, x, target).backward()

    # every gradient, 0 for what is left out; and the statistics of the units that are left
    gradients = {name: {"gradient": p.grad} for name, p in small.named_parameters()}
    whole = shrunk.whole_of(gradients)
    largest = max(float(p.grad.abs().max()) for p in full.parameters())
    for name, p in full.named_parameters():
        torch.testing.assert_close(
            whole[name]["gradient"], p.grad, rtol=0, atol=tolerance * largest, msg=name
        )
    for name, value in small.named_buffers():
        of_full = shrunk.part_of({name: {"": full.get_buffer(name)}})[name][""]
        if value.is_floating_point():
            close(value, of_full, tolerance)
        else:
            assert torch.equal(value, of_full)

    # evaluation, by running statistics
    close(small.eval()(x), full.eval()(x), tolerance)


def test_second_derivatives_of_a_sparse_layer_are_refused():
    living = torch.eye(3, 8, dtype=torch.bool)
    weight = nn.Parameter(torch.randn(int(living.sum())))
    layer, x = SparseLinear(living, {"weight": weight, "bias": None}), torch.randn(4, 8)
    with pytest.raises(RuntimeError, match=r"create_graph=True; try .* the full network"):
        torch.autograd.grad(layer(x).square().sum(), weight, create_graph=True)


@pytest.mark.parametrize("build", NETS)
def test_steps_of_adam_with_clipping_written_back_equal_those_of_the_masked_network(build):
    dtype = torch.float64
    full = sparse(build, dtype)

    def trained(net: nn.Module, n_steps: int, start: dict[str, Any]) -> dict[str, Any]:
        # at 1e-8 it makes steps of the noise in the gradient of a bias before batch norm, which
        # is 0
        adam = make_optimizer(net, Optimizer(lr=0.01, eps=1e-4))
        load_named_state(net, adam, start)
        torch.manual_seed(1)
        for _ in range(n_steps):
            adam.zero_grad()
            loss_of(net, *batch(full, dtype)).backward()
            cplx.GradientNorm().clip(net.parameters(), 0.05)
            adam.step()
        return named_state(net, adam)

    reference = copy.deepcopy(full)
    before = {name: p.detach().clone() for name, p in full.named_parameters()}
    state = trained(reference, 3, {})
    state = trained(reference, 3, state)

    shrunk = Shrunk(full)
    in_full_shape = shrunk.whole_of(trained(shrunk.network, 3, {}))
    shrunk.write_back()
    again = Shrunk(full)  # as a run that is cut off and goes on
    in_full_shape = again.whole_of(trained(again.network, 3, again.part_of(in_full_shape)))
    again.write_back()

    for name, p in reference.named_parameters():
        torch.testing.assert_close(full.get_parameter(name), p, rtol=0, atol=1e-10, msg=name)
        assert in_full_shape[name].keys() == state[name].keys() > {"exp_avg"}
        for key, value in state[name].items():
            torch.testing.assert_close(in_full_shape[name][key], value, rtol=0, atol=1e-10)
    changed = [not torch.equal(p, before[name]) for name, p in full.named_parameters()]
    assert all(changed)

    x, _ = batch(full, dtype)
    torch.testing.assert_close(full.eval()(x), reference.eval()(x), rtol=0, atol=1e-10)


def test_a_constant_unit_goes_on_to_be_trained() -> None:
    full: Any = nn.Sequential(
        cplx.Conv1dMasked(1, 2, 3, bias=False), nn.BatchNorm1d(2), nn.ReLU(),
        nn.Flatten(), cplx.LinearMasked(8, 1),
    )  # fmt: skip
    masks = {"0": torch.ones(2, 1, 3, dtype=torch.bool), "4": torch.ones(1, 8, dtype=torch.bool)}
    masks["0"][1] = False
    cplx.deploy_masks(full, masks)
    with torch.no_grad():
        full[1].bias[1] = 0.7
    network: Any = Shrunk(full).network
    network(torch.randn(5, 1, 6)).sum().backward()

    # its output is the shift, at 4 positions of 5 windows: d/d shift = 5 * sum of its weights
    expected = 5 * full[4].weight[0, 4:].sum()
    torch.testing.assert_close(network[1].bias.grad[1], expected)
    grad = network[4].weight.grad.view(1, 8)
    torch.testing.assert_close(grad[0, 4:], torch.full((4,), 5 * 0.7))


@pytest.mark.parametrize("empty", [0, 1, 2, "all"])
@pytest.mark.parametrize("build", [cplx_conv_net, real_conv_net])
def test_layers_with_nothing_left(build, empty) -> None:
    full = sparse(build, torch.float64)
    with torch.no_grad():
        for number, layer in enumerate(masked_layers(full)):
            if empty in (number, "all"):
                layer.mask = torch.zeros_like(layer.mask)
    shrunk = Shrunk(full)
    x, target = batch(full, torch.float64)
    close(shrunk.network(x), full(x), 1e-12)
    for net in (full, shrunk.network):
        loss_of(net, x, target).backward()
    for name, p in full.named_parameters():
        grad = shrunk.network.get_parameter(name).grad
        assert grad.isfinite().all()
        whole = shrunk.whole_of({name: {"": grad}})[name][""]
        torch.testing.assert_close(whole, p.grad, rtol=0, atol=1e-12)


def test_a_batch_of_no_windows() -> None:
    full = nn.Sequential(cplx.CplxLinearMasked(40, 8))
    full[0].mask = torch.eye(8, 40)
    network = Shrunk(full).network
    assert network(torch.zeros(0, 40, dtype=torch.complex64)).shape == (0, 8)


def test_only_write_back_changes_the_masked_network() -> None:
    full = sparse(cplx_conv_net, torch.float32)
    before = {name: value.clone() for name, value in full.state_dict().items()}
    shrunk = Shrunk(full)
    shrunk.network(batch(full, torch.float32)[0])
    with torch.no_grad():
        for p in shrunk.network.parameters():
            p += 1
    after = full.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())

    shrunk.write_back()
    masks = {name for name in before if name.endswith("mask")}
    changed = {name for name in before if not torch.equal(full.state_dict()[name], before[name])}
    assert changed == before.keys() - masks
    same = Shrunk(full).network.state_dict()
    for name, value in shrunk.network.state_dict().items():
        assert torch.equal(value, same[name])


REFUSED = [
    (nn.Sequential(cplx.CplxLinearVD(2, 2)), "0: CplxLinearVD cannot be shrunk"),
    (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "1: Tanh cannot be shrunk"),
    (nn.Sequential(cplx.Conv2dMasked(1, 2, 2)), "0: Conv2dMasked cannot be shrunk"),
    (nn.Sequential(cplx.Conv1dMasked(2, 2, 2, groups=2)), "0: Conv1dMasked .* without groups"),
    (nn.Sequential(*[nn.Linear(2, 2)] * 2), "0: Linear .* used once"),
    (
        nn.Sequential(nn.Conv1d(1, 3, 1), nn.Linear(2, 4), nn.Linear(4, 2)),
        "0: expected 3 units to be read, got 2; try a flatten",
    ),
]


@pytest.mark.parametrize(("net", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_cannot_be_shrunk_is_named(net: nn.Module, text: str) -> None:
    with pytest.raises(UnknownLayer, match=text):
        Shrunk(net)


@pytest.mark.parametrize(
    ("shape", "share", "expected"),
    [
        ((2000, 50), 0.125, True),
        ((2000, 50), 0.14, False),
        ((84, 200), 0.24, True),
        ((84, 200), 0.26, False),
        ((4, 200), 0.3, False),
        ((200, 30, 3), 0.01, False),
        ((2000, 50), 0.0, False),
    ],
)
def test_a_linear_layer_is_sparse_by_its_share_of_living_weights(shape, share, expected) -> None:
    living = torch.zeros(shape, dtype=torch.bool)
    living.view(-1)[: round(share * living.numel())] = True
    assert is_sparse(living) == expected
    assert not is_sparse(living.to("meta"))
