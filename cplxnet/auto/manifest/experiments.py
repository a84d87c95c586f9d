"""The grids that the default task brings, as manifests, and the paths that they vary.

`experiments.demo(values, n_batches=7)` expands the task's preset "demo" made with these options.
"""

from __future__ import annotations

import functools
from typing import Any

from . import grid, vocabulary
from .schema import Manifest

# the variable of the grids: the weight of the KL term while sparsifying
C = "stages.sparsify.objective.kl_div"
# the variable of runs that prune in the place of that: the sparsity that they end at
SPARSITY = "stages.sparsify.pruner.sparsity"
# the variational form of the network: ...VD or ...ARD
METHOD = "stages.sparsify.model.name"
# "sum": as the ELBO has it; "mean": averaged within each layer
REDUCTION = "objective_terms.kl_div.reduction"


def expanded(preset: str, *values: Any, **options: Any) -> dict[str, Manifest]:
    """The manifests of a preset of the default task; values, options: of what makes it."""
    make = vocabulary.of_task(None).presets[preset]
    return grid.expand(**make(*values, **options))


experiment_1 = functools.partial(expanded, "experiment-1")
experiment_2 = functools.partial(expanded, "experiment-2")
demo = functools.partial(expanded, "demo")
reference = functools.partial(expanded, "reference")
settled = functools.partial(expanded, "settled")


def tiny(**options: Any) -> Manifest:
    """A manifest of three stages of two epochs of three batches, for tests."""
    return expanded("tiny", **options)["tiny"]
