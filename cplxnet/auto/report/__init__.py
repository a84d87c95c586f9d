"""What runs have reached: tables, and kind by kind a figure with its data and sentences.

`make(kind, folders)` makes a report of a kind and writes it; `kinds.KINDS` names them all.
"""

import pkgutil
from typing import Any

from cplxnet.extras import extra

from .kinds import KINDS, make
from .tables import STATUS, collect, history, layers, of_run, status, summary
from .text import missing, readings

_DRAWING = {  # these load matplotlib, so they load when first used
    "Report": "cplxnet.auto.report.style:Report",
    "learning_curves": "cplxnet.auto.report.curves:learning_curves",
    # older names, which people's notebooks use
    "page": "cplxnet.auto.report.text",
    "plots": "cplxnet.auto.report.curves",
}


def __getattr__(name: str) -> Any:
    if name not in _DRAWING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    with extra("report"):
        return pkgutil.resolve_name(_DRAWING[name])
