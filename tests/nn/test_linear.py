"""The complex linear layer against the real 2x2 block form, numpy and torch's product."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from cplxnet.nn import CplxLinear, CplxLinearMasked, CplxLinearVD
from cplxnet.nn.linear import FEW_ROWS, MANY_ROWS, cplx_linear, product

DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.complex64, 1e-5), (torch.complex128, 1e-13)]
)


@DTYPES
@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_against_native_and_block_form(
    lead: tuple[int, ...], bias: bool, dtype: torch.dtype, tolerance: float
) -> None:
    layer = CplxLinear(5, 3, bias=bias, dtype=dtype)
    if bias:
        layer.bias = torch.randn(3, dtype=dtype)
    x = torch.randn(*lead, 5, dtype=dtype)
    y = layer(x)
    torch.testing.assert_close(
        y, F.linear(x, layer.weight, layer.bias), rtol=tolerance, atol=tolerance
    )
    w = layer.weight.detach().numpy()
    block = np.block([[w.real, -w.imag], [w.imag, w.real]])  # planar: real parts first
    parts = np.concatenate((x.real.numpy(), x.imag.numpy()), -1) @ block.T
    wanted = parts[..., :3] + 1j * parts[..., 3:] + (layer.bias.detach().numpy() if bias else 0)
    np.testing.assert_allclose(y.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@DTYPES
def test_memory_and_lazy_conjugates(dtype: torch.dtype, tolerance: float) -> None:
    layer, x = CplxLinear(5, 3, dtype=dtype), torch.randn(4, 5, 2, dtype=dtype)
    for view in (
        x.transpose(1, 2),
        x[:, :, 0].conj(),
        x.mH,
        x[::2, :, 1],
        x[0, :, :1].t().expand(3, 5),
    ):
        wanted = F.linear(view.resolve_conj().clone(), layer.weight, layer.bias)
        torch.testing.assert_close(layer(view), wanted, rtol=tolerance, atol=tolerance)


def test_known_product() -> None:
    layer = CplxLinear(2, 1)
    layer.weight, layer.bias = [[1 + 2j, -1j]], [0.5 - 1j]
    assert layer(torch.tensor([3 - 1j, 2 + 0j])).item() == (3 - 1j) * (1 + 2j) - 2j + 0.5 - 1j


@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck(bias: bool) -> None:
    layer = CplxLinear(3, 2, bias=bias, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.complex128, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


def test_gradients_are_the_native_ones() -> None:
    layer = CplxLinear(3, 2, dtype=torch.float64)
    weight = layer.weight.detach().clone().requires_grad_()
    x = torch.randn(4, 3, dtype=torch.complex128)
    layer(x).abs().sum().backward()
    F.linear(x, weight).abs().sum().backward()
    torch.testing.assert_close(torch.view_as_complex(layer.weight_ri.grad), weight.grad)


def test_bias_starts_at_zero_and_a_real_input_is_refused() -> None:
    layer = CplxLinear(3, 2)
    assert not layer.bias.any() and layer.weight.real.all() and layer.weight.imag.all()
    with pytest.raises(TypeError, match=r"expected a complex tensor, got torch.float32; try x.to"):
        layer(torch.zeros(4, 3))
    for form in (CplxLinear, CplxLinearVD, CplxLinearMasked):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., 3\), got \(4, 5\)"):
            form(3, 2)(torch.zeros(4, 5, dtype=torch.complex64))
    assert repr(layer) == "CplxLinear(in_features=3, out_features=2, bias=True)"


def test_functional_form_takes_the_stored_weight() -> None:
    w, x = torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(4, 3, dtype=torch.complex128)
    torch.testing.assert_close(cplx_linear(x, w), x @ torch.complex(w[..., 0], w[..., 1]).t())


@pytest.mark.parametrize("rows", [1, FEW_ROWS - 1, FEW_ROWS, 64, MANY_ROWS, MANY_ROWS + 1])
def test_the_product_is_that_of_torch_for_any_number_of_rows(rows: int) -> None:
    x, weight = (torch.randn(n, 37, dtype=torch.float64, requires_grad=True) for n in (rows, 23))
    upstream = torch.randn(rows, 23, dtype=torch.float64)
    results = [
        (y, *torch.autograd.grad(y, (x, weight), upstream))
        for y in (product(x, weight), F.linear(x, weight))
    ]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
