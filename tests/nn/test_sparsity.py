"""KL of a network, masks from one network to another, and counts against brute force."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from cplxnet.nn.batchnorm import CplxBatchNorm1d
from cplxnet.nn.gaussian import GaussianWeight
from cplxnet.nn.linear import CplxLinear
from cplxnet.nn.masked import Conv1dMasked, CplxConv1dMasked, CplxLinearMasked, LinearMasked
from cplxnet.nn.sparsity import (
    compression,
    deploy_masks,
    kl_sum,
    named_penalties,
    relevance_masks,
    sparsity,
)
from cplxnet.nn.variational import (
    Conv1dVD,
    CplxConv1dVD,
    CplxLinearARD,
    CplxLinearVD,
    LinearARD,
)

THRESHOLD = -0.5


def variational() -> nn.Sequential:
    torch.manual_seed(7)
    inner = nn.Sequential(CplxLinearARD(5, 4), nn.Identity())
    net = nn.Sequential(
        CplxConv1dVD(2, 3, 3),
        CplxBatchNorm1d(3),
        inner,
        Conv1dVD(4, 2, 2, bias=False),
        LinearARD(3, 2),
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("log_sigma2"):
                parameter.normal_(-2.0, 2.0)
    return net


def masked() -> nn.Sequential:
    inner = nn.Sequential(CplxLinearMasked(5, 4), nn.Identity())
    layers = [
        CplxConv1dMasked(2, 3, 3),
        CplxBatchNorm1d(3),
        inner,
        Conv1dMasked(4, 2, 2, bias=False),
        LinearMasked(3, 2),
    ]
    return nn.Sequential(*layers)


def test_kl_sum_is_the_sum_over_every_weight_and_layer() -> None:
    net = variational()
    penalties = named_penalties(net)
    assert list(penalties) == ["0", "2.0", "3", "4"]
    total = sum(float(v) for p in penalties.values() for v in p.flatten().tolist())
    assert kl_sum(net).item() == pytest.approx(total, rel=1e-6)
    for name, value in named_penalties(net, "sum").items():
        assert value.item() == pytest.approx(penalties[name].sum().item(), rel=1e-6)


def test_mean_reduction_averages_within_layers_and_adds_the_layers() -> None:
    net = variational()
    means = {name: float(p.detach().numpy().mean()) for name, p in named_penalties(net).items()}
    assert kl_sum(net, reduction="mean").item() == pytest.approx(sum(means.values()), rel=1e-6)
    assert {n: v.item() for n, v in named_penalties(net, "mean").items()} == pytest.approx(
        means, rel=1e-6
    )


def test_kl_sum_gradient_is_that_of_the_penalties() -> None:
    net = variational()
    parameters = [
        p for n, p in net.named_parameters() if "bias" not in n and not n.startswith("1.")
    ]
    fast = torch.autograd.grad(0.3 * kl_sum(net), parameters)
    slow = torch.autograd.grad(
        0.3 * sum(p.sum() for p in named_penalties(net).values()), parameters
    )
    torch.testing.assert_close(fast, slow)


def test_a_network_without_variational_layers_is_an_error() -> None:
    for call in (kl_sum, named_penalties, lambda net: relevance_masks(net, THRESHOLD)):
        with pytest.raises(
            ValueError, match=r"expected variational layers .* in Sequential, got none; try"
        ):
            call(nn.Sequential(CplxLinear(2, 2)))
    with pytest.raises(ValueError, match="expected reduction 'sum' or 'mean', got 'max'"):
        kl_sum(variational(), reduction="max")


def test_masks_travel_to_the_masked_network() -> None:
    source, target = variational(), masked()
    masks = relevance_masks(source, THRESHOLD)
    for name, layer in source.named_modules():
        if name in masks:  # by the definition, one weight at a time
            pairs = zip(
                layer.log_sigma2.flatten().tolist(), layer.weight.flatten().tolist(), strict=True
            )
            assert masks[name].flatten().tolist() == [
                s - 2 * math.log(abs(w)) <= THRESHOLD for s, w in pairs
            ]
    target.load_state_dict(source.state_dict(), strict=False)
    deploy_masks(target, masks)
    for name, mask in masks.items():
        layer, original = target.get_submodule(name), source.get_submodule(name)
        assert torch.equal(layer.mask, mask) and 0 < mask.sum() < mask.numel()
        assert torch.equal(layer.weight, original.weight * mask)


def test_masks_that_do_not_fit_are_all_named_and_nothing_changes() -> None:
    target = masked()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    masks = {
        "0": torch.zeros(3, 2, 3),
        "1": torch.ones(3),
        "2.0": torch.zeros(5, 4),
        "9": torch.ones(1),
        "3": torch.ones(2, 4, 2),
    }
    with pytest.raises(ValueError, match="masks do not fit") as error:
        deploy_masks(target, masks)
    for text in (
        "1: a mask, but the layer is CplxBatchNorm1d",
        "9: a mask, but the layer is missing",
        "4: LinearMasked without a mask",
        "2.0: expected a mask of shape (4, 5), got (5, 4)",
    ):
        assert text in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_sparsity_and_compression_by_brute_force() -> None:
    source, target = variational(), masked()
    masks = relevance_masks(source, THRESHOLD)
    target.load_state_dict(source.state_dict(), strict=False)
    deploy_masks(target, masks)
    # deployed weights are zero where masked and nowhere else, so zeros can be counted in the
    # numbers themselves
    brute = {
        name: (
            int((p == 0).sum())
            if name.split(".")[-1].startswith("weight") and not name.startswith("1.")
            else 0,
            p.numel(),
        )
        for name, p in target.named_parameters()
    }
    assert sparsity(target, THRESHOLD) == brute
    assert sparsity(source, THRESHOLD) == brute  # same names, log_sigma2 not among them
    n_par = 3 * 2 * 3 * 2 + 3 * 2 + (4 * 3 + 2 * 3) + 4 * 5 * 2 + 4 * 2 + 2 * 4 * 2 + 2 * 3 + 2
    assert sum(total for _, total in brute.values()) == n_par
    wanted = n_par / (n_par - sum(zeros for zeros, _ in brute.values()))
    assert compression(target, THRESHOLD) == compression(source, THRESHOLD) == pytest.approx(wanted)
    assert wanted > 1.2


def test_compression_at_the_ends() -> None:
    dense = nn.Sequential(CplxLinear(3, 2), nn.Linear(2, 2))
    assert compression(dense, THRESHOLD) == 1.0
    empty = CplxLinearMasked(3, 2, bias=False)
    deploy_masks(empty, {"": torch.zeros(2, 3, dtype=torch.bool)})
    assert sparsity(empty, THRESHOLD) == {"weight_ri": (12, 12)}
    assert compression(empty, THRESHOLD) == math.inf
    with pytest.raises(ValueError, match="expected a module with parameters, got Identity"):
        compression(nn.Identity(), THRESHOLD)


def test_a_shared_layer_counts_once() -> None:
    layer = CplxLinear(3, 3)
    assert (
        sum(total for _, total in sparsity(nn.Sequential(layer, layer), THRESHOLD).values())
        == 3 * 3 * 2 + 3 * 2
    )


def test_thresholds_at_infinity_and_weights_at_zero() -> None:
    layer = CplxLinearARD(3, 2)
    with torch.no_grad():
        layer.weight[0] = 0
    assert relevance_masks(layer, 100.0)[""].tolist() == [[False] * 3, [True] * 3]
    assert compression(layer, -math.inf) == (12 + 4) / 4


PARAMETRIZED = {
    "parametrize": lambda layer, name: parametrize.register_parametrization(
        layer, name, nn.Identity()
    ),
    "weight_norm": parametrizations.weight_norm,
    "prune": lambda layer, name: prune.l1_unstructured(layer, name, 0.3),
}


@pytest.mark.parametrize("kind", PARAMETRIZED)
@pytest.mark.parametrize(
    "cls", [CplxLinearMasked, LinearMasked, CplxLinearVD, LinearARD], ids=lambda c: c.__name__
)
def test_weights_that_torch_computes_from_others_are_refused(cls: type, kind: str) -> None:
    layer = cls(5, 3)
    name = "weight_ri" if hasattr(layer, "weight_ri") else "weight"
    PARAMETRIZED[kind](layer, name)
    x = torch.randn(2, 5, dtype=torch.complex64 if name == "weight_ri" else torch.float32)
    calls = [lambda: sparsity(layer, -0.5)]
    if isinstance(layer, GaussianWeight):
        calls += [layer.kl, lambda: layer.penalty, lambda: layer.relevance(-0.5)]
    else:
        calls += [lambda: layer(x), lambda: deploy_masks(layer, {"": torch.ones(3, 5)})]
    for call in calls:
        with pytest.raises(
            RuntimeError,
            match=f"expected {name} to be a parameter of .*{cls.__name__}, .*try the dense",
        ):
            call()
