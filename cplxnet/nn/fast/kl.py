"""The sum of the KL and its gradients in C (kl.c), in one pass over the weights.

`code` is the number of a KL term in kl.c. Weights lie as they are stored, pairs (..., 2) for a
complex term.
"""

from typing import Any

import torch
from torch import Tensor

from . import native
from .dispatch import once_differentiable


class PenaltySum(torch.autograd.Function):
    """The KL summed over a layer's weights: one pass for the value, one for both gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, log_sigma2: Tensor, code: int) -> Tensor:
        ctx.save_for_backward(weight, log_sigma2)
        ctx.code = code

        n = log_sigma2.numel()
        block_sums = log_sigma2.new_empty(n_blocks(n), dtype=torch.float64)
        native.call("kl_value", code, n, weight, log_sigma2, block_sums)

        return block_sums.sum().to(log_sigma2.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, log_sigma2 = ctx.saved_tensors
        by_weight = torch.empty_like(weight)
        by_log_sigma2 = torch.empty_like(log_sigma2)

        n = log_sigma2.numel()
        native.call("kl_grad", ctx.code, n, weight, log_sigma2, grad, by_weight, by_log_sigma2)

        return by_weight, by_log_sigma2, None


def add_gradients(
    weight: Tensor,
    log_sigma2: Tensor,
    code: int,
    scale: Tensor,
    weight_grad: Tensor,
    log_sigma2_grad: Tensor,
) -> Tensor:
    """Add `scale` times the gradients of the KL sum to both `..._grad`, in place.

    scale: a float32 scalar.

    Returns:
        (3,), float64: the KL sum (without `scale`), and the sums of squares of both gradients after
        the addition.
    """
    n = log_sigma2.numel()
    block_sums = log_sigma2.new_empty(n_blocks(n), 3, dtype=torch.float64)
    gradients = (weight_grad, log_sigma2_grad)
    native.call("kl_value_grad", code, n, weight, log_sigma2, scale, *gradients, block_sums)

    return block_sums.sum(0)


def n_blocks(n: int) -> int:
    """Number of blocks that n weights are summed in."""
    return -(-n // native.BLOCK)
