"""The archive as a .tar.gz or as an unpacked folder: pieces (audio or labels of one recording) for
workers to read.

Of the .tar.gz nothing is unpacked to disk, and what has no business in it is refused. The older
single files are in `stores`.
"""

import dataclasses
import functools
import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, cast

import h5py
import numpy as np

from .errors import ArchiveError, unreadable_named

Tell = Callable[[str], None]  # hears notices of what was put right
_BUFFER = 1 << 20  # bytes
_LARGEST_MEMBER = 1 << 32  # what a WAV file can hold
_LARGEST_HEADER = 1 << 24  # bytes before a member: its name, and tar's padding


@dataclasses.dataclass(frozen=True)
class Piece:
    """Audio or labels of one recording.

    Attributes:
        number: of the recording.
        kind: "audio" or "labels".
        member: its name, for errors.
        identity: changes when its bytes do.
        read: `read(tell)` yields blocks of samples (float32, 44.1 kHz) or of rows (LABELS),
            checked, never the whole of a long recording.
    """

    number: int
    kind: str
    member: str
    identity: str
    read: Callable[[Tell], Iterator[np.ndarray]]


class Shard(Protocol):
    """A share of a source: picklable, its pieces in one pass, each to be read before the next is
    asked for.
    """

    def pieces(self) -> Iterator[Piece]: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """MusicNet in one of the forms that people have.

    Attributes:
        path: where it lies.
        kind: "tar", "folder", "hdf5" or "npz".
        identity: of all of it; changes when its bytes do.
        n_recordings: None where only reading it tells.
        shards: `shards(n)` is the whole in shares for n processes.
    """

    path: Path
    kind: str
    identity: str
    n_recordings: int | None
    shards: Callable[[int], Sequence[Shard]]


def open_source(path: str | os.PathLike[str]) -> Source:
    """The source at `path`: a .tar.gz (or .tar), an unpacked folder, an HDF5 file or an .npz file,
    told by its content.

    Raises:
        FileNotFoundError: nothing there. ArchiveError: something else.
    """
    from . import stores

    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected MusicNet at {path}, got nothing there; try the archive or its folder"
        )

    with open(path, "rb") as file:
        head = file.read(265)
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return _tar(path)
    if head[:4] == b"PK\x03\x04":
        return stores.npz(path)
    if h5py.is_hdf5(path):
        return stores.hdf5(path)
    raise ArchiveError(
        f"{path}: expected a .tar.gz, an unpacked folder, an .h5 or an .npz file, "
        f"got a file that begins {head[:8]!r}"
    )


def stamp(path: Path) -> str:
    """Name, size and time of change of the file at `path`."""
    stat = path.stat()
    return f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}"


def number_of(name: str, where: str) -> int:
    """The recording that a file or group of this name holds: 1727 of "1727.wav" and of "id_1727".

    Raises:
        ArchiveError: the name holds no number.
    """
    digits = Path(name).stem.removeprefix("id_")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise ArchiveError(f"{where}: expected a recording's number as its name, got {name!r}")
    return int(digits)


def tell_all(labels: tuple[np.ndarray, list[str]], tell: Tell) -> Iterator[np.ndarray]:
    """A table of labels as its only block, once its notices are told."""
    table, notices = labels
    for notice in notices:
        tell(notice)
    yield table


def _kind_of(member: str) -> str | None:
    """ "audio" for .../{train,test}_data/*.wav, "labels" for .../{train,test}_labels/*.csv, None
    for anything else.
    """
    parts = member.split("/")
    if len(parts) < 2 or parts[-1].startswith("."):  # macOS puts ._1727.wav beside 1727.wav
        return None

    place = (parts[-2], Path(parts[-1]).suffix.lower())
    if place in (("train_data", ".wav"), ("test_data", ".wav")):
        return "audio"
    return "labels" if place in (("train_labels", ".csv"), ("test_labels", ".csv")) else None


def _read_member(
    kind: str, file: BinaryIO, size: int, where: str, tell: Tell
) -> Iterator[np.ndarray]:
    """Samples of a WAV file or labels of a CSV file, of `size` bytes."""
    from . import labels, wav

    if kind == "audio":
        yield from wav.blocks(file, where, tell)
        return
    labels.check_size(size, where)
    yield from tell_all(labels.from_csv(file.read(), where), tell)


# An unpacked folder


@dataclasses.dataclass(frozen=True)
class FolderShard:
    """Some files of the unpacked archive, by their paths below `root`."""

    root: str
    members: tuple[str, ...]

    def pieces(self) -> Iterator[Piece]:
        for member in self.members:
            path = Path(self.root, member)
            kind = _kind_of(member)
            assert kind is not None
            read = functools.partial(_read_file, path, kind, member)
            yield Piece(number_of(path.name, member), kind, member, stamp(path), read)


def _folder(path: Path) -> Source:
    """The unpacked archive at `path`, a shard a recording."""
    files = sorted(
        file
        for file in path.rglob("*")
        if _kind_of(file.relative_to(path).as_posix()) and file.is_file()
    )
    identity = hashlib.sha256("\n".join(map(stamp, files)).encode()).hexdigest()

    by_number: dict[int, list[str]] = {}
    for file in files:
        member = file.relative_to(path).as_posix()
        by_number.setdefault(number_of(file.name, member), []).append(member)

    def shards(_: int) -> Sequence[Shard]:
        return [FolderShard(os.fspath(path), tuple(members)) for members in by_number.values()]

    return Source(path, "folder", identity, len(by_number), shards)


def _read_file(path: Path, kind: str, member: str, tell: Tell) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        yield from _read_member(kind, file, size, member, tell)


# The archive as it is published


@dataclasses.dataclass(frozen=True)
class TarShard:
    """The recordings whose number is `share` modulo `n_shares`, read in a pass of its own over the
    archive.

    Each process decompresses all of it: the stream has no other entrance, and a second pass costs
    less than sending 22 GB of samples from one process to another.
    """

    path: str
    share: int
    n_shares: int

    def pieces(self) -> Iterator[Piece]:
        path = Path(self.path)
        archive = stamp(path)
        with open(path, "rb") as raw:
            is_packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # gzip, not tarfile's own reader, which does not compare the checksum
            stream = _Metered(gzip.GzipFile(fileobj=raw) if is_packed else raw)

            with _broken_stream_named(path.name):
                with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER) as tar:
                    yield from self._members(tar, stream, path.name, archive)
                stream.left = _LARGEST_HEADER
                while stream.read(_BUFFER):  # to the end, where the checksum is
                    pass

    def _members(
        self, tar: tarfile.TarFile, stream: "_Metered", name: str, archive: str
    ) -> Iterator[Piece]:
        for member in tar:
            _refuse_strange(member, name)
            stream.left = member.size + _LARGEST_HEADER
            kind = _kind_of(member.name) if member.isfile() else None
            if kind is None:
                continue

            number = number_of(member.name, member.name)
            if number % self.n_shares == self.share:
                identity = f"{archive}/{member.name}/{member.size}"
                read = functools.partial(_read_packed, tar, member, kind, name)
                yield Piece(number, kind, member.name, identity, read)


class _Metered:
    """A stream that tarfile reads no further than a member and the next header can reach.

    A header may claim anything of a name's length or of a gap, which tarfile reads through.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.left = _LARGEST_HEADER

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.left -= len(content) or _BUFFER  # at the end tarfile would ask for ever
        if self.left < 0:
            raise EOFError("headers that claim more than is there")
        return content


def _tar(path: Path) -> Source:
    """The archive at `path`, a shard a process."""

    def shards(n_shares: int) -> Sequence[Shard]:
        return [TarShard(os.fspath(path), share, n_shares) for share in range(n_shares)]

    return Source(path, "tar", stamp(path), None, shards)


def _refuse_strange(member: tarfile.TarInfo, where: str) -> None:
    """Raise ArchiveError for a member that is neither file nor folder, or lies outside the
    archive's own folder.
    """
    name = PurePosixPath(member.name.replace("\\", "/"))
    has_drive = bool(name.parts) and name.parts[0].endswith(":")
    if name.is_absolute() or ".." in name.parts or has_drive:
        raise ArchiveError(
            f"{where}: expected members inside the archive's folder, got {member.name!r}"
        )
    if member.issym() or member.islnk():
        raise ArchiveError(
            f"{where}: expected files, got {member.name!r}, a link to {member.linkname!r}"
        )
    if member.size > _LARGEST_MEMBER:
        raise ArchiveError(
            f"{where}: expected members of at most {_LARGEST_MEMBER} bytes, "
            f"got {member.name!r} of {member.size}"
        )
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ArchiveError(
            f"{where}: expected files, got {member.name!r}, of tar's type {member.type!r}"
        )


def _broken_stream_named(archive: str) -> AbstractContextManager[None]:
    """Raise ArchiveError for what goes wrong in a broken stream."""
    kinds = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError)
    return unreadable_named(archive, "a whole archive", *kinds)


class _Member:
    """The member that the stream is at, as a file to read forwards."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo, archive: str) -> None:
        file = tar.extractfile(member)
        assert file is not None
        self._file = file
        self._member = member
        self._archive = archive
        self._left = member.size

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        with _broken_stream_named(self._archive):
            content = self._file.read(size)
            self._left -= len(content)
            if len(content) < size:
                n_read = self._member.size - self._left
                raise EOFError(f"{n_read} of {self._member.size} bytes of {self._member.name}")
        return content


def _read_packed(
    tar: tarfile.TarFile, member: tarfile.TarInfo, kind: str, archive: str, tell: Tell
) -> Iterator[np.ndarray]:
    file = cast(BinaryIO, _Member(tar, member, archive))
    yield from _read_member(kind, file, member.size, member.name, tell)
