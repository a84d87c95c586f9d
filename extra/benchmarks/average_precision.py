"""Pooled average precision over the 15 million label pairs of a validation pass at stride 128,
beside scikit-learn.
"""

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from cplxnet.musicnet import pooled_average_precision

from .steps import OURS
from .timing import Times, alternate

N_WINDOWS, N_NOTES = 178_572, 84  # 15 million pairs
TOLERANCE = 1e-9
SKLEARN = "scikit-learn"


def example(n_windows: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (N, 84), one in twenty positive, and logits float32 that know about them (an AP of
    about 0.7).
    """
    rng = np.random.default_rng(seed)
    target = rng.random((n_windows, N_NOTES), dtype=np.float32) < 0.05
    logit = (
        rng.standard_normal((n_windows, N_NOTES), dtype=np.float32)
        + np.float32(2.7) * target
        - np.float32(4)
    )
    return torch.from_numpy(target.astype(np.float32)), torch.from_numpy(logit)


def run(rounds: int, *, n_windows: int = N_WINDOWS) -> tuple[float, dict[str, Times]]:
    """The absolute difference of the two values, and the seconds of each. Raises RuntimeError
    beyond 1e-9.
    """
    target, logit = example(n_windows)
    calls = {
        OURS: lambda: pooled_average_precision(target, logit),
        SKLEARN: lambda: average_precision_score(target.numpy().ravel(), logit.numpy().ravel()),
    }
    difference = abs(calls[OURS]() - calls[SKLEARN]())
    if difference > TOLERANCE:
        raise RuntimeError(
            f"expected scikit-learn's average precision to {TOLERANCE}, "
            f"got a difference of {difference}"
        )
    return difference, alternate(calls, rounds)
