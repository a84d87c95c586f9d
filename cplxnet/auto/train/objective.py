"""The objective of a stage: a loss on the batch, a penalty on the weights, their gradient.

    objective = loss(logit, target) + C * 1e-5 * sum over weights of KL(q(w) || p(w))

This is the negative evidence lower bound of the network, per label and scaled: C = 1e5/(number of
labels) would be the bound itself. A larger C compresses more (Nazarov and Burnaev 2020, section 3).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Distill, Term
from cplxnet.auto.manifest.vocabulary import KL

from .optim import held, refreshed

LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce_with_logits": F.binary_cross_entropy_with_logits,
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
}


@dataclass(eq=False)
class Distillation:
    """A term of the loss: the outputs of a trained network, the teacher, softened, as targets.

        weight * T^2 * mean over windows and labels of BCE(logit/T, sigmoid(teacher(x)/T))

    T^2 makes up for gradients that are 1/T^2 as large. The teacher is in evaluation mode, without
    noise and without gradient.

    Reference: Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network",
    section 2; here a sigmoid for each label is in the place of the softmax.
    """

    teacher: nn.Module  # its parameters stay as they are
    spec: Distill  # weight of the term, and temperature T

    def __post_init__(self) -> None:
        self.teacher.eval()

    def __call__(self, logit: Tensor, x: Tensor) -> Tensor:
        """The term of a batch: logit (B, K) of the network that learns, x its input."""
        with torch.no_grad():
            target = torch.sigmoid(self.teacher(x) / self.spec.temperature)

        entropy = F.binary_cross_entropy_with_logits(logit / self.spec.temperature, target)
        return self.spec.weight * self.spec.temperature**2 * entropy


class Objective:
    """The weighted terms of one stage. A KL term is computed only where its coefficient is not 0.

    The pass over the weights that adds the gradient of the KL learns most of the gradient's norm on
    its way; the objective keeps it from `add_kl` to `clip`, so that clipping needs no second pass.

    Args:
        terms: the manifest's `objective_terms`, by name.
        weights: the stage's `objective`: how much each term weighs. A term's coefficient is its own
            times this.
        kl_channels: how much the KL of a channel weighs beside that of a weight.
        distillation: a further term of the loss.
        device: where the network is.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        weights: Mapping[str, float],
        *,
        kl_channels: float = 1.0,
        distillation: Distillation | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        weighed = [(terms[name], weight * terms[name].coef) for name, weight in weights.items()]

        self._losses = [
            (functools.partial(LOSSES[term.name], reduction=term.reduction or "mean"), weight)
            for term, weight in weighed
            if term.name != KL
        ]
        self._penalties = [
            (term.reduction or "sum", weight)
            for term, weight in weighed
            if term.name == KL and weight
        ]
        self._scales = [held(weight, torch.device(device)) for _, weight in self._penalties]
        self._kl_channels = kl_channels
        self._distillation = distillation
        self._norm = cplx.GradientNorm()  # of this step

    @property
    def has_kl(self) -> bool:
        """Whether any KL term weighs something."""
        return bool(self._penalties)

    def scale_kl(self, factor: float) -> None:
        """From now on every KL term weighs its own weight times `factor`, 1 at first."""
        scales = zip(self._scales, self._penalties, strict=True)
        self._scales = [refreshed(scale, weight * factor) for scale, (_, weight) in scales]

    def loss(self, logit: Tensor, target: Tensor, x: Tensor) -> Tensor:
        """The loss of one batch, without the KL: a differentiable scalar.

        Args:
            logit: the network's output, (B, K).
            target: (B, K), as the loss takes it: 0 and 1 for `bce_with_logits`.
            x: the network's input, for the teacher where there is one.
        """
        total = logit.new_zeros(())
        for function, weight in self._losses:
            total = total + weight * function(logit, target)
        if self._distillation is not None:
            total = total + self._distillation(logit, x)
        return total

    def add_kl(self, model: nn.Module) -> Tensor:
        """Add the gradient of the weighted KL to every parameter's `.grad`.

        Returns the KL itself, without any coefficient: a scalar without graph, 0 where no KL term
        weighs anything.
        """
        self._norm = cplx.GradientNorm()
        kl = torch.zeros((), device=next(model.parameters()).device)

        for (reduction, _), scale in zip(self._penalties, self._scales, strict=True):
            kl = kl + cplx.kl_backward(
                model, scale, reduction, self._norm, channels=self._kl_channels
            )
        return kl

    def clip(self, model: nn.Module, max_norm: float | None) -> Tensor:
        """Scale the gradient of all parameters together down to `max_norm`; None: leave it.

        Returns the norm before clipping, a scalar. Call it after `add_kl`.
        """
        return self._norm.clip(model.parameters(), math.inf if max_norm is None else max_norm)
