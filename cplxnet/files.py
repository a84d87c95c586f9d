"""Files that are whole or not there: written under a temporary name, synced, then renamed.

Every file that matters is written by one of these functions, so a process that is killed at any
moment leaves the old file or the new one, and at most a hidden `.NAME.*.part` beside it, which the
next writing of that file removes.

A snapshot also holds a CRC-32 of all that is in it. Zip's own checksums are not enough: with one
bit of its directory flipped they still hold, and torch reads uninitialised memory for a tensor.
CRC-32 is the cheapest in the standard library (0.1 s for 300 MB), and finds what failing disks and
memory do; it is no guard against forgery.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import json
import os
import re
import shutil
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)

Check = Callable[[], None]
"""Raises where this process may not write any more, since another one has the work."""

CRC32 = "crc32"  # the key in a snapshot, of everything else in it; older ones have none
SILENT_S = 86400.0  # since a temporary file was written to, after which its writer counts as gone
FOLDER = 0x10  # of a zip entry's attributes: it is a folder, of which torch reads nothing


@contextlib.contextmanager
def written(path: str | os.PathLike[str], *, check: Check | None = None) -> Iterator[Path]:
    """The temporary name under which the block writes a file; renamed to `path` if all went well.

    Args:
        path: the file; its folder is made if need be.
        check: asked just before the renaming.

    Raises:
        OSError: `path` is there and is not a regular file (a device, say), which is not to be
            replaced.
    """
    path = Path(path)
    check_regular(path)

    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path)
    temporary = _hidden(path, "part")
    try:
        with _named(path, temporary):
            yield temporary

            move(temporary, path, check=check)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _named(path: str | os.PathLike[str], temporary: Path | None = None) -> Iterator[None]:
    """An error of the system in the block names `path`: a full or failing disk names no file, a
    folder that cannot be written the temporary one.
    """
    try:
        yield
    except OSError as error:
        # without a number it is one of ours, which says all in words
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            error.filename = os.fspath(path)
        raise


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise OSError where something else than a regular file is: a folder, a device, a pipe, of
    which nothing is to be replaced and the reading may have no end.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "something else"
        raise OSError(f"{os.fspath(path)}: expected a regular file or nothing there, got {kind}")


def move(source: Path, target: Path, *, check: Check | None = None) -> None:
    """Rename a finished file on its file system; the new name outlasts a power cut.

    A file of the name `target` is replaced. check: asked just before.
    """
    with source.open("rb") as file:
        os.fsync(file.fileno())
    if check is not None:
        check()
    os.replace(source, target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk before anything older is removed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some FUSE, some NFS
            raise
    finally:
        os.close(descriptor)


# -- temporary files -------------------------------------------------------------------------------


def _hidden(path: Path, ending: str) -> Path:
    """A name beside `path` that nobody else uses, and that says whose it is."""
    own = f"{os.getpid()}-{_tag(machine())}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{own}.{ending}")


@functools.cache
def machine() -> str:
    """Where a process's number means this process: the kernel's boot and its process namespace.

    Empty where it cannot be told (not Linux).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _tag(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def tidy(path: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers of `path` that were killed: of processes of this
    machine that have ended, and of others what was not written to for a day.
    """
    path = Path(path)
    own = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-(?:([0-9a-f]{{8}})-)?[0-9a-f]{{8}}\.part")
    here = machine()
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        writer = own.fullmatch(part.name)
        if writer is None:  # of a file whose name only begins like this one's
            continue

        with contextlib.suppress(OSError):  # it is gone by now, or another user's
            is_left = here != "" and writer[2] == _tag(here) and ended(int(writer[1]))
            if is_left or time.time() - part.stat().st_mtime > SILENT_S:
                part.unlink()


def ended(pid: int) -> bool:
    """Whether no process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # it is another user's
    return False


def sweep(folder: str | Path, name: str = "") -> None:
    """Remove all temporary files of the files in `folder` whose names begin with `name`.

    For the only writer of these. One that only tries to `create` such a file loses it to the
    caller.
    """
    for ending in ("part", "draft", "tmp"):  # tmp: of versions before 2026-12
        for path in Path(folder).glob(f".{glob.escape(name)}*.{ending}"):
            path.unlink(missing_ok=True)


# -- writing ---------------------------------------------------------------------------------------


def write(
    path: str | os.PathLike[str], fill: Callable[[BinaryIO], object], *, check: Check | None = None
) -> None:
    """Write a file by `fill(file)`, which is given it open. Other arguments as of `written`."""
    with written(path, check=check) as temporary, temporary.open("wb") as file:
        fill(file)


def write_text(path: str | Path, text: str, *, check: Check | None = None) -> None:
    """Write `text` as UTF-8."""
    write(path, lambda file: file.write(text.encode()), check=check)


def write_json(path: str | Path, value: Any, *, check: Check | None = None) -> None:
    """Write `value` as indented JSON. Arguments and errors as of `written`.

    Raises:
        ValueError: NaN or infinity in it, which JSON cannot say.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", check=check)


def write_tensors(path: str | Path, value: dict[str, Any], *, check: Check | None = None) -> None:
    """Write tensors and plain values that `torch.load(path, weights_only=True)` reads back."""
    import torch  # late: it takes seconds, and reading a run's status needs none of it

    def fill(file: BinaryIO) -> None:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # torch wraps "no space left on device" in an error of its own; the system's says more
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from error

    write(path, fill, check=check)


def write_snapshot(path: str | Path, value: dict[str, Any], *, check: Check | None = None) -> None:
    """As `write_tensors`, with a checksum of everything, which `read_tensors` compares.

    Arguments and errors as of `written`.
    """
    write_tensors(path, {**value, CRC32: _crc32(value)}, check=check)


def _crc32(value: Any, crc: int = 0) -> int:
    """CRC-32 of tensors (dtype, shape, bytes) and plain values, nested in dicts and lists."""
    import torch

    if isinstance(value, torch.Tensor):
        crc = zlib.crc32(f"{value.dtype} {tuple(value.shape)}".encode(), crc)
        numbers = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        return zlib.crc32(numbers.view(torch.uint8).numpy().data, crc)
    if not isinstance(value, dict | list | tuple):
        return zlib.crc32(repr(value).encode(), crc)

    crc = zlib.crc32(f"{type(value).__name__} {len(value)}".encode(), crc)
    for item in value.items() if isinstance(value, dict) else value:
        crc = _crc32(item, crc)
    return crc


def create(path: Path, text: str) -> None:
    """Make a new file that holds `text` from the first; if several processes try, one succeeds.

    Raises:
        FileExistsError: the file is there, or another process makes it and has swept the folder.
    """
    draft = _hidden(path, "draft")
    try:
        with _named(path, draft), draft.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            # NFS may have made the link and lost its answer: then the draft has two names (link(2),
            # open(2) on O_EXCL)
            try:
                n_names = draft.stat().st_nlink
            except FileNotFoundError:  # swept
                n_names = 0
            if n_names < 2:
                raise
        except FileNotFoundError as error:
            raise FileExistsError(f"{path}: made by another process") from error
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _create_by_name(path, text)
    finally:
        draft.unlink(missing_ok=True)


def _create_by_name(path: Path, text: str) -> None:
    """`create` where there are no hard links (FAT, some FUSE): empty at once, filled next."""
    with path.open("x") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:  # a full disk: an empty file would look like another process's
            path.unlink(missing_ok=True)
            raise


def share(source: Path, target: Path, *, check: Check | None = None) -> None:
    """Give the file `source` the name `target` too, by a hard link or else a copy.

    Files here are replaced, never written into, so neither name can change what the other shows.

    `check` and errors as of `written`; FileNotFoundError: there is no `source`.
    """
    with written(target, check=check) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


# -- reading ---------------------------------------------------------------------------------------


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read what `write_tensors` or `write_snapshot` wrote, on the CPU, executing nothing.

    Raises:
        OSError, MemoryError: the system cannot read it now, or there is no such file; it may well
            be sound.
        ValueError: the file, which the text names, is truncated, altered or holds anything but
            tensors and plain values.
    """
    import torch

    try:
        with _named(path), zipfile.ZipFile(path) as archive:
            if any(entry.external_attr & FOLDER for entry in archive.infolist()):
                raise ValueError("a tensor marked as a folder")
            altered = archive.testzip()  # torch reads past a wrong checksum
        if altered is not None:
            raise ValueError(f"a wrong checksum in {altered}")

        value = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}")
        if CRC32 in value and value.pop(CRC32) != _crc32(value):
            raise ValueError("other values than were written")
        return value
    except Exception as error:  # torch and zipfile raise half a dozen types; most say it is useless
        if _of_system(error):
            raise
        raise ValueError(
            f"{path}: expected a snapshot of tensors and plain values, got {error}"
        ) from error


def _of_system(error: Exception) -> bool:
    """Whether an error of reading says nothing of the file, as one of the disk or of memory."""
    if isinstance(error, OSError):
        return error.errno not in (None, errno.EINVAL)  # as bz2 and zipfile raise of damaged files
    return no_memory(error)


def no_memory(error: BaseException) -> bool:
    """Whether an error says that this machine has no memory left, in Python or in torch."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)
