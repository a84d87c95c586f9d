"""What is done of a build, recording by recording, so that a killed one goes on: files that are whole or not there.

A staged file's name holds a hash of what it was made from and by which code: another source or version makes others.
"""

import errno
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from cplxnet.musicnet.resample import resample

from .faults import ArchiveError, DiskFullError, Seen
from .sources import Piece, Shard

_CODE = ("wav.py", "labels.py", "stores.py", "unpickle.py", "staging.py", "../resample.py")


def recipe() -> str:
    """A sha256 over the code and the libraries that decide what a recording becomes."""
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join((here / name).read_bytes() for name in _CODE))
    digest.update(repr([importlib.metadata.version(p) for p in ("soxr", "numpy", "h5py")]).encode())
    return digest.hexdigest()


def is_full(error: OSError) -> bool:
    """Whether `error` says that the disk is full; h5py has the number in its text only."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or f"errno = {errno.ENOSPC}" in str(error)


def disk_full(folder: Path) -> DiskFullError:
    return DiskFullError(
        f"{folder}: no space left; the recordings done so far are kept there, make room and run again to go on"
    )


def _save(path: Path, arrays: dict[str, np.ndarray], notices: list[str]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, notices=np.array(json.dumps(notices)), **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        if is_full(error):
            raise disk_full(path.parent) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """The arrays of a staged file: `full` and `low` of audio, `labels` of labels; and its `notices`, a list."""
    with np.load(path, allow_pickle=False) as file:
        return {name: json.loads(str(file[name])) if name == "notices" else file[name] for name in file.files}


def notices(path: Path) -> tuple[str, ...]:
    """The notices of a staged file, read alone."""
    with np.load(path, allow_pickle=False) as file:
        return tuple(json.loads(str(file["notices"])))


def _make(piece: Piece, path: Path) -> None:
    content, told = piece.load()
    if piece.kind == "labels":
        return _save(path, {"labels": content}, told)
    finite = np.isfinite(content)
    if not finite.all():
        k = int(np.argmin(finite))
        raise ArchiveError(f"{piece.member}: expected finite samples, got {content[k]} at sample {k}")
    _save(path, {"full": content, "low": resample(content)}, told)


def stage(shard: Shard, folder: Path, recipe: str) -> list[Seen]:
    """Every piece of `shard` in `folder`, made or found there, with what was seen; a fault ends its own piece only.

    Raises
    ------
    ArchiveError: the shard itself cannot be read on; DiskFullError.
    """
    seen = []
    for piece in shard.pieces():
        key = hashlib.sha256(f"{recipe}/{piece.kind}/{piece.identity}".encode()).hexdigest()[:16]
        name = f"id_{piece.number:04d}.{piece.kind}.{key}.npz"
        fault = ""
        if not (folder / name).exists():
            try:
                _make(piece, folder / name)
            except ArchiveError as error:
                fault, name = str(error), ""
        told = notices(folder / name) if name else ()
        seen.append(Seen(piece.number, piece.kind, piece.member, name, fault, told))
    return seen
