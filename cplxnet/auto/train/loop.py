"""The training of one stage, to its last epoch or to an early stop; and one pass of scoring.

    B       windows in a batch
    T       samples in a window
    x       the network's input, made by the feed: (B, 1, T) complex where features are "fft"
    target  what the network is to say: K labels of 0 or 1 for each window, (B, K)
    logit   what it says of them: (B, K)
    w       a weight; while sparsifying, its posterior q(w) has mean mu and log-variance s
    C       the KL's weight, by epoch where the stage has a `kl_scheduler`

The objective of one batch, of which every step follows the gradient:

    loss  =  1/(K B) * sum over windows b and labels k of BCE(logit[b, k], target[b, k])
    loss  +  C * 1e-5 * sum over weights w of KL(q(w) || p(w))

The loss is noisy by the posterior of the weights; the KL is exact, and left out where C = 0.
"""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.progress import bar, finish

from .graph import captured
from .objective import Objective
from .optim import set_rate
from .state import Batch, Feed, Training


class Diverged(RuntimeError):
    """The objective, the gradient or an output became NaN or infinite."""


def make_step(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    grad_clip: float | None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """One step of the optimiser: a function of `(x, target)` to (loss, KL, gradient norm).

    The gradient's norm is clipped at `grad_clip`; None: at no value. Nothing in the step waits for
    the device, so it can be captured as a CUDA graph (`graph.Graphed`).
    """

    def step(x: Tensor, target: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)

        loss = objective.loss(model(x), target, x)
        if loss.requires_grad:
            loss.backward()  # sets d loss/d mu and d loss/d s
        kl = objective.add_kl(model)  # adds C * 1e-5 * dKL/d mu and dKL/d s
        norm = objective.clip(model, grad_clip)  # of both together, before clipping

        optimizer.step()
        return torch.stack((loss.detach(), kl, norm))

    return step


def train_stage(
    training: Training,
    feed: Feed,
    objective: Objective,
    *,
    check: Callable[[], None] = lambda: None,
    log: Callable[[dict[str, Any]], None] = lambda line: None,
    save: Callable[[], None] = lambda: None,
    progress: bool = False,
) -> bool:
    """Train a stage from where `training` is to its last epoch, or until its score falls.

    Args:
        training: network, optimiser, early stopping, and the epochs done so far.
        feed: the batches of an epoch.
        check: asked before every batch; raises where the training may not go on.
        log: takes the line of an epoch, as soon as it is done.
        save: writes a checkpoint of `training`.

    Returns whether the network went back to its best weights, those of an earlier epoch.

    Raises:
        Diverged: an epoch's loss, KL or gradient norm was not finite.
    """
    stage = training.stage
    step = make_step(training.network, objective, training.optimizer, stage.grad_clip)
    step, batches = captured(step, feed, training)

    n_batches = len(feed)
    total = stage.n_epochs * n_batches
    done = training.n_epochs * n_batches
    with bar(total=total, initial=done, desc=stage.name, disable=not progress) as shown:
        for epoch in range(training.n_epochs, stage.n_epochs):
            began = time.time()

            # ---- validation, before the epoch: stop here if the score fell
            score = training.validation()
            if training.early.stopped:
                finish(shown, training.early.reason())
                break

            # ---- one epoch; the sums stay on the device until its end
            lr = set_rate(training.optimizer, training.lr_factor(epoch))
            objective.scale_kl(training.kl_factor(epoch))
            training.network.train()
            sums = torch.zeros(3, device=training.device)
            for n_steps, batch in enumerate(batches, epoch * n_batches + 1):
                check()
                sums += step(*batch)
                if training.pruning is not None:
                    training.pruning.after(n_steps, total)
                shown.update()

            loss, kl, grad_norm = (sums / n_batches).tolist()
            if not all(map(math.isfinite, (loss, kl, grad_norm))):
                raise Diverged(
                    f"loss {loss}, KL {kl}, gradient norm {grad_norm}; try a lower learning rate"
                )
            training.n_epochs = epoch + 1
            if training.shrunk is not None:
                training.shrunk.write_back()

            # ---- the log: a line of history.jsonl
            compression = cplx.compression(training.model, training.threshold)
            line = {"stage": stage.name, "epoch": epoch, "loss": loss}
            line |= {"kl": kl if objective.has_kl else None, "grad_norm": grad_norm, "lr": lr}
            line |= {"validation": score, "compression": compression}
            line |= {"seconds": time.time() - began}
            training.history.append(line)
            log(line)
            shown.set_postfix_str(training.words(line))

            # ---- the checkpoint: a run killed from here on goes on after this epoch
            save()

    return training.early.restore_best()


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Targets and outputs of all batches, in order, on the device: each (N, ...)."""
    model.eval()
    targets, outputs = zip(*((target, model(x)) for x, target in batches), strict=True)
    return torch.cat(targets), torch.cat(outputs)
