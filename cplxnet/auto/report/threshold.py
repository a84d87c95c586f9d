"""Runs re-masked at other thresholds on log alpha from their sparsify snapshots, with and without fine-tuning again.

Nothing before the masks is trained again: without fine-tuning the posterior means are masked and scored; with it, the
runner goes on from the old stages under a manifest of another threshold (see `remask`), in a folder of its own.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cplxnet import nn as cplx
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import load_model
from cplxnet.auto.progress import bar
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep.run_many import run_many

from . import plots, style, tables
from .folders import Lacking, by_method, methods
from .remask import SPARSIFY, TUNE, remask, score_at

THRESHOLDS = tuple(range(-6, 7))  # of log alpha


def scan(
    folders: Iterable[str | Path],
    *,
    runs: Sequence[str] | None = None,
    at: Sequence[float] = THRESHOLDS,
    scorer: str = "test",
    data: str | Path = "data",
    device: str = "cpu",
) -> pd.DataFrame:
    """Average precision and compression of every run with a sparsify snapshot, masked at each threshold; no training.

    runs: the names of those to be masked; None: all. Columns: folder, run, method, C, seed, threshold, compression,
    average_precision, tuned (False).

    Raises ValueError where no run has a snapshot; FileNotFoundError where the data is not there.
    """
    found, rows = snapshots(folders, runs), []
    labels = methods({f"{folder}/{run}": one for (folder, run), one in found.items()})
    with bar(total=len(found) * len(at), desc="thresholds", unit="score") as shown:
        for (folder, run), manifest in found.items():
            model = load_model(Path(folder) / run, SPARSIFY)[0].to(device)
            materials = Components(manifest, device=device, data=Path(data))
            own: dict[str, object] = {
                "folder": folder,
                "run": run,
                "method": labels[f"{folder}/{run}"],
            }
            own |= {C: grid.value(manifest, C), "seed": manifest.seed}
            for threshold in at:
                score = score_at(model, manifest, materials, threshold=threshold, scorer=scorer)
                compression = cplx.compression(model, threshold)
                row = {
                    "threshold": float(threshold),
                    "compression": compression,
                    "average_precision": score,
                }
                rows.append(own | row | {"tuned": False})
                shown.update()
    return pd.DataFrame(rows)


def snapshots(
    folders: Iterable[str | Path], runs: Sequence[str] | None = None
) -> dict[tuple[str, str], Manifest]:
    """(folder, run) -> manifest, of the runs with a snapshot of the stage before the masks.

    Raises ValueError, naming what is looked for, where there is none.
    """
    found = {}
    for folder in dict.fromkeys(map(str, folders)):
        for run, manifest in _asked(folder, runs).items():
            order = manifest.stage_order
            snapshot = SPARSIFY in order and TUNE in order and order.index(SPARSIFY)
            if (
                snapshot is not False
                and RunFolder(Path(folder) / run).snapshot(snapshot, SPARSIFY).is_file()
            ):
                found[folder, run] = manifest
    if not found:
        raise Lacking(
            f"expected runs with a snapshot of {SPARSIFY} (1-{SPARSIFY}.pt), got none in "
            f"{', '.join(map(str, folders))}{'' if runs is None else ' named ' + ', '.join(runs)}; "
            "snapshots are not committed: try to run the folder"
        )
    return found


def _asked(folder: str, runs: Sequence[str] | None) -> dict[str, Manifest]:
    """The manifests of a folder, or those of the runs asked for."""
    return {name: one for name, one in grid.read(folder).items() if runs is None or name in runs}


def without_snapshot(folders: Iterable[str | Path], runs: Sequence[str] | None = None) -> list[str]:
    """A sentence that names the runs whose snapshots are not there."""
    there = {(folder, run) for folder, run in snapshots(folders, runs)}
    lacking = [
        f"{folder}/{run}"
        for folder in map(str, folders)
        for run in _asked(folder, runs)
        if (folder, run) not in there
    ]
    return (
        [f"No snapshot of {SPARSIFY}, so not re-masked: {', '.join(lacking)}."] if lacking else []
    )


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
    """The same with fine-tuning again: a manifest and a run in `into` for each run and threshold, as `run` makes them.

    What is done is not done again, so the same call goes on with what was cut off. Columns as of `scan`, tuned True.
    Each run takes as much disk as the one it is made from.
    """
    found = snapshots(folders, runs)
    labels = methods({f"{folder}/{run}": one for (folder, run), one in found.items()})
    made: dict[str, Manifest] = {}
    about: dict[str, dict[str, object]] = {}
    for (folder, run), manifest in found.items():
        for threshold in at:
            label = f"{Path(folder).name}-{run}-t{threshold:g}"
            changes = {
                "name": f"{manifest.name} threshold {threshold:g}",
                "threshold": float(threshold),
            }
            made[label] = grid.edit(manifest, changes)
            own = {
                "folder": folder,
                "run": run,
                "method": labels[f"{folder}/{run}"],
                C: grid.value(manifest, C),
            }
            about[label] = own | {"seed": manifest.seed, "threshold": float(threshold)}
            if RunFolder(Path(into) / label).scores is None:
                remask(
                    Path(folder) / run, made[label], Path(into) / label, data=data, device=device
                )
    grid.write(into, made, overwrite=True)
    run_many(into, device=device, data=data)
    table = tables.collect(into)
    table = table[
        (table["scorer"] == scorer) & (table["stage"] == TUNE) & table["run"].isin(list(made))
    ]
    values = table.set_index("run")[["compression", "average_precision"]].to_dict("index")
    return pd.DataFrame(
        [about[label] | values[label] | {"tuned": True} for label in made if label in values]
    )


def figure(found: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Score (left) and compression (right) against the threshold, a line a run; solid after fine-tuning again."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    norm = plots.log_norm(found[C])
    several = found["method"].nunique() > 1
    for index, (method, group) in enumerate(by_method(found)):
        marker = style.of(index)[1]
        for (tuned, c, _, _), run in group.groupby(["tuned", C, "folder", "run"]):
            run = run.sort_values("threshold")
            look = {
                "color": plt.get_cmap(plots.COLOURS)(norm(c)),
                "marker": marker,
                "ms": 4,
                "ls": "-" if tuned else "--",
            }
            label = f"{method + ' ' if several else ''}C = {c:g}, {'fine-tuned again' if tuned else 'masked only'}"
            left.plot(run["threshold"], run["average_precision"], label=label, **look)
            if not tuned or not (~group["tuned"]).any():
                right.plot(run["threshold"], run["compression"], **look)
    left.set(xlabel="threshold on log alpha", ylabel=f"{plots.PRECISION}, {scorer}")
    right.set(xlabel="threshold on log alpha", ylabel="compression, times", yscale="log")
    plots.plain_log(right, axis="y")
    handles, labels = left.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    left.legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    return drawn
