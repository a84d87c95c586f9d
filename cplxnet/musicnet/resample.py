"""From MusicNet's 44.1 kHz to the 11 kHz that the networks hear."""

from collections.abc import Iterable, Iterator

import numpy as np

SOURCE_HZ = 44_100
TARGET_HZ = 11_000


def resample(
    signal: np.ndarray, *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> np.ndarray:
    """Band-limited resampling by soxr's VHQ recipe: (n,) -> float32 (about n target_hz/source_hz,).

    Both rates are in samples per second.
    """
    import soxr  # here: a machine that trains need not have it

    return soxr.resample(np.asarray(signal, np.float32), source_hz, target_hz, quality="VHQ")


def resample_blocks(
    blocks: Iterable[np.ndarray], *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> Iterator[np.ndarray]:
    """`resample` of a signal in blocks of any lengths: the values do not depend on them."""
    import soxr

    stream = soxr.ResampleStream(source_hz, target_hz, 1, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.asarray(block, np.float32))
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)
