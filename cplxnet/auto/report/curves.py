"""Precision and recall: pooled over all notes and windows, and note by note."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C

from . import plots, tables
from .folders import Lacking, methods

NOTE = {
    "ap": "average precision",
    "precision": "precision at logit > 0",
    "recall": "recall at logit > 0",
}
LINES = ("-", "--", "-.", ":")


def rows(*folders: str | Path, scorer: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables, each with folder, run, method, C, seed and stage: the pooled curves and the scores by note.

    Pooled: precision and recall, a row a point (of scorers with "curves": true). By note: note (its number), ap,
    precision and recall at logit > 0; notes that never sound are left out. Stages dense and fine-tune.

    Raises ValueError where no run has such scores.
    """
    manifests = {
        f"{folder}/{name}": one for folder in folders for name, one in grid.read(folder).items()
    }
    labels, pooled, notes = methods(manifests), [], []
    for folder in dict.fromkeys(map(str, folders)):
        for about, results in tables.runs(folder):
            one = manifests[f"{folder}/{about['run']}"]
            lowest = getattr(tasks.TASKS[one.task], "LOWEST_NOTE", 0)
            own = {
                "folder": folder,
                "run": about["run"],
                "method": labels[f"{folder}/{about['run']}"],
            }
            own |= {C: grid.value(one, C), "seed": one.seed}
            for stage in ("dense", "fine-tune"):
                end = results.get(stage, {}).get("scores", {}).get(scorer, {}).get("end") or {}
                pooled += [own | {"stage": stage, **point} for point in _points(end.get("curve"))]
                notes += [
                    own | {"stage": stage, "note": lowest + point.pop("index"), **point}
                    for point in _notes(end)
                ]
    if not pooled and not notes:
        raise Lacking(
            f"expected precision-recall curves by {scorer!r}, got none; try a scorer with curves: true in its manifest"
        )
    return pd.DataFrame(pooled), pd.DataFrame(notes)


def _points(curve: dict[str, list[float]] | None) -> list[dict[str, float]]:
    curve = curve or {"recall": [], "precision": []}
    return [
        {"recall": r, "precision": p}
        for r, p in zip(curve["recall"], curve["precision"], strict=True)
    ]


def _notes(end: dict[str, Any]) -> list[dict[str, Any]]:
    lists = [end.get("notes", {}).get(name, []) for name in NOTE]
    found = [
        {"index": k, **dict(zip(NOTE, values, strict=True))}
        for k, values in enumerate(zip(*lists, strict=True))
    ]
    return [point for point in found if point["ap"] is not None]


def figure(pooled: pd.DataFrame, notes: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Top left the pooled curves, then average precision, precision and recall by note; dense in grey.

    Lines by note are means over the replicates of one method and C.
    """
    drawn, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    norm = plots.log_norm(pd.concat([table[C] for table in (pooled, notes) if len(table)]))
    first, *others = panels.flat
    if len(pooled):
        _pooled(first, pooled, norm)
    for axes, (name, title) in zip(others, NOTE.items(), strict=True):
        if len(notes):
            _by_note(axes, notes, name, norm)
        axes.set(xlabel="note, MIDI number", ylabel=title, ylim=(-0.03, 1.03))
    first.set(
        xlabel="recall",
        ylabel="precision, all notes pooled",
        ylim=(-0.03, 1.03),
        xlim=(-0.03, 1.03),
    )
    first.set_title(f"scored on {scorer}", fontsize=10)
    for axes in panels.flat:
        axes.grid(alpha=0.25)
    first.legend(frameon=False, fontsize=8, loc="lower left")
    return drawn


def _pooled(axes: Axes, pooled: pd.DataFrame, norm: Any) -> None:
    said = set()
    for (stage, method, c, _, _), points in pooled.groupby(["stage", "method", C, "folder", "run"]):
        look = _look(pooled, stage, method, c, norm)
        label = look.pop("label")
        axes.step(
            points["recall"],
            points["precision"],
            where="pre",
            label=None if label in said else label,
            **look,
        )
        said.add(label)


def _by_note(axes: Axes, notes: pd.DataFrame, name: str, norm: Any) -> None:
    dense, tuned = (notes[notes["stage"] == stage] for stage in ("dense", "fine-tune"))
    if len(dense):
        means = dense.groupby("note")[name].mean()
        axes.plot(means.index, means, color="0.6", lw=3, label="dense")
    for (method, c), group in tuned.groupby(["method", C]):
        means = group.groupby("note")[name].mean()
        axes.plot(means.index, means, **_look(notes, "fine-tune", method, c, norm))


def _look(table: pd.DataFrame, stage: str, method: str, c: float, norm: Any) -> dict[str, Any]:
    if stage == "dense":
        return {"color": "0.6", "lw": 3, "label": "dense", "zorder": 1}
    style = LINES[sorted(set(table["method"])).index(method) % len(LINES)]
    return {
        "color": plt.get_cmap(plots.COLOURS)(norm(c)),
        "ls": style,
        "lw": 1.2,
        "label": f"{method} C = {c:g}".strip(),
    }
