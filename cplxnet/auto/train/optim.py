"""Optimisers, and schedules of the learning rate and of the KL's weight, by manifests' names."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.auto.manifest.schema import Optimizer, Schedule
from cplxnet.nn.gaussian import OWN

# -- schedules: the factor of each epoch -----------------------------------------------------------
# Functions of `epoch`, from 0, and `n_epochs`, those of the stage; other arguments are options.


def trabelsi2017(epoch: int, n_epochs: int) -> float:
    """1 before epoch 10, 0.1 before 100, 0.05 before 120, 0.01 before 150, then 0.001.

    Reference: Trabelsi et al. (2018).
    """
    factors = ((10, 1.0), (100, 0.1), (120, 0.05), (150, 0.01), (math.inf, 0.001))
    return next(factor for end, factor in factors if epoch < end)


def constant(epoch: int, n_epochs: int) -> float:
    """1 throughout."""
    return 1.0


def step(epoch: int, n_epochs: int, at: float = 0.6, factor: float = 0.1) -> float:
    """1 for the first part `at` (0 to 1) of the stage, `factor` for the rest."""
    return 1.0 if epoch < at * n_epochs else factor


def cosine(epoch: int, n_epochs: int, final: float = 0.01) -> float:
    """From 1 to `final`, which epoch `n_epochs` would have, by half a cosine.

    Reference: Loshchilov and Hutter (2017), "SGDR", without restarts.
    """
    return final + (1 - final) * (1 + math.cos(math.pi * epoch / n_epochs)) / 2


def linear(epoch: int, n_epochs: int, begin: float = 0.0, end: float = 1.0) -> float:
    """The share p of the way from `begin` to `end`, parts of the stage: 0 before, 1 after.

    An epoch has the value of its end, so an epoch that ends at `end` or later has 1, and only
    epochs that lie before `begin` have 0.

        p = ((epoch + 1)/n_epochs - begin)/(end - begin), within [0, 1]

    Raises:
        ValueError: not 0 <= begin < end <= 1.

    Reference: Gale, Elsen and Hooker (2019), "The State of Sparsity in Deep Neural Networks",
    which raises the weight of variational dropout's KL so.
    """
    if not 0 <= begin < end <= 1:
        raise ValueError(f"begin {begin:g} and end {end:g} are not 0 <= begin < end <= 1")
    return min(max(((epoch + 1) / n_epochs - begin) / (end - begin), 0.0), 1.0)


def cubic(epoch: int, n_epochs: int, begin: float = 0.0, end: float = 1.0) -> float:
    """1 - (1 - p)^3, p that of `linear`: steep at first, while many weights are superfluous.

    Reference: Zhu and Gupta (2017), "To prune, or not to prune", equation 1.
    """
    return 1 - (1 - linear(epoch, n_epochs, begin, end)) ** 3


SCHEDULES: dict[str, Callable[..., float]] = {
    "trabelsi2017": trabelsi2017,
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "linear": linear,
    "cubic": cubic,
}


def make_schedule(spec: Schedule | None, n_epochs: int) -> Callable[[int], float]:
    """The schedule a manifest names, constant if none: epoch -> factor of the first value."""
    if spec is None:
        return functools.partial(constant, n_epochs=n_epochs)
    return functools.partial(SCHEDULES[spec.name], n_epochs=n_epochs, **spec.kwargs)


def held(value: float, device: torch.device) -> float | Tensor:
    """A number that every step reads: off the CPU a tensor, which a captured step sees change."""
    return value if device.type == "cpu" else torch.full((), value, device=device)


def refreshed(number: float | Tensor, value: float) -> float | Tensor:
    """`number`, as `held` gave it, with a new value; a tensor is changed in place."""
    return number.fill_(value) if isinstance(number, Tensor) else value


# -- optimisers ------------------------------------------------------------------------------------


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


def _sgd(
    groups: Sequence[dict[str, Any]],
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(
        groups, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, fused=True
    )
    for group in groups if momentum else ():
        for p in group["params"]:  # or torch refuses parameters with and without, after `inherit`
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": _adam,
    # Loshchilov and Hutter 2019: weights shrink by lr * weight_decay a step, apart from Adam
    "adamw": functools.partial(_adam, weight_decay=0.01, decoupled_weight_decay=True),
    "sgd": _sgd,
}


def make_optimizer(model: nn.Module, spec: Optimizer) -> torch.optim.Optimizer:
    """The optimiser a manifest names, over the model's parameters.

    What it says of log_sigma2 holds for log_sigma2_out and gate_logit. Weight decay pulls weights
    towards zero. On log_sigma2 it would be another prior, so it never acts there.
    """
    build = OPTIMIZERS[spec.name]
    default = inspect.signature(build).parameters["weight_decay"].default
    decays = spec.kwargs.get("weight_decay", default) != 0

    weights: list[nn.Parameter] = []
    log_sigma2: list[nn.Parameter] = []
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_apart = key.endswith(OWN) and (decays or spec.lr_log_sigma2 is not None)
            (log_sigma2 if is_apart else weights).append(parameter)

    groups: list[dict[str, Any]] = [{"params": weights, "lr": spec.lr}]
    if log_sigma2:
        lr = spec.lr_log_sigma2 or spec.lr
        groups.append({"params": log_sigma2, "lr": lr, "weight_decay": 0.0})

    for group in groups:
        group["initial_lr"] = group["lr"]
        if group["params"]:
            group["lr"] = held(group["lr"], group["params"][0].device)
    return build(groups, **spec.kwargs)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's learning rate to its start value times `factor`; returns the first group's.

    A rate that is a tensor, as a captured CUDA graph needs it, is changed in place.
    """
    for group in optimizer.param_groups:
        group["lr"] = refreshed(group["lr"], group["initial_lr"] * factor)
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
