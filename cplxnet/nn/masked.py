"""Linear and convolutional layers with a mask over their weights, complex and real.

    y = b + (mask * W) x, mask a bool buffer of the weight's shape, True = keep, all True at the
    start

A masked weight takes no part in the output and gets a gradient of exactly 0. Constructor arguments
are those of the dense layer, as in `torch.nn`, and so are the state-dict keys, with `mask` beside
them.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import CplxConv1d, CplxConv2d
from .fast import gpu
from .linear import CplxLinear, cplx_linear
from .parameters import stored_parameter


class Masked(nn.Module):
    """Mixin over a linear or convolutional layer: y = b + (mask * W) x, with a `mask` buffer.

    `layer.mask = value` copies a tensor of zeros and ones (bool or not) of the weight's shape.

    Raises:
        ValueError: a mask of another shape, or one that holds more than zeros and ones.
        RuntimeError: the weight is not a parameter of its own any more (parametrized, weight_norm,
            pruned).
    """

    mask: Tensor

    def reset_parameters(self) -> None:
        """Initialise as the dense layer does; the mask stays."""
        super().reset_parameters()  # type: ignore[misc]
        if "mask" not in self._buffers:  # the first call comes from the dense layer's constructor
            weight: Any = self.weight
            mask = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
            self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        return with_weight(self, x, self.masked_weight) if y is None else y

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "mask":
            super().__setattr__(name, value)
            return

        value = torch.as_tensor(value).detach()
        if value.shape != self.mask.shape:
            raise ValueError(
                f"expected a mask of shape {tuple(self.mask.shape)}, got {tuple(value.shape)}"
            )
        if value.dtype != torch.bool and not bool(((value == 0) | (value == 1)).all()):
            raise ValueError(
                f"expected a mask of zeros and ones, got other {value.dtype} values; "
                "try weight.abs() > limit"
            )
        if self.mask.is_meta or getattr(self, "_is_replica", False):
            # without memory, or with that of the layer it is a replica of
            self._buffers["mask"] = value.to(torch.bool)
        else:
            self.mask.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        had_memory = not self.mask.is_meta
        super()._apply(fn, recurse)
        if not had_memory and not self.mask.is_meta:  # by `to_empty`: as at the start
            self.mask.fill_(True)
        return self

    @property
    def weight_in_evaluation(self) -> Tensor:
        """mask * weight, of the weight's shape: what a layer hands on to one without a mask."""
        weight: Any = self.weight
        return weight.masked_fill(~self.mask, 0)

    @property
    def masked_weight(self) -> Tensor:
        """mask * weight as it is stored: real, with a last axis of 2 in complex layers."""
        weight = stored_parameter(self, "weight")
        if weight.dim() == self.mask.dim():
            return weight * self.mask
        if not weight.is_contiguous() or weight.dtype not in (torch.float32, torch.float64):
            return weight * self.mask.unsqueeze(-1)

        # of pairs whole: half the time of a product with the mask of each part
        masked_pairs = torch.view_as_complex(weight).masked_fill(~self.mask, 0)
        return torch.view_as_real(masked_pairs)


def with_weight(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What a linear or convolutional layer gives for x with another weight, stored as its own."""
    if isinstance(layer, CplxLinear):
        return cplx_linear(x, weight, layer.bias_ri)
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)

    return layer._conv_forward(x, weight, stored_parameter(layer, "bias"))


class CplxLinearMasked(Masked, CplxLinear):
    """`CplxLinear` with a mask: complex (..., in) -> (..., out)."""


class CplxConv1dMasked(Masked, CplxConv1d):
    """`CplxConv1d` with a mask: complex (B, in, L) -> (B, out, L')."""


class CplxConv2dMasked(Masked, CplxConv2d):
    """`CplxConv2d` with a mask: complex (B, in, H, W) -> (B, out, H', W')."""


class LinearMasked(Masked, nn.Linear):
    """`torch.nn.Linear` with a mask."""


class Conv1dMasked(Masked, nn.Conv1d):
    """`torch.nn.Conv1d` with a mask."""


class Conv2dMasked(Masked, nn.Conv2d):
    """`torch.nn.Conv2d` with a mask."""
