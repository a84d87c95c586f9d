"""Errors of the archive's builder that people see."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from cplxnet.musicnet.recordings import RecordingError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # what the system answers where a disk or a quota is full


class ArchiveError(ValueError):
    """The archive would poison an experiment: a line a fault, with member, line and value."""


class DiskFullError(OSError):
    """No space left; the text says what was kept and how to go on."""


@contextlib.contextmanager
def unreadable_named(where: str, expected: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise ArchiveError for what a damaged file raises in the block: `errors`, RecordingError."""
    try:
        yield
    except ArchiveError:
        raise
    except RecordingError as error:
        raise ArchiveError(str(error)) from None
    except errors as error:
        raise ArchiveError(
            f"{where}: expected {expected}, got {short(str(error))}; fetch it again"
        ) from None


def short(text: str) -> str:
    """The beginning of a text that a file brought, for an error that people read."""
    return text if len(text) <= 200 else f"{text[:200]}..."


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
