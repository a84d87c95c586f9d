"""The training of one stage as something that can be saved after an epoch and gone on with, to the same bits."""

import json
from typing import Any

import torch
from torch import nn

from cplxnet.auto.manifest.read import Stage

from .early_stopping import Watch
from .optim import load_named_state, make_optimizer, make_schedule, named_state, set_rate


class Training:
    """What training changes: network, optimiser, early stopping, random numbers, and the epochs it has done.

    Everything else (learning rate, objective, feed) follows from the manifest and the number of the epoch.
    """

    def __init__(
        self, stage: Stage, model: nn.Module, watch: Watch, *, device: str, seeds: dict[str, int]
    ) -> None:
        spec = stage.optimizer
        self.stage, self.model, self.watch, self.device = stage, model, watch, torch.device(device)
        self.optimizer = make_optimizer(
            model, spec.name, lr=spec.lr, lr_log_sigma2=spec.lr_log_sigma2, **spec.kwargs
        )
        self.windows = torch.Generator(self.device).manual_seed(seeds["windows"])
        torch.manual_seed(seeds["noise"])
        self.n_epochs, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self._factor = make_schedule(stage.lr_scheduler, stage.n_epochs)

    def set_rate(self) -> float:
        """Set the learning rate of the epoch at hand, and return it."""
        return set_rate(self.optimizer, self._factor(self.n_epochs))

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state by parameter name."""
        return named_state(self.model, self.optimizer)

    def inherit(self, state: dict[str, Any]) -> None:
        """Go on from the optimiser state of the stage before."""
        load_named_state(self.model, self.optimizer, state)

    def state(self, *, optimizer: bool = True) -> dict[str, Any]:
        """All of it as tensors and plain values; the tensors are the live ones, not copies.

        Without `optimizer` it has None in place of the optimiser's state, two thirds of the whole, and is good for the
        end of a stage alone.
        """
        noise = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            noise["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "stage": self.stage.name,
            "n_epochs": self.n_epochs,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer_state() if optimizer else None,
            "watch": self.watch.state(),
            "windows": self.windows.get_state(),
            "noise": noise,
            "history": json.dumps(
                self.history
            ),  # as text: whatever number types it holds, they come back exact
        }

    def load(self, state: dict[str, Any]) -> None:
        """Be where the training was that gave `state`."""
        self.model.load_state_dict(state["model"])
        self.inherit(state["optimizer"] or {})
        self.watch.load(state["watch"])
        self.windows.set_state(state["windows"])
        torch.set_rng_state(state["noise"]["cpu"])
        if "cuda" in state["noise"]:
            torch.cuda.set_rng_state(state["noise"]["cuda"], self.device)
        self.n_epochs, self.seconds = state["n_epochs"], state["seconds"]
        self.history = json.loads(state["history"])
