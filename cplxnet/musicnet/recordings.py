"""The HDF5 layout of MusicNet's recordings, written and read with every value checked.

A file holds one group a recording, `id_NNNN`, with `data` (float32, (samples,)) and `labels` (a row
a note, `LABELS`), and the root attribute `rate_hz`. A note sounds on the samples
`[start_time, end_time)`.
"""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from cplxnet.files import written

from .hdf5 import Hdf5

LOWEST_NOTE = 21  # MIDI: A0
HIGHEST_NOTE = 104  # G#7, the last of the 84 classes

LABELS = np.dtype(
    [
        ("start_time", "<i8"),  # samples
        ("end_time", "<i8"),  # samples, exclusive
        ("instrument", "<i8"),  # General MIDI program + 1, as in MusicNet: 1 is piano, 41 violin
        ("note", "<i8"),  # MIDI pitch
        ("start_beat", "<f8"),  # quarter notes from the score's beginning
        ("end_beat", "<f8"),
        ("note_value", "S32"),  # "Quarter", "Dotted Eighth"
    ]
)
_ALIASES = {"note": "note_id"}  # some builds of MusicNet's HDF5 files call the column so
_CHUNK = 1 << 16  # samples that share a checksum: 256 KiB, read at 1.5 GB/s as if in one piece
_BLOCK = 16 * _CHUNK  # samples that `write` has in memory at once
_OPTIONAL = {"start_beat", "end_beat", "note_value", "instrument"}
_HOW_TO_BUILD = (
    "build the demo corpus by `make demo` or `python -m extra.corpora.demo`, "
    "MusicNet by extra/get_datasets.ipynb"
)


class RecordingError(ValueError):
    """A file or recording breaks the layout; the text names file, recording and value."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording.

    Attributes:
        key: "id_1001".
        data: float32 (samples,).
        labels: `LABELS` (notes,), times in samples of `data`.
    """

    key: str
    data: np.ndarray
    labels: np.ndarray
    composer: str = ""
    composition: str = ""
    movement: str = ""
    ensemble: str = ""

    def __len__(self) -> int:
        return len(self.data)


_TEXTS = ("composer", "composition", "movement", "ensemble")


def _check_shape(data: np.ndarray, where: str) -> None:
    if data.ndim != 1 or data.dtype.kind != "f":
        raise RecordingError(
            f"{where}: expected `data` as float samples of shape (samples,), got {data.dtype} of "
            f"shape {data.shape}"
        )


def _check_data(data: np.ndarray, where: str, *, begin: int = 0) -> np.ndarray:
    """`data`, which are the samples from `begin` on, as float32."""
    _check_shape(data, where)
    finite = np.isfinite(data)
    if not finite.all():
        position = int(np.argmin(finite))
        raise RecordingError(
            f"{where}: expected finite samples, got {data[position]} at sample "
            f"{begin + position}; write the file again"
        )
    return data.astype(np.float32, copy=False)


def _check_labels(table: np.ndarray, where: str) -> np.ndarray:
    names = table.dtype.names or ()
    labels = np.zeros(len(table), LABELS)
    for column in LABELS.names or ():
        source = column if column in names else _ALIASES.get(column, column)
        if source in names:
            labels[column] = table[source]
        elif column not in _OPTIONAL:
            raise RecordingError(
                f"{where}: expected a column `{column}` in `labels`, got "
                f"{', '.join(names) or 'no columns'}"
            )
    _refuse(labels["start_time"] < 0, labels, where, "expected start_time >= 0")
    _refuse(
        labels["end_time"] < labels["start_time"], labels, where, "expected end_time >= start_time"
    )
    outside = (labels["note"] < LOWEST_NOTE) | (labels["note"] > HIGHEST_NOTE)
    _refuse(outside, labels, where, f"expected notes in {LOWEST_NOTE}..{HIGHEST_NOTE}")
    return labels


def _refuse(bad: np.ndarray, labels: np.ndarray, where: str, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        start, end, note = (int(labels[c][row]) for c in ("start_time", "end_time", "note"))
        raise RecordingError(
            f"{where}: {expected}, got note {note} on [{start}, {end}) in row {row} of `labels`"
        )


def _open(path: str | os.PathLike[str]) -> h5py.File:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a recordings file at {path}, got nothing there; {_HOW_TO_BUILD}"
        )
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RecordingError(
            f"{path}: expected an HDF5 file, got something h5py cannot open ({error}); "
            f"{_HOW_TO_BUILD}"
        ) from None


def _read(group: h5py.Group, where: str) -> Recording:
    for name in ("data", "labels"):
        if not isinstance(group.get(name), h5py.Dataset):
            there = ", ".join(group) or "nothing"
            raise RecordingError(
                f"{where}: expected datasets `data` and `labels`, got no `{name}` (there: {there})"
            )
    if group["labels"].ndim != 1:
        raise RecordingError(
            f"{where}: expected `labels` of shape (notes,), got {group['labels'].shape}"
        )
    texts = {name: str(group.attrs.get(name, "")) for name in _TEXTS}
    try:
        samples, table = group["data"][()], group["labels"][()]
    except OSError as error:  # a checksum, or a file cut short
        raise RecordingError(
            f"{where}: expected the values that were written, got {error}; build it again"
        ) from None
    return Recording(
        group.name.lstrip("/"), _check_data(samples, where), _check_labels(table, where), **texts
    )


def recordings(path: str | os.PathLike[str]) -> Iterator[Recording]:
    """The recordings of the file at `path`, checked, by their keys, one in memory at a time.

    Raises:
        FileNotFoundError: no file at `path`; the text says how to build it.
        RecordingError: not HDF5, no recording inside, `data`, `labels` or a column missing, a note
            outside 21..104, a note that ends before it starts, a NaN or infinite sample, values
            that do not fit their checksum.
    """
    with _open(path) as file:
        keys = sorted(key for key in file if isinstance(file[key], h5py.Group))
        if not keys:
            raise RecordingError(
                f"{path}: expected groups id_NNNN, a recording each, got none; {_HOW_TO_BUILD}"
            )
        for key in keys:
            yield _read(file[key], f"{path}, recording {key}")


def n_samples(path: str | os.PathLike[str]) -> int:
    """Samples of all recordings together, from the shapes alone; what has no samples counts 0."""
    with _open(path) as file:
        data = [file[key].get("data") for key in file if isinstance(file[key], h5py.Group)]
        return sum(
            values.shape[0] for values in data if isinstance(values, h5py.Dataset) and values.ndim
        )


def rate_hz(path: str | os.PathLike[str], *, default: int = 11000) -> int:
    """Samples per second of the file at `path`; `default` where it does not say (older builds)."""
    with _open(path) as file:
        return int(file.attrs.get("rate_hz", default))


def attributes(path: str | os.PathLike[str]) -> dict[str, object]:
    """The root attributes of the file at `path`. Raises as `recordings` without such a file."""
    with _open(path) as file:
        return dict(file.attrs)


def write(
    path: str | os.PathLike[str],
    recordings: Iterable[Recording],
    *,
    rate_hz: int,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write recordings to the file at `path`, each one checked.

    The file appears whole or not at all: it is written beside `path` and renamed. It has no time
    stamps, so equal recordings give equal bytes.

    Args:
        path: the file.
        recordings: consumed one by one. Their `data` are asked for shape, type and slices of 4 MiB
            alone, so they need not be in memory.
        rate_hz: samples per second.
        attributes: added to the root.

    Raises:
        RecordingError: as `recordings` raises on reading, or no recording to write.
        OSError: the disk is full.
    """
    path = Path(path)
    with written(path) as temporary, Hdf5(temporary) as file:
        file.root.attrs["rate_hz"] = rate_hz
        for name, value in (attributes or {}).items():
            file.root.attrs[name] = value
        for recording in recordings:
            _write(file, recording, rate_hz, f"{path}, recording {recording.key}")
        if not len(file.root):
            raise RecordingError(f"{path}: expected at least one recording to write, got none")


def _create(group: h5py.Group, name: str, values: np.ndarray, dtype: np.dtype) -> h5py.Dataset:
    pieces = {"chunks": (min(len(values), _CHUNK),), "fletcher32": True} if len(values) else {}
    return group.create_dataset(name, (len(values),), dtype, track_times=False, **pieces)


def _write(file: Hdf5, recording: Recording, rate_hz: int, where: str) -> None:
    _check_shape(recording.data, where)
    labels = _check_labels(recording.labels, where)
    group = file.root.create_group(recording.key, track_times=False)
    dataset = _create(group, "data", recording.data, np.dtype("<f4"))
    for begin in range(0, len(recording.data), _BLOCK):
        file.append(
            dataset, begin, _check_data(recording.data[begin : begin + _BLOCK], where, begin=begin)
        )
    file.append(_create(group, "labels", labels, LABELS), 0, labels)
    for name in _TEXTS:
        group.attrs[name] = getattr(recording, name)
    group.attrs["seconds"] = len(recording.data) / rate_hz
    file.check()
