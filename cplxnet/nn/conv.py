"""Complex convolutions in one and two dimensions."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair, _single

from .fast import gpu
from .fast.conv import conv2d
from .init import trabelsi_standard_
from .parameters import ComplexParameters, empty_ri, from_image, to_image

Padding = int | tuple[int, ...] | Literal["valid", "same"]


def block_weight(weight_ri: Tensor) -> Tensor:
    """The real 2x2 block form of a complex kernel: (out, in, *k, 2) -> (2 out, 2 in, *k), parts interleaved.

    Each complex weight w becomes [[Re w, -Im w], [Im w, Re w]].
    """
    re, im = weight_ri.unbind(-1)
    rows = torch.stack(
        (torch.stack((re, -im), 2), torch.stack((im, re), 2)), 1
    )  # (out, 2, in, 2, *k)
    return rows.flatten(2, 3).flatten(0, 1)


def cplx_conv2d(
    x: Tensor,
    weight_ri: Tensor,
    bias_ri: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """y = W * x + b as one real convolution of twice the channels, channels last (see `parameters`).

    x: complex (B, in, H, W); weight_ri: real (out, in/groups, kh, kw, 2); bias_ri: real (out, 2).
    Returns complex (B, out, H', W'); like `torch.nn.functional.conv2d` this is a cross-correlation.
    """
    bias = None if bias_ri is None else bias_ri.flatten()
    weight = block_weight(weight_ri).contiguous(memory_format=torch.channels_last)
    image = to_image(x)
    out = conv2d(image, weight, bias, stride, padding, dilation, groups)
    return from_image(
        out.to(image.dtype), x.dim()
    )  # autocast may have made it bfloat16, which has no complex type


def cplx_conv1d(
    x: Tensor,
    weight_ri: Tensor,
    bias_ri: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """The same in one dimension: x complex (B, in, L), weight_ri real (out, in/groups, k, 2); returns (B, out, L').

    Run as a two-dimensional convolution of height 1, which is faster than `conv1d` on the CPU.
    """
    pad = padding if isinstance(padding, str) else (0, *_single(padding))
    step, spread = (1, *_single(stride)), (1, *_single(dilation))
    return cplx_conv2d(x, weight_ri.unsqueeze(2), bias_ri, step, pad, spread, groups)


class _CplxConv(ComplexParameters):
    """What convolutions share: arguments as in `torch.nn`, parameters, initialisation and padding modes."""

    dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: Padding = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"expected channels divisible by groups={groups}, got {in_channels} in, {out_channels} out"
            )
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"expected padding_mode zeros, reflect, replicate or circular, got {padding_mode!r}"
            )
        if padding_mode != "zeros" and isinstance(padding, str):
            raise ValueError(
                f"padding {padding!r} goes with padding_mode 'zeros' only; give the number of samples"
            )
        ntuple = _single if self.dims == 1 else _pair
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = (
            ntuple(kernel_size),
            ntuple(stride),
            ntuple(dilation),
        )
        self.padding: Padding = padding if isinstance(padding, str) else ntuple(padding)
        self.padding_mode = padding_mode
        self.weight_ri = empty_ri(
            out_channels, in_channels // groups, *self.kernel_size, device=device, dtype=dtype
        )
        self.bias_ri = empty_ri(out_channels, device=device, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        trabelsi_standard_(self.weight)
        if self.bias_ri is not None:
            torch.nn.init.zeros_(self.bias_ri)

    def padded(self, x: Tensor) -> tuple[Tensor, Padding]:
        """The input with its borders added and the padding that is left to do: zeros are left to the convolution."""
        if x.dim() != self.dims + 2:
            size = "length" if self.dims == 1 else "height, width"
            raise ValueError(f"expected (batch, {self.in_channels}, {size}), got {tuple(x.shape)}")
        if self.padding_mode == "zeros" or isinstance(self.padding, str):
            return x, self.padding
        amounts = [n for n in reversed(_single(self.padding)) for _ in range(2)]
        if x.is_complex():
            x = torch.complex(
                *(F.pad(part, amounts, mode=self.padding_mode) for part in (x.real, x.imag))
            )
        else:
            x = F.pad(x, amounts, mode=self.padding_mode)
        return x, 0

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias_ri is not None}"
        )


class CplxConv1d(_CplxConv):
    """Complex convolution (B, in, L) -> (B, out, L'); arguments as in `torch.nn.Conv1d`."""

    dims = 1

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        if y is not None:
            return y

        x, padding = self.padded(x)
        return cplx_conv1d(
            x, self.weight_ri, self.bias_ri, self.stride, padding, self.dilation, self.groups
        )


class CplxConv2d(_CplxConv):
    """Complex convolution (B, in, H, W) -> (B, out, H', W'); arguments as in `torch.nn.Conv2d`."""

    dims = 2

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.padded(x)
        return cplx_conv2d(
            x, self.weight_ri, self.bias_ri, self.stride, padding, self.dilation, self.groups
        )
