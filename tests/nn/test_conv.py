"""Complex convolutions against torch's, four real convolutions, the 2x2 block form and scipy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from cplxnet.nn import (
    CplxConv1d,
    CplxConv1dMasked,
    CplxConv1dVD,
    CplxConv2d,
)
from cplxnet.nn.conv import block_weight, cplx_conv, two_dimensional

GEOMETRIES = [
    {},
    {"stride": 2},
    {"padding": 2},
    {"dilation": 2, "padding": 1},
    {"groups": 2},
    {"groups": 4, "stride": 2, "padding": 1},
    {"padding": "same"},
    {"padding": "same", "dilation": 2, "groups": 2},
    {"padding": "valid", "stride": 3},
    {"bias": False, "stride": 2, "dilation": 3, "padding": 3},
]
DTYPES = [(torch.complex64, 2e-5), (torch.complex128, 1e-13)]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
every_dtype = pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=["c64", "c128"])
NUMPY_PADS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def layer_of(dims: int, dtype: torch.dtype, **geometry: Any) -> Any:
    """4 -> 8 channels, kernel 3 or (3, 2), with a bias that is not zero."""
    layer = (
        CplxConv1d(4, 8, 3, **geometry) if dims == 1 else CplxConv2d(4, 8, (3, 2), **geometry)
    ).to(dtype.to_real())
    if layer.bias is not None:
        layer.bias = torch.randn(8, dtype=dtype)
    return layer


def native(layer: Any, x: Tensor) -> Tensor:
    """torch's own complex convolution."""
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    return conv(x.resolve_conj(), layer.weight, layer.bias, *geometry)


def four_real(layer: Any, x: Tensor) -> Tensor:
    """(Wr + i Wi) * (xr + i xi) as four real convolutions."""
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    (rr, ir), (ri, ii) = (
        [conv(part, w.contiguous(), None, *geometry) for part in (x.real, x.imag)]
        for w in (layer.weight.real, layer.weight.imag)
    )
    bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * layer.dims)
    return torch.complex(rr - ii, ri + ir) + bias


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@every_dtype
@every_geometry
@pytest.mark.parametrize("dims", [1, 2])
def test_against_native_and_four_real(
    dims: int, geometry: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    layer = layer_of(dims, dtype, **geometry)
    x = torch.randn(3, 4, *(11, 8)[:dims], dtype=dtype)
    y = layer(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y, native(layer, x), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(y, four_real(layer, x), rtol=tolerance, atol=tolerance)


@every_dtype
@pytest.mark.parametrize("dims", [1, 2])
def test_any_memory_layout_and_lazy_conjugates(
    dims: int, dtype: torch.dtype, tolerance: float
) -> None:
    layer = layer_of(dims, dtype, stride=2, padding=1)
    x = torch.randn(3, 4, *(11, 8)[:dims], dtype=dtype)
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)  # channels last in memory
    wide = torch.randn(3, 8, *(11, 8)[:dims], dtype=dtype)
    views = [
        last,
        last.conj(),
        x.conj(),
        wide[:, ::2],
        x.flip(0).transpose(0, 1)[:, :1].expand(4, 4, *x.shape[2:]),
    ]
    for view in views:
        torch.testing.assert_close(layer(view), native(layer, view), rtol=tolerance, atol=tolerance)


def test_results_lie_channels_last_and_chain() -> None:
    first, second = CplxConv1d(2, 4, 3), CplxConv1d(4, 3, 2)
    x = torch.randn(2, 2, 9, dtype=torch.complex64)
    hidden = first(x)
    assert hidden.transpose(1, 2).is_contiguous() and hidden.shape == (2, 4, 7)
    torch.testing.assert_close(second(hidden), second(hidden.contiguous()))


@pytest.mark.parametrize("dims", [1, 2])
def test_block_form(dims: int) -> None:
    layer = layer_of(dims, torch.complex128)
    x = torch.randn(2, 4, *(7, 6)[:dims], dtype=torch.complex128)
    re, im = layer.weight.real, layer.weight.imag
    planar = torch.cat(
        (torch.cat((re, -im), 1), torch.cat((im, re), 1))
    )  # all real parts, then all imaginary ones
    conv = F.conv1d if dims == 1 else F.conv2d
    parts = conv(
        torch.cat((x.real, x.imag), 1), planar, torch.cat((layer.bias.real, layer.bias.imag))
    )
    torch.testing.assert_close(layer(x), torch.complex(*parts.chunk(2, 1)), rtol=1e-13, atol=1e-13)
    outs, ins = (
        torch.cat((torch.arange(0, n, 2), torch.arange(1, n, 2))) for n in (16, 8)
    )  # interleaved -> planar
    assert torch.equal(block_weight(layer.weight_ri)[outs][:, ins], planar)


def test_against_scipy_correlation() -> None:
    layer = layer_of(1, torch.complex128)
    x, w, b = (
        torch.randn(4, 9, dtype=torch.complex128).numpy(),
        layer.weight.detach().numpy(),
        layer.bias.detach().numpy(),
    )
    # convolution with the flipped kernel: scipy's own correlate would conjugate it
    wanted = [
        sum(signal.convolve(x[i], w[o, i, ::-1], "valid") for i in range(4)) + b[o]
        for o in range(8)
    ]
    np.testing.assert_allclose(
        layer(torch.from_numpy(x)[None])[0].detach().numpy(), wanted, rtol=1e-12
    )


@pytest.mark.parametrize("mode", NUMPY_PADS)
@pytest.mark.parametrize("dims", [1, 2])
def test_padding_modes_against_numpy(mode: str, dims: int) -> None:
    amounts = (2, 1)[:dims]
    layer = layer_of(
        dims, torch.complex128, padding=amounts if dims == 2 else 2, padding_mode=mode, stride=2
    )
    x = torch.randn(2, 4, *(7, 6)[:dims], dtype=torch.complex128)
    bordered = np.pad(
        x.numpy(), [(0, 0), (0, 0), *((n, n) for n in amounts)], mode=NUMPY_PADS[mode]
    )
    conv = F.conv1d if dims == 1 else F.conv2d
    wanted = conv(torch.from_numpy(bordered), layer.weight, layer.bias, layer.stride)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("dims", "geometry"),
    [
        (1, {"stride": 2, "padding": 1, "groups": 2}),
        (1, {"padding": "same", "dilation": 2}),
        (1, {"padding": 1, "padding_mode": "reflect", "bias": False}),
        (2, {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
        (2, {"padding": 1, "padding_mode": "circular"}),
    ],
    ids=str,
)
def test_gradcheck(dims: int, geometry: dict[str, Any]) -> None:
    layer = (CplxConv1d if dims == 1 else CplxConv2d)(
        2, 2, 3 if dims == 1 else (3, 2), **geometry, dtype=torch.float64
    )
    x = torch.randn(2, 2, *(5, 4)[:dims], dtype=torch.complex128, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


def test_functional_forms_take_the_stored_weight() -> None:
    x, w = (
        torch.randn(2, 4, 9, dtype=torch.complex128),
        torch.randn(6, 2, 3, 2, dtype=torch.float64),
    )
    wanted = F.conv1d(x, torch.complex(w[..., 0], w[..., 1]), None, 2, 1, 1, 2)
    torch.testing.assert_close(cplx_conv(x, w, None, two_dimensional(1, 2, 1, 1, 2)), wanted)
    x, w = (
        torch.randn(2, 3, 5, 6, dtype=torch.complex128),
        torch.randn(2, 3, 2, 3, 2, dtype=torch.float64),
    )
    b = torch.randn(2, 2, dtype=torch.float64)
    wanted = F.conv2d(
        x,
        torch.complex(w[..., 0], w[..., 1]),
        torch.complex(b[:, 0], b[:, 1]),
        (1, 2),
        (0, 1),
        (2, 1),
    )
    torch.testing.assert_close(
        cplx_conv(x, w, b, two_dimensional(2, (1, 2), (0, 1), (2, 1))), wanted
    )


def test_errors() -> None:
    with pytest.raises(
        ValueError, match="expected channels divisible by groups=2, got 3 in, 4 out"
    ):
        CplxConv1d(3, 4, 3, groups=2)
    with pytest.raises(
        ValueError,
        match="expected padding_mode zeros, reflect, replicate or circular, got 'mirror'",
    ):
        CplxConv2d(3, 4, 3, padding_mode="mirror")
    with pytest.raises(ValueError, match="padding 'same' goes with padding_mode 'zeros' only"):
        CplxConv1d(3, 4, 3, padding="same", padding_mode="reflect")
    with pytest.raises(ValueError, match=r"expected \(batch, 3, length\), got \(2, 3, 5, 5\)"):
        CplxConv1d(3, 4, 3)(torch.zeros(2, 3, 5, 5, dtype=torch.complex64))
    for form in (CplxConv1d, CplxConv1dVD, CplxConv1dMasked):
        with pytest.raises(ValueError, match=r"expected \(batch, 3, length\), got \(2, 1, 5\)"):
            form(3, 4, 3)(torch.zeros(2, 1, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"expected \(batch, 3, height, width\), got \(3, 3, 5\)"):
        CplxConv2d(3, 4, 3)(torch.zeros(3, 3, 5, dtype=torch.complex64))
    with pytest.raises(
        ValueError, match=r"expected \(batch, channels, length\) or .* got \(3, 5\)"
    ):
        cplx_conv(
            torch.zeros(3, 5, dtype=torch.complex64),
            torch.zeros(2, 3, 2, 2),
            None,
            two_dimensional(1),
        )
    with pytest.raises(TypeError, match=r"expected a complex tensor, got torch\.float32"):
        CplxConv1d(3, 4, 3)(torch.zeros(2, 3, 5))
    assert repr(CplxConv1d(2, 4, 3, bias=False)).endswith(
        "stride=(1,), padding=(0,), dilation=(1,), groups=1, bias=False)"
    )
