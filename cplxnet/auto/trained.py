"""The network that a run's folder holds: built from the manifest there, its weights those of a stage's snapshot."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import atomic, tasks
from .folder import RunFolder
from .manifest import Manifest, Stage, parse


def load_model(folder: str | Path, stage: str | None = None) -> tuple[nn.Module, Manifest]:
    """The network of a run as it was at the end of `stage`, in evaluation mode on the CPU, and the run's manifest.

    Neither data nor the manifest's own file is needed: `config.json` in the folder has it. A variational network comes
    back with its log_sigma2, a masked one with its masks.

    Args:
        folder: of a run, `runs/demo/c2e-02-r0` say.
        stage: its name in the manifest; None: the last of `stage_order`.

    Raises:
        FileNotFoundError: no run in the folder, or no snapshot of that stage; the text says which there are.
        ValueError: no such stage, a damaged snapshot, or one of another network; ManifestError: an unreadable manifest.
    """
    files = RunFolder(folder)
    manifest = read_manifest(folder)
    name = manifest.stage_order[-1] if stage is None else stage
    if name not in manifest.stage_order:
        raise ValueError(f"expected a stage of {', '.join(manifest.stage_order)}, got {name!r}")
    path = files.snapshot(manifest.stage_order.index(name), name)
    if not path.is_file():
        there = ", ".join(sorted(found.name for found in files.path.glob("*.pt"))) or "none"
        raise FileNotFoundError(f"expected a snapshot at {path}, got nothing there (snapshots: {there}); {_HOW_TO}")
    snapshot = atomic.read_tensors(path)
    model = build(manifest, manifest.stage(name))
    try:
        model.load_state_dict(snapshot["model"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected the weights of {manifest.stage(name).model.name}, got others: {error}"
        ) from error
    return model.eval(), manifest


_HOW_TO = "try `python -m cplxnet.auto run` on the folder above it: it trains what is missing"


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest that the run in `folder` was started with. Raises as `load_model`."""
    files = RunFolder(folder)
    if "manifest" not in files.config:
        raise FileNotFoundError(
            f"expected a run's folder with config.json at {files.path}, got none; try the folder of one run, "
            "runs/demo/c2e-02-r0 say"
        )
    return parse(files.config["manifest"], source=files.path / "config.json")


def heard(manifest: Manifest) -> dict[str, Any]:
    """What the network hears: `window` in samples, and `kind`, `cplx` and `shift` of its features."""
    first = manifest.stage(manifest.stage_order[0])
    window = manifest.datasets[manifest.feeds[first.feed].dataset].window
    return {"window": window, **manifest.features.model_dump()}


def build(manifest: Manifest, stage: Stage) -> nn.Module:
    """The network of a stage with weights of no meaning yet, on the CPU, from the manifest alone.

    Its input's shape is found from a window of silence. The global random numbers are left as they were.
    """
    task, options = tasks.TASKS[manifest.task], heard(manifest)
    example = task.features(torch.zeros(1, options.pop("window")), **options)
    with torch.random.fork_rng(devices=[]):
        return task.build(stage.model.name, example, **stage.model.kwargs)
