"""One epoch of training, and one pass of scoring."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx

from .objective import Objective

Batches = Iterable[tuple[Tensor, Tensor]]
Inputs = Callable[[Tensor], Tensor]  # a batch of signals -> what the network takes


class Diverged(RuntimeError):
    """The objective or the gradient became NaN or infinite."""


class Means(NamedTuple):
    """Means over an epoch's batches: loss, KL sum without coefficient, gradient norm before clipping."""

    loss: float
    kl: float
    grad_norm: float


def train_epoch(
    model: nn.Module,
    batches: Batches,
    inputs: Inputs,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    *,
    grad_clip: float | None,
) -> Means:
    """Train on every batch once. Nothing waits for the device before the epoch's end.

    Raises Diverged if a batch's objective or gradient norm was not finite.
    """
    model.train()
    sums, n_batches = torch.zeros(()), 0
    limit = math.inf if grad_clip is None else grad_clip
    for signal, target in batches:
        optimizer.zero_grad(set_to_none=True)
        squares: dict[nn.Parameter, Tensor] = {}
        value = objective.backward(model, inputs(signal), target, squares)
        norm = cplx.clip_grad_norm_(model.parameters(), limit, squares)
        optimizer.step()
        sums = sums + torch.stack((value.loss.detach(), value.kl.detach(), norm.detach()))
        n_batches += 1
    means = Means(*(sums / n_batches).tolist())
    if not all(map(math.isfinite, means)):
        raise Diverged(
            f"loss {means.loss}, KL {means.kl}, gradient norm {means.grad_norm}; try a lower learning rate"
        )
    return means


@torch.inference_mode()
def predict(model: nn.Module, batches: Batches, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Targets and outputs of all batches, in order, on the device: each (N, ...)."""
    model.eval()
    targets, outputs = zip(
        *((target, model(inputs(signal))) for signal, target in batches), strict=True
    )
    return torch.cat(targets), torch.cat(outputs)
