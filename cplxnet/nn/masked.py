"""Linear and convolutional layers whose weights are switched off one by one by a mask, complex and real.

    y = b + (mask * W) x, mask a bool buffer of the weight's shape, True = keep, all True at the start

A masked weight takes no part in the output and gets a gradient of exactly 0. Constructor arguments are those of the
dense layer, as in `torch.nn`, and so are the state-dict keys, with `mask` beside them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import CplxConv1d, CplxConv2d, cplx_conv1d, cplx_conv2d
from .fast import gpu
from .linear import CplxLinear, cplx_linear


class Masked(nn.Module):
    """Mixin over a linear or convolutional layer: the `mask` buffer, and setting it with a check.

    `layer.mask = value` copies a tensor of zeros and ones (bool or not) of the weight's shape; ValueError otherwise.
    """

    mask: Tensor

    def reset_parameters(self) -> None:
        super().reset_parameters()  # type: ignore[misc]
        if "mask" not in self._buffers:  # the first call comes from the dense layer's constructor
            weight: Any = self.weight
            self.register_buffer(
                "mask", torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "mask":
            self._set_mask(value)
        else:
            super().__setattr__(name, value)

    @torch.no_grad()
    def _set_mask(self, value: Any) -> None:
        value = torch.as_tensor(value)
        if value.shape != self.mask.shape:
            raise ValueError(
                f"expected a mask of shape {tuple(self.mask.shape)}, got {tuple(value.shape)}"
            )
        if value.dtype != torch.bool and not bool(((value == 0) | (value == 1)).all()):
            raise ValueError(
                f"expected a mask of zeros and ones, got other {value.dtype} values; try weight.abs() > limit"
            )
        self.mask.copy_(value)

    @property
    def masked_weight(self) -> Tensor:
        """mask * weight as the layer stores it: real, with a trailing axis of 2 in complex layers."""
        if "weight_ri" in self._parameters:
            return self.weight_ri * self.mask.unsqueeze(-1)  # type: ignore[operator]
        return self.weight * self.mask  # type: ignore[operator]


class CplxLinearMasked(Masked, CplxLinear):
    """`CplxLinear` with a mask: complex (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        if y is not None:
            return y

        return cplx_linear(x, self.masked_weight, self.bias_ri)


class CplxConv1dMasked(Masked, CplxConv1d):
    """`CplxConv1d` with a mask: complex (B, in, L) -> (B, out, L')."""

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        if y is not None:
            return y

        x, padding = self.padded(x)
        return cplx_conv1d(
            x, self.masked_weight, self.bias_ri, self.stride, padding, self.dilation, self.groups
        )


class CplxConv2dMasked(Masked, CplxConv2d):
    """`CplxConv2d` with a mask: complex (B, in, H, W) -> (B, out, H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        x, padding = self.padded(x)
        return cplx_conv2d(
            x, self.masked_weight, self.bias_ri, self.stride, padding, self.dilation, self.groups
        )


class LinearMasked(Masked, nn.Linear):
    """`torch.nn.Linear` with a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.masked_weight, self.bias)


class Conv1dMasked(Masked, nn.Conv1d):
    """`torch.nn.Conv1d` with a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.masked_weight, self.bias)


class Conv2dMasked(Masked, nn.Conv2d):
    """`torch.nn.Conv2d` with a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.masked_weight, self.bias)
