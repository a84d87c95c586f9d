"""Early stopping: when to score a network, when to stop, and which weights to end with."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cplxnet.auto.manifest.schema import Early

SEEN = ("best", "n_without_best", "n_skipped")


@dataclass(eq=False)
class EarlyStopping:
    """Stops on a score too far below the best, or after `patience` scores without a new best.

    A score s stops training if s < best - max(rtol * |best|, atol), or if it is the `patience`-th
    in a row that brought no new best. Scores are taken before each epoch, but for those that
    `cooldown` skips.
    """

    spec: Early | None  # patience (scores), cooldown (epochs), rtol, atol; None: never scores
    model: nn.Module
    score_of: Callable[[str], float]  # scorer's name -> score of the network as it is

    def __post_init__(self) -> None:
        self.best: float | None = None  # the best score so far
        self.last: float | None = None  # the newest; at the end that after the last epoch, if taken
        self.stopped = False  # training is to stop, because of `last`
        self.n_without_best = 0
        self.n_skipped = 0
        self._best_weights: dict[str, Tensor] | None = None

    def score(self) -> float | None:
        """Score the network if that is due before this epoch, and decide whether to stop.

        Returns None if it is not scored.

        Raises:
            ValueError: the score is NaN.
        """
        spec = self.spec
        if spec is None:
            return None
        if self.best is not None and self.n_skipped < spec.cooldown:
            self.n_skipped += 1
            return None
        self.n_skipped = 0

        score = float(self.score_of(spec.scorer))
        if math.isnan(score):
            raise ValueError("expected a score, got NaN")
        self.last = score

        if self.best is None or score > self.best:
            self.best = score
            self.n_without_best = 0
            if spec.restore_best:
                state = self.model.state_dict()
                self._best_weights = {key: value.clone() for key, value in state.items()}
        else:
            self.n_without_best += 1
            fell = score < self.best - max(spec.rtol * abs(self.best), spec.atol)
            self.stopped = fell or self.n_without_best >= spec.patience
        return score

    def reason(self) -> str:
        """In words: stopped early: AP 0.360 after 0.391."""
        return f"stopped early: AP {self.last:.3f} after {self.best:.3f}"

    def restore_best(self) -> bool:
        """After the last epoch: go back to the best weights, the last ones included, if asked.

        Returns whether the network has other weights now than after its last epoch.
        """
        if self.spec is None or self.best is None or self._best_weights is None:
            return False
        if not self.stopped:
            self.last = float(self.score_of(self.spec.scorer))
            if self.last > self.best:
                return False

        self.model.load_state_dict(self._best_weights)
        return True

    def state(self) -> dict[str, Any]:
        """What has been seen so far, as tensors and plain values, for a checkpoint."""
        early = None if self.spec is None else {key: getattr(self, key) for key in SEEN}
        return {"early": early, "best": self._best_weights}

    def load(self, state: dict[str, Any]) -> None:
        """Restore `state()`."""
        if state["early"] is not None:
            for key in SEEN:
                setattr(self, key, state["early"][key])
        self._best_weights = state["best"]
