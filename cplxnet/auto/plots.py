"""Figures of what runs have reached; each takes a table of `report` and returns a matplotlib figure."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from . import atomic
from .report import C

PRECISION = "pooled average precision"
COLOURS = "viridis"  # readable without colour vision and in grey


def trade_off(table: pd.DataFrame, *, scorer: str = "test", parameter: str = C, label: str = "C") -> Figure:
    """Average precision against compression: dense as a band, every run before and after fine-tuning.

    table: as `report.collect` gives it. The band is the mean of the dense scores and their spread over replicates
    (minimum to maximum). Raises ValueError if no run has a score by `scorer`.
    """
    chosen = _scored(table, scorer)
    dense, tuned = (chosen[chosen["stage"] == stage] for stage in ("dense", "fine-tune"))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    _dense_band(axes, dense["average_precision"])
    norm = _log_norm(tuned[parameter])
    for _, run in tuned.sort_values("compression").iterrows():
        colour = plt.get_cmap(COLOURS)(norm(run[parameter]))
        x, before, after = run["compression"], run["average_precision_start"], run["average_precision"]
        axes.plot([x, x], [before, after], color=colour, lw=1, zorder=2)
        axes.plot(x, before, "o", mfc="white", mec=colour, zorder=3)
        axes.plot(x, after, "o", mfc=colour, mec=colour, zorder=3)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
        top = (x, max(before, after))
        axes.annotate(f"{run[parameter]:g}", top, (0, 6), textcoords="offset points", ha="center", size=7, bbox=box)
    axes.plot([], [], "o", mfc="white", mec="0.4", label=f"before fine-tuning (number: {label})")
    axes.plot([], [], "o", color="0.4", label="after fine-tuning")
    axes.set(xscale="log", xlabel="compression, times fewer real numbers", ylabel=f"{PRECISION}, {scorer}")
    _plain_log(axes)
    axes.margins(x=0.08, y=0.1)
    axes.legend(loc="best", frameon=False)
    axes.grid(alpha=0.25)
    return figure


def against_parameter(table: pd.DataFrame, *, scorer: str = "test", parameter: str = C, label: str = "C") -> Figure:
    """Score, before and after fine-tuning, and compression against the varied parameter: means and spread."""
    chosen = _scored(table, scorer)
    tuned = chosen[chosen["stage"] == "fine-tune"]
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    _dense_band(upper, chosen.loc[chosen["stage"] == "dense", "average_precision"])
    _mean_and_spread(upper, tuned, parameter, "average_precision_start", "before fine-tuning", "C1", "s--")
    _mean_and_spread(upper, tuned, parameter, "average_precision", "after fine-tuning", "C0", "o-")
    _mean_and_spread(lower, tuned, parameter, "compression", "", "C2", "o-")
    upper.set(ylabel=f"{PRECISION}, {scorer}")
    upper.legend(frameon=False)
    lower.set(xscale="log", yscale="log", xlabel=f"{label}, weight of the KL term", ylabel="compression, times")
    _plain_log(lower, axis="y")
    _plain_log(lower)
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    return figure


def sparsity_by_layer(layers: pd.DataFrame, *, stage: str = "sparsify", parameter: str = C, label: str = "C") -> Figure:
    """Share of irrelevant weights in every layer that has any, from the input on: one line per value of the parameter.

    layers: as `report.layers` gives it; replicates are averaged.
    """
    chosen = layers[layers["stage"] == stage]
    chosen = chosen[chosen.groupby("layer")["n_zero"].transform("max") > 0]
    if chosen.empty:
        raise ValueError(f"expected runs with irrelevant weights after {stage!r}, got none; try a finished run")
    names, norm = list(dict.fromkeys(chosen["layer"])), _log_norm(chosen[parameter])
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for value, group in chosen.groupby(parameter):
        means = 100 * group.groupby("layer")["sparsity"].mean().reindex(names)
        axes.plot(names, means, "o-", color=plt.get_cmap(COLOURS)(norm(value)), label=f"{label} = {value:g}")
    axes.set(ylabel="irrelevant weights, percent", xlabel="layer, from the input on", ylim=(-3, 103))
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return figure


def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, validation score and KL of one run (`report.history`) against the epoch, its stages one after another."""
    figure, panels = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True, layout="constrained")
    titles = {"loss": "loss, nats per label", "validation": f"{PRECISION},\nvalidation", "kl": "KL sum, nats"}
    for axes, (column, title) in zip(panels, titles.items(), strict=True):
        for i, (stage, group) in enumerate(history.groupby("stage", sort=False)):
            values = pd.to_numeric(group[column])
            if column == "kl":
                values = values.where(values > 0)  # 0 where the objective has no KL term
            axes.plot(group.index, values, ".-", color=f"C{i}", label=stage)
        axes.set_ylabel(title)
        axes.grid(alpha=0.25)
    panels[0].legend(frameon=False)
    panels[-1].set_xlabel("epoch, over all stages")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG at 150 dots per inch, atomically; returns the path."""
    atomic.write(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return Path(path)


def _scored(table: pd.DataFrame, scorer: str) -> pd.DataFrame:
    if table.empty or not (table["scorer"] == scorer).any():
        raise ValueError(
            f"expected runs scored by {scorer!r}, got none; try `python -m cplxnet.auto status` on the folder"
        )
    return table[table["scorer"] == scorer]


def _dense_band(axes: Axes, scores: pd.Series) -> None:
    mean, low, high = scores.mean(), scores.min(), scores.max()
    spread = f" to {high:.3f}" if high - low > 5e-4 else ""
    axes.axhspan(low - 1e-3, high + 1e-3, color="0.5", alpha=0.3, lw=0, label=f"dense, {low:.3f}{spread}")
    axes.axhline(mean, color="0.3", lw=1)


def _mean_and_spread(
    axes: Axes, table: pd.DataFrame, by: str, column: str, label: str, colour: str, style: str
) -> None:
    grouped = table.groupby(by)[column]
    mean, low, high = grouped.mean(), grouped.min(), grouped.max()
    axes.plot(mean.index, mean, style, color=colour, label=label)
    axes.fill_between(mean.index, low, high, color=colour, alpha=0.2, lw=0)


def _log_norm(values: pd.Series) -> LogNorm:
    low, high = values.min(), values.max()
    return LogNorm(low / 1.001, high * 1.6)  # the palest end of the palette is left out: it does not print


def _plain_log(axes: Axes, *, axis: str = "x") -> None:
    """Ticks of a log axis as plain numbers at 1, 2 and 5 of each decade."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_formatter(FuncFormatter(lambda *_: ""))
    chosen.set_minor_locator(plt.NullLocator())
    low, high = chosen.get_view_interval()
    if high > 1e4 * low:
        chosen.set_major_locator(plt.LogLocator())
