"""MusicNet: the recordings of one HDF5 file, held in memory, and windows with their notes: one of
every recording at random for training, all in order for scoring.
"""

import functools
import hashlib
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from . import recordings
from .labels import NoteLookup, changes_within

Batch = tuple[torch.Tensor, torch.Tensor]  # signal (B, window), notes (B, 84), float32

_AHEAD = 16  # batches whose starts and notes `draws` computes at once on a CPU
_RANDOM_BITS = 62  # a start is such an integer modulo n: its bias is below samples / 2**62


class MusicNet:
    """Windows of every recording in a file, with the notes that sound at their middle.

    The recordings lie end to end, in the order of their keys, in one tensor on `device`. A batch of
    windows is a gather of rows of its overlapping view; its labels are a binary search. No window
    spans two recordings.

    The windows in order are, recording by recording, those that start at 0, stride, 2 stride, ...:
    `(samples - window) // stride + 1` of each. `draw` ignores the stride. `dataset[k]` is one
    window, so that a `torch.utils.data.DataLoader` takes it, with worker processes too: they share
    the samples' memory.

    Args:
        path: HDF5 file in the layout of `recordings`.
        window: samples in a window. Its labels are the notes that sound at sample `window // 2`.
        stride: samples from one window's start to the next one's.
        device: where the recordings and the tables of labels live; windows come out there.
        samples: how the recordings are held: "float32" as they are, "int16" or "float16" in half
            the memory (see `FORMS`). Windows are float32 always.

    Attributes:
        keys: the recordings' keys, increasing.
        samples: int64 (n_recordings,) on the CPU, the length of each.
        rate_hz: samples per second.
        notes: the notes at any position, a `NoteLookup`.

    Raises:
        ValueError: window or stride below 1, or an unknown form of samples.
        RecordingError: a recording shorter than a window, or one that breaks the layout.
        FileNotFoundError: nothing at `path`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        window: int = 4096,
        stride: int = 128,
        device: torch.device | str = "cpu",
        samples: str = "float32",
    ) -> None:
        if samples not in FORMS:
            raise ValueError(f"expected samples of {', '.join(FORMS)}, got {samples!r}")
        for name, value in (("window", window), ("stride", stride)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1 sample, got {value}")
        self.path = os.fspath(path)
        self.window = int(window)
        self.stride = int(stride)
        self.device = torch.device(device)
        self.rate_hz = recordings.rate_hz(path)

        lengths = _lengths(path, window)
        self.keys = tuple(lengths)
        self.samples = torch.tensor(list(lengths.values()), dtype=torch.int64)
        counts = (self.samples - self.window) // self.stride + 1
        self._n_windows = int(counts.sum())
        # per recording: flat position of its beginning, index of its first window, possible starts
        self._offset = (self.samples.cumsum(0) - self.samples).to(self.device)
        self._first = (counts.cumsum(0) - counts).to(self.device)
        self._n_starts = (self.samples - self.window + 1).to(self.device)
        self._read(samples)

    def _read(self, samples: str) -> None:
        """Read the samples, end to end, each recording's scale, and where the notes change."""
        flat = np.empty(int(self.samples.sum()), FORMS[samples])
        offset = 0
        scales = []
        changes = []

        read = recordings.recordings(self.path)
        for key, length, recording in zip(self.keys, self.samples.tolist(), read, strict=True):
            if (recording.key, len(recording)) != (key, length):
                raise recordings.RecordingError(
                    f"{self.path}: changed while it was read; try again"
                )
            try:
                flat[offset : offset + length], scale = store(recording.data, samples)
            except ValueError as error:
                raise ValueError(f"{self.path}, recording {recording.key}: {error}") from None
            # labels that run past the recording's end must not sound at the beginning of the next
            instants, words = changes_within(recording.labels, length)

            scales.append(scale)
            changes.append((instants + offset, words))
            offset += length

        self.notes = NoteLookup(changes, self.device)
        self._flat = torch.from_numpy(flat).to(self.device)
        self._scale = torch.tensor(scales, dtype=torch.float32).to(self.device)

    def __len__(self) -> int:
        return self._n_windows

    def __getitem__(self, index: int) -> Batch:
        """Window `index`, negative ones from the end: signal (window,), notes (84,), float32."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"expected a window below {len(self)} of {self.path}, got {number}")
        signal, notes = self.windows([number % len(self)])
        return signal[0], notes[0]

    @property
    def n_recordings(self) -> int:
        """How many recordings the file has."""
        return len(self.keys)

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return len(self._flat) / self.rate_hz

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of every sample and label and of the cut into windows."""
        identity = repr((self.keys, self.rate_hz, self.window, self.stride)).encode()
        digest = hashlib.blake2b(identity, digest_size=16)
        scales = (self._scale,) if self._flat.dtype == torch.int16 else ()
        for values in (self.samples, self._flat, *scales, self.notes.instants, self.notes.words):
            digest.update(values.cpu().numpy().data)
        return digest.hexdigest()

    def recording_of(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """The recording, by its number in `keys`, of each window `index` (B,): int64 (B,)."""
        return self._located(index)[0]

    def starts(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Start of each window `index` (B,) within its recording, in samples: int64 (B,)."""
        return self._located(index)[1]

    def windows(self, index: torch.Tensor | Sequence[int]) -> Batch:
        """The windows `index` (B,), in any order.

        An index on the CPU is checked there, without a wait for the device.

        Args:
            index: whole numbers in 0..len(self)-1.

        Returns:
            signal (B, window) and notes (B, 84), float32.

        Raises:
            IndexError: an index out of range.
            TypeError: an index that is not of whole numbers.
        """
        recording, start = self._located(index)
        position = self._offset[recording] + start
        signal = self._signal(position, self._scale[recording])
        return signal, self.notes(position + self.window // 2)

    def targets(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """The notes (B, 84) of the windows `index` (B,), as `windows` gives them."""
        recording, start = self._located(index)
        return self.notes(self._offset[recording] + start + self.window // 2)

    def draw(self, generator: torch.Generator | None = None) -> Batch:
        """One window of every recording, at a start uniform over 0..samples - window.

        Nothing here waits for the device.

        Args:
            generator: on the dataset's device; None: torch's own.

        Returns:
            signal (n_recordings, window) and notes (n_recordings, 84), float32, in the order of
            `keys`.

        Raises:
            ValueError: a generator on another device.
        """
        return next(self.draws(1, generator))

    def draws(self, n: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """`n` batches of `draw`, from the same random numbers and in less time.

        On a CPU, starts and notes are computed for some batches at once: looked up one by one they
        take a quarter of a batch's time. Random numbers drawn ahead for a batch that nobody takes
        are lost to `generator`. Elsewhere a batch is drawn at a time: CUDA's generator would give
        other numbers to several at once, and a captured step draws one.
        """
        if generator is not None and generator.device.type != self.device.type:
            raise ValueError(
                f"expected a generator on {self.device}, got one on {generator.device}; "
                f"try torch.Generator({str(self.device)!r})"
            )

        ahead = _AHEAD if self.device.type == "cpu" else 1
        for first in range(0, n, ahead):
            shape = (min(ahead, n - first), self.n_recordings)
            number = torch.randint(2**_RANDOM_BITS, shape, generator=generator, device=self.device)
            position = self._offset + number % self._n_starts
            labels = self.notes(position + self.window // 2)
            for starts, notes in zip(position, labels, strict=True):
                yield self._signal(starts, self._scale), notes

    def _signal(self, position: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Windows (B, window) that start at flat positions (B,), of recordings of this scale."""
        # index_select of the overlapping view takes 0.05 ms for 32 windows of 4096 on one core,
        # indexing by [] 0.12
        rows = self._flat.unfold(0, self.window, 1).index_select(0, position)
        return rows * scale.unsqueeze(1) if rows.dtype == torch.int16 else rows.float()

    def _located(self, index: torch.Tensor | Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The recording of each window `index`, and the sample there at which it starts: (B,)."""
        index = self._checked(index)
        recording = torch.searchsorted(self._first, index, right=True) - 1
        return recording, (index - self._first[recording]) * self.stride

    def _checked(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        index = torch.as_tensor(index)
        if not index.numel():
            return index.to(self.device, torch.int64).reshape(-1)
        whole = not (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool)
        if not whole or index.ndim != 1:
            raise TypeError(
                f"expected whole numbers of shape (B,), got {index.dtype} of shape "
                f"{tuple(index.shape)}"
            )
        low, high = (int(value) for value in index.aminmax())
        if low < 0 or high >= len(self):
            raise IndexError(
                f"expected window indices in 0..{len(self) - 1} of {self.path}, got "
                f"{low if low < 0 else high}"
            )
        return index.to(self.device, torch.int64, non_blocking=True)

    def __repr__(self) -> str:
        return (
            f"MusicNet({self.path!r}, window={self.window}, stride={self.stride}, "
            f"device={str(self.device)!r}): {self.n_recordings} recordings, {self.seconds:.0f} s "
            f"at {self.rate_hz} Hz, {len(self)} windows"
        )


def check_datasets(datasets: Mapping[str, MusicNet]) -> None:
    """Raise ValueError unless these datasets, by their names, can be of one experiment.

    A window of 4096 samples is another stretch of time at another rate.
    """
    if len({dataset.rate_hz for dataset in datasets.values()}) > 1:
        rates = ", ".join(
            f"{name} ({dataset.path}) at {dataset.rate_hz} Hz" for name, dataset in datasets.items()
        )
        raise ValueError(f"datasets: expected files of one sampling rate, got {rates}")


def sizes(path: str | os.PathLike[str], *, window: int, stride: int) -> tuple[int, int]:
    """How many windows `draw` gives and how many there are in order, without reading the samples.

    Raises as `recordings.lengths`, and RecordingError for a recording shorter than a window.
    """
    lengths = _lengths(path, window).values()
    return len(lengths), sum((length - window) // stride + 1 for length in lengths)


def _lengths(path: str | os.PathLike[str], window: int) -> dict[str, int]:
    """Samples of each recording. Raises RecordingError for one shorter than a window."""
    lengths = recordings.lengths(path)
    for key, length in lengths.items():
        if length < window:
            raise recordings.RecordingError(
                f"{path}, recording {key}: expected at least window = {window} samples, got "
                f"{length}; try a smaller window or leave the recording out"
            )
    return lengths


# ---- how windows are fed -------------------------------------------------------------------------


@dataclass(eq=False)
class OnePerRecording:
    """`n_batches` batches, each one window of every recording at a random start.

    Starts are uniform (`MusicNet.draw`). Each pass goes on with `generator` where the last one
    stopped, so epochs differ and a seed gives one run.

    Raises:
        ValueError: n_batches below 1.
    """

    dataset: MusicNet  # where windows are from
    generator: torch.Generator | None = None  # on the dataset's device; None: torch's own
    n_batches: int = 1000  # in an epoch

    def __post_init__(self) -> None:
        _check_count("n_batches", self.n_batches)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        yield from self.dataset.draws(self.n_batches, self.generator)

    def draw(self) -> Batch:
        """The next batch alone."""
        return self.dataset.draw(self.generator)


@dataclass(eq=False)
class InOrder:
    """Every window of the dataset once, in order.

    Raises:
        ValueError: batch_size below 1.
    """

    dataset: MusicNet  # where windows are from
    batch_size: int = 256  # windows of a batch; the last one may be smaller

    def __post_init__(self) -> None:
        _check_count("batch_size", self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.dataset), self.batch_size):
            after = min(first + self.batch_size, len(self.dataset))
            yield self.dataset.windows(torch.arange(first, after))


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected {name} as a whole number >= 1, got {value!r}")


SAMPLERS = {"one-per-recording": OnePerRecording, "in-order": InOrder}


# ---- how samples are held in memory -------------------------------------------------------------
#
# MusicNet's 1.35 billion samples at 11 kHz take 5.4 GB as float32 and 2.7 GB in either half form.
# What that does to windows, features and average precision is measured by
# `python -m extra.benchmarks.half_size`.

FORMS = {"float32": np.float32, "float16": np.float16, "int16": np.int16}
_TOP = 32767  # of int16


def store(data: np.ndarray, samples: str) -> tuple[np.ndarray, float]:
    """Samples in one of `FORMS`.

    - `int16`: data = scale n with scale = peak / 32767. Off by scale / 2 at most, 96 dB below the
      peak.
    - `float16`: off by 2**-11 of each sample at most, about 66 dB below it.

    Args:
        data: float32 (samples,), a recording.
        samples: the form's name.

    Returns:
        The values and their scale, 1 unless int16.

    Raises:
        ValueError: samples beyond float16's range.
    """
    if samples == "int16":
        scale = (float(np.abs(data).max(initial=0.0)) or 1.0) / _TOP
        return np.rint(data / np.float32(scale)).clip(-_TOP, _TOP).astype(np.int16), scale

    stored = data.astype(FORMS[samples], copy=False)
    if samples == "float16" and not np.isfinite(stored).all():
        raise ValueError(
            f"expected samples up to 65504 for float16, got {np.abs(data).max()}; try samples int16"
        )
    return stored, 1.0
