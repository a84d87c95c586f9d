"""Real two-dimensional convolution, channels last, with a faster gradient by the weight on the CPU."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

UNFOLDED = 1 << 21  # numbers held unfolded at a time: 8 MB of float32


def conv2d(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, with `weight_gradient` in its backward pass where that can be had."""
    if _worth_it(image, weight, dilation, groups) and not isinstance(padding, str):
        return _Convolution.apply(image, weight, bias, _pair(stride), _pair(padding))
    return F.conv2d(image, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]


def _worth_it(image: Tensor, weight: Tensor, dilation: int | tuple[int, ...], groups: int) -> bool:
    """Whether the weight's gradient is wanted, and `weight_gradient` can give it from channels that lie last.

    Not where a single image unfolded is many times the size that is held at a time.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    fit = (
        weight.requires_grad
        and torch.is_grad_enabled()
        and groups == 1
        and _pair(dilation) == (1, 1)
    )
    fit = fit and math.prod(image.shape[1:]) * math.prod(weight.shape[2:]) <= 8 * UNFOLDED
    return (
        fit
        and image.device.type == "cpu"
        and image.is_contiguous(memory_format=torch.channels_last)
    )


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        image: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
    ) -> Tensor:
        return F.conv2d(image, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(image, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        by_image, by_weight, by_bias = ctx.needs_input_grad[:3]
        geometry = (ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)
        return (
            torch.ops.aten.convolution_backward(
                grad, image, weight, None, *geometry, (True, False, False)
            )[0]
            if by_image
            else None,
            weight_gradient(image, grad, weight.shape[2:], ctx.stride, ctx.padding)
            if by_weight
            else None,
            grad.sum((0, 2, 3)) if by_bias else None,
            None,
            None,
        )


def weight_gradient(
    image: Tensor,
    grad: Tensor,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """The gradient of a convolution by its weight, as products of matrices: (sum over b of X_b^T G_b)^T.

    X_b holds a row for every place of the kernel over image b, the pixels under it; G_b the output's gradient there.
    A pixel is in as many rows as the kernel has places over it, so some images are unfolded at a time.

    image: (B, C, H, W), channels last; grad: (B, O, H', W'). Returns (O, C, kh, kw).
    """
    (kh, kw), (sh, sw), (ph, pw) = kernel_size, stride, padding
    rows = image.permute(0, 2, 3, 1)
    if ph or pw:  # else it would be copied all the same
        rows = F.pad(rows, (0, 0, pw, pw, ph, ph))
    rows = rows.contiguous()
    (n, h, w, c), (_, out, *places) = rows.shape, grad.shape
    above = grad.permute(0, 2, 3, 1).reshape(n, -1, out)
    at_once = max(1, UNFOLDED // (above.shape[1] * kh * kw * c))
    strides = (h * w * c, sh * w * c, sw * c, w * c, 1)
    total: Tensor | None = None
    for some, over in zip(
        rows.split(at_once), above.flatten(0, 1).split(at_once * above.shape[1]), strict=True
    ):
        under = some.as_strided((len(some), *places, kh, kw * c), strides, some.storage_offset())
        under = under.reshape(-1, kh * kw * c).T
        total = under @ over if total is None else torch.addmm(total, under, over)
    assert total is not None
    return total.view(kh, kw, c, out).permute(3, 2, 0, 1)
