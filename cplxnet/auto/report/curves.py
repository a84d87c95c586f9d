"""Curves: of precision against recall, pooled and note by note; of learning, epoch by epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cplxnet.auto import tasks
from cplxnet.auto.manifest.experiments import C

from . import style, tables
from .request import Report, Request
from .tables import Lacking

BY_NOTE = {
    "ap": "average precision",
    "precision": "precision at logit > 0",
    "recall": "recall at logit > 0",
}
LINES = ("-", "--", "-.", ":")


def report(request: Request) -> Report:
    """precision-recall, pooled and note by note"""
    scorer = request.scorer
    pooled, notes = rows(*request.folders, scorer=scorer)
    none = f"No pooled curves: scorer {scorer!r} does not keep them (curves: true)."
    drawn = figure(pooled, notes, scorer=scorer)
    return Report(drawn, pooled, [] if len(pooled) else [none], more={"by-note": notes})


def rows(*folders: str | Path, scorer: str = "test") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables, of the pooled curves and of the scores by note, after dense and fine-tune.

    Returns:
        Both with columns folder, run, method, C, seed and stage. Pooled: recall and precision, a
        row a point (of scorers with "curves": true). By note: note (its number), ap, precision
        and recall at logit > 0; notes that never sound are left out.

    Raises:
        Lacking: no run has such scores.
    """
    everything = tables.every_run(folders)
    pooled = []
    notes = []
    for folder in dict.fromkeys(map(str, folders)):
        for parameters, stages in tables.runs(folder):
            run = everything[folder, parameters["run"]]
            lowest = getattr(tasks.TASKS[run.manifest.task], "LOWEST_NOTE", 0)
            for stage in ("dense", "fine-tune"):
                own = run.columns | {"stage": stage}
                end = stages.get(stage, {}).get("scores", {}).get(scorer, {}).get("end") or {}

                curve = end.get("curve") or {"recall": [], "precision": []}
                for recall, precision in zip(curve["recall"], curve["precision"], strict=True):
                    pooled.append(own | {"recall": recall, "precision": precision})

                columns = [end.get("notes", {}).get(name, []) for name in BY_NOTE]
                for number, values in enumerate(zip(*columns, strict=True), start=lowest):
                    scores = dict(zip(BY_NOTE, values, strict=True))
                    if scores["ap"] is not None:
                        notes.append(own | {"note": number} | scores)

    if not pooled and not notes:
        raise Lacking(
            f"expected precision-recall curves by {scorer!r}, got none; "
            "try a scorer with curves: true in its manifest"
        )
    return pd.DataFrame(pooled), pd.DataFrame(notes)


@style.styled
def figure(pooled: pd.DataFrame, notes: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Top left the pooled curves; then average precision, precision and recall by note.

    Dense is grey. Lines by note are means over the replicates of one method and C.

    Args:
        pooled, notes: of `rows`.
        scorer: named in the title.
    """
    drawn, panels = plt.subplots(2, 2, figsize=(10, 7))
    first, *others = panels.flat
    colour_of = style.colours_of_c(*(table[C] for table in (pooled, notes) if len(table)))

    if len(pooled):
        _draw_pooled(first, pooled, colour_of)
    for axes, (name, title) in zip(others, BY_NOTE.items(), strict=True):
        if len(notes):
            _draw_by_note(axes, notes, name, colour_of)
        axes.set(xlabel="note, MIDI number", ylabel=title, ylim=(-0.03, 1.03))

    first.set(
        xlabel="recall",
        ylabel="precision, all notes pooled",
        ylim=(-0.03, 1.03),
        xlim=(-0.03, 1.03),
    )
    first.set_title(f"scored on {scorer}", fontsize=10)
    first.legend(fontsize=8, loc="lower left")
    return drawn


def _draw_pooled(axes: Axes, pooled: pd.DataFrame, colour_of: Callable[[float], Any]) -> None:
    labels = set()
    for (stage, method, c, _, _), points in pooled.groupby(["stage", "method", C, "folder", "run"]):
        look = _look(pooled, stage, method, c, colour_of)
        if look["label"] in labels:
            look["label"] = None  # once in the legend, however many replicates
        labels.add(look["label"])
        axes.step(points["recall"], points["precision"], where="pre", **look)


def _draw_by_note(
    axes: Axes, notes: pd.DataFrame, name: str, colour_of: Callable[[float], Any]
) -> None:
    dense = notes[notes["stage"] == "dense"]
    tuned = notes[notes["stage"] == "fine-tune"]

    if len(dense):
        means = dense.groupby("note")[name].mean()
        axes.plot(means.index, means, color="0.6", lw=3, label="dense")
    for (method, c), group in tuned.groupby(["method", C]):
        means = group.groupby("note")[name].mean()
        axes.plot(means.index, means, **_look(notes, "fine-tune", method, c, colour_of))


def _look(
    table: pd.DataFrame, stage: str, method: str, c: float, colour_of: Callable[[float], Any]
) -> dict[str, Any]:
    if stage == "dense":
        return {"color": "0.6", "lw": 3, "label": "dense", "zorder": 1}

    line = LINES[sorted(set(table["method"])).index(method) % len(LINES)]
    label = f"{method} C = {c:g}".strip()
    return {"color": colour_of(c), "ls": line, "lw": 1.2, "label": label}


@style.styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, validation score and KL of one run against the epoch, its stages one after another.

    Args:
        history: of `tables.history`.
    """
    titles = {
        "loss": "loss, nats per label",
        "validation": f"{style.PRECISION},\nvalidation",
        "kl": "KL sum, nats",
    }
    drawn, panels = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for stage, group in history.groupby("stage", sort=False):
            values = pd.to_numeric(group[column])
            if column == "kl":
                values = values.where(values > 0)  # 0: the objective has no KL term
            axes.plot(group.index, values, ".-", label=stage)
        axes.set_ylabel(title)

    panels[0].legend()
    panels[-1].set_xlabel("epoch, over all stages")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return drawn
