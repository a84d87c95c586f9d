"""The networks of an old manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import older_names as names
from .older_rows import Row

_KNOWN = "cplxpaper.musicnet.models.{complex,real}.{DeepConvNet,ShallowConvNet,TwoLayerDense}{,VD,ARD,Masked}"


def top_model(top: Row, windows: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The manifest's model, and whether it is a complex one; sizes that follow from the data are checked, then dropped.

    windows: the length of each dataset's windows.
    """
    row = top.part("model")
    if "cls" not in row.left:  # earlier manifests name it in the stages only
        row.left["cls"] = _first_named(top.left)
    found = names.model(row.left.get("cls"))
    is_complex = found is not None and found.is_complex
    length = row.take("n_seq")
    if length is not None and any(window != length for window in windows.values()):
        row.fault(
            "n_seq", "another length than the windows'", length, str(next(iter(windows.values())))
        )
    row.one("n_outputs", 84)
    row.one("n_channels", *((1,) if is_complex else (2, 1)))
    if found is not None and found.name.startswith("complex.DeepConvNet"):
        row.left.setdefault("legacy", True)
    return changed_model(row), is_complex


def changed_model(row: Row) -> dict[str, Any]:
    """The name of a row's model, and its first kernel: 3 where `legacy` is true, ours of 6 where it is false."""
    made: dict[str, Any] = {}
    if "cls" in row.left:
        text = row.take("cls")
        found = names.model(text)
        if found is None:
            row.fault("cls", "a class without a counterpart", text, _KNOWN)
        else:
            made["name"] = found.name
            if found.note:
                row.into.note(f"{found.name} {found.note}")
    if row.take("legacy", False):
        made["kernel_size"] = 3
    row.close()
    return made


def _first_named(left: Mapping[str, Any]) -> Any:
    """The class of the first stage's model, or None."""
    stages, order = left.get("stages"), left.get("stage-order")
    first = (
        stages.get(order[0])
        if isinstance(stages, Mapping) and isinstance(order, list) and order
        else None
    )
    model = first.get("model") if isinstance(first, Mapping) else None
    return model.get("cls") if isinstance(model, Mapping) else None
