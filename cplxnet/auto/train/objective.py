"""The objective: weighted sum of a loss on the batch and a penalty on the weights.

    objective = loss(logit, target) + C * 1e-5 * sum over weights of KL(q(w) || p(w))

This is the negative evidence lower bound of the network, per label and scaled: C = 1e5/(number of labels) would be the
bound itself; larger C compresses more (Nazarov and Burnaev 2020, section 3).
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

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


def _loss(term: Term) -> Callable[..., Tensor]:
    return functools.partial(LOSSES[term.name], reduction=term.reduction or "mean")


class Value(NamedTuple):
    """The objective of one batch, differentiable, and its parts: loss, and the KL sum without any coefficient."""

    total: Tensor
    loss: Tensor
    kl: Tensor


class Objective:
    """Callable (model, input, target) -> Value, from a manifest's terms and one stage's coefficients.

    A KL term is computed only where its coefficient is not 0.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        weighed = [(terms[key], weight * terms[key].coef) for key, weight in weights.items()]
        self.losses = [(_loss(term), weight) for term, weight in weighed if term.name != KL]
        self.penalties = [
            (term.reduction or "sum", weight)
            for term, weight in weighed
            if term.name == KL and weight
        ]

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor) -> Value:
        loss = self._loss(model, x, target)
        total, kl = loss, torch.zeros_like(loss)
        for reduction, weight in self.penalties:
            penalty = cplx.kl_sum(model, reduction=reduction)
            total, kl = total + weight * penalty, kl + penalty
        return Value(total, loss, kl)

    def backward(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor,
        squares: dict[nn.Parameter, Tensor] | None = None,
    ) -> Value:
        """`value = objective(...); value.total.backward()` in fewer passes over the weights; a value without graph.

        squares: takes what is known of the gradients' norm (see `nn.kl_backward`).
        """
        loss = self._loss(model, x, target)
        if self.losses:
            loss.backward()
        total = loss = loss.detach()
        kl = torch.zeros_like(loss)
        for reduction, weight in self.penalties:
            penalty = cplx.kl_backward(model, weight, reduction, squares)
            total, kl = total + weight * penalty, kl + penalty
        return Value(total, loss, kl)

    def _loss(self, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        output = model(x)
        return sum(
            (weight * f(output, target) for f, weight in self.losses), start=output.new_zeros(())
        )
