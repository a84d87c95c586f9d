"""Average precision against compression: each method's runs before and after fine-tuning, beside the dense network."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cplxnet.auto.manifest.experiments import C

from . import plots, style
from .folders import by_method, chosen


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a run: method, run, C, seed, compression, score before and after fine-tuning, dense, pareto.

    table: of `gather`, or of `report.collect`. A run that is not fine-tuned yet has its dense score only. pareto: no
    other run is both smaller and at least as precise.

    Raises ValueError where no run has a score by `scorer`.
    """
    scored = chosen(table, scorer)
    dense, tuned = (
        scored[scored["stage"] == stage].set_index(["folder", "run"])
        for stage in ("dense", "fine-tune")
    )
    about = scored.drop_duplicates(["folder", "run"]).set_index(["folder", "run"])[
        ["method", C, "seed"]
    ]
    columns = {
        "compression": "compression",
        "average_precision_start": "before",
        "average_precision": "after",
    }
    found = about.join(tuned[list(columns)].rename(columns=columns).astype(float))
    found["dense"] = dense["average_precision"].astype(float).reindex(found.index)
    found["pareto"] = _front(found)
    return found.reset_index()


def _front(found: pd.DataFrame) -> pd.Series:
    best, on = float("-inf"), pd.Series(False, index=found.index)
    for index, row in (
        found.dropna(subset=["compression"]).sort_values(["compression", "after"])[::-1].iterrows()
    ):
        if row["after"] > best:
            best, on[index] = row["after"], True
    return on


def figure(
    found: pd.DataFrame, *, scorer: str = "test", published: Mapping[str, float] | None = None
) -> Figure:
    """Every run hollow before and filled after fine-tuning, with its C; dense as a band; the Pareto front dashed.

    found: of `rows`. The band is the dense scores' mean and their spread over replicates (least to greatest), one for
    each method where methods differ in it. published: label -> average precision, drawn as lines.
    """
    drawn, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    _bands(axes, found)
    several = found["method"].nunique() > 1
    norm = plots.log_norm(found[C])
    for index, (method, runs) in enumerate(by_method(found.dropna(subset=["compression"]))):
        colour, marker = style.of(index)
        for _, run in runs.sort_values("compression").iterrows():
            _run(
                axes, run, colour if several else plt.get_cmap(plots.COLOURS)(norm(run[C])), marker
            )
        _name_values(axes, runs, below=bool(index % 2))  # methods' points may be close
        if several:
            axes.plot([], [], marker, color=colour, label=method)
    _front_line(axes, found)
    axes.plot([], [], "o", mfc="white", mec="0.4", label="before fine-tuning (number: C)")
    axes.plot([], [], "o", color="0.4", label="after fine-tuning")
    for label, value in (published or {}).items():
        axes.axhline(value, color="0.5", lw=0.8, ls=":")
        axes.annotate(
            label,
            (1, value),
            (-3, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            size=6,
            ha="right",
        )
    axes.set(
        xscale="log",
        xlabel="compression, times fewer real numbers",
        ylabel=f"{plots.PRECISION}, {scorer}",
    )
    plots.plain_log(axes)
    axes.margins(x=0.08, y=0.1)
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    return drawn


def _run(axes: Axes, run: pd.Series, colour: object, marker: str) -> None:
    x, before, after = run["compression"], run["before"], run["after"]
    axes.plot([x, x], [before, after], color=colour, lw=1, zorder=2)
    axes.plot(x, before, marker, mfc="white", mec=colour, zorder=3)
    axes.plot(x, after, marker, mfc=colour, mec=colour, zorder=3)


def _name_values(axes: Axes, runs: pd.DataFrame, *, below: bool = False) -> None:
    """Each C once, over the highest point of its replicates, or under the lowest."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    scores = runs[["before", "after"]]
    ends = runs.assign(end=scores.min(axis="columns") if below else scores.max(axis="columns"))
    for _, run in ends.sort_values("end", ascending=not below).groupby(C).tail(1).iterrows():
        at, shift = (run["compression"], run["end"]), (0, -13 if below else 6)
        axes.annotate(
            f"{run[C]:g}", at, shift, textcoords="offset points", ha="center", size=7, bbox=box
        )


def _bands(axes: Axes, found: pd.DataFrame) -> None:
    dense = {method: runs["dense"].dropna() for method, runs in by_method(found)}
    every = set(found["dense"].dropna())
    if any(
        set(scores) == every for scores in dense.values()
    ):  # methods begin from the same networks, if trained yet
        return plots.dense_band(axes, found["dense"].dropna(), "0.5", "dense")
    for index, (method, scores) in enumerate(dense.items()):
        if len(scores):
            plots.dense_band(axes, scores, style.of(index)[0], f"dense {method}")


def _front_line(axes: Axes, found: pd.DataFrame) -> None:
    front = found[found["pareto"]].sort_values("compression")
    if len(front) > 1:
        axes.plot(
            front["compression"],
            front["after"],
            "--",
            color="0.3",
            lw=1,
            zorder=1,
            label="Pareto front",
        )


def sentences(found: pd.DataFrame) -> list[str]:
    """The runs on the Pareto front, in words."""
    named = [
        f"{run['run']} ({run['compression']:.3g} times fewer, {run['after']:.3f})"
        for _, run in found[found["pareto"]].sort_values("compression").iterrows()
    ]
    return [f"On the Pareto front after fine-tuning: {', '.join(named)}."] if named else []
