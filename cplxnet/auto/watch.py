"""Early stopping of a network: when to score it, when to stop, and which weights to end with."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .early import EarlyStopping
from .parts import Early


class Watch:
    """Scores a network before each epoch as `spec` says; None: never scores, never stops.

    spec: the manifest's early stopping; score: scorer's name -> score of the network as it is.
    `stopped` is True once training is to stop.
    """

    def __init__(self, spec: Early | None, model: nn.Module, score: Callable[[str], float]) -> None:
        self.spec, self.model, self._score = spec, model, score
        self.early = EarlyStopping(**spec.model_dump(exclude={"scorer", "restore_best"})) if spec else None
        self.stopped = False
        self._best: dict[str, Tensor] | None = None

    def score(self) -> float | None:
        """Score the network if it is time to, and see whether to stop; None if it is not scored before this epoch."""
        if self.spec is None or self.early is None or not self.early.due():
            return None
        score = self._score(self.spec.scorer)
        improved = self.early.best is None or score > self.early.best
        self.stopped = self.early.stop(score)
        if improved and self.spec.restore_best:
            self._best = {key: value.clone() for key, value in self.model.state_dict().items()}
        return score

    def restore_best(self) -> bool:
        """After the last epoch, go back to the best weights where the manifest asks for it, the last ones included.

        Returns whether the network has other weights now than after its last epoch.
        """
        if self.spec is None or self.early is None or self.early.best is None or self._best is None:
            return False
        restored = self.stopped or not self._score(self.spec.scorer) > self.early.best
        if restored:
            self.model.load_state_dict(self._best)
        return restored

    def state(self) -> dict[str, Any]:
        """What has been seen so far, as tensors and plain values, for a checkpoint."""
        early = None if self.early is None else dataclasses.asdict(self.early)
        if early is not None and early["best"] is not None:
            early["best"] = float(early["best"])
        return {"early": early, "best": self._best}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if state["early"] is not None:
            self.early = EarlyStopping(**state["early"])
        if state["best"] is not None:
            now = self.model.state_dict()
            self._best = {key: value.to(now[key].device) for key, value in state["best"].items()}
