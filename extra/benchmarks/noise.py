"""Recordings of noise with notes at random, for what is timed and not learnt from."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cplxnet.musicnet import recordings as layout
from extra.corpora import hdf5

RATE_HZ = 11000
N_RECORDINGS, NOTES_PER_SECOND = 52, 9.0  # MusicNet: 1.1 million labels in 34 hours
LOWEST_NOTE, N_NOTES = 21, 84


def write_corpus(
    path: Path,
    *,
    seconds: float,
    n_recordings: int = N_RECORDINGS,
    notes_per_second: float = NOTES_PER_SECOND,
    note_seconds: float = 0.4,
    seed: int = 0,
) -> None:
    """Recordings of noise of about `seconds` each, notes at random, their lengths exponential
    around `note_seconds`.
    """
    rng = np.random.default_rng(seed)

    def recordings() -> Iterator[layout.Recording]:
        for number in range(n_recordings):
            length = seconds * rng.uniform(0.5, 1.5)
            n_samples, n_notes = int(length * RATE_HZ), int(length * notes_per_second)
            labels = np.zeros(n_notes, layout.LABELS)
            labels["start_time"] = np.sort(rng.integers(0, n_samples, n_notes))
            labels["end_time"] = (
                labels["start_time"]
                + 1
                + rng.exponential(note_seconds * RATE_HZ, n_notes).astype(np.int64)
            )
            labels["note"] = rng.integers(LOWEST_NOTE, LOWEST_NOTE + N_NOTES, n_notes)
            yield layout.Recording(
                f"id_{number:04d}", rng.standard_normal(n_samples, dtype=np.float32), labels
            )

    hdf5.write(path, recordings(), rate_hz=RATE_HZ)
