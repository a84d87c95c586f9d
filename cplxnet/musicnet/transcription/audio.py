"""A recording of anybody's: a WAV file as the samples that the networks hear, at 11 kHz and in one channel."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import wavfile

from cplxnet.musicnet.resample import TARGET_HZ, resample

SILENT = 1e-4  # a peak below -80 dB of full scale: less than the noise of 16 bits with dither


class Sound(NamedTuple):
    """samples float32 (samples,) of full scale 1 at the rate asked for; notices: what was converted; is_silent."""

    samples: np.ndarray
    notices: tuple[str, ...]
    is_silent: bool


def load_wav(path: str | os.PathLike[str], *, rate_hz: int = TARGET_HZ) -> Sound:
    """The WAV file `path`: any rate, any number of channels (averaged), 8 to 32 bits or floats.

    Raises:
        FileNotFoundError: no such file. ValueError, naming the file: empty, truncated, not a WAV file, compressed, no
            samples, or NaN or infinity among them.
    """
    if not Path(path).stat().st_size:
        raise ValueError(f"{path}: expected a WAV file, got an empty one")
    source_hz, read = _read(path)
    if not read.size or not source_hz:
        raise ValueError(f"{path}: expected samples, got {read.shape[0]} at {source_hz} Hz")
    found, notices = _full_scale(read), []
    if found.ndim == 2:
        if found.shape[1] > 1:
            notices.append(f"{path}: its {found.shape[1]} channels averaged")
        found = found.mean(1, dtype=np.float32)
    if not np.isfinite(found).all():
        raise ValueError(
            f"{path}: expected finite samples, got {int((~np.isfinite(found)).sum())} NaN or infinite ones"
        )
    if source_hz < rate_hz:
        notices.append(
            f"{path}: {source_hz} Hz holds nothing above {source_hz / 2:.0f} Hz; high notes may be missed"
        )
    is_silent = bool(np.abs(found).max() < SILENT)
    samples = (
        found if source_hz == rate_hz else resample(found, source_hz=source_hz, target_hz=rate_hz)
    )
    if not len(samples):
        raise ValueError(
            f"{path}: expected samples, got {len(found)} at {source_hz} Hz, too few to resample"
        )
    return Sound(samples, tuple(notices), is_silent)


def _read(path: str | os.PathLike[str]) -> tuple[int, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of other programs
        warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
        try:
            return wavfile.read(path)
        except OSError:
            raise
        except (
            Exception
        ) as error:  # scipy raises half a dozen types here; whichever, the file is unusable
            raise ValueError(
                f"{path}: expected a WAV file of uncompressed samples, got {error}; try ffmpeg -i FILE out.wav"
            ) from error


def _full_scale(read: np.ndarray) -> np.ndarray:
    """Samples as float32, full scale 1; 24 bits come as the upper ones of 32."""
    if read.dtype == np.uint8:
        return (read.astype(np.float32) - 128) / 128
    if read.dtype.kind == "i":
        return read.astype(np.float32) * np.float32(2.0 ** (1 - 8 * read.dtype.itemsize))
    return read.astype(np.float32)
