"""The older single files: musicnet.h5 with groups id_NNNN, and musicnet.npz of pickled interval trees."""

import dataclasses
import functools
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cplxnet.musicnet.resample import SOURCE_HZ

from . import labels, unpickle
from .faults import ArchiveError
from .sources import Loaded, Piece, Shard, Source, number_of, stamp


@dataclasses.dataclass(frozen=True)
class StoreShard:
    """One recording of a single-file store; `reader` is the name of its function in `_READERS`."""

    path: str
    member: str
    reader: str

    def pieces(self) -> Iterator[Piece]:
        path = Path(self.path)
        where, number = f"{path.name}, {self.member}", number_of(self.member, f"{path.name}, {self.member}")
        for kind in ("audio", "labels"):
            load = functools.partial(_READERS[self.reader], self.path, self.member, kind, where)
            yield Piece(number, kind, where, f"{stamp(path)}/{self.member}", load)


def _mono(data: Any, where: str) -> np.ndarray:
    """Samples (samples,) as float32; int16 as in a WAV file."""
    if not isinstance(data, np.ndarray) or data.ndim != 1 or data.dtype.kind not in "fi" or not len(data):
        what = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise ArchiveError(f"{where}: expected samples of shape (samples,), float or int16, got {what}")
    if data.dtype.kind == "f":
        return data.astype(np.float32, copy=False)
    if data.dtype.itemsize != 2:
        raise ArchiveError(f"{where}: expected samples as float or int16, got {data.dtype}")
    return data * np.float32(2.0**-15)


def _read_hdf5(path: str, member: str, kind: str, where: str) -> Loaded:
    try:
        with h5py.File(path, "r") as file:
            found = file[member]["data" if kind == "audio" else "labels"][()]
    except (KeyError, OSError) as error:
        raise ArchiveError(f"{where}: expected readable datasets `data` and `labels`, got {error}") from None
    return (_mono(found, where), []) if kind == "audio" else labels.from_columns(found, where)


def hdf5(path: Path) -> Source:
    """An old musicnet.h5 at 44.1 kHz. Raises ArchiveError for one at another rate, if it says so."""
    with h5py.File(path, "r") as file:
        rate_hz = int(file.attrs.get("rate_hz", SOURCE_HZ))
        members = sorted(name for name in file if isinstance(file[name], h5py.Group))
    if rate_hz != SOURCE_HZ:
        raise ArchiveError(f"{path}: expected recordings at {SOURCE_HZ} Hz, got {rate_hz} Hz; try the 44.1 kHz file")
    return _store(path, "hdf5", members)


@functools.lru_cache(maxsize=1)  # audio and labels of a recording are one pickle
def _entry(path: str, member: str, where: str) -> list[Any]:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = read(file)
            if dtype != np.dtype(object):
                raise ArchiveError(f"{where}: expected a pair of samples and interval tree, got an array of {dtype}")
            found = unpickle.load(file, where)  # type: ignore[arg-type]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ArchiveError(f"{where}: expected a readable member, got {error}") from None
    except ValueError as error:
        raise error if isinstance(error, ArchiveError) else ArchiveError(f"{where}: {error}") from None
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], unpickle.Tree):
        raise ArchiveError(f"{where}: expected a pair of samples and interval tree, got {type(found).__name__}")
    return found


def _fields(interval: unpickle.Interval, where: str) -> list[Any]:
    """start, end, and what the interval's data hold: instrument, note, start_beat, end_beat, note_value."""
    data = unpickle.content_of(interval.data)
    if not isinstance(data, (list, tuple)) or len(data) != 5:
        raise ArchiveError(
            f"{where}: expected (instrument, note, start_beat, end_beat, note_value) at [{interval.begin}, "
            f"{interval.end}), got {data!r}"
        )
    value = data[4].encode("latin1") if isinstance(data[4], str) else data[4]
    return [interval.begin, interval.end, *data[:4], value]


def _read_npz(path: str, member: str, kind: str, where: str) -> Loaded:
    data, tree = _entry(path, member, where)
    if kind == "audio":
        return _mono(data, where), []
    rows = ((f"{where}, interval {k}", _fields(one, where)) for k, one in enumerate(tree.intervals))
    return labels.table(rows, where)


def npz(path: Path) -> Source:
    """The old musicnet.npz. Raises ArchiveError for a zip file without .npy members."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(name for name in archive.namelist() if name.endswith(".npy"))
    except zipfile.BadZipFile as error:
        raise ArchiveError(f"{path}: expected an .npz file, got {error}; fetch it again") from None
    return _store(path, "npz", members)


def _store(path: Path, kind: str, members: Sequence[str]) -> Source:
    def shards(_: int) -> Sequence[Shard]:
        return [StoreShard(os.fspath(path), member, kind) for member in members]

    return Source(path, kind, stamp(path), len(members), shards)


_READERS = {"hdf5": _read_hdf5, "npz": _read_npz}
