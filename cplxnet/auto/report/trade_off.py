"""Average precision against compression: each run before and after fine-tuning, beside dense."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C

from . import style
from .request import Report, Request
from .tables import by_method, of_scorer


def report(request: Request) -> Report:
    """average precision against compression, before and after fine-tuning, with the Pareto front"""
    table = request.table()
    runs = rows(table, scorer=request.scorer)
    drawn = figure(runs, scorer=request.scorer, published=_published(table, request))

    on_front = [
        f"{run['run']} ({run['compression']:.3g} times fewer, {run['after']:.3f})"
        for _, run in runs[runs["pareto"]].sort_values("compression").iterrows()
    ]
    front = f"On the Pareto front after fine-tuning: {', '.join(on_front)}."
    return Report(drawn, runs, [front] if on_front else [])


def _published(table: pd.DataFrame, request: Request) -> dict[str, float]:
    """Published scores, if all runs were scored on what they were published for."""
    task = tasks.TASKS[next(iter(grid.read(request.folders[0]).values())).task]
    if not hasattr(task, "published"):
        return {}

    scores: dict[str, float] = {}
    for file, scored in table[table["scorer"] == request.scorer].groupby("file"):
        older = bool(scored["average_precision_trabelsi2018"].notna().any())
        published = task.published(str(file), data=request.data, older_protocol=older)
        if not published:
            return {}
        scores |= published
    return scores


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a run.

    Args:
        table: of `tables.gather`, or of `tables.collect`.
        scorer: whose scores.

    Returns:
        Columns folder, run, method, C, seed, compression, before and after (average precision
        around fine-tuning), dense, and pareto: no other run is both smaller and at least as
        precise. A run that is not fine-tuned yet has its dense score only.

    Raises:
        Lacking: no run has a score by `scorer`.
    """
    key = ["folder", "run"]
    names = {
        "compression": "compression",
        "average_precision_start": "before",
        "average_precision": "after",
    }
    scored = of_scorer(table, scorer)
    dense = scored[scored["stage"] == "dense"].set_index(key)
    tuned = scored[scored["stage"] == "fine-tune"].set_index(key)

    runs = scored.drop_duplicates(key).set_index(key)[["method", C, "seed"]]
    runs = runs.join(tuned[list(names)].rename(columns=names).astype(float))
    runs["dense"] = dense["average_precision"].astype(float).reindex(runs.index)
    runs["pareto"] = _on_front(runs)
    return runs.reset_index()


def _on_front(runs: pd.DataFrame) -> pd.Series:
    on_front = pd.Series(False, index=runs.index)
    tuned = runs.dropna(subset=["compression"])
    best = float("-inf")
    for index, run in tuned.sort_values(["compression", "after"])[::-1].iterrows():
        if run["after"] > best:
            best = run["after"]
            on_front[index] = True
    return on_front


@style.styled
def figure(
    runs: pd.DataFrame, *, scorer: str = "test", published: Mapping[str, float] | None = None
) -> Figure:
    """Every run hollow before and filled after fine-tuning, with its C; the Pareto front dashed.

    Dense is a band: the mean and spread (least to greatest) over replicates, one for each method
    if methods differ in it.

    Args:
        runs: of `rows`.
        scorer: named on the axis.
        published: label -> average precision, drawn as lines.
    """
    drawn, axes = plt.subplots(figsize=(7, 4.5))
    _bands(axes, runs)

    several = runs["method"].nunique() > 1
    colour_of = style.colours_of_c(runs[C])
    for index, (method, group) in enumerate(by_method(runs.dropna(subset=["compression"]))):
        colour, marker = style.of(index)
        for _, run in group.sort_values("compression").iterrows():
            _run(axes, run, colour if several else colour_of(run[C]), marker)
        _name_values(axes, group, below=bool(index % 2))  # methods' points may be close
        if several:
            axes.plot([], [], marker, color=colour, label=method)

    front = runs[runs["pareto"]].sort_values("compression")
    if len(front) > 1:
        x = front["compression"]
        axes.plot(x, front["after"], "--", color="0.3", lw=1, zorder=1, label="Pareto front")

    axes.plot([], [], "o", mfc="white", mec="0.4", label="before fine-tuning (number: C)")
    axes.plot([], [], "o", color="0.4", label="after fine-tuning")

    for label, value in (published or {}).items():
        axes.axhline(value, color="0.5", lw=0.8, ls=":")
        place: dict[str, Any] = {
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
        }
        axes.annotate(label, (1, value), (-3, 2), size=6, ha="right", **place)

    axes.set(xscale="log", xlabel=style.TIMES, ylabel=f"{style.PRECISION}, {scorer}")
    style.plain_log(axes)
    axes.margins(x=0.08, y=0.1)
    axes.legend(loc="best")
    return drawn


def _bands(axes: Axes, runs: pd.DataFrame) -> None:
    by_name = {method: group["dense"].dropna() for method, group in by_method(runs)}
    every = runs["dense"].dropna()

    # one band if a method has all the dense networks: the methods began from the same ones
    if any(set(scores) == set(every) for scores in by_name.values()):
        style.dense_band(axes, every, "0.5", "dense")
        return

    for index, (method, scores) in enumerate(by_name.items()):
        if len(scores):
            style.dense_band(axes, scores, style.of(index)[0], f"dense {method}")


def _run(axes: Axes, run: pd.Series, colour: object, marker: str) -> None:
    x = run["compression"]
    axes.plot([x, x], [run["before"], run["after"]], color=colour, lw=1, zorder=2)
    axes.plot(x, run["before"], marker, mfc="white", mec=colour, zorder=3)
    axes.plot(x, run["after"], marker, mfc=colour, mec=colour, zorder=3)


def _name_values(axes: Axes, runs: pd.DataFrame, *, below: bool) -> None:
    """Each C once, over the highest point of its replicates, or under the lowest."""
    scores = runs[["before", "after"]]
    ends = scores.min(axis="columns") if below else scores.max(axis="columns")
    outermost = runs.assign(end=ends).sort_values("end", ascending=not below).groupby(C).tail(1)

    shift = (0, -13 if below else 6)
    look: dict[str, Any] = {
        "size": 7,
        "ha": "center",
        "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
    }
    for _, run in outermost.iterrows():
        point = (run["compression"], run["end"])
        axes.annotate(f"{run[C]:g}", point, shift, textcoords="offset points", **look)
