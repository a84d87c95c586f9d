"""How an experiment runs: manifests, grids, stages of training, runs and their results.

A name loads when it is first used (PEP 562): torch, matplotlib and distributed take seconds to
import, and `--help` and `status` need none of them.
"""

import pkgutil
from typing import Any

from .manifest import vocabulary

_NAMES = {
    "Manifest": "cplxnet.auto.manifest.schema:Manifest",
    "Outcome": "cplxnet.auto.sweep.queue:Outcome",
    "edit": "cplxnet.auto.manifest.edit:edit",
    "experiments": "cplxnet.auto.manifest.grid",
    "generate": "cplxnet.auto.generate",
    "grid": "cplxnet.auto.manifest.grid",
    "heard": "cplxnet.auto.models:heard",
    "load": "cplxnet.auto.manifest.read:load",
    "load_model": "cplxnet.auto.models:load_model",
    "report": "cplxnet.auto.report",
    "run": "cplxnet.auto.runner.run:run",
    "run_many": "cplxnet.auto.sweep.run_many:run_many",
    "status": "cplxnet.auto.report.tables:status",
    # older names of what is in `report`, which people's notebooks use
    "page": "cplxnet.auto.report.text",
    "plots": "cplxnet.auto.report.curves",
    "reports": "cplxnet.auto.report",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    return pkgutil.resolve_name(_NAMES[name])


def _vocabulary_of(task: object) -> vocabulary.Vocabulary:
    from . import tasks  # only when a manifest is read: it loads the task's package

    return tasks.vocabulary_of(task)


vocabulary.of_task = _vocabulary_of


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})
