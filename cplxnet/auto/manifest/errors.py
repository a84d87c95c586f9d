"""What is wrong with a manifest: its faults, each with path, value and what would be accepted."""

from __future__ import annotations

import difflib
import enum
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from cplxnet.progress import printable

MAX_SHOWN = 60  # characters of a value that an error line shows


class Absent(enum.Enum):
    """The value of a key that is not there, or that is not usable. It is false, as None is."""

    ABSENT = "nothing"

    def __bool__(self) -> bool:
        return False


ABSENT = Absent.ABSENT


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    path: str  # dotted, such as stages.sparsify.objective.kl_dv; empty: the whole file
    problem: str  # in a few words
    value: Any = ABSENT  # what stands there
    accepted: str = ""  # what would be accepted there
    nearest: str | None = None  # the known name closest to an unknown one

    def __str__(self) -> str:
        text = f"{printable(self.path) or '(the whole manifest)'}: {self.problem}"
        if self.value is not ABSENT:
            text += f", got {shown(self.value)}"
        if self.accepted:
            text += f"; expected {self.accepted}"
        if self.nearest is not None:
            text += f"; did you mean {shown(self.nearest)}?"
        return text


class ManifestError(ValueError):
    """A manifest (or a folder of them) that cannot be used.

    `faults` holds every reason; the text has one a line.

    Args:
        path: the file or folder that was read, or a word for what was checked.
        faults: all that is wrong, at least one.
    """

    def __init__(self, path: str | Path, faults: Sequence[Fault]) -> None:
        super().__init__(path, faults)
        self.path = str(path)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        return "\n  ".join([f"{printable(self.path)}: {count}", *map(str, self.faults)])


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
    return next(iter(difflib.get_close_matches(str(name), known, n=1)), None)


def one_of(known: Iterable[str]) -> str:
    """'one of "a", "b"', or 'nothing: none is defined' for an empty set."""
    names = ", ".join(shown(name) for name in known)
    return f"one of {names}" if names else "nothing: none is defined"


def unknown(path: str, name: object, *, known: Collection[str], what: str) -> Fault:
    """The fault of a name that is none of `known`, with the nearest of them."""
    accepted = one_of(known)
    if what == "task":
        accepted += (
            f" (try `cplxnet.auto.tasks.register({shown(name)}, package)` in a notebook or script "
            "that runs it: the command line knows no tasks of your own)"
        )
    return Fault(path, f"unknown {what}", name, accepted, nearest(name, known))


# -- pydantic's errors as faults -------------------------------------------------------------------

ACCEPTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "bool_type": "true or false",
    "dict_type": "an object {{...}}",
    "model_type": "an object {{...}}",
    "tuple_type": "a list",
    "string_too_short": "at least one",
    "invalid_key": "a string",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "at most {max_length} characters",
    "literal_error": "{expected}",
    "value_error": "{error}",
}


def place(item: ErrorDetails) -> tuple[int | str, ...]:
    """Where pydantic found an error: the keys from the top, without its mark on a table's key."""
    return item["loc"][:-1] if item["loc"][-1:] == ("[key]",) else item["loc"]


def type_faults(
    error: ValidationError, root: type[BaseModel], prefix: str = "", also: Sequence[str] = ()
) -> Iterator[Fault]:
    """A fault for each error that validation by the model `root` found.

    Args:
        error: what `root.model_validate` raised.
        root: the model.
        prefix: the dotted path of what was validated.
        also: further keys that are known there.
    """
    for item in error.errors(include_url=False):
        yield _fault(item, root, prefix, also)


def _fault(item: ErrorDetails, root: type[BaseModel], prefix: str, also: Sequence[str]) -> Fault:
    where = place(item)
    path = ".".join(map(str, [prefix, *where] if prefix else where))
    kind = item["type"]
    value = item["input"]
    context = item.get("ctx", {})
    if kind == "unknown_name":
        return unknown(path, value, known=context["known"], what=context["what"])

    if kind in ("missing", "extra_forbidden"):
        fields = _fields(root, where[:-1])
        if kind == "missing":
            field = fields.get(str(where[-1]))
            return Fault(path, "missing key", accepted=(field and field.description) or "")
        known = [*also, *fields]
        return Fault(path, "unknown key", value, one_of(known), nearest(where[-1], known))

    # pydantic marks the key of a table, but not the keyword of a component
    is_table_key = item["loc"][-1:] == ("[key]",)
    is_keyword = kind == "string_pattern_mismatch" and not is_table_key and value == where[-1]
    if is_table_key or is_keyword:
        letters = "letters, digits and _" if is_keyword else "letters, digits and _ or -"
        limit = f"at most {context['max_length']} " if kind == "string_too_long" else ""
        return Fault(path, "unusable key", value, limit + letters)

    accepted = ACCEPTED.get(kind, "{msg}").format(msg=item["msg"], **context)
    if kind == "literal_error":
        accepted = accepted.replace("'", '"')
    return Fault(path, "unusable value", value, accepted)


def _fields(root: type[BaseModel], where: tuple[int | str, ...]) -> dict[str, FieldInfo]:
    """The keys of the part at `where`: any key of a table leads to its one kind of part."""
    model = root
    for key in where:
        if key in model.model_fields:
            model = next(_models(model.model_fields[str(key)].annotation), model)
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a type, such as Dataset in dict[str, Dataset] and Early in Early | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
