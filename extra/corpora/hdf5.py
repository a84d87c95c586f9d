"""HDF5 files of recordings, written whole, on disks that may be full."""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from cplxnet.files import written
from cplxnet.musicnet import recordings

_CHUNK = 1 << 16  # samples that share a checksum: 256 KiB, read at 1.5 GB/s as if in one piece
_BLOCK = 16 * _CHUNK  # samples that `write` has in memory at once


class _Patient(io.RawIOBase):
    """A file for h5py whose writes never fail.

    What the disk refuses is kept in memory, and the refusal in `error`. HDF5 2.0 ends the process
    with a segmentation fault where a write fails on closing the file, as on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115, closed by Hdf5
        self._position = 0
        self._refused: list[tuple[int, bytes]] = []

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            self._position += offset
        else:
            self._position = self._file.seek(offset, whence)
        return self._position

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            done = 0
            while self.error is None and done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        if self.error is not None:
            self._refused.append((self._position, bytes(view)))
        self._position += len(view)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view, begin = memoryview(buffer).cast("B"), self._position
        view[:] = bytes(len(view))
        self._file.seek(begin)
        self._file.readinto(view)
        for offset, data in self._refused:
            low, high = max(begin, offset), min(begin + len(view), offset + len(data))
            if low < high:
                view[low - begin : high - begin] = data[low - offset : high - offset]
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def close(self) -> None:
        self._file.close()
        super().close()


class Hdf5:
    """An HDF5 file to write, as a context, that survives a full disk and tells of it.

    Attributes:
        root: the `h5py.File`.

    Raises:
        OSError: the system's, with its errno, on leaving and by `check`, which is to be called
            after every few megabytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Patient(path)
        self.root = h5py.File(self._file, "w")

    def check(self) -> None:
        """Raise what the disk answered to the first write that it refused."""
        if self._file.error is not None:
            raise self._file.error

    def append(self, dataset: h5py.Dataset, begin: int, values: np.ndarray) -> None:
        """Write `values` (n,) at `begin` of a one-dimensional dataset, and check."""
        dataset[begin : begin + len(values)] = values
        self.check()

    def __enter__(self) -> "Hdf5":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            self.root.close()
        finally:
            self._file.close()
        if kind is None:
            self.check()


def write(
    path: str | os.PathLike[str],
    items: Iterable[recordings.Recording],
    *,
    rate_hz: int,
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write recordings to the file at `path`, each one checked.

    The file appears whole or not at all: it is written beside `path` and renamed. It has no time
    stamps, so equal recordings give equal bytes.

    Args:
        path: the file.
        items: consumed one by one. Their `data` are asked for shape, type and slices of 4 MiB
            alone, so they need not be in memory.
        rate_hz: samples per second.
        attributes: added to the root.

    Raises:
        recordings.RecordingError: as `recordings.recordings` raises on reading, or no recording to
            write.
        OSError: the disk is full.
    """
    path = Path(path)
    with written(path) as temporary, Hdf5(temporary) as file:
        file.root.attrs["rate_hz"] = rate_hz
        for name, value in (attributes or {}).items():
            file.root.attrs[name] = value
        for recording in items:
            _write(file, recording, rate_hz, f"{path}, recording {recording.key}")
        if not len(file.root):
            raise recordings.RecordingError(
                f"{path}: expected at least one recording to write, got none"
            )


def _create(group: h5py.Group, name: str, values: np.ndarray, dtype: np.dtype) -> h5py.Dataset:
    pieces = {"chunks": (min(len(values), _CHUNK),), "fletcher32": True} if len(values) else {}
    return group.create_dataset(name, (len(values),), dtype, track_times=False, **pieces)


def _write(file: Hdf5, recording: recordings.Recording, rate_hz: int, where: str) -> None:
    recordings.check_shape(recording.data, where)
    labels = recordings.check_labels(recording.labels, where)
    group = file.root.create_group(recording.key, track_times=False)
    dataset = _create(group, "data", recording.data, np.dtype("<f4"))
    for begin in range(0, len(recording.data), _BLOCK):
        file.append(
            dataset,
            begin,
            recordings.check_data(recording.data[begin : begin + _BLOCK], where, begin=begin),
        )
    file.append(_create(group, "labels", labels, recordings.LABELS), 0, labels)
    for name in recordings.TEXTS:
        group.attrs[name] = getattr(recording, name)
    group.attrs["seconds"] = len(recording.data) / rate_hz
    file.check()
