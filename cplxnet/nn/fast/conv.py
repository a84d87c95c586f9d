"""Real two-dimensional convolution with a faster gradient by the weight on the CPU."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .dispatch import own_gradient_usable

UNFOLDED = 1 << 21  # numbers held unfolded at a time: 8 MB of float32


class Geometry(NamedTuple):
    """How the kernel of a convolution moves over an image, (vertical, horizontal) each.

    Fields are in the order of `torch.nn.functional.conv2d`'s arguments, and mean the same.
    """

    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1


def conv2d(image: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`torch.nn.functional.conv2d`, with `weight_gradient` in its backward pass where that applies.

    Args:
        image: (B, in, H, W).
        weight: (out, in/groups, kh, kw).
        bias: (out,), or None.
        geometry: stride, padding, dilation and groups.

    Returns:
        (B, out, H', W').
    """
    if _weight_gradient_applies(image, weight, geometry):
        return _Convolution.apply(image, weight, bias, geometry)

    return F.conv2d(image, weight, bias, *geometry)  # type: ignore[arg-type]


def _weight_gradient_applies(image: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the weight needs a gradient, and `weight_gradient` is faster for this image.

    The channels must lie last, and one image unfolded must not be many times what is held at a
    time.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    if not own_gradient_usable(image, weight):
        return False
    if geometry.groups != 1 or geometry.dilation != (1, 1) or isinstance(geometry.padding, str):
        return False

    unfolded = math.prod(image.shape[1:]) * math.prod(weight.shape[2:])
    return unfolded <= 8 * UNFOLDED and image.is_contiguous(memory_format=torch.channels_last)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(image: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        return F.conv2d(image, weight, bias, *geometry)  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        image, weight, _, ctx.geometry = inputs
        ctx.save_for_backward(image, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        needs_image, needs_weight, needs_bias, _ = ctx.needs_input_grad
        by_image = by_weight = by_bias = None

        if needs_image:
            options = (stride, padding, dilation, False, (0, 0), groups, (True, False, False))
            by_image, _, _ = torch.ops.aten.convolution_backward(
                grad, image, weight, None, *options
            )
        if needs_weight:
            by_weight = weight_gradient(image, grad, weight.shape[2:], stride, padding)
        if needs_bias:
            by_bias = grad.sum((0, 2, 3))

        return by_image, by_weight, by_bias, None


def weight_gradient(
    image: Tensor,
    grad: Tensor,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> Tensor:
    """The gradient of a convolution by its weight as products of matrices, sum of X_b^T G_b.

    X_b has a row for every position of the kernel over image b: the pixels under it. G_b is the
    output's gradient there. A pixel is in as many rows as the kernel has positions over it, so only
    some images are unfolded at a time.

    Args:
        image: (B, C, H, W), channels last in memory.
        grad: (B, O, H', W').
        kernel_size: (kh, kw).
        stride: (vertical, horizontal).
        padding: (vertical, horizontal), zeros on both sides.

    Returns:
        (O, C, kh, kw).
    """
    (kh, kw), (sh, sw), (ph, pw) = kernel_size, stride, padding
    rows = image.permute(0, 2, 3, 1)
    if ph or pw:  # F.pad would copy without any padding too
        rows = F.pad(rows, (0, 0, pw, pw, ph, ph))
    rows = rows.contiguous()

    _, h, w, c = rows.shape
    n, out, *positions = grad.shape
    n_positions = math.prod(positions)
    grad_rows = grad.permute(0, 2, 3, 1).reshape(n * n_positions, out)
    at_once = max(1, UNFOLDED // (n_positions * kh * kw * c))
    strides = (h * w * c, sh * w * c, sw * c, w * c, 1)

    total: Tensor | None = None
    for images, upstream in zip(
        rows.split(at_once), grad_rows.split(at_once * n_positions), strict=True
    ):
        shape = (len(images), *positions, kh, kw * c)
        unfolded = images.as_strided(shape, strides, images.storage_offset())
        unfolded = unfolded.reshape(-1, kh * kw * c).T
        total = unfolded @ upstream if total is None else torch.addmm(total, unfolded, upstream)
    assert total is not None

    return total.view(kh, kw, c, out).permute(3, 2, 0, 1)
