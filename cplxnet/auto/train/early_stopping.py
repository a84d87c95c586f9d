"""Early stopping: the rule, and a network watched by it."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cplxnet.auto.manifest.schema import Early


@dataclass
class EarlyStopping:
    """Stop on a score too far below the best, or after `patience` scores without a new best.

    A score s stops training if s < best - max(rtol * |best|, atol), or if it is the `patience`-th
    in a row that brought no new best. Scores are taken before each epoch, but for those that
    `cooldown` skips.

    Args:
        patience: a number of scores.
        cooldown: epochs skipped between two scorings.
        rtol: tolerated fall, as a share of the best score.
        atol: tolerated fall, in units of the score; the larger tolerance counts.
        best: the best score so far.
        n_without_best: scores since then.
        n_skipped: epochs skipped since the last scoring.
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
        """Take a score in; True if training is to stop.

        Raises:
            ValueError: the score is NaN.
        """
        if math.isnan(score):
            raise ValueError("expected a score, got NaN")
        if self.best is None or score > self.best:
            self.best = score
            self.n_without_best = 0
            return False

        self.n_without_best += 1
        fell = score < self.best - max(self.rtol * abs(self.best), self.atol)
        return fell or self.n_without_best >= self.patience


class Watch:
    """Scores a network before each epoch as a manifest says, and keeps its best weights if asked.

    Args:
        spec: the stage's `early`; None: never scores, never stops.
        model: the network.
        score: scorer's name -> score of the network as it is.

    Attributes:
        stopped: training is to stop, because of `last`.
        last: the score taken last; None before the first.
    """

    def __init__(self, spec: Early | None, model: nn.Module, score: Callable[[str], float]) -> None:
        self.spec = spec
        self.model = model
        self.early: EarlyStopping | None = None
        if spec is not None:
            self.early = EarlyStopping(**spec.model_dump(exclude={"scorer", "restore_best"}))

        self.stopped = False
        self.last: float | None = None
        self._score = score
        self._best_weights: dict[str, Tensor] | None = None

    def score(self) -> float | None:
        """Score the network if that is due before this epoch, and decide whether to stop.

        Returns None if it is not scored.
        """
        if self.spec is None or self.early is None or not self.early.due():
            return None

        self.last = self._score(self.spec.scorer)
        improved = self.early.best is None or self.last > self.early.best
        self.stopped = self.early.stop(self.last)
        if improved and self.spec.restore_best:
            state = self.model.state_dict()
            self._best_weights = {key: value.clone() for key, value in state.items()}
        return self.last

    def reason(self) -> str:
        """In words: stopped early: AP 0.360 after 0.391."""
        assert self.early is not None and self.early.best is not None and self.last is not None
        return f"stopped early: AP {self.last:.3f} after {self.early.best:.3f}"

    def restore_best(self) -> bool:
        """After the last epoch: go back to the best weights, the last ones included, if asked.

        Returns whether the network has other weights now than after its last epoch.
        """
        if self._best_weights is None:
            return False
        assert self.spec is not None and self.early is not None and self.early.best is not None
        if not self.stopped and self._score(self.spec.scorer) > self.early.best:
            return False

        self.model.load_state_dict(self._best_weights)
        return True

    def state(self) -> dict[str, Any]:
        """What has been seen so far, as tensors and plain values, for a checkpoint."""
        early = None if self.early is None else dataclasses.asdict(self.early)
        if early is not None and early["best"] is not None:
            early["best"] = float(early["best"])
        return {"early": early, "best": self._best_weights}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        if state["early"] is not None:
            self.early = EarlyStopping(**state["early"])

        if state["best"] is not None:
            weights = self.model.state_dict()
            self._best_weights = {
                key: value.to(weights[key].device) for key, value in state["best"].items()
            }
