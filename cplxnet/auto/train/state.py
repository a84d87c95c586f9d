"""The training of one stage and its feed: saved after an epoch, gone on with to the same bits."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Stage

from .early_stopping import EarlyStopping
from .optim import load_named_state, make_optimizer, make_schedule, named_state
from .pruning import Pruning

Batch = tuple[Tensor, Tensor]  # x and target: the network's input, and what it is to say
N_LOOKS = 10  # validation scores of a stage that is never stopped early, where some are wanted


@dataclass(eq=False)
class Feed:
    """The batches `(x, target)` of a feed: the network's input and the targets, on the device."""

    # of the task: batches of (signal, target), and their number; with a `draw` too, what it gives
    # one by one, without a wait for the device
    sampler: Any
    features: Callable[[Tensor], Tensor]  # of the task: signals (B, T) -> the network's input

    @property
    def draws(self) -> bool:
        """Whether a step can `draw` its batch."""
        return hasattr(self.sampler, "draw")

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        for signal, target in self.sampler:
            yield self.features(signal), target

    def draw(self) -> Batch:
        """The next batch of a sampler that draws: for a step that is captured and repeated."""
        signal, target = self.sampler.draw()
        return self.features(signal), target


@dataclass(eq=False)
class Training:
    """What training changes: network, optimiser, early stopping, random numbers, epochs done.

    Everything else (learning rate, objective, feed) follows from the manifest and the number of the
    epoch.
    """

    stage: Stage
    model: nn.Module  # on its device
    score: Callable[[str], float]  # scorer's name -> score of the network as it is
    _: KW_ONLY
    device: torch.device  # where the network and the data are
    seeds: dict[str, int]  # "windows": of the random windows; "noise": of the noise in the layers
    key: str = ""  # what identifies the stage (`runner.stages.key_of`)
    goes_on: bool = False  # the next stage goes on with the optimiser's state
    threshold: float = -0.5  # log_alpha above which a weight is irrelevant, for the compression
    watched: str | None = None  # the scorer that is logged where early stopping is off
    cuda_graph: bool | None = None  # the manifest's key
    shrunk: cplx.Shrunk | None = None  # the small network, which is trained in place of `model`
    pruning: Pruning | None = None  # of `model`; None: its masks stay

    def __post_init__(self) -> None:
        stage = self.stage
        # what is trained
        self.network = self.model if self.shrunk is None else self.shrunk.network
        if stage.early is not None:
            self.watched = stage.early.scorer

        self.early = EarlyStopping(stage.early, self.model, self.score)
        self.optimizer = make_optimizer(self.network, stage.optimizer)
        # the random numbers that windows are drawn with
        self.windows = torch.Generator(self.device).manual_seed(self.seeds["windows"])
        torch.manual_seed(self.seeds["noise"])

        self.n_epochs = 0  # done
        self.history: list[dict[str, Any]] = []  # a line an epoch
        self.start: dict[str, Any] = {}  # the scores before the first epoch
        self.began = time.time()  # of the stage, less the time between two attempts
        # epoch -> what the first learning rate, or the KL terms' weights, are multiplied by
        self.lr_factor = make_schedule(stage.lr_scheduler, stage.n_epochs)
        self.kl_factor = make_schedule(stage.kl_scheduler, stage.n_epochs)

    def validation(self) -> float | None:
        """The score before the epoch at hand, if one is due: early stopping decides on it.

        Where that is off, about ten scores of a stage are taken to be looked at.
        """
        if self.stage.early is not None:
            return self.early.score()
        if self.watched is None or self.n_epochs % math.ceil(self.stage.n_epochs / N_LOOKS):
            return None
        return float(self.score(self.watched))

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
