"""Batches of one window from every recording: the original system's way, and ours, on a corpus made up here.

The original (Nazarov and Burnaev 2020, their public code) keeps each recording as an array in memory and its notes in a
nested containment list; a batch is a Python loop over the recordings, features are made by scipy. Written anew here, a
little leaner (no DataLoader), with its random starts drawn 128 batches ahead as it does.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from ncls import NCLS
from scipy.fftpack import fft, fftshift

from cplxnet.musicnet import MusicNet, features, layout

from .steps import OURS
from .timing import Times, alternate

RATE_HZ, WINDOW = 11000, 4096
N_RECORDINGS, NOTES_PER_SECOND = 52, 9.0  # MusicNet: 1.1 million labels in 34 hours
LOWEST_NOTE, N_NOTES, AHEAD = 21, 84, 128
ORIGINAL = "original"
BATCHES_A_CALL = 20


def write_corpus(path: Path, *, seconds: float, seed: int = 0) -> None:
    """52 recordings of noise of about `seconds` each, notes at random: exponential lengths of 0.4 s on average."""
    rng = np.random.default_rng(seed)

    def recordings() -> Iterator[layout.Recording]:
        for number in range(N_RECORDINGS):
            length = seconds * rng.uniform(0.5, 1.5)
            n_samples, n_notes = int(length * RATE_HZ), int(length * NOTES_PER_SECOND)
            labels = np.zeros(n_notes, layout.LABELS)
            labels["start_time"] = np.sort(rng.integers(0, n_samples, n_notes))
            labels["end_time"] = labels["start_time"] + 1 + rng.exponential(0.4 * RATE_HZ, n_notes).astype(np.int64)
            labels["note"] = rng.integers(LOWEST_NOTE, LOWEST_NOTE + N_NOTES, n_notes)
            yield layout.Recording(f"id_{number:04d}", rng.standard_normal(n_samples, dtype=np.float32), labels)

    layout.write(path, recordings(), rate_hz=RATE_HZ)


class OriginalFeed:
    """The original's batches: `batch()` -> list of (window, notes); `collated` makes tensors of one."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path, "r") as file:
            self.data = [group["data"][:] for group in file.values()]
            self.trees = [_tree(group["labels"][:]) for group in file.values()]
        self._starts = self._draw()

    def _draw(self) -> Iterator[tuple[int, ...]]:
        while True:
            ahead = [torch.randint(0, len(data) - WINDOW + 1, (AHEAD,)).tolist() for data in self.data]
            yield from zip(*ahead, strict=True)

    def item(self, recording: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        notes = np.zeros(N_NOTES, np.float32)
        middle = start + WINDOW // 2
        for _, _, note in self.trees[recording].find_overlap(middle, middle + 1):
            notes[note] = 1
        return self.data[recording][start : start + WINDOW], notes

    def batch(self, *, transform: bool) -> tuple[torch.Tensor, torch.Tensor]:
        items = [self.item(recording, start) for recording, start in enumerate(next(self._starts))]
        signal, notes = (np.stack(parts) for parts in zip(*items, strict=True))
        if transform:
            z = fftshift(fft(signal[:, None], axis=-1), axes=-1)
            signal = np.concatenate([z.real, z.imag], axis=-2)  # two channels: its networks take real tensors
        return torch.from_numpy(signal), torch.from_numpy(notes)


def _tree(labels: np.ndarray) -> NCLS:
    columns = (labels["start_time"], labels["end_time"], labels["note"] - LOWEST_NOTE)
    return NCLS(*(np.ascontiguousarray(column, np.int64) for column in columns))


def check(ours: MusicNet, original: OriginalFeed, *, n: int = 2000, seed: int = 0) -> None:
    """Both give the same window and notes for `n` random windows. Raises RuntimeError if not. `ours` of stride 1."""
    index = torch.randint(len(ours), (n,), generator=torch.Generator().manual_seed(seed))
    signal, notes = ours.windows(index)
    places = zip(ours.recording_of(index).tolist(), ours.starts(index).tolist(), strict=True)
    expected = [np.stack(parts) for parts in zip(*(original.item(*place) for place in places), strict=True)]
    if not (np.array_equal(signal.numpy(), expected[0]) and np.array_equal(notes.numpy(), expected[1])):
        raise RuntimeError("expected the same windows and notes from both feeds, got others; times would say nothing")


def run(rounds: int, *, seconds: float) -> dict[str, dict[str, Times]]:
    """{"feed" and "feed, FFT": {contestant: seconds for a batch of 52 windows}}."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.h5"
        write_corpus(path, seconds=seconds)
        ours, original = MusicNet(path, WINDOW, 1), OriginalFeed(path)
    check(ours, original)
    generator = torch.Generator().manual_seed(0)
    plain = {OURS: lambda: ours.draw(generator), ORIGINAL: lambda: original.batch(transform=False)}
    transformed = {
        OURS: lambda: features(ours.draw(generator)[0], kind="fft"),
        ORIGINAL: lambda: original.batch(transform=True),
    }
    return {"feed": _timed(plain, rounds), "feed, FFT": _timed(transformed, rounds)}


def _timed(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    def many(call: Callable[[], object]) -> Callable[[], None]:
        return lambda: [call() for _ in range(BATCHES_A_CALL)] and None

    found = alternate({name: many(call) for name, call in contestants.items()}, rounds)
    return {name: Times(*(value / BATCHES_A_CALL for value in times)) for name, times in found.items()}
