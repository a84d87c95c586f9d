"""Taking an old manifest apart key by key, so that nothing in it is lost in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cplxnet.auto.manifest.errors import ABSENT, Fault, one_of, shown

from .older_names import component


@dataclass
class Translation:
    """A new manifest as JSON values while it is made, what could not be translated, and what is to be told."""

    new: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell something once."""
        if text not in self.notes:
            self.notes.append(text)


class Row:
    """A part of the old manifest: its keys are taken one by one, and those that are left have no counterpart."""

    def __init__(self, path: str, value: Any, into: Translation) -> None:
        self.path, self.into = path, into
        if not isinstance(value, Mapping):
            self.fault("", "not an object", value, "an object")
        self.left = dict(value) if isinstance(value, Mapping) else {}

    def at(self, key: str) -> str:
        return f"{self.path}.{key}".strip(".")

    def fault(self, key: str, problem: str, value: Any = ABSENT, accepted: str = "") -> None:
        self.into.faults.append(Fault(self.at(key), problem, value, accepted))

    def take(self, key: str, default: Any = None) -> Any:
        return self.left.pop(key, default)

    def need(self, key: str) -> Any:
        if key not in self.left:
            self.fault(key, "missing key")
        return self.left.pop(key, None)

    def part(self, key: str, default: Any = None) -> Row:
        """Take an object, whose keys are taken in turn; a fault where it is missing and there is no default."""
        if key not in self.left and default is None:
            self.fault(key, "missing key")
        return Row(
            self.at(key), self.left.pop(key, default if default is not None else {}), self.into
        )

    def one(self, key: str, *accepted: Any) -> None:
        """Take a key that may have no other value than these: others have no counterpart."""
        value = self.left.pop(key, accepted[0])
        if value not in accepted:
            self.fault(key, "cannot be translated", value, " or ".join(map(shown, accepted)))

    def named(self, known: Mapping[str, str], *, default: str = "") -> str:
        """Take the class string `cls`: its name here."""
        text = self.left.pop("cls", default)
        found = component(text, known)
        if found is None:
            self.fault("cls", "a class without a counterpart", text, one_of(known))
        return found or ""

    def close(self, *ignored: str) -> None:
        """Name every key that nobody took."""
        for key, value in self.left.items():
            if key not in ignored:
                self.fault(key, "cannot be translated", value)
