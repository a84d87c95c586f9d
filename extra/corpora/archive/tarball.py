"""musicnet.tar.gz as a stream: nothing of it is unpacked to disk, and what has no business in it is refused."""

import dataclasses
import functools
import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import numpy as np

from .faults import ArchiveError
from .sources import Piece, Shard, Source, Tell, folder_kind, number_of, read_member, stamp

_BUFFER = 1 << 20


def _refuse_strange(member: tarfile.TarInfo, where: str) -> None:
    """Raise ArchiveError for a member that is neither file nor folder, or lies outside the archive's own folder."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts[:1] and name.parts[0].endswith(":")):
        raise ArchiveError(
            f"{where}: expected members inside the archive's folder, got {member.name!r}"
        )
    if member.issym() or member.islnk():
        raise ArchiveError(
            f"{where}: expected files, got {member.name!r}, a link to {member.linkname!r}"
        )
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(
            f"{where}: expected files, got {member.name!r}, of tar's type {member.type!r}"
        )


@contextmanager
def _whole(archive: str) -> Iterator[None]:
    """What goes wrong in a broken stream as ArchiveError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise ArchiveError(
            f"{archive}: expected a whole archive, got {error}; fetch it again"
        ) from None


@dataclasses.dataclass(frozen=True)
class TarShard:
    """The recordings whose number is `share` modulo `n_shares`, found in a pass of its own over the archive.

    Each process decompresses all of it: the stream has no other entrance, and a second pass costs less than sending
    22 GB of samples from one process to another.
    """

    path: str
    share: int
    n_shares: int

    def pieces(self) -> Iterator[Piece]:
        path = Path(self.path)
        archive = stamp(path)
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # gzip, not tarfile's own reader, which does not compare the checksum
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw
            with _whole(path.name):
                with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER) as tar:
                    yield from self._members(tar, path.name, archive)
                while stream.read(_BUFFER):  # to the end, where the checksum is
                    pass

    def _members(self, tar: tarfile.TarFile, name: str, archive: str) -> Iterator[Piece]:
        for member in tar:
            _refuse_strange(member, name)
            kind = folder_kind(member.name) if member.isfile() else None
            if kind is not None:
                number = number_of(member.name, member.name)
                if number % self.n_shares == self.share:
                    read = functools.partial(_read, tar, member, kind, name)
                    yield Piece(
                        number, kind, member.name, f"{archive}/{member.name}/{member.size}", read
                    )


class _Member:
    """The member that the stream is at, as a file to read forwards."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo, archive: str) -> None:
        file = tar.extractfile(member)
        assert file is not None
        self._file, self._member, self._archive, self._left = file, member, archive, member.size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        with _whole(self._archive):
            found = self._file.read(size)
            self._left -= len(found)
            if len(found) < size:
                raise EOFError(
                    f"{self._member.size - self._left} of {self._member.size} bytes of {self._member.name}"
                )
        return found


def _read(
    tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str, archive: str, tell: Tell
) -> Iterator[np.ndarray]:
    yield from read_member(
        kind, cast(BinaryIO, _Member(tar, member, archive)), member.size, member.name, tell
    )


def source(path: Path) -> Source:
    """The archive at `path` in as many shares as there are processes."""

    def shards(n_shares: int) -> Sequence[Shard]:
        return [TarShard(os.fspath(path), share, n_shares) for share in range(n_shares)]

    return Source(path, "tar", stamp(path), None, shards)
