"""Average precision against compression: each run before and after fine-tuning, beside dense."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cplxnet.auto import tasks

from . import style, tables
from .style import Report, Request
from .tables import by_method, by_run, of_scorer

MOST_NAMED = 5  # methods with numbers at their points; those of more would cover each other


def report(request: Request) -> Report:
    """The report of the kind "trade-off"."""
    table = request.table()
    runs = rows(table, scorer=request.scorer)
    figure = draw(runs, scorer=request.scorer, published=_published(table, request))

    on_front = [
        f"{tables.group_name(method, setting)} ({means['compression']:.3g} times fewer, "
        f"{means['after']:.4f}, {means['n']:.0f} replicate{'s' if means['n'] > 1 else ''})"
        for (method, setting), means in front(runs).iterrows()
    ]
    sentence = f"On the Pareto front of means after fine-tuning: {', '.join(on_front)}."
    return Report(figure, runs, [sentence] if on_front else [])


def _published(table: pd.DataFrame, request: Request) -> Mapping[str, float]:
    """Published scores, if the runs were scored on what they were published for."""
    task = tasks.TASKS[next(iter(tables.readable(request.folders[0]).values())).task]
    if not hasattr(task, "published"):
        return {}

    scored = of_scorer(table, request.scorer)
    file, _, _ = scored["scored_on"].iloc[0]
    by_protocol = scored.filter(regex="^average_precision_(?!start$)")
    older = bool(by_protocol.notna().any(axis=None))
    return task.published(file, data=request.data, older_protocol=older)


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a run of a table of `tables.collect`.

    Returns:
        Columns folder, run, method, C, setting, seed, compression, before and after (average
        precision around fine-tuning), dense, and pareto: its method and setting are on the `front`.
        A run that is not fine-tuned yet has its dense score only.

    Raises:
        Lacking: no run has a score by `scorer`, or the scores do not compare.
    """
    runs = by_run(of_scorer(table, scorer)).drop(columns=["kept", "n_par", "chance"])
    on_front = pd.MultiIndex.from_frame(runs[["method", "setting"]]).isin(front(runs).index)
    return runs.assign(pareto=on_front)


def front(runs: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front, by method and setting: none other is both smaller and at least as precise.

    Returns:
        Means over replicates of compression and after, and n, by rising compression.
    """
    tuned = runs.dropna(subset=["compression", "after"]).groupby(["method", "setting"])
    means = tuned[["compression", "after"]].mean().assign(n=tuned.size())
    means = means.sort_values(["compression", "after"])

    best_of_smaller = means["after"][::-1].cummax()[::-1].shift(-1, fill_value=float("-inf"))
    return means[means["after"] > best_of_smaller]


def _lowest(runs: pd.DataFrame) -> float:
    """The least score on the axis: well below all after fine-tuning and of dense networks.

    Pruners leave next to nothing before fine-tuning: an axis down to there would show one line.
    """
    scores = runs[["after", "dense"]].to_numpy(float)
    least, most = np.nanmin(scores, initial=1.0), np.nanmax(scores, initial=0.0)
    return float(least - 3 * max(most - least, 0.02))


@style.styled
def draw(
    runs: pd.DataFrame, *, scorer: str = "test", published: Mapping[str, float] | None = None
) -> Figure:
    """Every run of `rows`, hollow before and filled after fine-tuning, with its C or sparsity.

    The Pareto front is dashed, where it joins two settings and not methods alone. Scores before
    fine-tuning that are far below all others are not shown: their lines leave the axes, and the
    legend says how many there are, and where. More than `MOST_NAMED` methods are drawn after
    fine-tuning alone, with a line through the means of each and without the front, which would lie
    among these lines. `published` scores are lines with their names.
    """
    figure, axes = plt.subplots(figsize=(7, 4.5))
    style.dense(axes, runs)

    looks = style.looks(runs)
    is_crowded = len(looks) > MOST_NAMED
    if is_crowded:
        runs = runs.assign(before=np.nan)
    lowest = _lowest(runs)
    for index, (method, group) in enumerate(by_method(runs.dropna(subset=["compression"]))):
        colour, marker = looks[method]
        for _, run in group.iterrows():
            x = run["compression"]
            axes.plot([x, x], [run["before"], run["after"]], color=colour, lw=1, zorder=2)
            axes.plot(x, run["before"], marker, mfc="white", mec=colour, zorder=3)
            axes.plot(x, run["after"], marker, mfc=colour, mec=colour, zorder=3)
        if is_crowded:
            means = group.groupby("setting")[["compression", "after"]].mean()
            axes.plot(*means.sort_values("compression").to_numpy().T, color=colour, lw=1)
        else:
            shown = group.assign(before=group["before"].where(group["before"] >= lowest))
            _name_values(axes, shown, below=bool(index % 2))  # methods' points may be close
        if len(looks) > 1:
            axes.plot([], [], marker, color=colour, label=method)

    means = front(runs)
    if not is_crowded and means.index.get_level_values("setting").nunique() > 1:
        label = "Pareto front of means"
        axes.plot(means["compression"], means["after"], "--", color=style.GUIDE, lw=1, label=label)

    hidden = runs.loc[runs["before"] < lowest, "before"]
    if is_crowded:
        axes.plot([], [], color=style.GUIDE, lw=1, label="through the means, after fine-tuning")
    else:
        kinds = sorted({setting.partition(" = ")[0] for setting in runs["setting"]} - {""})
        number_legend = f" (number: {' or '.join(kinds)})" if kinds else ""
        before = f"before fine-tuning{number_legend}"
        if len(hidden):
            before += f", {len(hidden)} more below, {hidden.min():.3f} to {hidden.max():.3f}"
        axes.plot([], [], "o", mfc="white", mec=style.GUIDE, label=before)
        axes.plot([], [], "o", color=style.GUIDE, label="after fine-tuning")

    for label, value in (published or {}).items():
        axes.axhline(value, color=style.GUIDE, lw=0.8, ls=":")
        at_right = axes.get_yaxis_transform()
        axes.annotate(label, (1, value), (-3, 2), at_right, "offset points", size=6, ha="right")

    axes.set(xscale="log", xlabel=style.TIMES, ylabel=f"{style.PRECISION}, {scorer}")
    style.plain_log(axes)
    axes.margins(x=0.08, y=0.1)
    if len(hidden):
        most = np.nanmax(runs[["before", "after", "dense"]])
        axes.set_ylim(lowest, most + 0.1 * (most - lowest))
    else:
        style.near_one(axes, runs[["before", "after", "dense"]].to_numpy(float))
    style.legend(axes)
    return figure


def _name_values(axes: Axes, runs: pd.DataFrame, *, below: bool) -> None:
    """Each C or sparsity once, over the highest point of its replicates, or under the lowest."""
    scores = runs[["before", "after"]]
    ends = scores.min(axis="columns") if below else scores.max(axis="columns")
    outermost = (
        runs.assign(end=ends).sort_values("end", ascending=not below).groupby("setting").tail(1)
    )

    shift = (0, -13 if below else 6)
    halo = [withStroke(linewidth=2, foreground="white")]  # a box would cut the lines behind it
    for _, run in outermost.iterrows():
        axes.annotate(
            run["setting"].partition(" = ")[2],
            (run["compression"], run["end"]),
            shift,
            textcoords="offset points",
            size=7,
            ha="center",
            path_effects=halo,
        )
