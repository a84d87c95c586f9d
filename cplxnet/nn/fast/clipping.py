"""Gradient clipping that reuses norms from the KL pass."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class GradientNorm:
    """The norm of a network's gradient in one step, and clipping by it.

    Attributes:
        squares: of some parameters, the sum of squares of their gradient, float64 scalars.
    """

    def __init__(self) -> None:
        self.squares: dict[nn.Parameter, Tensor] = {}

    def add(self, parameter: nn.Parameter, square: Tensor) -> None:
        """Take `square` as |grad|^2 of a parameter, whose gradient is not read for it again."""
        self.squares[parameter] = square

    @torch.no_grad()
    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """`torch.nn.utils.clip_grad_norm_`, which reads only gradients of unknown norm.

        Every gradient is multiplied by min(1, max_norm/(norm + 1e-6)), where norm^2 is the sum over
        all parameters of |grad|^2. Nothing waits for the device.

        Args:
            parameters: those whose gradients are clipped.
            max_norm: the norm to clip at.

        Returns:
            The norm before clipping, a scalar.
        """
        parameters = list(parameters)
        others = [p.grad for p in parameters if p.grad is not None and p not in self.squares]
        norm = nn.utils.get_total_norm(others, foreach=True)
        if not others and parameters:
            norm = parameters[0].new_zeros(())  # torch's own 0 is on the CPU

        if self.squares:
            squares = torch.stack([norm.double().square(), *self.squares.values()])
            norm = squares.sum().sqrt().to(norm.dtype)

        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)
        return norm
