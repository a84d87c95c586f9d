"""Runs masked at other thresholds on log alpha, without and with fine-tuning again.

What is trained before the first mask does not depend on the threshold. Without fine-tuning, the
posterior means of the sparsify snapshot are masked and scored. With it, the earlier stages are
copied under the keys of a manifest with another threshold, and the runner goes on from there, in a
folder of its own.
"""

from collections.abc import Iterable, Sequence
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
from cplxnet.auto.manifest.experiments import C
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import load_model, read_manifest
from cplxnet.auto.progress import bar
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep.run_many import run_many
from cplxnet.auto.train.loop import predict

from . import style, tables
from .style import Report, Request
from .tables import Lacking, Run

SPARSIFY = "sparsify"
TUNE = "fine-tune"
THRESHOLDS = tuple(range(-6, 7))  # of log alpha


def report(request: Request) -> Report:
    """every run masked at other thresholds, from its snapshot; --tune: fine-tuned again"""
    options: dict[str, Any] = {
        "runs": request.runs,
        "at": THRESHOLDS if request.at is None else request.at,
        "scorer": request.scorer,
        "data": request.data,
        "device": request.device,
    }
    masked = scan(request.folders, **options)
    if request.tune:
        tuned = tune(request.folders, request.out / "threshold-runs", **options)
        masked = pd.concat([masked, tuned], ignore_index=True)

    lacking = without_snapshot(request.folders, request.runs)
    return Report(figure(masked, scorer=request.scorer), masked, lacking)


def scan(
    folders: Iterable[str | Path],
    *,
    runs: Sequence[str] | None = None,
    at: Sequence[float] = THRESHOLDS,
    scorer: str = "test",
    data: str | Path = "data",
    device: str = "cpu",
) -> pd.DataFrame:
    """Score every run with a sparsify snapshot, masked at each threshold; nothing is trained.

    Args:
        folders: of manifests and runs.
        runs: the names of those to be masked; None: all.
        at: thresholds on log alpha.
        scorer: whose scores.
        data: the folder of the data files.
        device: what scores.

    Returns:
        Columns folder, run, method, C, seed, own (the manifest's threshold), dense (the dense
        network's score), threshold, compression, average_precision and tuned (False).

    Raises:
        Lacking: no run has a snapshot or this scorer, or their scores do not compare.
        FileNotFoundError: the data is not there.
    """
    chosen = scored(snapshots(folders, runs), scorer)
    tables.refuse_other_windows(chosen, scorer)
    rows = []
    with bar(total=len(chosen) * len(at), desc="thresholds", unit="score") as shown:
        for run in chosen:
            model = load_model(run.files.path, SPARSIFY)[0].to(device)
            components = Components(run.manifest, device=device, data=Path(data))
            for threshold in at:
                result = {
                    "threshold": float(threshold),
                    "compression": cplx.compression(model, threshold),
                    "average_precision": score_at(
                        model, run.manifest, components, threshold=threshold, scorer=scorer
                    ),
                    "tuned": False,
                }
                rows.append(about(run, scorer) | result)
                shown.update()
    return pd.DataFrame(rows)


def tune(
    folders: Iterable[str | Path],
    into: str | Path,
    *,
    runs: Sequence[str] | None = None,
    at: Sequence[float] = THRESHOLDS,
    scorer: str = "test",
    data: str | Path = "data",
    device: str = "cpu",
) -> pd.DataFrame:
    """`scan` with fine-tuning again: a manifest and a run in `into` for each run and threshold.

    The same call goes on with what was cut off. Each run takes as much disk as the one it is made
    from.

    Returns:
        Columns as of `scan`, tuned True.
    """
    manifests: dict[str, Manifest] = {}
    columns: dict[str, dict[str, Any]] = {}
    for run in scored(snapshots(folders, runs), scorer):
        for threshold in at:
            name = f"{Path(run.folder).name}-{run.name}-t{threshold:g}"
            title = f"{run.manifest.name} threshold {threshold:g}"
            changes = {"name": title, "threshold": float(threshold)}
            manifests[name] = grid.edit(run.manifest, changes)
            columns[name] = about(run, scorer) | {"threshold": float(threshold)}

            target = Path(into) / name
            if RunFolder(target).scores is None:
                remask(run.files.path, manifests[name], target, data=data, device=device)

    grid.write(into, manifests, overwrite=True)
    run_many(into, device=device, data=data)

    table = tables.collect(into)
    table = table[(table["scorer"] == scorer) & (table["stage"] == TUNE)].set_index("run")
    results = table[["compression", "average_precision"]].to_dict("index")
    return pd.DataFrame(
        [columns[name] | results[name] | {"tuned": True} for name in manifests if name in results]
    )


def scored(runs: Sequence[Run], scorer: str) -> list[Run]:
    """The runs with this scorer; Lacking: there is none."""
    scored = [run for run in runs if scorer in run.manifest.scorers]
    if not scored:
        there = ", ".join(sorted({name for run in runs for name in run.manifest.scorers}))
        raise Lacking(f"expected runs with a scorer {scorer!r}, got none; try one of {there}")
    return scored


def about(run: Run, scorer: str) -> dict[str, Any]:
    dense = run.stages.get("dense", {"scores": {}})["scores"].get(scorer)
    return run.columns | {
        "own": run.manifest.threshold,
        "dense": dense and dense["end"]["average_precision"],
    }


def snapshots(folders: Iterable[str | Path], runs: Sequence[str] | None = None) -> list[Run]:
    """The runs with a snapshot of the stage before the masks.

    Args:
        folders: of manifests and runs.
        runs: the names of those to look at; None: all.

    Raises:
        Lacking: there is none; the text says what is looked for.
    """
    folders = list(folders)
    chosen = [run for run in _asked(folders, runs) if _has_snapshot(run)]
    if not chosen:
        named = "" if runs is None else f" named {', '.join(runs)}"
        raise Lacking(
            f"expected runs with a snapshot of {SPARSIFY} (1-{SPARSIFY}.pt), got none in "
            f"{', '.join(map(str, folders))}{named}; snapshots are not committed: try "
            f"`python -m cplxnet.auto run {folders[0]} --again NAME`, which makes them"
        )
    return chosen


def without_snapshot(folders: Iterable[str | Path], runs: Sequence[str] | None = None) -> list[str]:
    """A sentence that names the runs without such a snapshot."""
    runs_asked = _asked(folders, runs)
    lacking = [f"{run.folder}/{run.name}" for run in runs_asked if not _has_snapshot(run)]
    sentence = f"No snapshot of {SPARSIFY}, so not re-masked: {', '.join(lacking)}."
    return [sentence] if lacking else []


def _asked(folders: Iterable[str | Path], runs: Sequence[str] | None) -> list[Run]:
    return [run for run in tables.every_run(folders) if runs is None or run.name in runs]


def _has_snapshot(run: Run) -> bool:
    order = run.manifest.stage_order
    return {SPARSIFY, TUNE} <= set(order) and run.files.snapshot(
        order.index(SPARSIFY), SPARSIFY
    ).is_file()


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
    masked = components.build(manifest.stage(TUNE))
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
    for number, ((stage, then), (_, now)) in enumerate(zip(*plans, strict=True)):
        if is_masked(stage.model.name):
            break

        result = (old.scores or {"stages": {}})["stages"].get(stage.name, {})
        if result.get("key") != then.key:
            raise ValueError(
                f"{source}: expected stage {stage.name} trained on the data in {data}, got none; "
                f"try `run {old.path.parent} --again {old.path.name}`"
            )

        snapshot = files.read_tensors(old.snapshot(number, stage.name))
        files.write_snapshot(new.snapshot(number, stage.name), snapshot | {"key": now.key})

        counts = stages.counts(load_model(source, stage.name)[0], after.threshold)
        origin = result["reused_from"] or old.path.name
        results[stage.name] = result | counts | {"key": now.key, "reused_from": origin}

    new.write_history([line for line in old.history if line["stage"] in results])
    about = {"schema": 1, "name": after.name, "seed": after.seed, "manifest": after.to_dict()}
    new.write_scores(about | {"stages": results})
    return list(results)


@style.styled
def figure(masked: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Score (left) and compression (right) against the threshold, a line a run.

    Dashed: masked only. Solid: fine-tuned again. Dotted: the manifest's own threshold.

    Args:
        masked: of `scan` and `tune`.
        scorer: named on the axis.
    """
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    colour_of = style.colours_of_c(masked[C])
    looks = style.looks(masked)
    style.dense(left, masked)

    for (method, tuned, c, _, _), run in masked.groupby(["method", "tuned", C, "folder", "run"]):
        run = run.sort_values("threshold")
        how = "fine-tuned again" if tuned else "masked only"
        label = f"{method if len(looks) > 1 else ''} C = {c:g}, {how}".lstrip()
        look = {"marker": looks[method][1], "ms": 4, "ls": "-" if tuned else "--"}
        look["color"] = colour_of(c)
        left.plot(run["threshold"], run["average_precision"], label=label, **look)
        # compression is that of the mask, whether or not it is fine-tuned again
        if not tuned or masked["tuned"].all():
            right.plot(run["threshold"], run["compression"], **look)

    for own in sorted(set(masked["own"])):
        for axes in (left, right):
            axes.axvline(
                own, color="0.3", lw=1, ls=":", label=f"threshold of the manifest, {own:g}"
            )

    left.set(xlabel="threshold on log alpha", ylabel=f"{style.PRECISION}, {scorer}")
    right.set(xlabel="threshold on log alpha", ylabel="compression, times", yscale="log")
    style.plain_log(right, axis="y")
    style.legend(left)
    return drawn
