"""A grid of manifests before it is written: what is new, what varies, what it takes to train.

manifests = generate.manifests("demo", {"stages.sparsify.objective.kl_div": [0.01, 0.05]})
preview = generate.Preview("runs/demo", manifests)
preview.files(), preview.varied(), preview.cost()    # tables
preview.write()
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from . import tasks
from .manifest import grid
from .manifest.read import Manifest, ManifestNotFoundError, Stage, load
from .models import build
from .runner.folder import RunFolder, unchanged
from .runner.stages import planned, savings
from .train.loop import make_step
from .train.objective import Objective
from .train.optim import make_optimizer

MEASURED = 32  # windows of the steps that are timed, at most


def manifests(
    source: str | Path,
    axes: Mapping[str, Sequence[Any]] | None = None,
    *,
    replicates: int | None = None,
) -> dict[str, Manifest]:
    """The grid of a preset or of a template, by file name.

    Args:
        source: a preset's name ("demo"), or a manifest's file, which is the template then.
        axes: dotted path -> the values it takes; in place of a preset's own for the same path.
        replicates: seeds 0, 1, ... of each combination; None: as many as the preset has, or the
            template's own seed.

    Raises:
        ValueError: no such preset or file.
        ManifestError: as `grid.expand`.
    """
    axes = dict(axes or {})
    presets = tasks.vocabulary().presets
    arguments: dict[str, Any]
    try:
        is_preset = str(source) in presets
        arguments = presets[str(source)]() if is_preset else {"template": load(source), "grid": {}}
    except ManifestNotFoundError as error:
        raise ValueError(
            f"expected a preset ({', '.join(presets)}) or a manifest's file, got {str(source)!r}"
        ) from error

    if replicates is not None:
        arguments["replicates"] = replicates
    if "seed" in axes:
        arguments["replicates"] = None

    # a preset's names say what it varies itself
    if axes.keys() - arguments["grid"].keys() - {"seed"}:
        arguments.pop("label", None)
        arguments.pop("title", None)
    arguments["grid"] = {**arguments["grid"], **axes}
    return grid.expand(**arguments)


def folder_of(
    source: str | Path,
    axes: Mapping[str, Sequence[Any]] | None = None,
    replicates: int | None = None,
) -> Path:
    """Where a grid goes if nobody says: runs/demo, and runs/demo-varied with axes or replicates.

    So a preset's folder holds the preset.
    """
    is_varied = bool(axes) or replicates is not None
    return Path("runs") / (Path(source).stem + ("-varied" if is_varied else ""))


@dataclass(eq=False)
class Preview:
    """What writing manifests into a folder would change, and what training them takes."""

    folder: Path
    manifests: Mapping[str, Manifest]  # by file name
    _: KW_ONLY
    data: Path = Path("data")  # their data files, to learn how many windows there are

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        self.data = Path(self.data)

    def files(self) -> pd.DataFrame:
        """A row a manifest: whether its file is new, changed, unchanged or left over, and its run.

        Left over is what lies in the folder and is not of this grid. The run is the state of the
        run's folder ("" if there is none), of which a manifest that changed is said.
        """
        before = {path.stem: path for path in sorted(self.folder.glob("*.json"))}
        rows = {}
        for name, manifest in self.manifests.items():
            file = "new"
            if name in before:
                is_equal = before[name].read_bytes() == manifest.to_json().encode()
                file = "unchanged" if is_equal else "changed"
            rows[name] = {"file": file, "run": _run(self.folder / name, manifest)}
        for name in sorted(before.keys() - self.manifests.keys()):
            rows[name] = {"file": "left over", "run": _run(self.folder / name)}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["file", "run"])

    def varied(self) -> pd.DataFrame:
        """A row a parameter that varies: how many values it takes, and which."""
        rows = {}
        for path, column in grid.varied(self.manifests).items():
            values = list(dict.fromkeys(column))
            rows[path] = {"n": len(values), "values": ", ".join(map(str, values))}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["n", "values"])

    def cost(self, *, measure: bool = True) -> pd.DataFrame:
        """What it takes to train the grid at most: a row a network, and their sum.

        A stage that runs share is counted once. Early stopping and scoring are not counted, nor are
        a teacher's forward passes (`distill`) and the time that `shrink` saves.

        Args:
            measure: time some steps on this machine's CPU, seconds for each network.

        Returns:
            Columns stages, epochs, steps (of the optimiser), ms and hours (a step, and all of them,
            on this CPU; only if measured), gpu_ms and gpu_hours (by the task's table, NaN for a
            network that is not in it), disk_mb (snapshots; two moments of each weight, of which SGD
            has one). Where the data file is absent, steps or hours are NaN.
        """
        trained = {
            shared: (manifest, stage)
            for manifest in self.manifests.values()
            for stage, shared in planned(manifest)
        }
        rows = []
        steps_ms: dict[Any, tuple[float, float]] = {}  # here and on a GPU, of steps of one kind
        for shared, (manifest, stage) in trained.items():
            options = "".join(f" {key}={value}" for key, value in stage.model.kwargs.items())
            network = stage.model.name + options
            n_batches, batch = self._batches(manifest, stage)
            n_steps = stage.n_epochs * n_batches

            kind = (network, manifest.features, manifest.window, batch)
            if kind not in steps_ms:
                ms = _step_ms(manifest, stage, batch) if measure and batch else math.nan
                steps_ms[kind] = ms, _gpu_ms(manifest, stage, batch or math.nan)
            ms, gpu_ms = steps_ms[kind]

            row = {"network": network, "stages": 1, "epochs": stage.n_epochs, "steps": n_steps}
            row |= {"hours": n_steps * ms / 3.6e6, "gpu_hours": n_steps * gpu_ms / 3.6e6}
            row["disk_mb"] = _snapshot_bytes(manifest, stage, shared.goes_on) / 1e6
            rows.append(row)

        sums = pd.DataFrame(rows).groupby("network", sort=False)
        table = sums.agg(lambda column: column.sum(skipna=False)).rename_axis(None)
        table["ms"] = 3.6e6 * table["hours"] / table["steps"].clip(lower=1)
        table["gpu_ms"] = 3.6e6 * table["gpu_hours"] / table["steps"].clip(lower=1)
        table.loc["all"] = table.sum(skipna=False).drop(["ms", "gpu_ms"])
        whole = [name for name in ("stages", "epochs", "steps") if table[name].notna().all()]
        order = ["stages", "epochs", "steps", "ms", "hours", "gpu_ms", "gpu_hours", "disk_mb"]
        table = table[order].astype(dict.fromkeys(whole, int))
        return table if measure else table.drop(columns=["ms", "hours"])

    def sentences(self) -> list[str]:
        """What the tables do not say: what is shared, lost, not known."""
        files = self.files()
        counts = files["file"].value_counts()
        by_state = ", ".join(f"{n} {state}" for state, n in counts.items())
        sentences = [f"{self.folder}: {by_state}"]
        sentences += filter(None, [savings(self.manifests.values())])

        run_before = files.index[(files["file"] == "changed") & (files["run"] != "")]
        if len(run_before):
            sentences.append(
                "changed, and run as they were before: "
                + ", ".join(f"{name} ({files['run'][name]})" for name in run_before)
            )
        left_over = files.index[files["file"] == "left over"]
        if len(left_over):
            sentences.append("left over from another grid: " + ", ".join(left_over))

        datasets = [each for m in self.manifests.values() for each in m.datasets.values()]
        read = sorted({self.data / dataset.file for dataset in datasets})
        absent = ", ".join(str(file) for file in read if not file.is_file())
        if absent:
            sentences.append(f"not here: {absent}; without them steps or hours are not known")
        return sentences

    def write(self, *, overwrite: bool = False, remove: bool = False) -> list[Path]:
        """Write the manifests, and return the files that are new or changed.

        Args:
            overwrite: also replace files that are changed.
            remove: also remove those that are left over; folders of runs stay.

        Raises:
            FileExistsError: a file is changed, and `overwrite` is False; nothing is written.
        """
        written = grid.write(self.folder, self.manifests, overwrite=overwrite)
        if remove:
            files = self.files()
            for name in files.index[files["file"] == "left over"]:
                (self.folder / f"{name}.json").unlink()
        return written

    def _batches(self, manifest: Manifest, stage: Stage) -> tuple[float, int | None]:
        """Batches an epoch, and windows a batch; NaN and None where the data would say."""
        feed = manifest.feeds[stage.feed]
        dataset = manifest.datasets[feed.dataset]
        file = self.data / dataset.file
        if not file.is_file():
            return feed.n_batches or math.nan, feed.batch_size

        task = tasks.TASKS[manifest.task]
        n_drawn, n_windows = task.sizes(file, window=dataset.window, stride=dataset.stride)
        if feed.batch_size is None:
            return feed.n_batches or 0, n_drawn
        return math.ceil(n_windows / feed.batch_size), feed.batch_size


def _run(folder: Path, manifest: Manifest | None = None) -> str:
    """The state of a run's folder, and whether it is of an earlier version of the manifest."""
    if not folder.is_dir():
        return ""
    try:
        run = RunFolder(folder)
        is_older = manifest is not None and not unchanged(run, manifest)
        return run.status["state"] + (", of an earlier version" if is_older else "")
    except (OSError, ValueError):
        return "damaged"


def _step_ms(manifest: Manifest, stage: Stage, batch: int) -> float:
    """Milliseconds of one training step on this CPU, of `batch` windows of noise.

    A larger batch than `MEASURED` is taken to need so many times longer.
    """
    n = min(batch, MEASURED)

    model = build(manifest, stage)
    optimizer = make_optimizer(model, stage.optimizer)
    objective = Objective(manifest.objective_terms, stage.objective)
    step = make_step(model, objective, optimizer, stage.grad_clip)

    seconds = []
    with torch.random.fork_rng(devices=[]):
        signal = torch.randn(n, manifest.window)
        x = tasks.features_of(manifest.task, signal, manifest.features)
        target = torch.zeros_like(model(x))
        for _ in range(3):  # the first one allocates
            began = time.perf_counter()
            step(tasks.features_of(manifest.task, signal, manifest.features), target)
            seconds.append(time.perf_counter() - began)
    return 1e3 * min(seconds) * batch / n


def _gpu_ms(manifest: Manifest, stage: Stage, batch: float) -> float:
    """Milliseconds of one training step on a GPU, by the task's table; NaN: not in it."""
    table = tasks.TASKS[manifest.task].GPU_STEP_MS.get(stage.model.name)
    if table is None:
        return math.nan
    windows, milliseconds = zip(*table, strict=True)
    return float(np.interp(batch, windows, milliseconds))


def _snapshot_bytes(manifest: Manifest, stage: Stage, goes_on: bool) -> int:
    """A stage's snapshot: weights, and two moments of each if the next stage goes on with them."""
    network = tasks.network(manifest.task, stage.model, manifest.features, manifest.window)
    weights = sum(value.nbytes for value in network.state_dict().values())
    moments = 2 * sum(value.nbytes for value in network.parameters())
    return weights + moments if goes_on else weights


def axis(text: str) -> tuple[str, list[Any]]:
    """A path and its values from ``PATH=V1,V2``: all of them JSON, or else all words.

    Raises:
        ValueError: no "=" in it, or no values after that.
    """
    path, _, values = text.partition("=")
    if not path or not values:
        raise ValueError(f"expected PATH=V1,V2, got {text!r}; try seed=0,1")
    try:
        return path, json.loads(f"[{values}]")
    except (ValueError, RecursionError):
        return path, values.split(",")
