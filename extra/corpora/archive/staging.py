"""What is done of a build, recording by recording, so that a killed one goes on.

A piece is staged as plain values in a file for each of its forms, `id_1727.audio.HASH.full` (44.1
kHz) and `.low` (11 kHz) or `id_1727.labels.HASH.rows`, and `id_1727.audio.HASH.json`, written last:
how many values there are, and the notices. The hash is of what it was made from and by which code:
another source or version makes other files.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cplxnet.files import written
from cplxnet.musicnet import resample
from cplxnet.musicnet.recordings import LABELS
from cplxnet.musicnet.resample import resample_blocks
from cplxnet.musicnet.transcription import audio

from .errors import ArchiveError, full_disk_named
from .sources import Piece, Shard

_CODE = ("wav.py", "labels.py", "stores.py", "unpickle.py", "staging.py")
_DTYPES = {"full": np.dtype("<f4"), "low": np.dtype("<f4"), "rows": LABELS}


@dataclasses.dataclass(frozen=True)
class Staged:
    """What became of one piece of a recording.

    Attributes:
        number: of the recording.
        kind: "audio" or "labels".
        member: where it is from.
        file: the name of its .json, "" if it failed.
        fault: why it failed.
        notices: what was put right.
    """

    number: int
    kind: str
    member: str
    file: str = ""
    fault: str = ""
    notices: tuple[str, ...] = ()


def recipe() -> str:
    """A sha256 of the code and the libraries' versions that decide what a recording becomes."""
    here = Path(__file__).parent
    code = [here / name for name in _CODE] + [Path(resample.__file__), Path(audio.__file__)]
    libraries = ("soxr", "soundfile", "numpy", "h5py")

    digest = hashlib.sha256(b"".join(path.read_bytes() for path in code))
    digest.update(repr([importlib.metadata.version(name) for name in libraries]).encode())
    return digest.hexdigest()


def stage(shard: Shard, folder: Path, recipe: str) -> list[Staged]:
    """Stage every piece of `shard` in `folder`, unless it is there; a fault ends its own piece
    only.

    Raises:
        ArchiveError: the shard itself cannot be read on. DiskFullError.
    """
    pieces = []
    for piece in shard.pieces():
        key = hashlib.sha256(f"{recipe}/{piece.kind}/{piece.identity}".encode()).hexdigest()[:16]
        path = folder / f"id_{piece.number:04d}.{piece.kind}.{key}.json"
        try:
            if not _is_staged(path):
                _make(piece, path)
        except ArchiveError as error:
            pieces.append(Staged(piece.number, piece.kind, piece.member, fault=str(error)))
            continue

        notices = tuple(json.loads(path.read_text())["notices"])
        pieces.append(Staged(piece.number, piece.kind, piece.member, path.name, notices=notices))
    return pieces


def values(path: Path, form: str) -> np.ndarray:
    """The values "full", "low" or "rows" of the staged piece whose .json is at `path`.

    They are left on disk: only slices are ever in memory.
    """
    count = json.loads(path.read_text())["values"][form]
    if not count:
        return np.empty(0, _DTYPES[form])  # which cannot be mapped
    return np.memmap(path.with_suffix(f".{form}"), _DTYPES[form], "r", shape=(count,))


def check(source: str, pieces: Sequence[Staged]) -> None:
    """Raise ArchiveError with every fault: pieces that failed, came twice, or lack their other
    half.
    """
    lines = [piece.fault for piece in pieces if piece.fault]

    members: dict[tuple[int, str], list[str]] = {}
    for piece in pieces:
        members.setdefault((piece.number, piece.kind), []).append(piece.member)
    for (number, kind), names in sorted(members.items()):
        if len(names) > 1:
            lines.append(
                f"{', '.join(names)}: expected one {kind} of recording {number}, got {len(names)}"
            )
    for (number, kind), names in sorted(members.items()):
        other = "labels" if kind == "audio" else "audio"
        if (number, other) not in members:
            lines.append(f"{names[0]}: expected {other} of recording {number} too, got none")

    if not pieces:
        lines.append(
            "expected recordings (train_data/*.wav with train_labels/*.csv, or groups id_NNNN), "
            "got none"
        )
    if lines:
        count = f"{len(lines)} fault{'s' * (len(lines) > 1)}"
        raise ArchiveError(f"{source}: {count}\n  " + "\n  ".join(lines))


def _is_staged(path: Path) -> bool:
    """Whether the piece is there, whole: after a power cut a file may be shorter than its name
    promises.
    """
    try:
        counts = json.loads(path.read_text())["values"]
        return all(
            path.with_suffix(f".{form}").stat().st_size == count * _DTYPES[form].itemsize
            for form, count in counts.items()
        )
    except (OSError, ValueError):
        return False


def _make(piece: Piece, path: Path) -> None:
    """Stage `piece`, block by block; `path` is that of its .json."""
    notices: list[str] = []
    forms = ("full", "low") if piece.kind == "audio" else ("rows",)

    with full_disk_named(path.parent):
        with contextlib.ExitStack() as stack:
            places = [stack.enter_context(written(path.with_suffix(f".{form}"))) for form in forms]
            files = [stack.enter_context(open(place, "wb")) for place in places]

            # a chain of generators: a block is written at 44.1 kHz, resampled and written again
            blocks = piece.read(notices.append)
            if piece.kind == "audio":
                blocks = resample_blocks(_append(files[0], _finite(blocks, piece.member)))
            collections.deque(_append(files[-1], blocks), maxlen=0)

            counts = {
                form: file.tell() // _DTYPES[form].itemsize
                for form, file in zip(forms, files, strict=True)
            }
        with written(path) as place:
            place.write_text(json.dumps({"values": counts, "notices": notices}))


def _finite(blocks: Iterable[np.ndarray], where: str) -> Iterator[np.ndarray]:
    """The same blocks. Raises ArchiveError at the first sample that is NaN or infinite."""
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
    """The same blocks, each written to `file`."""
    for block in blocks:
        file.write(np.ascontiguousarray(block).data)
        yield block
