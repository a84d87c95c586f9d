"""How recordings are held in memory: as float32, or in half of it, exact enough for a network.

MusicNet's 1.35 billion samples at 11 kHz take 5.4 GB as float32 and 2.7 GB in either half form. What that does to
windows, features and average precision is measured by `python -m extra.benchmarks.half_size`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

_TOP = 32767  # of int16


@dataclasses.dataclass(frozen=True)
class Form:
    """`store`: float32 (samples,) -> (values of `dtype`, scale); `restore` (B, window) and scale (B,) -> float32."""

    dtype: type[np.generic]
    scaled: bool
    store: Callable[[np.ndarray], tuple[np.ndarray, float]]
    restore: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _int16(data: np.ndarray) -> tuple[np.ndarray, float]:
    """Integers n with data = scale n, scale = peak / 32767: off by scale / 2 at most, 96 dB below the peak."""
    scale = (float(np.abs(data).max(initial=0.0)) or 1.0) / _TOP
    return np.rint(data / np.float32(scale)).clip(-_TOP, _TOP).astype(np.int16), scale


def _float16(data: np.ndarray) -> tuple[np.ndarray, float]:
    """Off by 2**-11 of each sample at most, about 66 dB below it, whatever the recording's peak."""
    stored = data.astype(np.float16)
    if not np.isfinite(stored).all():
        raise ValueError(f"expected samples up to 65504 for float16, got {np.abs(data).max()}; try samples int16")
    return stored, 1.0


FORMS = {
    "float32": Form(np.float32, False, lambda data: (data, 1.0), lambda rows, scale: rows),
    "float16": Form(np.float16, False, _float16, lambda rows, scale: rows.float()),
    "int16": Form(np.int16, True, _int16, lambda rows, scale: rows * scale.unsqueeze(1)),
}


def form(name: str) -> Form:
    """The form of this name. Raises ValueError for an unknown one."""
    if name not in FORMS:
        raise ValueError(f"expected samples of {', '.join(FORMS)}, got {name!r}")
    return FORMS[name]
