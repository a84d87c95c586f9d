"""The training of one stage: saved after an epoch, gone on with to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Stage

from .early_stopping import EarlyStopping
from .optim import load_named_state, make_optimizer, make_schedule, named_state, set_rate
from .pruning import Pruning

Batch = tuple[Tensor, Tensor]  # x and notes: the network's input, and the targets
N_LOOKS = 10  # validation scores of a stage that is never stopped early, where some are wanted


class Feed(Protocol):
    """The batches of an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    @property
    def draws(self) -> bool:
        """Whether windows are random, so that a batch may be drawn out of an epoch."""

    def draw(self) -> Batch:
        """One batch."""


class Training:
    """What training changes: network, optimiser, early stopping, random numbers, epochs done.

    Everything else (learning rate, objective, feed) follows from the manifest and the number of the
    epoch.

    Args:
        stage: of the manifest.
        model: the network, on its device.
        score: scorer's name -> score of the network as it is, for early stopping.
        device: where the network and the data are.
        seeds: "windows": of the random windows; "noise": of the noise in the layers.
        key: what identifies the stage (`runner.stages.key_of`).
        goes_on: the next stage goes on with the optimiser's state.
        threshold: log_alpha above which a weight is irrelevant, for the compression by epoch.
        watched: the scorer whose scores are logged where early stopping is off; None: none are.
        cuda_graph: the manifest's key.
        shrunk: of `model`: the small network, which is trained in its place; None: `model` itself.
        pruning: of `model`; None: its masks stay.

    Attributes:
        network: what is trained, `model` or the small one.
        windows: the random numbers that windows are drawn with.
        n_epochs: epochs done.
        history: a line (dict) an epoch.
        start: the scores before the first epoch.
        began: when the stage began, as `time.time()`, less the time between two attempts.
    """

    def __init__(
        self,
        stage: Stage,
        model: nn.Module,
        score: Callable[[str], float],
        *,
        device: str,
        seeds: dict[str, int],
        key: str = "",
        goes_on: bool = False,
        threshold: float = -0.5,
        watched: str | None = None,
        cuda_graph: bool | None = None,
        shrunk: cplx.Shrunk | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        self.stage = stage
        self.model = model
        self.shrunk = shrunk
        self.network = model if shrunk is None else shrunk.network
        self.device = torch.device(device)
        self.key = key
        self.goes_on = goes_on
        self.threshold = threshold
        self.watched = watched if stage.early is None else stage.early.scorer
        self.cuda_graph = cuda_graph
        self._pruning = pruning

        self.early = EarlyStopping(stage.early, model, score)
        self._score = score
        spec = stage.optimizer
        self.optimizer = make_optimizer(
            self.network, spec.name, lr=spec.lr, lr_log_sigma2=spec.lr_log_sigma2, **spec.kwargs
        )
        self.windows = torch.Generator(self.device).manual_seed(seeds["windows"])
        torch.manual_seed(seeds["noise"])

        self.n_epochs = 0
        self.history: list[dict[str, Any]] = []
        self.start: dict[str, Any] = {}
        self.began = time.time()
        self._lr_factor = make_schedule(stage.lr_scheduler, stage.n_epochs)
        self._kl_factor = make_schedule(stage.kl_scheduler, stage.n_epochs)

    def set_rate(self) -> float:
        """Set the learning rate of the epoch at hand, and return it."""
        return set_rate(self.optimizer, self._lr_factor(self.n_epochs))

    def kl_factor(self) -> float:
        """What the KL terms' weights are multiplied by in the epoch at hand."""
        return self._kl_factor(self.n_epochs)

    def prune(self, step: int, n_steps: int) -> None:
        """Mask what the stage's pruner masks after `step` of the stage's `n_steps` steps."""
        if self._pruning is not None:
            self._pruning.after(step, n_steps)

    def validation(self) -> float | None:
        """The score before the epoch at hand, if one is due: early stopping decides on it.

        Where that is off, about ten scores of a stage are taken to be looked at.
        """
        if self.stage.early is not None:
            return self.early.score()
        if self.watched is None or self.n_epochs % math.ceil(self.stage.n_epochs / N_LOOKS):
            return None
        return float(self._score(self.watched))

    def words(self, line: Mapping[str, Any]) -> str:
        """An epoch's line for the bar: loss 0.0561, AP 0.391, 12 times smaller."""
        parts = [f"loss {line['loss']:.4f}"]
        if line["validation"] is not None:
            parts.append(f"AP {line['validation']:.3f}")
        if line["compression"] > 1:
            parts.append(f"{line['compression']:.3g} times smaller")
        return ", ".join(parts)

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state by parameter name, in the full network's shape."""
        state = named_state(self.network, self.optimizer)
        return state if self.shrunk is None else self.shrunk.whole_of(state)

    def inherit(self, state: dict[str, Any]) -> None:
        """Go on from the optimiser state of the stage before."""
        part = state if self.shrunk is None else self.shrunk.part_of(state)
        load_named_state(self.network, self.optimizer, part)

    def write_back(self) -> None:
        """Bring the network up to date with the small one that is trained in its place."""
        if self.shrunk is not None:
            self.shrunk.write_back()

    def state(self, *, ended: bool) -> dict[str, Any]:
        """All of it as tensors and plain values; the tensors are the live ones, not copies.

        Args:
            ended: the stage has ended. Then the optimiser's state, two thirds of the whole, is None
                unless the next stage goes on with it.
        """
        noise = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            noise["cuda"] = torch.cuda.get_rng_state(self.device)

        return {
            "stage": self.stage.name,
            "key": self.key,
            "start": json.dumps(self.start),
            "n_epochs": self.n_epochs,
            "seconds": time.time() - self.began,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer_state() if self.goes_on or not ended else None,
            "watch": self.early.state(),
            "windows": self.windows.get_state(),
            "noise": noise,
            "history": json.dumps(self.history),  # as text: numbers of any type come back exact
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        self.model.load_state_dict(state["model"])
        if self.shrunk is not None:
            self.shrunk.refresh()
        self.inherit(state["optimizer"] or {})
        self.early.load(state["watch"])

        self.windows.set_state(state["windows"])
        torch.set_rng_state(state["noise"]["cpu"])
        if "cuda" in state["noise"]:
            torch.cuda.set_rng_state(state["noise"]["cuda"], self.device)

        self.n_epochs = state["n_epochs"]
        self.history = json.loads(state["history"])
        self.start = json.loads(state["start"])
        self.began = time.time() - state["seconds"]
