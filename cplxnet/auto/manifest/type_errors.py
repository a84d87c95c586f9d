"""pydantic's validation errors in the words of a manifest: dotted path, value, what would be accepted, nearest key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .errors import Fault, nearest, one_of, shown

_ACCEPTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "string_unicode": "a string in Unicode",
    "bool_type": "true or false",
    "dict_type": "an object {...}",
    "model_type": "an object {...}",
    "tuple_type": "a list of strings",
    "invalid_key": "a string",
}


def type_faults(error: ValidationError, root: type[BaseModel]) -> Iterator[Fault]:
    """A fault for each error in `error`, which comes from reading a `root`."""
    for item in error.errors(include_url=False):
        where = tuple(part for part in item["loc"] if part != "[key]")
        yield _fault(item["type"], where, item, root)


def _fault(kind: str, where: tuple[Any, ...], item: Any, root: type[BaseModel]) -> Fault:
    path = ".".join(map(str, where))
    if kind == "missing":
        return Fault(path, "missing key", accepted=_description(root, where))
    if kind == "extra_forbidden":
        known = _keys(_model(root, where[:-1]))
        return Fault(path, "unknown key", item["input"], one_of(known), nearest(where[-1], known))
    marked = item["loc"][-1:] == (
        "[key]",
    )  # a table's key; an open part's keyword has no mark of its own
    keyword = not marked and kind == "string_pattern_mismatch" and item["input"] == where[-1]
    if marked or keyword:
        return Fault(
            path,
            "unusable key",
            item["input"],
            "letters, digits and _" + ("" if keyword else " or -"),
        )
    return Fault(path, "unusable value", item["input"], _accepted(kind, item))


def _accepted(kind: str, item: Any) -> str:
    context = item.get("ctx", {})
    bounds = {
        "greater_than": "more than",
        "greater_than_equal": "at least",
        "less_than": "less than",
    }
    if kind in bounds:
        return f"{bounds[kind]} {next(iter(context.values()))}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return context["expected"].replace("'", '"')
    if kind in ("too_short", "string_too_short"):
        return "at least one"
    if kind == "string_pattern_mismatch":
        return f"text that matches {shown(context['pattern'])}"
    return _ACCEPTED.get(kind, item["msg"])


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _description(root: type[BaseModel], where: tuple[Any, ...]) -> str:
    fields = _model(root, where[:-1]).model_fields.items()
    return next(
        (field.description or "" for name, field in fields if where[-1] in (name, field.alias)), ""
    )


def _model(root: type[BaseModel], where: tuple[Any, ...]) -> type[BaseModel]:
    """The model of the part at `where`: a key of a table (any name) leads to the table's one kind of part."""
    model = root
    for key in where:
        if key in model.model_fields:
            model = next(_models(model.model_fields[key].annotation), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that occur in a type, such as Dataset in dict[str, Dataset] and Early in Early | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
