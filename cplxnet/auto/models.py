"""Networks from runs: loaded from a run's folder, written to files for use elsewhere, read again.

A run's network is built from the manifest in its folder; its weights are those of a stage's
snapshot. Kinds of files are the task's.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cplxnet import DEFAULT_TASK

from . import tasks
from .manifest.read import Manifest, Stage, parse
from .runner.folder import RunFolder

EXPORTS: tuple[str, ...] = tasks.TASKS[DEFAULT_TASK].EXPORTS


# -- from a run's folder ---------------------------------------------------------------------------


def load_model(folder: str | Path, stage: str | None = None) -> tuple[nn.Module, Manifest]:
    """The network of a run at the end of a stage, in evaluation mode on the CPU, and the manifest.

    Neither data nor the manifest's own file is needed: `config.json` in the folder has it. A
    variational network comes back with its log_sigma2, a masked one with its masks.

    Args:
        folder: of a run, `runs/demo/c2e-02-r0` say.
        stage: its name in the manifest; None: the last of `stage_order`.

    Raises:
        FileNotFoundError: no run in the folder, or no snapshot of that stage; the text says which
            there are.
        ValueError: no such stage, a damaged snapshot, or one of another run or network.
        ManifestError: an unreadable manifest.
    """
    run = RunFolder(folder)
    manifest = read_manifest(folder)
    name = manifest.stage_order[-1] if stage is None else stage
    if name not in manifest.stage_order:
        raise ValueError(f"expected a stage of {', '.join(manifest.stage_order)}, got {name!r}")

    again = (
        f"try `python -m cplxnet.auto run {run.path}.json --again` (auto.run(..., again=True)), "
        "which trains what is missing or damaged"
    )
    path = run.snapshot(manifest.stage_order.index(name), name)
    if not path.is_file():
        snapshots = ", ".join(file.name for file in run.snapshots()) or "none"
        raise FileNotFoundError(
            f"expected a snapshot at {path}, got nothing there (snapshots: {snapshots}); {again}"
        )
    try:
        snapshot = run.read_snapshot(path)
    except ValueError as error:
        raise ValueError(f"{error}; {again}") from error

    model = build(manifest, manifest.stage(name))
    try:
        model.load_state_dict(snapshot["model"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected the weights of {manifest.stage(name).model.name}, got others: "
            f"{error}"
        ) from error
    return model.eval(), manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest that the run in `folder` was started with. Raises as `load_model`."""
    run = RunFolder(folder)
    if "manifest" not in run.config:
        raise FileNotFoundError(
            f"expected a run's folder with config.json at {run.path}, got none; try the folder of "
            "one run, runs/demo/c2e-02-r0 say"
        )
    return parse(run.config["manifest"], source=run.path / "config.json")


def heard(manifest: Manifest) -> dict[str, Any]:
    """What the network hears: `window` in samples; `kind`, `cplx` and `shift` of its features."""
    return {"window": manifest.window, **manifest.features.model_dump()}


def build(manifest: Manifest, stage: Stage) -> nn.Module:
    """The network of a stage with weights of no meaning yet, on the CPU, from the manifest alone.

    The global random numbers are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        return tasks.build(manifest.task, stage.model, manifest.features, manifest.window)


# -- in files for use elsewhere --------------------------------------------------------------------


class Deployed(NamedTuple):
    """A network as a function of features, and what it hears: `heard`, and what its task adds."""

    network: Callable[[Tensor], Tensor]
    heard: dict[str, Any]


def load_deployed(path: str | Path, *, stage: str | None = None) -> Deployed:
    """The network in a file, or in a run's folder.

    Args:
        path: a run's folder, a snapshot in one, or a file that `export` has written.
        stage: of a run's folder; None: the last.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: unreadable, a file that does not say what its network hears, or a stage of one
            that holds a single network.
    """
    path = Path(path)
    snapshot = re.fullmatch(r"\d+-(.+)", path.stem) if path.suffix == ".pt" else None  # 2-fine-tune
    if stage is not None and not path.is_dir() and (snapshot is None or snapshot[1] != stage):
        raise ValueError(
            f"{path}: expected a run's folder, of which {stage!r} is a stage, got a file; "
            "try it without the stage (--stage)"
        )
    if path.is_dir() or snapshot:
        folder = path.parent if snapshot else path
        model, manifest = load_model(folder, snapshot[1] if snapshot else stage)
        return Deployed(model, _all_heard(manifest))

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a run's folder, a snapshot or an exported network, got nothing"
        )
    return Deployed(*tasks.TASKS[DEFAULT_TASK].load_network(path))


def export(
    folder: str | Path, path: str | Path, *, kind: str, stage: str | None = None, **options: Any
) -> Path:
    """Write the network of a run's folder to the file `path`.

    Args:
        folder: of the run.
        path: of the file.
        kind: one of `EXPORTS`.
        stage: its name; None: the last.
        options: further ones of the task's `export_network`.

    Raises:
        ValueError: another kind, or an option that is none of that kind. Otherwise as `load_model`.
    """
    model, manifest = load_model(folder, stage)
    about: dict[str, Any] = {"threshold": manifest.threshold, "heard": _all_heard(manifest)}
    about["posterior"] = functools.partial(_posterior, folder, manifest, stage)
    written: Path = tasks.TASKS[manifest.task].export_network(
        model, path, kind=kind, **about, **options
    )
    return written


def _posterior(folder: str | Path, manifest: Manifest, stage: str | None) -> nn.Module | None:
    """The network of a run whose posterior the weights of a stage have; None if there is none.

    That of the last variational stage up to it, with no fresh weights since.
    """
    last = manifest.stage_order.index(stage or manifest.stage_order[-1])
    variational = tasks.vocabulary(manifest.task).variational_models
    for name in reversed(manifest.stage_order[: last + 1]):
        if manifest.stage(name).model.name in variational:
            return load_model(folder, name)[0]
        if manifest.stage(name).reset:
            break
    return None


def _all_heard(manifest: Manifest) -> dict[str, Any]:
    return {**tasks.TASKS[manifest.task].HEARD, **heard(manifest)}
