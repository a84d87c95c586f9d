"""Contract of every masked layer."""

import pytest
import torch
from layer_cases import FAMILIES, Family, ids, stored
from torch import nn

from cplxnet import nn as cplx

every_family = pytest.mark.parametrize("family", FAMILIES, ids=ids(FAMILIES))


def make(family: Family, keep: float = 0.6) -> nn.Module:
    torch.manual_seed(3)
    layer = family.make(family.masked)
    layer.mask = torch.rand(layer.weight.shape) < keep
    return layer


@every_family
def test_starts_as_the_dense_layer(family: Family) -> None:
    layer, dense, x = family.make(family.masked), family.make(family.dense), family.input()
    assert (
        layer.mask.dtype == torch.bool
        and layer.mask.shape == layer.weight.shape
        and layer.mask.all()
    )
    dense.load_state_dict(layer.state_dict(), strict=False)
    assert torch.equal(layer(x), dense(x))


@every_family
def test_equals_a_dense_layer_with_zeroed_weights(family: Family) -> None:
    layer, dense, x = make(family), family.make(family.dense), family.input()
    dense.load_state_dict(layer.state_dict(), strict=False)
    with torch.no_grad():
        dense.weight[~layer.mask] = 0
    torch.testing.assert_close(layer(x), dense(x))


@every_family
def test_masked_weights_get_no_gradient_and_gradcheck_passes(family: Family) -> None:
    layer, x = make(family), family.input().requires_grad_()
    parameters = dict(layer.named_parameters())
    layer(x).abs().sum().backward()
    grad = stored(layer).grad
    assert not grad[~layer.mask].any()
    assert grad[layer.mask].ne(0).any()

    def forward(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *parameters.values()))


@every_family
def test_state_dict_carries_the_mask(family: Family) -> None:
    layer, other, x = make(family), family.make(family.masked), family.input()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.mask, layer.mask)
    assert torch.equal(other(x), layer(x))


@every_family
def test_mask_survives_a_cast(family: Family) -> None:
    layer = make(family)
    before = layer.mask.clone()
    layer.float()
    assert layer.mask.dtype == torch.bool and torch.equal(layer.mask, before)


@every_family
def test_wrong_masks_are_refused_and_change_nothing(family: Family) -> None:
    layer = make(family)
    before = layer.mask.clone()
    with pytest.raises(ValueError, match=r"expected a mask of shape \(.*\), got \(7,\)"):
        layer.mask = torch.ones(7)
    with pytest.raises(ValueError, match="expected a mask of zeros and ones"):
        layer.mask = torch.full(layer.mask.shape, 0.5)
    assert torch.equal(layer.mask, before)
    layer.mask = torch.zeros(layer.mask.shape)
    assert not layer.mask.any()


@every_family
def test_fused_adam_leaves_masked_weights_alone(family: Family) -> None:
    layer = make(family).float()
    before = layer.weight.detach().clone()
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2, fused=True)
    layer(family.input(dtype=torch.float32)).abs().sum().backward()
    optimiser.step()
    assert torch.equal(layer.weight[~layer.mask], before[~layer.mask])
    assert (layer.weight[layer.mask] != before[layer.mask]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("in_order", [True, False])
def test_the_masked_weight_is_the_product_however_it_is_stored(
    dtype: torch.dtype, in_order: bool
) -> None:
    layer = cplx.CplxLinearMasked(6, 5)
    stored = layer.weight_ri.detach().to(dtype)
    if not in_order:
        stored = stored.movedim(-1, 0).contiguous().movedim(0, -1)
    layer.weight_ri = torch.nn.Parameter(stored)
    layer.mask = torch.rand(5, 6) < 0.5
    assert torch.equal(layer.masked_weight, stored * layer.mask.unsqueeze(-1))
