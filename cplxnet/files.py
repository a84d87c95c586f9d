"""Files that are whole or not there: written under a temporary name in the same folder, synced, then renamed."""

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

Check = Callable[[], None]  # raises where the writer has no right to write any more


def write(
    path: str | os.PathLike[str], fill: Callable[[BinaryIO], object], *, check: Check | None = None
) -> None:
    """Call `fill(file)` on a temporary file beside `path`, then rename it to `path`; on an error nothing is left.

    check: called just before the renaming.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes it private
        if check is not None:
            check()
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """The temporary name under which the block is to write the file; renamed to `path` if it ends without an error.

    Whoever is killed in the block leaves a hidden `.NAME.PID.part` and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: str | Path) -> None:
    """Remove the temporary files that writers killed in the middle have left; for the folder's only writer."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, *, check: Check | None = None) -> None:
    """Write `text` as UTF-8."""

    def fill(file: BinaryIO) -> None:
        file.write(text.encode())

    write(path, fill, check=check)


def write_json(path: str | Path, value: Any, *, check: Check | None = None) -> None:
    """Write `value` as indented JSON; NaN and infinity are refused (ValueError), since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n", check=check)


def write_tensors(path: str | Path, value: dict[str, Any], *, check: Check | None = None) -> None:
    """Write tensors and plain values so that `torch.load(path, weights_only=True)` reads them back."""
    import torch  # late: it takes seconds, and reading a run's status needs none of it

    def fill(file: BinaryIO) -> None:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # how torch tells of a full disk; the system says it clearer
            cause = error.__context__
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__context__
            if cause is None:
                raise
            raise cause from error

    write(path, fill, check=check)


def read_tensors(path: str | Path) -> dict[str, Any]:
    """Read what `write_tensors` wrote, on the CPU, executing nothing.

    Raises ValueError, naming the file, where it is truncated, altered or holds anything but tensors and plain values.
    """
    import torch

    try:
        with zipfile.ZipFile(
            path
        ) as archive:  # torch reads past a wrong checksum, so it is looked at first
            altered = archive.testzip()
        if altered is not None:
            raise ValueError(f"a wrong checksum in {altered}")
        value = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__}")
        return value
    except FileNotFoundError:
        raise
    except (
        Exception
    ) as error:  # torch raises half a dozen types here; whichever, the file is unusable
        raise ValueError(
            f"{path}: expected a snapshot of tensors and plain values, got {error}"
        ) from error


def share(source: Path, target: Path, *, check: Check | None = None) -> None:
    """Have `source` under the name `target` too, without a second copy on disk where the file system can do that.

    Files here are replaced, never written into, so that neither name can change what the other shows.
    """
    name = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        name.unlink(missing_ok=True)
        os.link(source, name)
        if check is not None:
            check()
        os.replace(name, target)
        return
    with source.open("rb") as file:
        write(target, lambda copy: shutil.copyfileobj(file, copy), check=check)
