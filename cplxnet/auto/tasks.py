"""Which tasks there are, and what a task offers: the one place where `auto` and a task meet.

A task is a package with the names of `Task`. The runner reaches datasets, features, networks and scores through it and
by the short names it registers, so that a second task is a second package beside `musicnet` and a call of `register`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from cplxnet import musicnet

from .manifest.read import Vocabulary
from .train.objective import LOSSES
from .train.optim import OPTIMIZERS, SCHEDULES


class Dataset(Protocol):
    """A resident dataset: windows by index, and what identifies it."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def windows(self, index: Tensor) -> tuple[Tensor, Tensor]: ...

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]: ...


class Task(Protocol):
    """What a task package offers; every mapping is from the short names that manifests use."""

    MODELS: Mapping[str, Callable[..., torch.nn.Module]]
    SAMPLERS: Mapping[str, Callable[..., Any]]
    FEATURE_KINDS: Mapping[str, Any]

    def open_dataset(
        self, path: Any, *, window: int, stride: int, device: Any, samples: str
    ) -> Dataset: ...

    def features(self, signal: Tensor, kind: str, *, cplx: bool, shift: bool) -> Tensor: ...

    def build(self, name: str, example: Tensor, **options: Any) -> torch.nn.Module: ...

    def pooled_average_precision(self, target: Tensor, logit: Tensor) -> float: ...

    def score_dataset(
        self, target: Tensor, logit: Tensor, dataset: Any, *, curves: bool
    ) -> dict[str, Any]: ...


TASKS: dict[str, Any] = {"musicnet": musicnet}


def register(name: str, task: Any) -> None:
    """Make a task package known by `name`, the manifest's key `task`."""
    TASKS[name] = task


def vocabulary(task: str = "musicnet") -> Vocabulary:
    """The names a manifest of `task` may use."""
    if task not in TASKS:
        raise ValueError(f"expected a task of {', '.join(TASKS)}, got {task!r}; try tasks.register")
    package = TASKS[task]
    models = tuple(package.MODELS)
    return Vocabulary(
        models=models,
        variational_models=tuple(name for name in models if name.endswith(("VD", "ARD"))),
        samplers=tuple(package.SAMPLERS),
        features=tuple(package.FEATURE_KINDS),
        losses=tuple(LOSSES),
        optimizers=tuple(OPTIMIZERS),
        lr_schedulers=tuple(SCHEDULES),
        options={
            **{
                name: _keywords(build, given=("in_channels", "length"))
                for name, build in package.MODELS.items()
            },
            **{
                name: _keywords(schedule, given=("epoch", "n_epochs"))
                for name, schedule in SCHEDULES.items()
            },
        },
    )


def _keywords(function: Callable[..., Any], *, given: tuple[str, ...]) -> tuple[str, ...]:
    """The keyword arguments of a component that a manifest may set: all but those the runner gives."""
    return tuple(name for name in inspect.signature(function).parameters if name not in given)
