"""Early stopping: the rule, and a network watched by it (when to score, when to stop, which weights to end with)."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cplxnet.auto.manifest.schema import Early


@dataclass
class EarlyStopping:
    """Stop on a score that fell too far below the best, or after `patience` scores in a row without a new best.

    A score s stops training if s < best - max(rtol * |best|, atol), or if it is the `patience`-th in a row that brought
    no new best. `cooldown` epochs are skipped between two scorings. Scores are taken before each epoch.

    patience: number of scores; cooldown: epochs; rtol: share of the best score; atol: in units of the score.
    """

    patience: int = 20
    cooldown: int = 0
    rtol: float = 0.0
    atol: float = 0.02
    best: float | None = None
    n_without_best: int = 0
    n_skipped: int = 0

    def due(self) -> bool:
        """Whether to score before this epoch; call it once an epoch."""
        if self.best is None or self.n_skipped >= self.cooldown:
            self.n_skipped = 0
            return True
        self.n_skipped += 1
        return False

    def stop(self, score: float) -> bool:
        """Take a score in; True if training is to stop. Raises ValueError for NaN."""
        if math.isnan(score):
            raise ValueError("expected a score, got NaN")
        if self.best is None or score > self.best:
            self.best, self.n_without_best = score, 0
            return False
        self.n_without_best += 1
        fell = score < self.best - max(self.rtol * abs(self.best), self.atol)
        return fell or self.n_without_best >= self.patience


class Watch:
    """Scores a network before each epoch as `spec` says; None: never scores, never stops.

    spec: the manifest's early stopping; score: scorer's name -> score of the network as it is.
    `stopped` is True once training is to stop.
    """

    def __init__(self, spec: Early | None, model: nn.Module, score: Callable[[str], float]) -> None:
        self.spec, self.model, self._score = spec, model, score
        self.early = (
            EarlyStopping(**spec.model_dump(exclude={"scorer", "restore_best"})) if spec else None
        )
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
