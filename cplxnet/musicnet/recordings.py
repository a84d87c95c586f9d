"""The HDF5 layout of MusicNet's recordings, read with every value checked.

A file holds one group a recording, `id_NNNN`, with `data` (float32, (samples,)) and `labels` (a row
a note, `LABELS`), and the root attribute `rate_hz`. A note sounds on the samples
`[start_time, end_time)`.
"""

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LOWEST_NOTE = 21  # MIDI: A0
HIGHEST_NOTE = 104  # G#7, the last of the 84 classes

LABELS = np.dtype(
    [
        ("start_time", "<i8"),  # samples
        ("end_time", "<i8"),  # samples, exclusive
        ("instrument", "<i8"),  # General MIDI program + 1, as in MusicNet: 1 is piano, 41 violin
        ("note", "<i8"),  # MIDI pitch
        ("start_beat", "<f8"),  # quarter notes from the score's beginning
        ("end_beat", "<f8"),  # in spite of its name, as in MusicNet, the length in quarter notes
        ("note_value", "S32"),  # "Quarter", "Dotted Eighth"
    ]
)
_ALIASES = {"note": "note_id"}  # some builds of MusicNet's HDF5 files call the column so
_MOST_PACKED = 1100  # bytes that a byte of the file can stand for: deflate packs 1032 into one
_OPTIONAL = {"start_beat", "end_beat", "note_value", "instrument"}


def _how_to_build(path: str | os.PathLike[str]) -> str:
    """What makes the file at `path`, by the name of its folder."""
    folder = Path(path).resolve().parent
    if folder.name in ("demo", "reference"):
        return (
            f"build it by `python -m extra.corpora.demo --size {folder.name} --data "
            f"{Path(path).parent.parent}`"
        )

    return (
        "build MusicNet by extra/get_datasets.ipynb, the demo corpus by `make demo`; "
        "if it is elsewhere, try another data folder (--data)"
    )


class RecordingError(ValueError):
    """A file or recording breaks the layout; the text names file, recording and value."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One recording."""

    key: str  # "id_1001"
    data: np.ndarray  # float32 (samples,)
    labels: np.ndarray  # `LABELS` (notes,), times in samples of `data`
    composer: str = ""
    composition: str = ""
    movement: str = ""
    ensemble: str = ""

    def __len__(self) -> int:
        return len(self.data)


TEXTS = ("composer", "composition", "movement", "ensemble")


# ---- values that are checked --------------------------------------------------------------------


def check_shape(data: np.ndarray | h5py.Dataset, where: str) -> None:
    """Raise RecordingError unless `data` are float samples of shape (samples,).

    where: file and recording, for errors.
    """
    if data.ndim != 1 or data.dtype.kind != "f":
        raise RecordingError(
            f"{where}: expected `data` as float samples of shape (samples,), got {data.dtype} of "
            f"shape {data.shape}"
        )


def check_data(data: np.ndarray, where: str, *, begin: int = 0) -> np.ndarray:
    """`data`, which are the samples from `begin` on, of one channel, as float32.

    Raises:
        RecordingError: a sample that is not finite in float32.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and named next
        samples = data.astype(np.float32, copy=False)

    finite = np.isfinite(samples)
    if not finite.all():
        position = int(np.argmin(finite))
        raise RecordingError(
            f"{where}: expected finite samples, got {data[position]} at sample "
            f"{begin + position}; write the file again, in float32"
        )

    return samples


def check_labels(table: np.ndarray, where: str) -> np.ndarray:
    """A table of labels (notes,) as `LABELS`; optional columns that it lacks are 0, or empty.

    Raises:
        RecordingError: a column missing or of another type, times that do not fit, or a note
            outside 21..104.
    """
    names = table.dtype.names or ()
    labels = np.zeros(len(table), LABELS)

    for column in LABELS.names or ():
        source = column if column in names else _ALIASES.get(column, column)
        if source in names:
            labels[column] = _check_column(table[source], column, where)
        elif column not in _OPTIONAL:
            raise RecordingError(
                f"{where}: expected a column `{column}` in `labels`, got "
                f"{', '.join(names) or 'no columns'}"
            )

    start, end, note = (labels[column] for column in ("start_time", "end_time", "note"))
    outside = (note < LOWEST_NOTE) | (note > HIGHEST_NOTE)
    for bad, expected in (
        (start < 0, "start_time >= 0"),
        (end < start, "end_time >= start_time"),
        (outside, f"notes in {LOWEST_NOTE}..{HIGHEST_NOTE}"),
    ):
        if bad.any():
            row = int(np.argmax(bad))
            raise RecordingError(
                f"{where}: expected {expected}, got note {note[row]} on [{start[row]}, {end[row]}) "
                f"in row {row} of `labels`"
            )

    return labels


def _check_column(values: np.ndarray, column: str, where: str) -> np.ndarray:
    """A column of labels; what should be whole numbers is, whatever type holds them."""
    if LABELS[column].kind == "S" and values.dtype.kind in "SO":
        return values

    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise RecordingError(
            f"{where}: expected numbers in column `{column}` of `labels`, got {values.dtype}"
        )

    with np.errstate(invalid="ignore"):
        column_values = values.astype(LABELS[column])
    changed = column_values != values
    if LABELS[column].kind == "i" and changed.any():
        raise RecordingError(
            f"{where}: expected whole numbers in column `{column}` of `labels`, got "
            f"{values[int(np.argmax(changed))]}"
        )

    return column_values


# ---- reading ------------------------------------------------------------------------------------


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """The file at `path`.

    Raises:
        RecordingError: h5py cannot read something in the block; it has the file's name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a recordings file at {path}, got nothing there; {_how_to_build(path)}"
        )

    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordingError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BlockingIOError) or "already open for write" in str(error):
            raise RecordingError(
                f"{path}: expected a finished file, got one that another process has open for "
                "writing; wait until it has ended (if none does, try h5clear --status)"
            ) from error
        raise RecordingError(
            f"{path}: expected an HDF5 file, got something h5py cannot read ({error}); "
            f"{_how_to_build(path)}"
        ) from error


def keys_of(file: h5py.File, where: str) -> list[str]:
    """The names of the groups in `file`, sorted. Raises RecordingError for a link among them."""
    for key in file:
        link = file.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise RecordingError(
                f"{where}, recording {key}: expected it in the file itself, got a link"
            )
    return sorted(key for key in file if file.get(key, getclass=True) is h5py.Group)


def stored(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """The dataset `name` of `group`, of which the file itself holds every value; none is read.

    Raises:
        RecordingError: no such dataset; values elsewhere (a link, external storage, a virtual
            dataset), which may be any file of this machine; values that were never written, or more
            of them than the file has room for.
    """
    link = group.get(name, getlink=True)
    is_own = link is None or isinstance(link, h5py.HardLink)
    dataset = group.get(name) if is_own else None
    if is_own and not isinstance(dataset, h5py.Dataset):
        there = ", ".join(group) or "nothing"
        raise RecordingError(
            f"{where}: expected datasets `data` and `labels`, got no `{name}` (there: {there})"
        )

    if dataset is None or dataset.external or dataset.is_virtual:
        raise RecordingError(
            f"{where}: expected {name} in the file itself, got them in another file or place"
        )

    size = int(dataset.nbytes)
    if dataset.chunks is None:
        is_whole = dataset.id.get_storage_size() >= size
    else:
        grid = zip(dataset.shape, dataset.chunks, strict=True)
        is_whole = dataset.id.get_num_chunks() >= math.prod(-(-n // chunk) for n, chunk in grid)

    if not is_whole or size > _MOST_PACKED * dataset.file.id.get_filesize():
        raise RecordingError(
            f"{where}: expected {name} to be written, got a claim of {size} bytes with values "
            "missing; build it again"
        )

    return dataset


def _read(group: h5py.Group, where: str) -> Recording:
    data = stored(group, "data", where)
    check_shape(data, where)

    table = stored(group, "labels", where)
    if table.ndim != 1:
        raise RecordingError(f"{where}: expected `labels` of shape (notes,), got {table.shape}")

    texts = {name: str(group.attrs.get(name, "")) for name in TEXTS}
    try:
        samples = data[()]
        rows = table[()]
    except (OSError, ValueError, TypeError) as error:  # a checksum, or a file cut short
        raise RecordingError(
            f"{where}: expected the values that were written, got {error}; build it again"
        ) from error

    return Recording(
        group.name.lstrip("/"), check_data(samples, where), check_labels(rows, where), **texts
    )


def recordings(path: str | os.PathLike[str]) -> Iterator[Recording]:
    """The recordings of the file at `path`, checked, by their keys, one in memory at a time.

    Raises:
        FileNotFoundError: no file at `path`; the text says how to build it.
        RecordingError: not HDF5, no recording inside, `data`, `labels` or a column missing, values
            that are not in the file itself, a note outside 21..104, a note that ends before it
            starts, a sample that is not finite in float32, values that do not fit their checksum;
            or another process has the file open for writing.
    """
    with _open(path) as file:
        keys = keys_of(file, f"{path}")
        if not keys:
            raise RecordingError(
                f"{path}: expected groups id_NNNN, a recording each, got none; "
                f"{_how_to_build(path)}"
            )

        for key in keys:
            yield _read(file[key], f"{path}, recording {key}")


def lengths(path: str | os.PathLike[str]) -> dict[str, int]:
    """Samples of each recording by its key, from the shapes alone. Raises as `recordings`."""
    with _open(path) as file:
        return {
            key: stored(file[key], "data", f"{path}, recording {key}").size
            for key in keys_of(file, f"{path}")
        }


def rate_hz(path: str | os.PathLike[str], *, default: int = 11000) -> int:
    """Samples per second of the file at `path`; `default` where it does not say (older builds).

    Raises:
        RecordingError: a rate that is no whole number of 1 to 1 000 000. Otherwise as `recordings`.
    """
    value = attributes(path).get("rate_hz", default)
    is_number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
    if not is_number or not 1 <= value <= 1_000_000 or int(value) != value:
        raise RecordingError(
            f"{path}: expected rate_hz as a whole number of 1 to 1000000, got {value!r}"
        )
    return int(value)


def attributes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The root attributes of the file at `path`. Raises as `recordings` without such a file."""
    with _open(path) as file:
        return dict(file.attrs)
