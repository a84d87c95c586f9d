"""The course of one run as a figure, and what all figures share: names, colours, log axes, how one is saved."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cplxnet import files

PRECISION = "pooled average precision"
COLOURS = "viridis"  # readable without colour vision and in grey


def learning_curves(history: pd.DataFrame) -> Figure:
    """Loss, validation score and KL of one run (`report.history`) against the epoch, its stages one after another."""
    figure, panels = plt.subplots(3, 1, figsize=(7, 6.5), sharex=True, layout="constrained")
    titles = {
        "loss": "loss, nats per label",
        "validation": f"{PRECISION},\nvalidation",
        "kl": "KL sum, nats",
    }
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
    files.write(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return Path(path)


def dense_band(axes: Axes, scores: pd.Series, colour: str, label: str) -> None:
    """The dense networks' scores: a line at their mean, a band from the least to the greatest."""
    mean, low, high = scores.mean(), scores.min(), scores.max()
    spread = f" to {high:.3f}" if high - low > 5e-4 else ""
    axes.axhspan(
        low - 1e-3, high + 1e-3, color=colour, alpha=0.3, lw=0, label=f"{label}, {low:.3f}{spread}"
    )
    axes.axhline(mean, color=colour, lw=1)


def log_norm(values: pd.Series) -> LogNorm:
    """Colours for values of C, on a log scale."""
    values = values[values > 0].dropna()
    if values.empty:  # C is not written, or 0
        return LogNorm(1.0, 10.0)
    low, high = values.min(), values.max()
    return LogNorm(
        low / 1.001, high * 1.6
    )  # the palest end of the palette is left out: it does not print


def plain_log(axes: Axes, *, axis: str = "x") -> None:
    """Ticks of a log axis as plain numbers at 1, 2 and 5 of each decade."""
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    chosen.set_minor_formatter(FuncFormatter(lambda *_: ""))
    chosen.set_minor_locator(plt.NullLocator())
    low, high = chosen.get_view_interval()
    if high > 1e4 * low:
        chosen.set_major_locator(plt.LogLocator())
