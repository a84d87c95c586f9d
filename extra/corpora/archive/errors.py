"""Errors of the archive's builder that people see."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # what the system answers where a disk or a quota is full


class ArchiveError(ValueError):
    """The archive would poison an experiment: a line a fault, with member, line and value."""


class DiskFullError(OSError):
    """No space left; the text says what was kept and how to go on."""


@contextlib.contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Raise DiskFullError where the disk gets full in the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFullError(
            f"{folder}: no space left; the recordings done so far are kept there, "
            "make room and run again to go on"
        ) from None
