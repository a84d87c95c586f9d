"""The forms in which people hold MusicNet, each as pieces (audio or labels of one recording) that a worker can read."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import h5py
import numpy as np

from .faults import ArchiveError

Tell = Callable[[str], None]  # hears notices of what was put right
_LARGEST_TABLE = (
    1 << 26
)  # bytes of a CSV file, which is in memory at once; MusicNet's largest has 0.5 MB


@dataclasses.dataclass(frozen=True)
class Piece:
    """Audio or labels of recording `number`, read and checked by `read(tell)`; `identity` changes when its bytes do.

    `read` yields blocks of samples (float32, 44.1 kHz) or of rows (LABELS), never the whole of a long recording.
    """

    number: int
    kind: str  # "audio" or "labels"
    member: str
    identity: str
    read: Callable[[Tell], Iterator[np.ndarray]]


class Shard(Protocol):
    """A share of a source: picklable, its pieces in one pass, each to be read before the next is asked for."""

    def pieces(self) -> Iterator[Piece]: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """`shards(n)`: the whole in shares for n processes; `identity`: of all of it; `n_recordings`: None: unknown."""

    path: Path
    kind: str
    identity: str
    n_recordings: int | None
    shards: Callable[[int], Sequence[Shard]]


def stamp(path: Path) -> str:
    """Name, size and time of change of the file at `path`."""
    stat = path.stat()
    return f"{path.name}/{stat.st_size}/{stat.st_mtime_ns}"


def number_of(name: str, where: str) -> int:
    """The recording that a file or group of this name holds: 1727 of "1727.wav" and of "id_1727".

    Raises
    ------
    ArchiveError: the name holds no number.
    """
    digits = Path(name).stem.removeprefix("id_")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 9):
        raise ArchiveError(f"{where}: expected a recording's number as its name, got {name!r}")
    return int(digits)


def folder_kind(member: str) -> str | None:
    """ "audio" for .../{train,test}_data/*.wav, "labels" for .../{train,test}_labels/*.csv, None for anything else."""
    parts = member.split("/")
    if len(parts) < 2 or parts[-1].startswith("."):  # macOS puts ._1727.wav beside 1727.wav
        return None
    place = (parts[-2], Path(parts[-1]).suffix.lower())
    if place in (("train_data", ".wav"), ("test_data", ".wav")):
        return "audio"
    return "labels" if place in (("train_labels", ".csv"), ("test_labels", ".csv")) else None


def told(made: tuple[np.ndarray, list[str]], tell: Tell) -> Iterator[np.ndarray]:
    """A table as its only block, once its notices are told."""
    table, notices = made
    for notice in notices:
        tell(notice)
    yield table


def read_member(
    kind: str, file: BinaryIO, size: int, where: str, tell: Tell
) -> Iterator[np.ndarray]:
    """Samples of a WAV file or labels of a CSV file, of `size` bytes."""
    from . import labels, wav

    if kind == "audio":
        yield from wav.blocks(file, size, where, tell)
    elif size > _LARGEST_TABLE:
        raise ArchiveError(
            f"{where}: expected a CSV file of at most {_LARGEST_TABLE} bytes, got {size}"
        )
    else:
        yield from told(labels.from_csv(file.read(), where), tell)


@dataclasses.dataclass(frozen=True)
class FolderShard:
    """Some files of the unpacked archive, by their paths below `root`."""

    root: str
    members: tuple[str, ...]

    def pieces(self) -> Iterator[Piece]:
        for member in self.members:
            path, kind = Path(self.root, member), folder_kind(member)
            assert kind is not None
            yield Piece(
                number_of(path.name, member),
                kind,
                member,
                stamp(path),
                functools.partial(_read_file, path, kind, member),
            )


def _read_file(path: Path, kind: str, member: str, tell: Tell) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        yield from read_member(kind, file, os.fstat(file.fileno()).st_size, member, tell)


def _folder(path: Path) -> Source:
    files = sorted(
        p for p in path.rglob("*") if folder_kind(p.relative_to(path).as_posix()) and p.is_file()
    )
    members = [p.relative_to(path).as_posix() for p in files]
    by_number: dict[int, list[str]] = {}
    for member in members:
        by_number.setdefault(number_of(Path(member).name, member), []).append(member)
    identity = hashlib.sha256("\n".join(map(stamp, files)).encode()).hexdigest()

    def shards(_: int) -> Sequence[Shard]:
        return [FolderShard(os.fspath(path), tuple(some)) for some in by_number.values()]

    return Source(path, "folder", identity, len(by_number), shards)


def open_source(path: str | os.PathLike[str]) -> Source:
    """The source at `path`: a .tar.gz (or .tar), an unpacked folder, an HDF5 file or an .npz file, told by its content.

    Raises
    ------
    FileNotFoundError: nothing there; ArchiveError: something else.
    """
    from . import stores, tarball

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
        return tarball.source(path)
    if head[:4] == b"PK\x03\x04":
        return stores.npz(path)
    if h5py.is_hdf5(path):
        return stores.hdf5(path)
    raise ArchiveError(
        f"{path}: expected a .tar.gz, an unpacked folder, an .h5 or an .npz file, got a file that begins {head[:8]!r}"
    )
