"""What is wrong with a manifest: every fault with its JSON path, its value and what would be accepted."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_SHOWN = 60  # characters of a value that an error line shows


class Absent:
    """The value of a key that is not there."""

    def __repr__(self) -> str:
        return "nothing"

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        path: dotted JSON path, such as ``stages.sparsify.objective.kl_dv``; empty for the whole file.
        problem: what is wrong, in a few words.
        value: what was found there (`ABSENT` where there is nothing).
        accepted: what would be accepted there.
        nearest: the known name closest to an unknown one, or None.
    """

    path: str
    problem: str
    value: Any = ABSENT
    accepted: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        text = f"{self.path or '(the whole manifest)'}: {self.problem}"
        if self.value is not ABSENT:
            text += f", got {shown(self.value)}"
        if self.accepted:
            text += f"; expected {self.accepted}"
        if self.nearest is not None:
            text += f"; did you mean {shown(self.nearest)}?"
        return text


class ManifestError(ValueError):
    """A manifest (or a folder of them) that cannot be used; `faults` holds every reason, the text one a line.

    Args:
        path: the file or folder that was read, or a word for what was checked.
        faults: all that is wrong, at least one.
    """

    def __init__(self, path: str | Path, faults: Sequence[Fault]) -> None:
        self.path, self.faults = str(path), tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join([f"{self.path}: {count}", *map(str, self.faults)]))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.faults)


class ManifestNotFoundError(ManifestError, FileNotFoundError):
    """The manifest file or folder is not there."""


def shown(value: Any) -> str:
    """`value` as JSON on one line of at most 60 characters."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None if none is alike."""
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def one_of(known: Iterable[str]) -> str:
    """'one of "a", "b"' or 'nothing here' for an empty set."""
    names = ", ".join(shown(name) for name in known)
    return f"one of {names}" if names else "nothing: none is defined"


def unknown(path: str, name: object, *, known: Iterable[str], what: str) -> Fault:
    """The fault of a name that is none of `known`, with the nearest of them."""
    known = list(known)
    return Fault(path, f"unknown {what}", name, one_of(known), nearest(name, known))
