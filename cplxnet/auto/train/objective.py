"""The objective of a stage: a loss on the batch, a penalty on the weights, their gradient.

    objective = loss(logit, target) + C * 1e-5 * sum over weights of KL(q(w) || p(w))

This is the negative evidence lower bound of the network, per label and scaled: C = 1e5/(number of
labels) would be the bound itself. A larger C compresses more (Nazarov and Burnaev 2020, section 3).
"""

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Term

LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce_with_logits": F.binary_cross_entropy_with_logits,
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
}
KL = "kl"


class Objective:
    """The weighted terms of one stage. A KL term is computed only where its coefficient is not 0.

    The pass over the weights that adds the gradient of the KL learns most of the gradient's norm on
    its way; the objective keeps that from `add_kl` to `clip`, so that clipping needs no second
    pass.

    Args:
        terms: the manifest's `objective_terms`, by name.
        weights: the stage's `objective`: how much each term weighs. A term's coefficient is its own
            times this.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
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
        self._squares: dict[nn.Parameter, Tensor] = {}  # of gradients: their sums of squares

    @property
    def has_kl(self) -> bool:
        """Whether any KL term weighs something."""
        return bool(self._penalties)

    def loss(self, logit: Tensor, target: Tensor) -> Tensor:
        """The loss of one batch, without the KL: a differentiable scalar.

        Args:
            logit: the network's output, (B, 84).
            target: 0 or 1, of the same shape.
        """
        total = logit.new_zeros(())
        for function, weight in self._losses:
            total = total + weight * function(logit, target)
        return total

    def add_kl(self, model: nn.Module) -> Tensor:
        """Add the gradient of the weighted KL to every parameter's `.grad`.

        Returns the KL itself, without any coefficient: a scalar without graph, 0 where no KL term
        weighs anything.
        """
        self._squares = {}
        kl = torch.zeros((), device=next(model.parameters()).device)

        for reduction, weight in self._penalties:
            kl = kl + cplx.kl_backward(model, weight, reduction, self._squares)
        return kl

    def clip(self, model: nn.Module, max_norm: float | None) -> Tensor:
        """Scale the gradient of all parameters together down to `max_norm`; None: leave it.

        Returns the norm before clipping, a scalar. Call it after `add_kl`.
        """
        limit = math.inf if max_norm is None else max_norm
        return cplx.clip_grad_norm_(model.parameters(), limit, self._squares)
