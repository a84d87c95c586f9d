"""The noise of a variational layer and |x|^2 in C (noise.c), on real pairs (..., 2)."""

from typing import Any

import torch
from torch import Tensor

from . import native
from .dispatch import once_differentiable

VARIANCE_FLOOR = 1e-8  # some float32 convolutions of squares return tiny negatives


class PairNoise(torch.autograd.Function):
    """y = mean + sqrt(max(variance, VARIANCE_FLOOR)) eps, eps ~ CN(0, 1, 0), and dy/d(variance).

    mean: (..., 2); variance: (...). The slope dy/d(variance), of the mean's shape, is all that the
    backward pass keeps. eps depends on the position and on a key from torch's generator alone, so
    seeds hold whatever the number of threads.
    """

    @staticmethod
    def forward(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        key = torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device="cpu")
        y = torch.empty_like(mean)
        slope = torch.empty_like(mean)
        given = (variance.numel(), mean, variance, VARIANCE_FLOOR, key)
        native.call("noise_pairs", *given, y, slope)

        return y, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _, slope = output
        ctx.mark_non_differentiable(slope)
        ctx.set_materialize_grads(False)  # or backward would be handed zeros for the slope
        ctx.save_for_backward(slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor]:
        (slope,) = ctx.saved_tensors
        grad = grad.contiguous()
        by_variance = slope.new_empty(slope.shape[:-1])
        native.call("dot_pairs", by_variance.numel(), grad, slope, by_variance)

        return grad, by_variance


class SquaredPairs(torch.autograd.Function):
    """x and |x|^2 = re^2 + im^2 from pairs x (..., 2).

    With the gradients g by |x|^2 and h by x itself, that by the input is h + 2 g x: x goes through
    this function too, so that both are added in one pass.
    """

    @staticmethod
    def forward(ctx: Any, pairs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pairs)
        square = pairs.new_empty(pairs.shape[:-1])
        native.call("dot_pairs", square.numel(), pairs, pairs, square)

        return pairs.view_as(pairs), square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_pairs: Tensor, by_square: Tensor) -> Tensor:
        (pairs,) = ctx.saved_tensors
        total = torch.empty_like(pairs)
        gradients = (by_pairs.contiguous(), by_square.contiguous())
        native.call("square_pairs_grad", by_square.numel(), *gradients, pairs, total)

        return total
