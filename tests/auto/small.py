"""A three-stage experiment of a second on the corpus of `tiny_corpus`, and what the tests of runs share."""

import copy
import functools
from pathlib import Path
from typing import Any

from cplxnet.auto import experiments, grid, run
from cplxnet.auto.manifest import Manifest

C = experiments.C
SPLITS = ("train", "valid", "test")


def small(changes: dict[str, Any] | None = None, *, model: str = "complex.TwoLayerDense", window: int = 256) -> Manifest:
    """Two epochs of three batches a stage; `changes`: dotted path -> value."""
    base = {f"datasets.{split}.window": window for split in SPLITS}
    return grid.edit(experiments.tiny(folder=".", model=model), base | (changes or {}))


def quick(manifest: Manifest, folder: Path, data: Path, **options: Any) -> dict[str, Any]:
    """`run` without progress bars."""
    return run(manifest, folder, data=data, progress=False, **options)


def timeless(scores: dict[str, Any]) -> dict[str, Any]:
    """scores.json without what may differ between two equal runs: seconds and names."""
    scores = copy.deepcopy({key: value for key, value in scores.items() if key not in ("name", "manifest")})
    for stage in scores["stages"].values():
        del stage["seconds"], stage["reused_from"]
    return scores


class Counting:
    """Stands in for a function, counting its calls."""

    def __init__(self, function: Any) -> None:
        self.function, self.n = function, 0
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.n += 1
        return self.function(*args, **options)
