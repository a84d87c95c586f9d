"""Curves: of precision against recall, pooled and class by class; of learning, epoch by epoch, and
where it stopped.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cplxnet.auto import tasks
from cplxnet.auto.manifest.grid import DENSE, FINE_TUNE

from . import style, tables
from .style import Report, Request
from .tables import Lacking, by_method, by_setting, of_scorer

STAGES = (DENSE, FINE_TUNE)
MOST_DRAWN = 12  # methods and settings whose lines can be told apart
BY_CLASS = {
    "ap": "average precision",
    "precision": "precision at logit > 0",
    "recall": "recall at logit > 0",
    "support": "positives among the windows",
}


def report(request: Request) -> Report:
    """The report of the kind "curves"."""
    scorer = request.scorer
    pooled, classes, task = rows(*request.folders, scorer=scorer)
    sentences = list(_losses(classes, task["name"]))
    if pooled.empty:
        sentences.append(f"No pooled curves: scorer {scorer!r} does not keep them (curves: true).")
    figure = draw(pooled, classes, scorer=scorer, axis=task["axis"])
    return Report(figure, pooled, sentences, more={f"by-{task['name']}": classes})


def rows(
    *folders: str | Path, scorer: str = "test"
) -> tuple[pd.DataFrame, pd.DataFrame, Mapping[str, Any]]:
    """Two tables, of the pooled curves and of the scores by class, after dense and fine-tune.

    Returns:
        Both with columns folder, run, method, C, setting, seed and stage. Pooled: recall and
        precision, a row a point (of scorers with "curves": true). By class: class (its number), ap,
        precision, recall at logit > 0, and support (positives), as far as they were kept; classes
        without a positive are left out, and so is the precision of one that was never reported.
        Then what the task says of its classes (`Task.CLASSES`).

    Raises:
        Lacking: no run has such scores, or they do not compare.
    """
    runs = [run for run in tables.every_run(folders) if set(STAGES) & set(run.stages)]
    runs = [run for run in runs if scorer in run.manifest.scorers]
    tables.refuse_other_windows(runs, scorer)

    pooled = []
    classes = []
    task: Mapping[str, Any] = {"name": "class", "axis": "class"}
    for run in runs:
        task = getattr(tasks.TASKS[run.manifest.task], "CLASSES", task)
        for stage in STAGES:
            own = run.columns | {"stage": stage}
            end = run.stages.get(stage, {}).get("scores", {}).get(scorer, {}).get("end") or {}

            curve = end.get("curve") or {"recall": [], "precision": []}
            for recall, precision in zip(curve["recall"], curve["precision"], strict=True):
                pooled.append(own | {"recall": recall, "precision": precision})

            kept = end.get(task.get("key"), {})
            scores = pd.DataFrame({name: kept[name] for name in BY_CLASS if name in kept})
            scores.insert(0, "class", scores.index + task.get("first", 0))
            if "support" not in scores and len(scores):
                # older files have 0 there whether or not the class was ever reported
                scores["precision"] = scores["precision"].where(scores["recall"] > 0)
            classes += [own | row for row in scores.to_dict("records") if row["ap"] == row["ap"]]

    if not pooled and not classes:
        raise Lacking(
            f"expected precision-recall curves by {scorer!r}, got none; "
            "try a scorer with curves: true in its manifest"
        )

    about = [*tables.RUN, "stage"]
    return (
        pd.DataFrame(pooled, columns=[*about, "recall", "precision"]),
        pd.DataFrame(classes, columns=None if classes else [*about, "class", *BY_CLASS]),
        task,
    )


def _losses(classes: pd.DataFrame, name: str) -> Iterator[str]:
    """For each method the classes that its greatest C or sparsity costs most."""
    for method, setting in _greatest(classes[classes["stage"] == FINE_TUNE]).items():
        runs = classes[(classes["method"] == method) & (classes["setting"] == setting)]
        ap = runs.pivot_table("ap", "class", "stage").reindex(columns=STAGES).dropna()
        worst = (ap[DENSE] - ap[FINE_TUNE]).nlargest(3).index
        costs = [
            f"{name} {k} ({ap.loc[k, DENSE]:.3f} to {ap.loc[k, FINE_TUNE]:.3f})" for k in worst
        ]
        if costs:
            group = tables.group_name(method, setting)
            yield f"{group} loses most average precision at {', '.join(costs)}."


@style.styled
def draw(
    pooled: pd.DataFrame, classes: pd.DataFrame, *, scorer: str = "test", axis: str = "class"
) -> Figure:
    """Top left the pooled curves; then average precision, precision, recall, support by class.

    Both tables are of `rows`; `axis` is the label of an axis of classes. Dense is grey. Lines by
    class are means over the replicates of one method and C (or sparsity); of more than twelve, each
    method's greatest is drawn alone.
    """
    scored = f"scored on {scorer}"
    both = (pooled, classes)
    if max(len(table[["method", "setting"]].drop_duplicates()) for table in both) > MOST_DRAWN:
        pooled, classes = (
            table[table["setting"] == table["method"].map(_greatest(table))] for table in both
        )
        scored += ", greatest C or sparsity"

    figure, panels = plt.subplots(2, 3, figsize=(12, 6.5))
    first, *others, key = panels.flat
    colour_of = style.colours(*(table for table in (pooled, classes) if len(table)))

    runs = ["stage", "method", "setting", "folder", "run"]
    for (stage, method, setting, _, _), points in pooled.groupby(runs):
        look = _look(pooled, stage, method, setting, colour_of)
        first.step(points["recall"], points["precision"], where="pre", **look)
    first.set(xlabel="recall", ylabel="precision, all classes pooled", xlim=(-0.03, 1.03))
    first.set_title(scored, fontsize=10)

    for axes, (name, title) in zip(others, BY_CLASS.items(), strict=True):
        if name not in classes or classes.empty:
            axes.set_axis_off()
            continue
        _draw_by_class(axes, classes, name, colour_of)
        axes.set(xlabel=axis, ylabel=title)
        if name == "support":
            axes.set_yscale("log")
            style.plain_log(axes, axis="y")

    for axes in (first, *others[:3]):
        axes.set_ylim(-0.03, 1.03)
    style.legend(first if len(pooled) else others[0], on=key, place="center")
    key.set_axis_off()
    return figure


def _greatest(rows: pd.DataFrame) -> dict[str, str]:
    """Of each method the setting with the greatest C or sparsity."""
    return {method: setting for method, setting, _ in by_setting(rows)}


def _draw_by_class(
    axes: Axes, classes: pd.DataFrame, name: str, colour_of: Mapping[str, Any]
) -> None:
    dense = classes["stage"] == DENSE
    means = classes[dense].groupby("class")[name].mean()
    axes.plot(means.index, means, color=style.DENSE, lw=3, label="dense")
    if name == "support":
        return  # the same for all networks

    for method, setting, group in by_setting(classes[~dense]):
        means = group.groupby("class")[name].mean()
        axes.plot(means.index, means, **_look(classes, FINE_TUNE, method, setting, colour_of))


def _look(
    table: pd.DataFrame, stage: str, method: str, setting: str, colour_of: Mapping[str, Any]
) -> dict[str, Any]:
    if stage == DENSE:
        return {"color": style.DENSE, "lw": 3, "label": "dense", "zorder": 1}

    line = style.LINES[sorted(set(table["method"])).index(method) % len(style.LINES)]
    label = f"{method} {setting}".strip()
    return {"color": colour_of[setting], "ls": line, "lw": 1.2, "label": label}


@style.styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, validation score, KL and compression of one run, by its `tables.history`.

    Each is drawn where it was taken, in epochs trained by then: validation before an epoch, and
    once more after a stage's last one; the others at an epoch's end. Compression is there where the
    history has it.
    """
    titles = {
        "loss": "loss, nats per label",
        "validation": f"{style.PRECISION},\nvalidation",
        "kl": "KL sum, nats",
        "compression": "compression, times",
    }
    titles = {column: title for column, title in titles.items() if column in history}
    numbers = history.drop(columns="stage").astype(float)
    height = 1 + 1.9 * len(titles)
    figure, panels = plt.subplots(len(titles), 1, figsize=(7, height), sharex=True)
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for stage, rows in numbers.groupby(history["stage"], sort=False):
            values = rows[column].set_axis(rows.index + (column != "validation"))
            if column == "validation" and "validation_after" in rows:
                after = rows["validation_after"].dropna()
                values = pd.concat([values, after.set_axis(after.index + 1)])
            # a KL of 0: the objective has no such term
            values = values.where(values > 0) if column == "kl" else values.dropna()
            axes.plot(values.index, values, ".-", label=stage)
        axes.set_ylabel(title)
        if column == "kl" and not (numbers["kl"] > 0).any():
            axes.set_yticks([])  # nothing yet: matplotlib would count from -0.05 to 0.05
        if column == "compression":
            axes.set_yscale("log")
            style.plain_log(axes, axis="y")

    style.legend(panels[0])
    panels[-1].set_xlabel("epochs trained, over all stages")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def stopping_report(request: Request) -> Report:
    """The report of the kind "stopping"."""
    runs = ends(request.table(), scorer=request.scorer)

    early = runs[runs["stopped_early"].astype(bool)]
    sentence = f"{len(early)} of {len(runs)} runs stopped fine-tuning early"
    if len(early):
        least, most = early["epochs"].min(), early["epochs"].max()
        epochs = f"{least}" if least == most else f"{least} to {most}"
        sentence += f", after {epochs} epoch{'' if most == 1 else 's'}"
    return Report(ends_figure(runs), runs, [f"{sentence}."])


def ends(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a fine-tuned run of a table of `tables.collect`.

    Returns:
        Columns folder, run, method, C, setting, seed, compression, epochs, n_epochs (planned) and
        stopped_early.
    """
    course = ["compression", "epochs", "n_epochs", "stopped_early"]
    tuned = of_scorer(table, scorer, FINE_TUNE, on_one_set=False)
    return tuned[[*tables.RUN, *course]].astype({"compression": float})


@style.styled
def ends_figure(runs: pd.DataFrame) -> Figure:
    """Filled: stopped early. Hollow: trained to the end of the schedule, the dotted line."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for n_epochs in sorted(set(runs["n_epochs"])):
        axes.axhline(n_epochs, color=style.GUIDE, ls=":", lw=1)

    looks = style.looks(runs)
    for method, group in by_method(runs):
        colour, marker = looks[method]
        for early, ends in group.groupby("stopped_early"):
            face = colour if early else "white"
            label = f"{method}, {'stopped early' if early else 'whole schedule'}"
            axes.plot(
                ends["compression"], ends["epochs"], marker, mfc=face, mec=colour, label=label
            )

    axes.set(xscale="log", xlabel=style.TIMES, ylabel="epochs of fine-tuning")
    axes.set_ylim(0, 1.1 * max(runs["n_epochs"]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    style.plain_log(axes)
    style.legend(axes)
    return figure
