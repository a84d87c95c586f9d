"""Complex convolutions in one and two dimensions."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair, _single

from .fast import gpu
from .fast.conv import Geometry, conv2d
from .parameters import ComplexParameters, channels_last, from_image, real_dtype, to_image

Padding = int | tuple[int, ...] | Literal["valid", "same"]


class _CplxConv(ComplexParameters):
    """y = W * x + b, a cross-correlation as in `torch.nn`, in one or two dimensions."""

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
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"expected channels divisible by groups={groups}, got {in_channels} in, "
                f"{out_channels} out"
            )
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                f"expected padding_mode zeros, reflect, replicate or circular, got {padding_mode!r}"
            )
        if padding_mode != "zeros" and isinstance(padding, str):
            raise ValueError(
                f"padding {padding!r} goes with padding_mode 'zeros' only; give the number of "
                "samples"
            )

        ntuple = _single if self.dims == 1 else _pair
        shape = (out_channels, in_channels // groups, *ntuple(kernel_size))
        super().__init__(shape, bias, device, dtype)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.kernel_size = ntuple(kernel_size)
        self.stride = ntuple(stride)
        self.dilation = ntuple(dilation)
        self.padding: Padding = padding if isinstance(padding, str) else ntuple(padding)
        self.padding_mode = padding_mode
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        return self._conv_forward(x, self.weight_ri, self.bias_ri) if y is None else y

    def _conv_forward(self, x: Tensor, weight_ri: Tensor, bias_ri: Tensor | None) -> Tensor:
        """The layer with another weight and bias; the name is torch's."""
        return cplx_conv(self._bordered(x), weight_ri, bias_ri, self.geometry)

    def real_conv(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve real numbers in the layer's geometry.

        x: (B, in, *size); weight: (out, in/groups, *kernel_size). Returns (B, out, *size').
        """
        image = self._bordered(x)
        if self.dims == 1:
            # channels last as an image of height 1, as in `cplx_conv`
            image, weight = (channels_last(t.unsqueeze(2)) for t in (image, weight))
        y = conv2d(image, weight, None, self.geometry)

        # autocast may have made it bfloat16
        return (y.squeeze(2) if self.dims == 1 else y).to(x.dtype)

    @property
    def geometry(self) -> Geometry:
        """Of the two-dimensional convolution that runs, after `_bordered` has padded the input."""
        padding = self.padding if self.padding_mode == "zeros" else 0
        return two_dimensional(self.dims, self.stride, padding, self.dilation, self.groups)

    def _bordered(self, x: Tensor) -> Tensor:
        """x with its borders; zeros are left to the convolution."""
        if x.dim() != self.dims + 2 or x.shape[1] != self.in_channels:
            size = "length" if self.dims == 1 else "height, width"
            raise ValueError(f"expected (batch, {self.in_channels}, {size}), got {tuple(x.shape)}")
        if self.padding_mode == "zeros":
            return x

        amounts = [n for n in reversed(_single(self.padding)) for _ in range(2)]
        return F.pad(x, amounts, mode=self.padding_mode)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, bias={self.bias_ri is not None}"
        )


class CplxConv1d(_CplxConv):
    """Complex convolution (B, in, L) -> (B, out, L').

    Arguments are those of `torch.nn.Conv1d`. Parameters: weight (out, in/groups, k) and bias (out),
    complex, stored as `weight_ri` and `bias_ri`.

    Raises:
        ValueError: channels that `groups` does not divide, an unknown padding mode, or an input of
            another shape.
        TypeError: a real input.
    """

    dims = 1


class CplxConv2d(_CplxConv):
    """Complex convolution (B, in, H, W) -> (B, out, H', W').

    Arguments are those of `torch.nn.Conv2d`. Parameters: weight (out, in/groups, kh, kw) and bias
    (out), complex, stored as `weight_ri` and `bias_ri`. Raises as `CplxConv1d` does.
    """

    dims = 2


def cplx_conv(x: Tensor, weight_ri: Tensor, bias_ri: Tensor | None, geometry: Geometry) -> Tensor:
    """y = W * x + b as one real convolution of twice the channels.

    Channels lie last in memory (see `parameters`). In one dimension it runs as an image of height
    1, which is faster than `conv1d` on the CPU.

    Args:
        x: complex (B, in, H, W) or (B, in, L).
        weight_ri: real (out, in/groups, kh, kw, 2) or (out, in/groups, k, 2).
        bias_ri: real (out, 2), or None.
        geometry: stride, padding, dilation and groups; see `two_dimensional`.

    Returns:
        Complex (B, out, H', W') or (B, out, L').
    """
    real_dtype(weight_ri.dtype)
    image = to_image(x)
    if x.dim() == 3:
        weight_ri = weight_ri.unsqueeze(2)
    weight = channels_last(block_weight(weight_ri))
    bias = None if bias_ri is None else bias_ri.flatten()
    y = conv2d(image, weight, bias, geometry)

    # autocast may have made it bfloat16, which has no complex type
    return from_image(y.to(image.dtype), x.dim())


def two_dimensional(
    dims: int,
    stride: int | tuple[int, ...] = 1,
    padding: Padding = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Geometry:
    """The geometry of a convolution; in one dimension, over an image of height 1.

    Args:
        dims: 1 or 2.
        stride, padding, dilation, groups: as in `torch.nn.Conv1d` or `torch.nn.Conv2d`.
    """

    def pair(value: Any, of_height: int) -> Any:
        return _pair(value) if dims == 2 else (of_height, *_single(value))

    pad = padding if isinstance(padding, str) else pair(padding, 0)
    return Geometry(pair(stride, 1), pad, pair(dilation, 1), groups)


def block_weight(weight_ri: Tensor) -> Tensor:
    """The real 2x2 block form of a complex kernel: (out, in, *k, 2) -> (2 out, 2 in, *k).

    Real and imaginary parts are interleaved. Each complex weight w becomes [[Re w, -Im w], [Im w,
    Re w]].
    """
    re, im = weight_ri.unbind(-1)
    of_real = torch.stack((re, -im), 2)
    of_imag = torch.stack((im, re), 2)
    rows = torch.stack((of_real, of_imag), 1)  # (out, 2, in, 2, *k)

    return rows.flatten(2, 3).flatten(0, 1)
