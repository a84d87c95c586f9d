"""A WAV file transcribed: probabilities of notes at every frame, the notes themselves, and both as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cplxnet.files import written
from cplxnet.musicnet.labels import LOWEST_NOTE, N_NOTES

from .audio import load_wav
from .midi import NOTES, notes_of, write_midi
from .windows import frame_positions, transcribe


class Transcription(NamedTuple):
    """times (frames,) in seconds, probabilities (frames, 84), notes (`midi.NOTES`), and what is to be told."""

    times: np.ndarray
    probabilities: np.ndarray
    notes: np.ndarray
    notices: tuple[str, ...]


def transcribe_wav(
    network: Callable[[Tensor], Tensor],
    path: str | os.PathLike[str],
    *,
    rate_hz: int,
    hop: int = 1024,
    threshold: float = 0.5,
    **heard: Any,
) -> Transcription:
    """The notes of the WAV file `path`.

    Args:
        network: as `transcribe` takes it. rate_hz: what it hears. heard: `window`, `kind`, `cplx` and `shift`, and
            `batch_size`, `device` and `progress` of `transcribe`.
        hop: samples at `rate_hz` from frame to frame. threshold: a note sounds where its probability reaches it.

    Silence is not given to the network: nothing sounds, and a notice says so. Raises as `load_wav` and `transcribe`;
    ValueError for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold of probability in (0, 1], got {threshold}; try 0.5")
    if hop < 1:
        raise ValueError(f"expected hop >= 1, got {hop}; try 1024")
    sound = load_wav(path, rate_hz=rate_hz)
    if sound.is_silent:
        times = frame_positions(len(sound.samples), hop) / rate_hz
        nothing = np.zeros((len(times), N_NOTES), np.float32)
        return Transcription(
            times,
            nothing,
            np.empty(0, NOTES),
            (*sound.notices, f"{path}: silent, so without notes"),
        )
    times, found = transcribe(network, sound.samples, rate_hz=rate_hz, hop=hop, **heard)
    return Transcription(times, found, notes_of(found >= threshold, times), sound.notices)


def write_transcription(made: Transcription, stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `stem`.csv, a row a frame of its time in seconds and the probability of each MIDI note, and `stem`.mid."""
    stem = Path(stem)
    table, score = (stem.with_name(stem.name + suffix) for suffix in (".csv", ".mid"))
    header = ",".join(["time_s", *(str(LOWEST_NOTE + k) for k in range(N_NOTES))])
    rows = np.column_stack((made.times, made.probabilities))
    with written(table) as path:
        np.savetxt(path, rows, fmt="%.4f", delimiter=",", header=header, comments="")
    return table, write_midi(score, made.notes)
