"""Disk space: what the snapshots of a grid will take, said before it starts where the disk has not got it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cplxnet.auto import models
from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.folder import RunFolder

MOMENTS = 2  # of Adam, for every trained number
CHECKPOINTS = 2  # of a stage under way


def needed(
    folder: str | Path, manifests: Mapping[str, Manifest], *, reuse: bool = True, at_once: int = 1
) -> int:
    """Bytes that the folder's runs will still take on disk: the snapshots to come, and checkpoints of `at_once` runs.

    With `reuse` a stage that runs share is one file under several names and counts once. Epochs' lines and scores,
    some hundred kilobytes a run, are not counted.
    """
    there, to_come, sizes = set[Any](), dict[Any, Sizes](), dict[str, Sizes]()
    for name, manifest in manifests.items():
        files = RunFolder(Path(folder) / name)
        for number, (stage, shared) in enumerate(stages.planned(manifest)):
            place = shared if reuse else (name, shared)
            if files.snapshot(number, stage.name).exists():
                there.add(place)
            else:
                network = repr(
                    (
                        manifest.task,
                        models.heard(manifest),
                        stage.model,
                        stage.early,
                        shared.goes_on,
                    )
                )
                if network not in sizes:
                    sizes[network] = _sizes(manifest, stage, shared.goes_on)
                to_come[place] = sizes[network]
    left = [size for place, size in to_come.items() if place not in there]
    largest = max((size.checkpoint for size in left), default=0)
    return sum(size.snapshot for size in left) + CHECKPOINTS * at_once * largest


def shortage(
    folder: str | Path, manifests: Mapping[str, Manifest], *, reuse: bool = True, at_once: int = 1
) -> str:
    """A sentence where the disk has less room than `needed`; empty where it has enough."""
    wanted, free = (
        needed(folder, manifests, reuse=reuse, at_once=at_once),
        shutil.disk_usage(folder).free,
    )
    if wanted <= free:
        return ""
    return (
        f"snapshots in {folder} will take about {wanted / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free: "
        "a run that finds no room fails, and --retry-failed takes it up again"
    )


class Sizes(NamedTuple):
    """Bytes of a stage's files: a checkpoint has the optimiser's state, a snapshot where the next goes on with it."""

    snapshot: int
    checkpoint: int


def _sizes(manifest: Manifest, stage: Stage, goes_on: bool) -> Sizes:
    """Zeros for a network that cannot be built, which its own run says."""
    try:
        model = models.build(manifest, stage)
    except (TypeError, ValueError, RuntimeError):
        return Sizes(0, 0)
    weights = sum(value.nbytes for value in model.state_dict().values())
    if stage.early and stage.early.restore_best:
        weights *= 2  # the best so far beside the last
    whole = weights + MOMENTS * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return Sizes(whole if goes_on else weights, whole)
