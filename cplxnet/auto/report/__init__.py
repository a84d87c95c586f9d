"""What runs have reached: tables, and kind by kind a table, a figure and sentences, of one folder of runs or several.

`make(kind, folders)` makes a report of a kind and writes it; each kind is a file here with `rows` (its table) and
`figure`.
"""

from typing import Any

from . import page, plots
from .folders import gather, methods, missing
from .tables import (
    STATUS,
    aggregate,
    collect,
    form,
    history,
    layers,
    of_run,
    readings,
    runs,
    status,
    summary,
)


def __getattr__(name: str) -> Any:
    if name in ("KINDS", "Made", "make"):  # load every kind of report: only for whoever makes one
        from . import kinds

        return getattr(kinds, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
