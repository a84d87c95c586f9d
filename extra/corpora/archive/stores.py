"""The older single files: musicnet.h5 with groups id_NNNN, and musicnet.npz of pickled interval trees."""

import dataclasses
import functools
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import h5py
import numpy as np

from cplxnet.musicnet.resample import SOURCE_HZ

from . import labels, unpickle
from .faults import ArchiveError
from .sources import Piece, Shard, Source, Tell, number_of, stamp, told

_BLOCK = 1 << 20  # samples in memory at once


@dataclasses.dataclass(frozen=True)
class StoreShard:
    """One recording of a single-file store; `reader` is the name of its function in `_READERS`."""

    path: str
    member: str
    reader: str

    def pieces(self) -> Iterator[Piece]:
        path = Path(self.path)
        where, number = (
            f"{path.name}, {self.member}",
            number_of(self.member, f"{path.name}, {self.member}"),
        )
        for kind in ("audio", "labels"):
            read = functools.partial(_READERS[self.reader], self.path, self.member, kind, where)
            yield Piece(number, kind, where, f"{stamp(path)}/{self.member}", read)


def _check_mono(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    if (
        dtype.kind not in "fi"
        or len(shape) != 1
        or not shape[0]
        or (dtype.kind == "i" and dtype.itemsize != 2)
    ):
        raise ArchiveError(
            f"{where}: expected samples of shape (samples,), float or int16, got {dtype} of shape {shape}"
        )


def _float32(block: np.ndarray) -> np.ndarray:
    """Samples as float32; int16 as in a WAV file."""
    return (
        block.astype(np.float32, copy=False)
        if block.dtype.kind == "f"
        else block * np.float32(2.0**-15)
    )


def _read_hdf5(path: str, member: str, kind: str, where: str, tell: Tell) -> Iterator[np.ndarray]:
    try:
        with h5py.File(path, "r") as file:
            found = file[member]["data" if kind == "audio" else "labels"]
            if kind == "labels":
                yield from told(labels.from_columns(found[()], where), tell)
                return
            _check_mono(found.dtype, found.shape, where)
            step = max(
                _BLOCK, found.chunks[0] if found.chunks else 0
            )  # a chunk is read as a whole, once
            for begin in range(0, len(found), step):
                yield _float32(found[begin : begin + step])
    except (KeyError, OSError) as error:
        raise ArchiveError(
            f"{where}: expected readable datasets `data` and `labels`, got {error}"
        ) from None


def hdf5(path: Path) -> Source:
    """An old musicnet.h5 at 44.1 kHz. Raises ArchiveError for one at another rate, if it says so."""
    with h5py.File(path, "r") as file:
        rate_hz = int(file.attrs.get("rate_hz", SOURCE_HZ))
        members = sorted(name for name in file if isinstance(file[name], h5py.Group))
    if rate_hz != SOURCE_HZ:
        raise ArchiveError(
            f"{path}: expected recordings at {SOURCE_HZ} Hz, got {rate_hz} Hz; try the 44.1 kHz file"
        )
    return _store(path, "hdf5", members)


@contextmanager
def _pickled(path: str, member: str, where: str) -> Iterator[BinaryIO]:
    """The pickle of a member, at its beginning: behind the header of an array of objects."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = read(file)
            if dtype != np.dtype(object):
                raise ArchiveError(
                    f"{where}: expected a pair of samples and interval tree, got an array of {dtype}"
                )
            yield cast(BinaryIO, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ArchiveError(f"{where}: expected a readable member, got {error}") from None
    except ValueError as error:
        raise (
            error if isinstance(error, ArchiveError) else ArchiveError(f"{where}: {error}")
        ) from None


@functools.lru_cache(maxsize=1)  # audio and labels of a recording are one pickle
def _entry(path: str, member: str, where: str) -> list[Any]:
    with _pickled(path, member, where) as file:
        found = unpickle.load(file, where)
        while file.read(_BLOCK):  # to the end, where the checksum is compared
            pass
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[1], unpickle.Tree):
        raise ArchiveError(
            f"{where}: expected a pair of samples and interval tree, got {type(found).__name__}"
        )
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


def _read_npz(path: str, member: str, kind: str, where: str, tell: Tell) -> Iterator[np.ndarray]:
    data, tree = _entry(path, member, where)
    if kind == "labels":
        rows = (
            (f"{where}, interval {k}", _fields(one, where)) for k, one in enumerate(tree.intervals)
        )
        yield from told(labels.table(rows, where), tell)
        return
    if not isinstance(data, (np.ndarray, unpickle.Stored)):
        raise ArchiveError(f"{where}: expected an array of samples, got {type(data).__name__}")
    _check_mono(data.dtype, data.shape, where)
    if isinstance(data, np.ndarray):
        yield _float32(data)
        return
    samples = 0
    with _pickled(path, member, where) as file:
        for raw in _whole_samples(data.place.blocks(file), data.dtype.itemsize):
            samples += len(raw) // data.dtype.itemsize
            yield _float32(np.frombuffer(raw, data.dtype))
    if samples != data.shape[0]:
        raise ArchiveError(
            f"{where}: expected {data.shape[0]} samples, got {samples}; fetch the file again"
        )


def _whole_samples(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of a multiple of `size`."""
    rest = b""
    for block in blocks:
        rest += block
        whole = len(rest) // size * size
        yield rest[:whole]
        rest = rest[whole:]


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
