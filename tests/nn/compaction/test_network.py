"""Compact networks against the networks that they were made of."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn import compact
from cplxnet.nn.fast.dispatch import native_usable


def same(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def convolutions(**options: Any) -> nn.Sequential:
    return nn.Sequential(
        cplx.CplxConv1dMasked(4, 6, 5, **options),
        cplx.CplxBatchNorm1d(6),
        cplx.Split(nn.ReLU()),
        cplx.CplxConv1dMasked(6, 4, 3, padding=2, stride=3, dilation=2),
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"padding": 3, "stride": 2}, {"dilation": 3, "stride": 4}]
)
@pytest.mark.parametrize("constant", [False, True])
def test_padding_groups_strides_without_a_head(options: dict[str, int], constant: bool) -> None:
    net: Any = convolutions(**options)
    net[1].running_var += torch.rand(2, 1, 1) * torch.eye(2).unsqueeze(-1)
    net[1].bias.normal_()
    if constant:
        net[0].mask[1] = net[0].mask[4] = (
            False  # constant, not 0: the border of zeros beside it must be seen
        )
    z = torch.randn(9, 4, 50, dtype=torch.complex64)
    made = compact(net, measure=False)
    same(made(z), net(z))
    if native_usable(torch.zeros(0)):
        made.plan = {1: ["rows"] * 2}
        same(made(z), net(z))
        same(made(z[:2]), net(z[:2]))


@torch.no_grad()
def test_a_constant_unit_goes_into_the_next_bias() -> None:
    net: Any = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    net[0].weight[1], net[0].bias[1] = 0, 2.0  # gives relu(2) = 2
    net[0].weight[2], net[0].bias[2] = 0, -1.0  # gives 0
    net[2].weight[:, 3] = 0  # is not read
    made = compact(net, measure=False)
    assert [tuple(stage.weight.shape) for stage in made.stages] == [(1, 1, 5), (3, 1, 1)]
    torch.testing.assert_close(made.stages[1].bias, net[2].bias + 2 * net[2].weight[:, 1])
    x = torch.randn(7, 5)
    same(made(x), net(x))


@torch.no_grad()
def test_given_masks_and_dropout_and_a_layer_used_twice() -> None:
    relu, layer = nn.ReLU(), nn.Linear(6, 6)
    net = nn.Sequential(layer, relu, nn.Dropout(0.5), nn.Sequential(layer, relu)).eval()
    x = torch.randn(8, 6)
    same(compact(net, measure=False)(x), net(x))
    masks = {"0": torch.rand(6, 6) < 0.5}
    first = (layer.weight * masks["0"], layer.bias)
    same(
        compact(net, masks=masks, measure=False)(x),
        layer(torch.nn.functional.linear(x, *first).relu()).relu(),
    )


def test_a_state_dict_is_refused() -> None:
    small = compact(nn.Sequential(nn.Linear(3, 2)), measure=False)
    with pytest.raises(TypeError, match=r"no state dict; try nn\.save_compact"):
        small.state_dict()
    with pytest.raises(TypeError, match=r"no state dict; try nn\.save_compact"):
        small.load_state_dict({})


def test_inputs_that_do_not_fit() -> None:
    made = compact(convolutions(), measure=False)
    with pytest.raises(ValueError, match="expected 4 channels, got 3"):
        made(torch.zeros(2, 3, 50, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"0: expected length 5 at least, got 4"):
        made(torch.zeros(2, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"complex \(B, 4, length\), got \(4, 50\)"):
        made(torch.zeros(4, 50, dtype=torch.complex64))
    with pytest.raises(ValueError, match="expected length 3, got 4"):
        compact(nn.Sequential(nn.Linear(3, 2)), measure=False)(torch.zeros(2, 4))
