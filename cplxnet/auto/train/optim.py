"""Optimisers and learning-rate schedules, by the names manifests use."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.auto.manifest.schema import Component

# Trabelsi et al. 2018: factor before each epoch, 0.001 from epoch 150 on
TRABELSI_2017 = ((10, 1.0), (100, 0.1), (120, 0.05), (150, 0.01), (math.inf, 0.001))


def trabelsi2017(epoch: int, n_epochs: int) -> float:
    """1 before epoch 10, 0.1 before 100, 0.05 before 120, 0.01 before 150, then 0.001."""
    return next(factor for end, factor in TRABELSI_2017 if epoch < end)


def constant(epoch: int, n_epochs: int) -> float:
    """1 throughout."""
    return 1.0


def step(epoch: int, n_epochs: int, at: float = 0.6, factor: float = 0.1) -> float:
    """1 for the first `at` of the stage's epochs, `factor` for the rest."""
    return 1.0 if epoch < at * n_epochs else factor


def cosine(epoch: int, n_epochs: int, final: float = 0.01) -> float:
    """From 1 towards `final` by half a cosine (Loshchilov and Hutter 2017, without restarts)."""
    return final + (1 - final) * (1 + math.cos(math.pi * epoch / n_epochs)) / 2


SCHEDULES: dict[str, Callable[..., float]] = {
    "trabelsi2017": trabelsi2017,
    "constant": constant,
    "step": step,
    "cosine": cosine,
}


def make_schedule(spec: Component | None, n_epochs: int) -> Callable[[int], float]:
    """The schedule a manifest names, constant if none: epoch -> factor of the learning rate."""
    if spec is None:
        return functools.partial(constant, n_epochs=n_epochs)
    return functools.partial(SCHEDULES[spec.name], n_epochs=n_epochs, **spec.kwargs)


def _adam(
    groups: Sequence[dict[str, Any]],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    decoupled_weight_decay: bool = False,
) -> torch.optim.Adam:
    return torch.optim.Adam(
        groups,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        decoupled_weight_decay=decoupled_weight_decay,
        fused=True,  # one pass over the parameters; on CPU 8 times the loop
        capturable=any(isinstance(group["lr"], Tensor) for group in groups),
    )


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adam": _adam}


def make_optimizer(
    model: nn.Module, name: str, *, lr: float, lr_log_sigma2: float | None = None, **options: Any
) -> torch.optim.Optimizer:
    """An optimiser over the model's parameters.

    Weight decay pulls weights towards zero. On log_sigma2 it would be another prior, so it never
    acts there.

    Args:
        name: of `OPTIMIZERS`.
        lr: learning rate at the start of the stage.
        lr_log_sigma2: that of log_sigma2; None: `lr`.
        options: what else the optimiser takes, `betas`, `eps` or `weight_decay` say.
    """
    weights: list[nn.Parameter] = []
    log_sigma2: list[nn.Parameter] = []
    apart = lr_log_sigma2 is not None or bool(options.get("weight_decay"))
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_apart = apart and key.endswith("log_sigma2")
            (log_sigma2 if is_apart else weights).append(parameter)

    groups: list[dict[str, Any]] = [{"params": weights, "lr": lr}]
    if log_sigma2:
        groups.append({"params": log_sigma2, "lr": lr if lr_log_sigma2 is None else lr_log_sigma2})
        if "weight_decay" in options:
            groups[1]["weight_decay"] = 0.0

    for group in groups:  # a captured step reads its rate on the device
        device = group["params"][0].device if group["params"] else None
        if device is not None and device.type == "cuda":
            group["initial_lr"] = group["lr"]
            group["lr"] = torch.tensor(group["lr"], device=device)
    return OPTIMIZERS[name](groups, **options)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's learning rate to its start value times `factor`; returns the first group's.

    A rate that is a tensor, as a captured CUDA graph needs it, is changed in place.
    """
    for group in optimizer.param_groups:
        start = group.setdefault("initial_lr", float(group["lr"]))
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(start * factor)
        else:
            group["lr"] = start * factor
    return optimizer.param_groups[0]["initial_lr"] * factor


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """The optimiser's state by parameter name: another network takes over what it shares."""
    return {
        key: dict(optimizer.state[p]) for key, p in model.named_parameters() if p in optimizer.state
    }


def load_named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give each parameter the state saved under its name; parameters without one start fresh."""
    for key, p in model.named_parameters():
        if key in state:
            optimizer.state[p] = {
                name: value.to(p.device, copy=True) if isinstance(value, Tensor) else value
                for name, value in state[key].items()
            }
