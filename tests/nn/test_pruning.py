"""Masks of a given sparsity against a sort by hand, and by their counts."""

import numpy as np
import pytest
import torch
from torch import nn

from cplxnet import nn as cplx


def network(cplx_weights: bool = True) -> nn.Sequential:
    """Two masked layers of 60 and 21 weights; those of the second are ten times as large."""
    prefix = "Cplx" if cplx_weights else ""
    layers = [
        getattr(cplx, f"{prefix}Conv1dMasked")(4, 5, 3),
        getattr(cplx, f"{prefix}LinearMasked")(7, 3),
    ]
    with torch.no_grad():
        layers[1].weight.mul_(10)
    return nn.Sequential(layers[0], nn.Flatten(), layers[1])


def n_masked(masks: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def flat(tensors: dict[str, torch.Tensor]) -> np.ndarray:
    return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors.values()])


@pytest.mark.parametrize("cplx_weights", [True, False], ids=["complex", "real"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.987, 1.0])
def test_the_weights_of_least_modulus_of_the_whole_network_are_masked(cplx_weights, sparsity):
    net = network(cplx_weights)
    masks = cplx.magnitude_masks(net, sparsity)
    moduli = np.abs(flat({name: net.get_submodule(name).weight for name in masks}))
    expected = np.ones(81, bool)
    expected[np.argsort(moduli)[: round(81 * sparsity)]] = False
    np.testing.assert_array_equal(flat(masks), expected)
    assert [mask.shape for mask in masks.values()] == [(5, 4, 3), (3, 7)]


def test_layer_by_layer_every_layer_has_the_same_sparsity():
    masks = cplx.magnitude_masks(network(), 0.9, by_layer=True)
    assert n_masked(masks) == {"0": 54, "2": 19}
    own = cplx.magnitude_masks(network(), {"0": 0.1, "2": 20 / 21})
    assert n_masked(own) == {"0": 6, "2": 20}


def test_masked_weights_stay_masked_whatever_has_become_of_them():
    net = network()
    cplx.deploy_masks(net, cplx.magnitude_masks(net, 0.5))
    before = {name: layer.mask.clone() for name, layer in net.named_children() if name != "1"}
    with torch.no_grad():
        for name, mask in before.items():
            net.get_submodule(name).weight[~mask] = 1e3  # as Adam's momentum would, by less
            net.get_submodule(name).weight[mask] = 0.0
    after = cplx.magnitude_masks(net, 0.6)
    assert sum(n_masked(after).values()) == round(0.6 * 81)
    assert all(not after[name][~mask].any() for name, mask in before.items())


@pytest.mark.parametrize("share", [0.2, {"0": 0.1, "2": 0.3}])
def test_a_sparsity_below_that_of_the_masks_unmasks_nothing(share):
    """As of gradual pruning that begins in a network which is masked already."""
    net = network()
    masks = cplx.magnitude_masks(net, {"0": 0.5, "2": 0.1})
    cplx.deploy_masks(net, masks)
    after = cplx.magnitude_masks(net, share)
    assert not any(bool(after[name][~masks[name]].any()) for name in masks)
    assert n_masked(after) == {"0": 30, "2": 2 if share == 0.2 else 6}


def test_of_equal_weights_exactly_as_many_are_masked_as_asked_for():
    net = network()
    with torch.no_grad():
        for name in ("0", "2"):
            net.get_submodule(name).weight.fill_(1j)
    for n in range(0, 82, 9):
        assert sum(n_masked(cplx.magnitude_masks(net, n / 81)).values()) == n


def test_random_masks_have_exact_counts_and_favour_no_weight():
    net = network()
    generator = torch.Generator().manual_seed(1)
    times = np.zeros(81)
    for _ in range(400):
        masks = cplx.random_masks(net, 2 / 3, generator)
        assert sum(n_masked(masks).values()) == 54
        times += ~flat(masks)
    # a weight is masked 400 * 2/3 times; the standard deviation is 9.4
    assert np.abs(times - 400 * 2 / 3).max() < 4.5 * 9.4
    share = {"0": 0.25, "2": 1 / 3}
    first, second = (
        cplx.random_masks(net, share, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert n_masked(first) == {"0": 15, "2": 7}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_cannot_be_masked_is_named():
    with pytest.raises(ValueError, match=r"expected masked layers .* got none; try"):
        cplx.magnitude_masks(nn.Sequential(cplx.CplxLinear(2, 2)), 0.5)
    with pytest.raises(ValueError, match="sparsity of every masked layer, got none of 2"):
        cplx.magnitude_masks(network(), {"0": 0.5})
    for share in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"expected a sparsity from 0 to 1, got .*; try 0.9"):
            cplx.magnitude_masks(network(), share)
        with pytest.raises(ValueError, match="expected a sparsity from 0 to 1"):
            cplx.random_masks(network(), {"0": 0.5, "2": share}, torch.Generator())
