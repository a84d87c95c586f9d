"""musicnet.tar.gz as a stream: nothing of it is unpacked to disk, and what has no business in it is refused."""

import dataclasses
import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from .faults import ArchiveError
from .sources import Loaded, Piece, Shard, Source, folder_kind, load_member, number_of, stamp

_BUFFER = 1 << 20
_LARGEST = 1 << 30  # bytes of a member, 1.7 hours of float samples: all of it is in memory at once


def _refuse_strange(member: tarfile.TarInfo, where: str) -> None:
    """Raise ArchiveError for a member that is neither file nor folder, or lies outside the archive's own folder."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts[:1] and name.parts[0].endswith(":")):
        raise ArchiveError(f"{where}: expected members inside the archive's folder, got {member.name!r}")
    if member.issym() or member.islnk():
        raise ArchiveError(f"{where}: expected files, got {member.name!r}, a link to {member.linkname!r}")
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(f"{where}: expected files, got {member.name!r}, of tar's type {member.type!r}")
    if member.size > _LARGEST:
        raise ArchiveError(
            f"{where}: expected members of at most {_LARGEST} bytes, got {member.name!r} of {member.size}"
        )


@contextmanager
def _whole(archive: str) -> Iterator[None]:
    """What goes wrong in a broken stream as ArchiveError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise ArchiveError(f"{archive}: expected a whole archive, got {error}; fetch it again") from None


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
                    load = _Loader(tar, member, kind, name)
                    yield Piece(number, kind, member.name, f"{archive}/{member.name}/{member.size}", load)


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Reads the member that the stream is at."""

    tar: tarfile.TarFile
    member: tarfile.TarInfo
    kind: str
    archive: str

    def __call__(self) -> Loaded:
        with _whole(self.archive):
            file = self.tar.extractfile(self.member)
            assert file is not None
            content = file.read()
            if len(content) < self.member.size:
                raise EOFError(f"{len(content)} of {self.member.size} bytes of {self.member.name}")
        return load_member(self.kind, content, self.member.name)


def source(path: Path) -> Source:
    """The archive at `path` in as many shares as there are processes."""

    def shards(n_shares: int) -> Sequence[Shard]:
        return [TarShard(os.fspath(path), share, n_shares) for share in range(n_shares)]

    return Source(path, "tar", stamp(path), None, shards)
