"""A file that is whole or not there: written under a temporary name in the same folder, synced, then renamed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

Check = Callable[[], None]  # raises where the writer has no right to write any more


def write(path: str | os.PathLike[str], fill: Callable[[BinaryIO], object], *, check: Check | None = None) -> None:
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
