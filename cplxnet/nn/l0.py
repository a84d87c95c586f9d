"""Linear and convolutional layers with a gate on every weight, complex and real: L0 regularisation.

    y = b + (z * W) x,    z = min(1, max(0, s (zeta - gamma) + gamma)),    the gate

    s = sigmoid((log u - log(1 - u) + a)/beta)    in training, u ~ U(0, 1), one draw a weight
    s = sigmoid(a)                                in evaluation

a is `gate_logit`; z has a hard concrete distribution, with beta = 2/3, gamma = -0.1, zeta = 1.1. A
complex weight has one gate. The penalty of a weight is the probability that its gate is not shut,
and their sum the expected number of weights that are not zero:

    P(z > 0) = sigmoid(a - beta log(-gamma/zeta))

Reference: Louizos, Welling and Kingma (2018), "Learning Sparse Neural Networks through L0
Regularization", equations 10 to 13.
"""

import math

import torch
from torch import Tensor, nn

from .conv import CplxConv1d, CplxConv2d
from .gaussian import Penalised
from .linear import CplxLinear
from .masked import with_weight

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
# of gate_logit at the start: in evaluation every gate is 1, so that the layer is the dense one
OPEN = 3.0


class Gated(Penalised):
    """Mixin over a linear or convolutional layer: y = b + (z * W) x, with a gate z on every weight.

    Attributes:
        gate_logit: a, real, of the weight's shape.
    """

    own = ("gate_logit",)
    at_first = OPEN
    gate_logit: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        gate = self.drawn_gate() if self.training else self.gate
        weight = self._stored
        gate = gate if weight.dim() == gate.dim() else gate.unsqueeze(-1)  # one for both parts

        return with_weight(self, x, weight * gate)

    @property
    def gate(self) -> Tensor:
        """z in evaluation, shape of the weight."""
        return _stretched(self.gate_logit)

    def drawn_gate(self) -> Tensor:
        """A draw of z, shape of the weight."""
        noise = torch.rand_like(self.gate_logit).logit()
        return _stretched((noise + self.gate_logit) / BETA)

    @property
    def weight_in_evaluation(self) -> Tensor:
        """z * weight, z in evaluation."""
        return super().weight_in_evaluation * self.gate

    @property
    def penalty(self) -> Tensor:
        """P(z > 0) of every weight, differentiable, shape of the weight."""
        return torch.sigmoid(self.gate_logit - BETA * math.log(-GAMMA / ZETA))

    @torch.no_grad()
    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True (keep) where z > 0 in evaluation.

        `threshold` has no part in it.
        """
        return self.gate > 0


def _stretched(logit: Tensor) -> Tensor:
    """sigmoid(logit), stretched to (gamma, zeta) and cut to [0, 1]."""
    return (torch.sigmoid(logit) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class CplxLinearL0(Gated, CplxLinear):
    """`CplxLinear` with gates: complex (..., in) -> (..., out)."""


class CplxConv1dL0(Gated, CplxConv1d):
    """`CplxConv1d` with gates: complex (B, in, L) -> (B, out, L')."""


class CplxConv2dL0(Gated, CplxConv2d):
    """`CplxConv2d` with gates: complex (B, in, H, W) -> (B, out, H', W')."""


class LinearL0(Gated, nn.Linear):
    """`torch.nn.Linear` with gates (Louizos et al. 2018)."""


class Conv1dL0(Gated, nn.Conv1d):
    """`torch.nn.Conv1d` with gates (Louizos et al. 2018)."""


class Conv2dL0(Gated, nn.Conv2d):
    """`torch.nn.Conv2d` with gates (Louizos et al. 2018)."""
