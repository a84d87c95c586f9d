"""Dropout of whole complex numbers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CplxDropout(nn.Module):
    """z m/(1 - p) with m ~ Bernoulli(1 - p) for each complex number: both parts go or stay together.

    p: probability of dropping, in [0, 1]. No effect in eval mode.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"expected a probability p in [0, 1], got {p}")
        self.p = p

    def forward(self, z: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return z
        return z * F.dropout(torch.ones_like(z.real), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
