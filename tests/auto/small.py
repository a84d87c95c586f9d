"""A three-stage experiment of a second on the corpus of `tiny_corpus`, and what the tests of runs
share.
"""

import copy
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cplxnet.auto import run
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest
from cplxnet.musicnet import SAMPLERS

C = grid.C
SPLITS = ("train", "valid", "test")
STAGES = ("dense", "sparsify", "fine-tune")
SNAPSHOTS = ("0-dense.pt", "1-sparsify.pt", "2-fine-tune.pt")


def small(
    changes: dict[str, Any] | None = None,
    *,
    model: str = "complex.TwoLayerDense",
    window: int = 256,
) -> Manifest:
    """Two epochs of three batches a stage, never stopped early; `changes`: dotted path -> value."""
    base = {f"datasets.{split}.window": window for split in SPLITS} | {
        "stages.dense.early.atol": 1.0
    }
    return grid.edit(grid.tiny(folder=".", model=model), base | (changes or {}))


def quick(manifest: Manifest, folder: Path, data: Path, **options: Any) -> dict[str, Any]:
    """`run` without progress bars."""
    return run(manifest, folder, data=data, progress=False, **options)


def timeless(scores: dict[str, Any]) -> dict[str, Any]:
    """scores.json without what may differ between two equal runs: seconds and names."""
    scores = copy.deepcopy(scores)
    del scores["name"], scores["manifest"]
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


class Epochs:
    """Stands in for the sampler that training draws from: counts its passes, an epoch each.

    before: called with the number of epochs so far, before each.
    """

    name = "one-per-recording"

    def __init__(self, before: Callable[[int], object] = lambda n: None) -> None:
        self.n = 0
        epochs = self

        class Counted(SAMPLERS[self.name]):
            def __iter__(self):
                before(epochs.n)
                epochs.n += 1
                return super().__iter__()

        self.sampler = Counted

    def watch(self, monkeypatch: Any) -> "Epochs":
        """Have runs train on the counted sampler from now on."""
        monkeypatch.setitem(SAMPLERS, self.name, self.sampler)
        return self


class Cut(BaseException):
    """The end of a process, as far as can be had within one."""


def cut_off(
    folder: Path, data: Path, monkeypatch: Any, after: int, manifest: Any = None, **options: Any
) -> None:
    """A run that ends as it is about to train epoch number `after` (from 0, over all stages)."""

    def cutting(n):
        if n == after:
            raise Cut

    with monkeypatch.context() as patch:
        Epochs(cutting).watch(patch)
        with pytest.raises(Cut):
            quick(manifest or small(), folder, data, **options)


def read(folder: Path, name: str = "scores") -> dict[str, Any]:
    """What the folder's file `name`.json holds."""
    return json.loads((folder / f"{name}.json").read_text())


def snapshot(folder: Path, name: str) -> dict[str, Any]:
    """What the snapshot holds, read by torch alone."""
    return torch.load(folder / name, weights_only=True)


def timeless_snapshot(folder: Path, name: str) -> dict[str, Any]:
    """What the snapshot holds but seconds, and the checksum, which depends on them."""
    found = snapshot(folder, name)
    del found["crc32"]
    history = [{**line, "seconds": None} for line in json.loads(found["history"])]
    return found | {"seconds": None, "history": history}


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two snapshots differ, tensors to the bit, and by how much."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [text for key in a for text in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape:
        n_unequal = int((a != b).sum())
        largest = (a.double() - b.double()).abs().max() if n_unequal else 0.0
        text = f"{where}: {n_unequal} of {a.numel()} by up to {largest:.3g}"
        return [text] if n_unequal else []
    return (
        []
        if a is b or (not isinstance(a, torch.Tensor) and a == b)
        else [f"{where}: {a!r} against {b!r}"]
    )


def equal(a: Any, b: Any) -> bool:
    """Deep equality of what snapshots hold, tensors to the bit."""
    return not differences(a, b)


def assert_same_results(one: Path, other: Path) -> None:
    """Equal scores and equal snapshots, to the bit."""
    assert timeless(read(one)) == timeless(read(other))
    found = {
        name: differences(timeless_snapshot(one, name), timeless_snapshot(other, name))
        for name in SNAPSHOTS
    }
    assert not any(found.values()), found
