"""HDF5 files to write, on disks that may be full."""

import io
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np


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
