"""Early stopping."""

import math
from dataclasses import dataclass


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
