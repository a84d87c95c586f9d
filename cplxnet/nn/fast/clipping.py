"""Clipping of gradients, of which the KL pass knows part of the norm already."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_grad_norm_(
    parameters: Iterable[nn.Parameter], max_norm: float, squares: Mapping[nn.Parameter, Tensor]
) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_`, with the sums of squares that are known already.

    Every gradient is multiplied by min(1, max_norm/(norm + 1e-6)), where norm^2 is the sum over all
    parameters of |grad|^2. Nothing waits for the device.

    Args:
        parameters: those whose gradients are clipped.
        max_norm: the norm to clip at.
        squares: of some parameters, the sum of squares of their gradient, as `kl_backward` gives
            it.

    Returns:
        The norm before clipping, a scalar.
    """
    parameters = list(parameters)
    others = [p.grad for p in parameters if p.grad is not None and p not in squares]
    norm = nn.utils.get_total_norm(others, foreach=True)
    if not others and parameters:
        norm = parameters[0].new_zeros(())  # torch's own 0 is on the CPU
    if squares:
        norm = torch.stack([norm.double().square(), *squares.values()]).sum().sqrt().to(norm.dtype)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)

    return norm
