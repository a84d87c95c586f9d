"""Runs masked at other thresholds on log alpha, without and with fine-tuning again.

What is trained before the first mask does not depend on the threshold. Without fine-tuning, the
posterior means of the sparsify snapshot are masked and scored. With it, the earlier stages are
copied under the keys of a manifest with another threshold, and the runner goes on from there, in a
folder of its own.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.grid import DENSE, FINE_TUNE, SPARSIFY
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import load_model, read_manifest
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.run import check_device
from cplxnet.auto.sweep.run_many import run_many
from cplxnet.auto.train.loop import predict
from cplxnet.nn.gaussian import Penalised
from cplxnet.nn.l0 import Gated
from cplxnet.progress import bar

from . import style, tables
from .style import Report, Request
from .tables import Lacking, Run

THRESHOLDS = tuple(range(-6, 7))  # of log alpha


def report(request: Request) -> Report:
    """The report of the kind "threshold".

    Raises:
        ValueError: no such device, or a threshold that is not finite.
    """
    check_device(request.device)
    strange = [at for at in request.at or () if not math.isfinite(at)]
    if strange:
        raise ValueError(f"expected finite thresholds, got {strange[0]:g}; try --at -2 0 2")

    masked = scan(request)
    if request.tune:
        masked = pd.concat([masked, tune(request)], ignore_index=True)

    return Report(draw(masked, scorer=request.scorer), masked, left_out(request, _fault))


def scan(request: Request) -> pd.DataFrame:
    """Score every run with a sparsify snapshot, masked at each threshold; nothing is trained.

    A run whose snapshot cannot be read is named and left out.

    Returns:
        Columns folder, run, method, C, setting, seed, own (the manifest's threshold), dense (the
        dense network's score), threshold, compression, average_precision and tuned (False).

    Raises:
        Lacking: no run has a snapshot or this scorer, or their scores do not compare.
        FileNotFoundError: the data is not there.
    """
    runs = _to_mask(request)
    at = request.at or THRESHOLDS
    rows = []
    with bar(total=len(runs) * len(at), desc="thresholds", unit="score") as shown:
        for run in runs:
            components = Components(run.manifest, device=request.device, data=request.data)
            with tables.or_left_out(run):
                model = load_model(run.files.path, SPARSIFY)[0].to(request.device)
                for threshold in at:
                    score = score_at(
                        model, run.manifest, components, threshold=threshold, scorer=request.scorer
                    )
                    result = {
                        "threshold": float(threshold),
                        "compression": cplx.compression(model, threshold),
                        "average_precision": score,
                        "tuned": False,
                    }
                    rows.append(about(run, request.scorer) | result)
                    shown.update()
    if not rows:
        raise Lacking("expected runs whose snapshots can be read, got none")
    return pd.DataFrame(rows)


def tune(request: Request) -> pd.DataFrame:
    """`scan` with fine-tuning again: a manifest and a run for each run and threshold.

    They are in the folder `threshold-runs` in `request.out`. The same call goes on with what was
    cut off. Each run takes as much disk as the one it is made from.

    Returns:
        Columns as of `scan`, tuned True.

    Raises:
        ValueError: two runs would have one name there.
    """
    into = request.out / "threshold-runs"
    where: dict[str, Any] = {"data": request.data, "device": request.device}
    manifests: dict[str, Manifest] = {}
    columns: dict[str, dict[str, Any]] = {}
    for run in _to_mask(request):
        for threshold in request.at or THRESHOLDS:
            name = f"{Path(run.folder).name}-{run.name}-t{threshold:g}"
            title = f"{run.manifest.name} threshold {threshold:g}"
            changes = {"name": title, "threshold": float(threshold)}
            if name in manifests:
                raise ValueError(
                    f"expected runs of different names, got {name!r} of {run.folder} too; "
                    "try one folder at a time"
                )
            manifests[name] = grid.edit(run.manifest, changes)
            columns[name] = about(run, request.scorer) | {"threshold": float(threshold)}

    for name, manifest in manifests.items():
        if RunFolder(into / name).scores is None:
            source = Path(columns[name]["folder"]) / columns[name]["run"]
            remask(source, manifest, into / name, **where)

    grid.write(into, manifests, overwrite=True)
    run_many(into, **where)

    table = tables.collect(into)
    is_tuned = (table["scorer"] == request.scorer) & (table["stage"] == FINE_TUNE)
    table = table[is_tuned].set_index("run")
    results = table[["compression", "average_precision"]].to_dict("index")
    return pd.DataFrame(
        [columns[name] | results[name] | {"tuned": True} for name in manifests if name in results]
    )


def about(run: Run, scorer: str) -> dict[str, Any]:
    """The columns of a run, its own threshold, and its dense network's score, None without one."""
    dense = run.stages.get(DENSE, {"scores": {}})["scores"].get(scorer)
    return run.columns | {
        "own": run.manifest.threshold,
        "dense": dense and dense["end"]["average_precision"],
    }


def chosen(request: Request, fault_of: Callable[[Run], str], *, expected: str) -> list[Run]:
    """The runs asked for that are usable and have the scorer.

    Args:
        request: says which.
        fault_of: why a run is not usable; nothing if it is.
        expected: the snapshot that is looked for, in the words of the error.

    Raises:
        Lacking: there is none, or their scores do not compare.
    """
    runs = [run for run in _asked(request) if not fault_of(run)]
    if not runs:
        named = "" if request.runs is None else f" named {', '.join(request.runs)}"
        raise Lacking(
            f"expected runs with a snapshot {expected}, got none in "
            f"{', '.join(map(str, request.folders))}{named}; snapshots are not committed: try "
            f"`python -m cplxnet.auto run {request.folders[0]} --again NAME`, which makes them"
        )

    scored = [run for run in runs if request.scorer in run.manifest.scorers]
    if not scored:
        there = ", ".join(sorted({name for run in runs for name in run.manifest.scorers}))
        raise Lacking(
            f"expected runs with a scorer {request.scorer!r}, got none; try one of {there}"
        )
    tables.refuse_other_windows(scored, request.scorer)
    return scored


def left_out(request: Request, fault_of: Callable[[Run], str]) -> list[str]:
    """A sentence for each reason for which runs are not usable, which names them."""
    runs: dict[str, list[str]] = {}
    for run in _asked(request):
        runs.setdefault(fault_of(run), []).append(f"{run.folder}/{run.name}")
    return [
        f"{why}, so left out: {', '.join(names)}." for why, names in sorted(runs.items()) if why
    ]


def _asked(request: Request) -> list[Run]:
    runs = tables.every_run(request.folders)
    return [run for run in runs if request.runs is None or run.name in request.runs]


def _to_mask(request: Request) -> list[Run]:
    """The runs with a snapshot of the stage before the masks, which depend on a threshold."""
    expected = f"of {SPARSIFY} (1-{SPARSIFY}.pt), which has log alpha"
    return chosen(request, _fault, expected=expected)


def _fault(run: Run) -> str:
    """Why a run cannot be masked at another threshold; empty if it can."""
    manifest = run.manifest
    if FINE_TUNE not in manifest.stage_order or not run.has_snapshot(SPARSIFY):
        return f"No snapshot of {SPARSIFY}"

    model = manifest.stage(SPARSIFY).model
    network = tasks.network(manifest.task, model, manifest.features, manifest.window)
    # the masks of a pruner or of L0 do not depend on a threshold
    layers = [layer for layer in network.modules() if isinstance(layer, Penalised)]
    has_threshold = not all(isinstance(layer, Gated) for layer in layers)
    return "" if has_threshold else "No threshold on log alpha"


def score_at(
    model: nn.Module,
    manifest: Manifest,
    components: Components,
    *,
    threshold: float,
    scorer: str = "validation",
) -> float:
    """Pooled average precision of a variational network, masked at `threshold`, not retrained.

    Args:
        model: of the stage before the one with masks, as `load_model` gives it.
        manifest: the run's.
        components: of `manifest`.
        threshold: on log alpha; weights above it are masked.
        scorer: whose feed.
    """
    masked = components.build(manifest.stage(FINE_TUNE))
    stages.inherit(masked, model, threshold=threshold)
    target, logit = predict(masked, components.feed(manifest.scorers[scorer].feed))
    return float(components.task.pooled_average_precision(target, logit))


def remask(
    source: str | Path,
    manifest: Manifest,
    into: str | Path,
    *,
    data: str | Path = "data",
    device: str = "cpu",
) -> list[str]:
    """Copy the stages before the first mask from one run to another with another threshold.

    `run(manifest, into)` then trains the others.

    Args:
        source: the folder of a run.
        manifest: that of the source but for its name and threshold.
        into: the folder of the new run.
        data, device: as of `run`.

    Returns:
        The names of the stages copied.

    Raises:
        ValueError: the manifests differ in more than that, or the source was trained on other
            data.
        FileNotFoundError: the source has no snapshots.
    """
    before = read_manifest(source).resolved()
    after = manifest.resolved()
    expected = grid.edit(before, {"name": after.name, "threshold": after.threshold})
    if expected.fingerprint() != after.fingerprint():
        raise ValueError(
            f"{source}: expected a manifest that differs in name and threshold only, got another"
        )

    old = RunFolder(source)
    new = RunFolder(into)
    fingerprints = Components(after, device=device, data=Path(data)).fingerprints
    plans = [stages.planned(m, data=fingerprints, device=device) for m in (before, after)]
    is_masked = tasks.vocabulary(after.task).is_masked
    results: dict[str, Any] = {}
    for number, ((stage, old_shared), (_, new_shared)) in enumerate(zip(*plans, strict=True)):
        if is_masked(stage.model.name):
            break

        result = (old.scores or {"stages": {}})["stages"].get(stage.name, {})
        if result.get("key") != old_shared.key:
            raise ValueError(
                f"{source}: expected stage {stage.name} trained on the data in {data}, got none; "
                f"try `run {old.path.parent} --again {old.path.name}`"
            )

        snapshot = old.read_snapshot(old.snapshot(number, stage.name))
        files.write_snapshot(new.snapshot(number, stage.name), snapshot | {"key": new_shared.key})

        counts = stages.counts(load_model(source, stage.name)[0], after.threshold)
        origin = result["reused_from"] or old.path.name
        results[stage.name] = result | counts | {"key": new_shared.key, "reused_from": origin}

    new.write_history([line for line in old.history if line["stage"] in results])
    about = {"schema": 1, "name": after.name, "seed": after.seed, "manifest": after.to_dict()}
    new.write_scores(about | {"stages": results})
    return list(results)


@style.styled
def draw(masked: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Score (left) and compression (right) against the threshold, a line a run of `scan`, `tune`.

    Dashed: masked only. Solid: fine-tuned again. Dotted: the manifest's own threshold.
    """
    figure, (score_axes, compression_axes) = plt.subplots(1, 2, figsize=(10, 4.2))
    colour_of = style.colours(masked)
    looks = style.looks(masked)
    style.dense(score_axes, masked)

    lines = ["method", "tuned", "setting", "folder", "run"]
    for (method, tuned, setting, _, _), run in masked.groupby(lines):
        run = run.sort_values("threshold")
        training = "fine-tuned again" if tuned else "masked only"
        label = f"{method} {setting}, {training}"
        look = {"marker": looks[method][1], "ms": 4, "ls": "-" if tuned else "--"}
        look["color"] = colour_of[setting]
        score_axes.plot(run["threshold"], run["average_precision"], label=label, **look)
        # compression is that of the mask, whether or not it is fine-tuned again
        if not tuned or masked["tuned"].all():
            compression_axes.plot(run["threshold"], run["compression"], **look)

    for own in sorted(set(masked["own"])):
        for axes in (score_axes, compression_axes):
            label = f"threshold of the manifest, {own:g}"
            axes.axvline(own, color=style.GUIDE, lw=1, ls=":", label=label)

    score_axes.set(xlabel="threshold on log alpha", ylabel=f"{style.PRECISION}, {scorer}")
    compression_axes.set(xlabel="threshold on log alpha", ylabel="compression, times", yscale="log")
    style.plain_log(compression_axes, axis="y")
    style.legend(score_axes)
    return figure
