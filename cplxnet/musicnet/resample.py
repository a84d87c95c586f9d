"""From MusicNet's 44.1 kHz to the 11 kHz that the networks hear."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from .recordings import Recording

SOURCE_HZ, TARGET_HZ = 44_100, 11_000


def resample(
    signal: np.ndarray, *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> np.ndarray:
    """Band-limited resampling of `signal` (samples,) by soxr's VHQ recipe; float32 (about samples * target/source,)."""
    return soxr.resample(
        np.asarray(signal, np.float32), source_hz, target_hz, quality="VHQ"
    ).astype(np.float32, copy=False)


def resample_blocks(
    blocks: Iterable[np.ndarray], *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> Iterator[np.ndarray]:
    """`resample` of the signal that comes in `blocks`, in blocks: the same values, whatever their lengths."""
    stream = soxr.ResampleStream(source_hz, target_hz, 1, dtype="float32", quality="VHQ")
    for block in blocks:
        yield stream.resample_chunk(np.asarray(block, np.float32))
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def rescale(
    times: np.ndarray, *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> np.ndarray:
    """Sample numbers at `target_hz` of the int64 sample numbers `times` at `source_hz`: floor(times * target/source).

    In integers, so exact: the same as int(t * 11000/44100) without its rounding.
    """
    return np.asarray(times, np.int64) * target_hz // source_hz


def downsample(
    recording: Recording, *, source_hz: int = SOURCE_HZ, target_hz: int = TARGET_HZ
) -> Recording:
    """`recording` at `target_hz`: its samples resampled and the times of its labels rescaled."""
    labels = recording.labels.copy()
    for column in ("start_time", "end_time"):
        labels[column] = rescale(labels[column], source_hz=source_hz, target_hz=target_hz)
    return dataclasses.replace(
        recording,
        data=resample(recording.data, source_hz=source_hz, target_hz=target_hz),
        labels=labels,
    )
