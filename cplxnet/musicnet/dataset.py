"""MusicNet: the recordings of one HDF5 file, resident as one flat tensor, and windows with their notes cut from it."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from . import recordings
from .labels import NoteLookup, changes_within

_AHEAD = 16  # batches whose starts and notes `draws` makes at once
_RANDOM_BITS = 62  # of the integer that a start is the remainder of: a recording's bias is below samples / 2**62


class MusicNet:
    """Windows of `window` samples of every recording in the file at `path`, with the notes at their middle.

    The recordings lie end to end, in the order of their keys, in one tensor on `device`; a batch of windows is
    one gather of rows of its overlapping view, its labels one binary search (`notes`). No window spans two recordings.

    The windows in order are, recording by recording, those starting at 0, stride, 2 stride, ...:
    `(samples - window) // stride + 1` of them, and `len(self)` is their number. `draw` ignores the stride.

    Parameters
    ----------
    path: HDF5 file in the layout of `recordings`.
    window: samples in a window; its labels are the notes sounding at its sample `window // 2`.
    stride: samples from one window's start to the next one's.
    device: where the recordings and the label tables live; windows come out there.
    samples: how the recordings are held there; windows are float32 always. "float32" as they are, "int16" or "float16"
        in half the memory: see `FORMS`.

    Attributes
    ----------
    keys: tuple of str, the recordings' keys, increasing.
    samples: int64 (n_recordings,) on the CPU, the length of each.
    rate_hz: samples per second.

    Raises
    ------
    ValueError: window or stride below 1, an unknown form of samples; `recordings.RecordingError`: a recording shorter
        than a window, or one that breaks the layout; FileNotFoundError: nothing at `path`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        window: int = 4096,
        stride: int = 128,
        device: torch.device | str = "cpu",
        samples: str = "float32",
    ) -> None:
        self.path, self.window, self.stride = (
            os.fspath(path),
            _at_least_one("window", window),
            _at_least_one("stride", stride),
        )
        self.device = torch.device(device)
        self.form = form(samples)
        self.rate_hz = recordings.rate_hz(path)
        flat, lengths, scales, changes = self._read()
        self.samples = torch.tensor(lengths)
        self._scale = torch.tensor(scales, dtype=torch.float32).to(self.device)  # of each recording
        self._flat = torch.from_numpy(flat).to(self.device)
        self.notes = NoteLookup(changes, self.device)
        # row p is the window that starts at flat position p: overlapping rows, no memory of its own
        self._rows = self._flat.as_strided((len(flat) - self.window + 1, self.window), (1, 1))
        counts = (self.samples - self.window) // self.stride + 1
        self._n_windows = int(counts.sum())
        self._offset = (self.samples.cumsum(0) - self.samples).to(
            self.device
        )  # flat position of each beginning
        self._first = (counts.cumsum(0) - counts).to(
            self.device
        )  # index of each recording's first window
        self._n_starts = (self.samples - self.window + 1).to(self.device)

    def _read(
        self,
    ) -> tuple[np.ndarray, list[int], list[float], list[tuple[np.ndarray, np.ndarray]]]:
        """The samples end to end, the length and scale of each recording, and the change instants at flat positions."""
        flat, offset = np.empty(recordings.n_samples(self.path), self.form.dtype), 0
        keys, samples, scales, changes = [], [], [], []
        for recording in recordings.recordings(self.path):
            length = len(recording.data)
            if length < self.window:
                raise recordings.RecordingError(
                    f"{self.path}, recording {recording.key}: expected at least window = {self.window} samples, got "
                    f"{length}; try a smaller window or leave the recording out"
                )
            flat[offset : offset + length], scale = self.form.store(recording.data)
            # labels that run past the recording's end must not sound at the beginning of the next
            instants, words = changes_within(recording.labels, length)
            keys.append(recording.key)
            samples.append(length)
            scales.append(scale)
            changes.append((instants + offset, words))
            offset += length
        self.keys = tuple(keys)
        return flat, samples, scales, changes

    def __len__(self) -> int:
        return self._n_windows

    @property
    def n_recordings(self) -> int:
        return len(self.keys)

    @property
    def seconds(self) -> float:
        """Length of all recordings together."""
        return len(self._flat) / self.rate_hz

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of every sample and label and of the cut into windows: the same data give the same training."""
        digest = hashlib.blake2b(
            repr((self.keys, self.rate_hz, self.window, self.stride)).encode(), digest_size=16
        )
        forms = (self._scale,) if self.form.scaled else ()
        for values in (self.samples, self._flat, *forms, self.notes.instants, self.notes.words):
            digest.update(values.cpu().numpy().data)
        return digest.hexdigest()

    def recording_of(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Number, in the order of `keys`, of the recording that each window `index` (B,) is of: int64 (B,)."""
        return self._recording_of(self._checked(index))

    def starts(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Start of each window `index` (B,) within its recording, in samples: int64 (B,)."""
        index = self._checked(index)
        return (index - self._first[self._recording_of(index)]) * self.stride

    def windows(self, index: torch.Tensor | Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The windows `index` (B,) int in 0..len(self)-1, in any order: signal (B, window), notes (B, 84), float32.

        An index on the CPU is checked there, without a wait for the device.

        Raises
        ------
        IndexError: an index out of range; TypeError: an index that is not of whole numbers.
        """
        index = self._checked(index)
        recording = self._recording_of(index)
        starts = (index - self._first[recording]) * self.stride
        return self._cut(self._offset[recording] + starts, self._scale[recording])

    def draw(self, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """One window of every recording, at a start uniform over all of 0..samples - window, both ends included.

        `generator` is one on the dataset's device. Returns signal (n_recordings, window) and notes (n_recordings, 84),
        float32, in the order of `keys`. Nothing here waits for the device.

        Raises
        ------
        ValueError: a generator on another device.
        """
        return next(self.draws(1, generator))

    def draws(
        self, n: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`n` batches of `draw`, from the same random numbers and in less time.

        Starts and notes are made for some batches at once: looked up one by one they take a quarter of a batch's time.
        What is drawn ahead of a batch that nobody takes is lost to `generator`.
        """
        if generator is not None and generator.device.type != self.device.type:
            raise ValueError(
                f"expected a generator on {self.device}, got one on {generator.device}; "
                f"try torch.Generator({str(self.device)!r})"
            )
        for first in range(0, n, _AHEAD):
            shape = (min(_AHEAD, n - first), self.n_recordings)
            number = torch.randint(2**_RANDOM_BITS, shape, generator=generator, device=self.device)
            position = self._offset + number % self._n_starts
            for starts, notes in zip(
                position, self.notes(position + self.window // 2), strict=True
            ):
                yield self._signal(starts, self._scale), notes

    def _cut(
        self, position: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._signal(position, scale), self.notes(position + self.window // 2)

    def _signal(self, position: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        # index_select of the overlapping view: 0.05 ms for 32 windows of 4096, indexing by [] 0.12, on one core
        return self.form.restore(self._rows.index_select(0, position), scale)

    def _recording_of(self, index: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(self._first, index, right=True) - 1

    def _checked(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor:
        index = torch.as_tensor(index)
        if not index.numel():
            return index.to(self.device, torch.int64).reshape(-1)
        if (
            index.dtype.is_floating_point
            or index.dtype.is_complex
            or index.dtype == torch.bool
            or index.ndim != 1
        ):
            raise TypeError(
                f"expected whole numbers of shape (B,), got {index.dtype} of shape {tuple(index.shape)}"
            )
        low, high = (int(value) for value in index.aminmax())
        if low < 0 or high >= len(self):
            raise IndexError(
                f"expected window indices in 0..{len(self) - 1} of {self.path}, got {low if low < 0 else high}"
            )
        return index.to(self.device, torch.int64, non_blocking=True)

    def __repr__(self) -> str:
        return (
            f"MusicNet({self.path!r}, window={self.window}, stride={self.stride}, device={str(self.device)!r}): "
            f"{self.n_recordings} recordings, {self.seconds:.0f} s at {self.rate_hz} Hz, {len(self)} windows"
        )


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"expected {name} >= 1 sample, got {value}")
    return int(value)


# How recordings are held in memory: as float32, or in half of it, exact enough for a network. MusicNet's 1.35 billion
# samples at 11 kHz take 5.4 GB as float32 and 2.7 GB in either half form. What that does to windows, features and
# average precision is measured by `python -m extra.benchmarks.half_size`.
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
        raise ValueError(
            f"expected samples up to 65504 for float16, got {np.abs(data).max()}; try samples int16"
        )
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
