"""Batches of one window from every recording: the original system's way, and ours, on a corpus made
up here.

The original (Nazarov and Burnaev 2020, their public code) keeps each recording as an array in
memory and its notes in a nested containment list; a batch is a Python loop over the recordings
through torch's DataLoader, without workers, with random starts drawn 128 batches ahead; features
are made by scipy in the collation. Written anew here. Timed also without the DataLoader, which is
no part of the method.
"""

import bisect
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from ncls import NCLS
from scipy.fftpack import fft, fftshift
from torch.utils.data import DataLoader, Dataset

from cplxnet.musicnet import MusicNet, features

from .noise import LOWEST_NOTE, N_NOTES, write_corpus
from .steps import OURS
from .timing import Times, alternate

WINDOW = 4096
AHEAD = 128  # batches
ORIGINAL, LOOP = "original", "original, without DataLoader"
BATCHES_A_CALL = 20


class OriginalFeed(Dataset[tuple[np.ndarray, np.ndarray]]):
    """The original's dataset: item k is the window from flat position k, and its notes."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path, "r") as file:
            self.data = [group["data"][:] for group in file.values()]
            self.trees = [_tree(group["labels"][:]) for group in file.values()]
        self.first = np.cumsum([0, *(len(data) - WINDOW + 1 for data in self.data)]).tolist()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        recording = bisect.bisect_right(self.first, index) - 1
        start = index - self.first[recording]
        notes = np.zeros(N_NOTES, np.float32)
        middle = start + WINDOW // 2
        for _, _, note in self.trees[recording].find_overlap(middle, middle + 1):
            notes[note] = 1
        return self.data[recording][start : start + WINDOW], notes

    def starts(self) -> Iterator[tuple[int, ...]]:
        """Batches of one random item of every recording, without end."""
        while True:
            limits = itertools.pairwise(self.first)
            yield from zip(
                *(torch.randint(*limit, (AHEAD,)).tolist() for limit in limits), strict=True
            )

    def loader(self, *, transform: bool) -> Iterator[list[torch.Tensor]]:
        """Through torch's DataLoader in this process, as the original has it."""
        collate = functools.partial(_collated, transform=transform)
        return iter(DataLoader(self, batch_sampler=self.starts(), collate_fn=collate))  # type: ignore[arg-type]

    def loop(self, *, transform: bool) -> Iterator[list[torch.Tensor]]:
        """The same without the DataLoader."""
        return (_collated([self[k] for k in batch], transform=transform) for batch in self.starts())


def _collated(items: list[tuple[np.ndarray, np.ndarray]], *, transform: bool) -> list[torch.Tensor]:
    signal, notes = (np.stack(parts) for parts in zip(*items, strict=True))
    if transform:
        z = fftshift(fft(signal[:, None], axis=-1), axes=-1)
        signal = np.concatenate(
            [z.real, z.imag], axis=-2
        )  # two channels: its networks take real tensors
    return [torch.from_numpy(signal), torch.from_numpy(notes)]


def _tree(labels: np.ndarray) -> NCLS:
    columns = (labels["start_time"], labels["end_time"], labels["note"] - LOWEST_NOTE)
    return NCLS(*(np.ascontiguousarray(column, np.int64) for column in columns))


def check(ours: MusicNet, original: OriginalFeed, *, n: int = 2000, seed: int = 0) -> None:
    """Both give the same window and notes for `n` random windows. Raises RuntimeError if not.
    `ours` of stride 1.
    """
    index = torch.randint(len(ours), (n,), generator=torch.Generator().manual_seed(seed))
    signal, notes = ours.windows(index)
    items = [original[k] for k in index.tolist()]  # at stride 1 both number the windows alike
    expected = [np.stack(parts) for parts in zip(*items, strict=True)]
    if not (
        np.array_equal(signal.numpy(), expected[0]) and np.array_equal(notes.numpy(), expected[1])
    ):
        raise RuntimeError(
            "expected the same windows and notes from both feeds, got others; "
            "times would say nothing"
        )


def run(rounds: int, *, seconds: float) -> dict[str, dict[str, Times]]:
    """{"feed" and "feed, FFT": {contestant: seconds for a batch of 52 windows}}."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.h5"
        write_corpus(path, seconds=seconds)
        ours, original = MusicNet(path, WINDOW, 1), OriginalFeed(path)
    check(ours, original)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for work, transform in (("feed", False), ("feed, FFT", True)):
        loader, loop = original.loader(transform=transform), original.loop(transform=transform)
        calls: dict[str, Callable[[], object]] = {
            OURS: functools.partial(_ours, ours.draws(sys.maxsize, generator), transform),
            ORIGINAL: functools.partial(next, loader),
            LOOP: functools.partial(next, loop),
        }
        found[work] = _timed(calls, rounds)
    return found


def _ours(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], transform: bool) -> object:
    signal, notes = next(batches)
    return (features(signal, kind="fft") if transform else signal), notes


def _timed(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    def many(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: [call() for _ in range(BATCHES_A_CALL)]

    found = alternate({name: many(call) for name, call in contestants.items()}, rounds)
    return {
        name: Times(*(value / BATCHES_A_CALL for value in times)) for name, times in found.items()
    }
