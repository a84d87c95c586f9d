"""What is done of a build, recording by recording, so that a killed one goes on.

A piece is staged as plain values in a file for each of its forms, `id_1727.audio.HASH.full` (44.1 kHz) and `.low`
(11 kHz) or `id_1727.labels.HASH.rows`, and `id_1727.audio.HASH.json`, written last: how many values there are, and the
notices. The hash is of what it was made from and by which code: another source or version makes other files.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cplxnet.files import written
from cplxnet.musicnet import resample
from cplxnet.musicnet.recordings import LABELS
from cplxnet.musicnet.resample import resample_blocks

from .faults import NO_SPACE, ArchiveError, DiskFullError, Seen
from .sources import Piece, Shard

_CODE = ("wav.py", "labels.py", "stores.py", "unpickle.py", "outline.py", "staging.py")
_DTYPES = {"full": np.dtype("<f4"), "low": np.dtype("<f4"), "rows": LABELS}


def recipe() -> str:
    """A sha256 over the code and the libraries that decide what a recording becomes."""
    here = Path(__file__).parent
    digest = hashlib.sha256(
        b"".join(
            path.read_bytes()
            for path in (*(here / name for name in _CODE), Path(resample.__file__))
        )
    )
    digest.update(repr([importlib.metadata.version(p) for p in ("soxr", "numpy", "h5py")]).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def telling_full(folder: Path) -> Iterator[None]:
    """A full disk in the block as DiskFullError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFullError(
            f"{folder}: no space left; the recordings done so far are kept there, make room and run again to go on"
        ) from None


@dataclasses.dataclass(frozen=True)
class Values:
    """Staged values on disk: an array of `shape` (n,) of which only slices are ever in memory."""

    path: Path
    dtype: np.dtype
    shape: tuple[int]
    ndim: int = 1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        begin, end, _ = part.indices(len(self))
        return np.fromfile(self.path, self.dtype, end - begin, offset=begin * self.dtype.itemsize)


def values(path: Path, form: str) -> Values:
    """The values of `form`, "full", "low" or "rows", of the staged piece whose .json is at `path`."""
    return Values(
        path.with_suffix(f".{form}"), _DTYPES[form], (json.loads(path.read_text())["values"][form],)
    )


def notices(path: Path) -> tuple[str, ...]:
    """The notices of a staged piece."""
    return tuple(json.loads(path.read_text())["notices"])


def _is_staged(path: Path) -> bool:
    """Whether the piece is there, whole: after a power cut a file may be shorter than its name promises."""
    try:
        counts = json.loads(path.read_text())["values"]
        return all(
            path.with_suffix(f".{form}").stat().st_size == count * _DTYPES[form].itemsize
            for form, count in counts.items()
        )
    except (OSError, ValueError):
        return False


def _finite(blocks: Iterable[np.ndarray], where: str) -> Iterator[np.ndarray]:
    begin = 0
    for block in blocks:
        finite = np.isfinite(block)
        if not finite.all():
            k = int(np.argmin(finite))
            raise ArchiveError(
                f"{where}: expected finite samples, got {block[k]} at sample {begin + k}"
            )
        begin += len(block)
        yield block


def _append(file: BinaryIO, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        file.write(np.ascontiguousarray(block).data)
        yield block


def _make(piece: Piece, path: Path) -> None:
    """Stage `piece`, block by block; `path` is that of its .json."""
    told: list[str] = []
    forms = ("full", "low") if piece.kind == "audio" else ("rows",)
    with telling_full(path.parent):
        with contextlib.ExitStack() as stack:
            places = [stack.enter_context(written(path.with_suffix(f".{form}"))) for form in forms]
            files = [stack.enter_context(open(place, "wb")) for place in places]
            blocks = piece.read(told.append)
            if piece.kind == "audio":
                blocks = resample_blocks(_append(files[0], _finite(blocks, piece.member)))
            collections.deque(_append(files[-1], blocks), maxlen=0)
            sizes = {
                form: file.tell() // _DTYPES[form].itemsize
                for form, file in zip(forms, files, strict=True)
            }
        with written(path) as place:
            place.write_text(json.dumps({"values": sizes, "notices": told}))


def stage(shard: Shard, folder: Path, recipe: str) -> list[Seen]:
    """Every piece of `shard` in `folder`, made or found there, with what was seen; a fault ends its own piece only.

    Raises
    ------
    ArchiveError: the shard itself cannot be read on; DiskFullError.
    """
    seen = []
    for piece in shard.pieces():
        key = hashlib.sha256(f"{recipe}/{piece.kind}/{piece.identity}".encode()).hexdigest()[:16]
        name = f"id_{piece.number:04d}.{piece.kind}.{key}.json"
        fault = ""
        if not _is_staged(folder / name):
            try:
                _make(piece, folder / name)
            except ArchiveError as error:
                fault, name = str(error), ""
        told = notices(folder / name) if name else ()
        seen.append(Seen(piece.number, piece.kind, piece.member, name, fault, told))
    return seen
