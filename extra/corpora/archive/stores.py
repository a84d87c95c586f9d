"""The older single files: musicnet.h5 with groups id_NNNN, and musicnet.npz of pickled interval
trees.
"""

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

from cplxnet.musicnet import recordings
from cplxnet.musicnet.resample import SOURCE_HZ

from . import labels, unpickle
from .errors import ArchiveError, unreadable_named
from .sources import Piece, Shard, Source, Tell, number_of, stamp, tell_all

_BLOCK = 1 << 20  # samples in memory at once
_LARGEST_PICKLE = 1 << 29  # bytes, in memory at once; MusicNet's longest recording has 0.2 GB
_LONGEST = 24 * 3600 * SOURCE_HZ  # samples, a day: what states more is no recording


@dataclasses.dataclass(frozen=True)
class StoreShard:
    """One recording of a single-file store; `kind` is "hdf5" or "npz"."""

    path: str
    member: str
    kind: str

    def pieces(self) -> Iterator[Piece]:
        path = Path(self.path)
        where = f"{path.name}, {self.member}"
        number = number_of(self.member, where)
        read = _read_hdf5 if self.kind == "hdf5" else _read_npz

        for kind in ("audio", "labels"):
            read_piece = functools.partial(read, self.path, self.member, kind, where)
            yield Piece(number, kind, where, f"{stamp(path)}/{self.member}", read_piece)


def hdf5(path: Path) -> Source:
    """An old musicnet.h5 at 44.1 kHz.

    Raises:
        ArchiveError: the file says that its recordings have another rate.
    """
    with _hdf5(path, path.name) as file:
        rate_hz = recordings.rate_hz(path, default=SOURCE_HZ)
        members = recordings.keys_of(file, path.name)
    if rate_hz != SOURCE_HZ:
        raise ArchiveError(
            f"{path}: expected recordings at {SOURCE_HZ} Hz, got {rate_hz} Hz; "
            "try the 44.1 kHz file"
        )
    return _store(path, "hdf5", members)


@contextmanager
def _hdf5(path: str | Path, where: str) -> Iterator[h5py.File]:
    """The file at `path`; raises ArchiveError for what h5py cannot read in the block."""
    kinds = (KeyError, OSError, RuntimeError, TypeError, ValueError)
    with unreadable_named(where, "a readable HDF5 file", *kinds), h5py.File(path, "r") as file:
        yield file


def npz(path: Path) -> Source:
    """The old musicnet.npz.

    Raises:
        ArchiveError: not a zip file.
    """
    with (
        unreadable_named(f"{path}", "an .npz file", zipfile.BadZipFile),
        zipfile.ZipFile(path) as archive,
    ):
        members = sorted(name for name in archive.namelist() if name.endswith(".npy"))
    return _store(path, "npz", members)


def _store(path: Path, kind: str, members: Sequence[str]) -> Source:
    """A single file, a shard a recording."""

    def shards(_: int) -> Sequence[Shard]:
        return [StoreShard(os.fspath(path), member, kind) for member in members]

    return Source(path, kind, stamp(path), len(members), shards)


def _read_hdf5(path: str, member: str, kind: str, where: str, tell: Tell) -> Iterator[np.ndarray]:
    """Samples or labels of the group `member`."""
    with _hdf5(path, where) as file:
        dataset = recordings.stored(file[member], "data" if kind == "audio" else "labels", where)
        if kind == "labels":
            labels.check_count(dataset.size, where)
            yield from tell_all(labels.from_columns(dataset[()], where), tell)
            return

        _check_mono(dataset.dtype, dataset.shape, where)
        # a chunk is read as a whole, so that each is read once
        step = max(_BLOCK, dataset.chunks[0] if dataset.chunks else 0)
        for begin in range(0, len(dataset), step):
            yield _float32(dataset[begin : begin + step])


def _read_npz(path: str, member: str, kind: str, where: str, tell: Tell) -> Iterator[np.ndarray]:
    """Samples or labels of the pickle `member`."""
    data, tree = _entry(path, member, where)
    if kind == "labels":
        intervals = [
            (interval.begin, interval.end, unpickle.content_of(interval.data))
            for interval in tree.intervals
        ]
        yield from tell_all(labels.from_intervals(intervals, where), tell)
        return

    if not isinstance(data, np.ndarray):
        raise ArchiveError(f"{where}: expected an array of samples, got {type(data).__name__}")
    _check_mono(data.dtype, data.shape, where)
    for begin in range(0, len(data), _BLOCK):
        yield _float32(data[begin : begin + _BLOCK])


@functools.lru_cache(maxsize=1)  # audio and labels of a recording are one pickle
def _entry(path: str, member: str, where: str) -> list[Any]:
    """[samples, interval tree] of the pickle `member`."""
    with _pickled(path, member, where) as file:
        entry = unpickle.load(file, where)
        while file.read(_BLOCK):  # to the end, where the checksum is compared
            pass

    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], unpickle.Tree):
        raise ArchiveError(
            f"{where}: expected a pair of samples and interval tree, got {type(entry).__name__}"
        )
    return entry


@contextmanager
def _pickled(path: str, member: str, where: str) -> Iterator[BinaryIO]:
    """The pickle of a member, at its beginning: behind the header of an array of objects."""
    kinds = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
    with (
        unreadable_named(where, "a readable member", *kinds),
        zipfile.ZipFile(path) as archive,
        archive.open(member) as file,
    ):
        size = archive.getinfo(member).file_size
        if size > _LARGEST_PICKLE:
            raise ArchiveError(f"{where}: expected at most {_LARGEST_PICKLE} bytes, got {size}")
        dtype = _npy_dtype(file)
        if dtype != np.dtype(object):
            raise ArchiveError(
                f"{where}: expected a pair of samples and interval tree, got an array of {dtype}"
            )
        yield cast(BinaryIO, file)


def _npy_dtype(file: Any) -> np.dtype:
    """The dtype in the header of an .npy file, which is read past."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        _, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        _, _, dtype = np.lib.format.read_array_header_2_0(file)
    return dtype


def _check_mono(dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
    is_sound = dtype.kind == "f" or dtype == np.int16
    if not is_sound or len(shape) != 1 or not shape[0]:
        raise ArchiveError(
            f"{where}: expected samples of shape (samples,), float or int16, "
            f"got {dtype} of shape {shape}"
        )
    if shape[0] > _LONGEST:
        raise ArchiveError(f"{where}: expected at most a day of samples, got {shape[0]}")


def _float32(block: np.ndarray) -> np.ndarray:
    """Samples as float32; int16 as in a WAV file."""
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):  # an infinite sample is named where all are checked
            return block.astype(np.float32, copy=False)
    return block * np.float32(2.0**-15)
