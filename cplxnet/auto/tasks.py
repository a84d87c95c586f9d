"""Which tasks there are, and what a task offers: the one place where `auto` and a task meet.

A task is a package with the names of `Task`. The runner reaches datasets, features, networks and
scores through it, by the short names it registers. A second task is a second package beside the
default one and a call of `register`, which holds in the process that calls it: a notebook or a
script of your own. The command line, and the workers that it starts, know the default task alone.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cplxnet import musicnet as default_task
from cplxnet.nn import gaussian
from cplxnet.nn.forms import CHANNEL_FORMS, FORMS

from .manifest.schema import DEFAULT_TASK, Features, ModelChange, Optimizer
from .manifest.vocabulary import KL, Vocabulary, keywords
from .train.objective import LOSSES
from .train.optim import OPTIMIZERS, SCHEDULES, make_optimizer

# what one kind of layer has and another of the same shape has not
OWN = (*gaussian.OWN, "mask")


class Dataset(Protocol):
    """A resident dataset: windows by index, and what identifies it.

    Signals are (B, T) float32 or complex64, T samples in a window; targets are (B, K), as the
    stage's loss takes them: float32 of 0 and 1 for `bce_with_logits`. Both are on the dataset's
    device. Networks are built for the features of a float32 window of zeros: those of the signals
    have their shape.
    """

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Text that is the same if and only if the windows and targets are."""

    def windows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Signals and targets of the windows `index`, (B,) int64 on any device."""

    def targets(self, index: Tensor) -> Tensor:
        """The targets alone."""

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Signals and targets of one training batch at random; None: torch's own generator."""


class Task(Protocol):
    """What a task package offers; every mapping is from the short names that manifests use.

    A run needs `MODELS`, `SAMPLERS`, `FEATURE_KINDS`, `PRESETS` and the functions up to
    `score_dataset`, as `extra/own_task.py` has them; a preview of a grid `sizes` and `GPU_STEP_MS`;
    an export the others.

    It may also have `check_datasets(datasets)`, given the opened datasets by their names: raise
    ValueError unless they can be of one experiment. Of use to reports, it may have `CLASSES` (how
    scores by class are kept: "key", "name", "axis", number of the "first") and
    `published(file, ...)` (scores to draw beside). Of what `score_dataset` returns they need
    "average_precision"; every other number is a column of tables, and the chance that they tell is
    "positive_share". "average_precision_NAME" is by another protocol. The command `transcribe` is
    the default task's alone.

    Attributes:
        MODELS: functions (in_channels, length, **options) -> the network; their annotated options
            are the keys that a manifest may give it.
        SAMPLERS: functions (dataset, n_batches, generator) or (dataset, batch_size) -> batches of
            (signal, target), with `dataset` and a length, the number of batches.
        FEATURE_KINDS: the names count here; the values are the task's own.
        PRESETS: functions that return the arguments of `grid.expand`.
        EXPORTS: the kinds of file that `export_network` writes.
        HEARD: what every network of the task hears (its rate in Hz, say), kept with an export.
        GPU_STEP_MS: (windows, milliseconds) of a network's training step on a GPU, measured.
    """

    MODELS: Mapping[str, Callable[..., torch.nn.Module]]
    SAMPLERS: Mapping[str, Callable[..., Any]]
    FEATURE_KINDS: Mapping[str, Any]
    PRESETS: Mapping[str, Callable[..., dict[str, Any]]]
    EXPORTS: Sequence[str]
    HEARD: Mapping[str, Any]
    GPU_STEP_MS: Mapping[str, tuple[tuple[float, float], ...]]

    def open_dataset(
        self, path: Any, *, window: int, stride: int, device: Any, samples: str
    ) -> Dataset:
        """A file's dataset; window, stride: samples; samples: how signals are held in memory."""

    def sizes(self, path: Any, *, window: int, stride: int) -> tuple[int, int]:
        """Windows that `draw` gives, and windows of the dataset, without opening it."""

    def features(self, signal: Tensor, kind: str, *, cplx: bool, shift: bool) -> Tensor:
        """Signals (B, T) as the network takes them: (B, C, L), complex64 if cplx, else float32."""

    def build(self, name: str, example: Tensor, **options: Any) -> torch.nn.Module:
        """The network `name` for features like `example`, (1, C, L); it gives logits (B, K)."""

    def pooled_average_precision(self, target: Tensor, logit: Tensor) -> float:
        """The score that early stopping goes by, of target and logit (N, K)."""

    def score_dataset(
        self, target: Tensor, logit: Tensor, dataset: Any, *, curves: bool
    ) -> dict[str, Any]:
        """JSON values of every score of (N, K); "average_precision" is one. curves: with these."""

    def export_network(
        self,
        model: Any,
        path: Any,
        *,
        kind: str,
        threshold: float,
        heard: dict[str, Any],
        posterior: Callable[[], torch.nn.Module | None],
    ) -> Any: ...

    def export_arguments(self, parser: Any) -> None: ...

    def load_network(self, path: Any) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]: ...


TASKS: dict[str, Any] = {DEFAULT_TASK: default_task}


def register(name: str, task: Any) -> None:
    """Make a task package known in this process by `name`, the manifest's key `task`."""
    TASKS[name] = task


def vocabulary(task: str = DEFAULT_TASK) -> Vocabulary:
    """The names a manifest of `task` may use.

    Raises:
        ValueError: no such task is registered in this process.
    """
    if task not in TASKS:
        raise ValueError(f"expected a task of {', '.join(TASKS)}, got {task!r}; try tasks.register")
    package = TASKS[task]
    models = tuple(package.MODELS)
    builders = (
        (package.MODELS, ("in_channels", "length")),
        (OPTIMIZERS, ("groups",)),
        (SCHEDULES, ("epoch", "n_epochs")),
    )
    return Vocabulary(
        components={
            "task": (task,),
            "model": models,
            "feature kind": package.FEATURE_KINDS,
            "sampler": package.SAMPLERS,
            "loss": (*LOSSES, KL),
            "optimizer": OPTIMIZERS,
            "lr_scheduler": SCHEDULES,
        },
        variational_models=tuple(name for name in models if name.endswith(FORMS)),
        channel_models=tuple(name for name in models if name.endswith(CHANNEL_FORMS)),
        options={
            name: keywords(build, given=given)
            for functions, given in builders
            for name, build in functions.items()
        },
        trials={
            **{name: functools.partial(_try_optimizer, name) for name in OPTIMIZERS},
            **{name: functools.partial(_try_schedule, name) for name in SCHEDULES},
        },
        weights=functools.partial(weights, task),
        presets=package.PRESETS,
    )


def vocabulary_of(task: object) -> Vocabulary:
    """The vocabulary for a manifest's key "task"; the default's where that names no task."""
    return vocabulary(task if isinstance(task, str) and task in TASKS else DEFAULT_TASK)


# -- what a manifest asks for, built to see whether that can be done -------------------------------


def _try_optimizer(name: str, **options: Any) -> None:
    """Build an optimiser on two parameters of one number; raise what torch raises."""
    number = torch.zeros(1, device="cpu")
    model = torch.nn.ParameterDict({"weight": number.clone(), "log_sigma2": number})
    make_optimizer(model, Optimizer(name=name, **options))


def _try_schedule(name: str, *, n_epochs: int, **options: Any) -> None:
    """Compute a schedule's factor in the first and the last epoch; ValueError: it is unusable."""
    for epoch in (0, n_epochs - 1):
        factor = SCHEDULES[name](epoch, n_epochs, **options)
        if not 0 <= factor < math.inf:
            raise ValueError(f"multiplied by {factor:g} in epoch {epoch}")


def features_of(task: str, signal: Tensor, spec: Features) -> Tensor:
    """Signals (B, T) as a network takes them that hears the features `spec`: (B, C, L)."""
    return TASKS[task].features(signal, spec.kind, cplx=spec.cplx, shift=spec.shift)


def build(task: str, model: ModelChange, features: Features, window: int) -> torch.nn.Module:
    """As `network` on torch's default device, initialised by torch's global random numbers."""
    example = features_of(task, torch.zeros(1, window), features)
    return TASKS[task].build(model.name, example, **model.kwargs)


@functools.lru_cache(maxsize=256)
def network(task: str, model: ModelChange, features: Features, window: int) -> torch.nn.Module:
    """A stage's network on the device "meta", where tensors have shapes and no memory.

    It takes the features of windows of `window` samples.

    Raises:
        ValueError: as the task's `build`.
        RuntimeError: torch cannot build it.
    """
    with torch.device("meta"):
        return build(task, model, features, window)


def weights(
    task: str, model: ModelChange, features: Features, window: int
) -> dict[str, tuple[int, ...]]:
    """The shape of each weight that a stage's `network` takes from the stage before."""
    state = network(task, model, features, window).state_dict()
    return {
        key: tuple(value.shape) for key, value in state.items() if key.rpartition(".")[2] not in OWN
    }
