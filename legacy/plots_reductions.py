"""Figures of sum against mean at equal compression, from the tables of `reductions`."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto.report import style
from cplxnet.auto.report.style import COLOURS, MARKERS, PRECISION

STYLES = {  # dashes too, so that none rests on colour alone
    "sum": {"color": COLOURS[0], "marker": MARKERS[0], "ls": "-"},
    "mean": {"color": COLOURS[1], "marker": MARKERS[1], "ls": "--"},
}


@style.styled
def layers(table: pd.DataFrame) -> Figure:
    """Irrelevant weights in every layer, a panel a compression: sum and mean. table: of `reductions.sparsity`."""
    pairs = sorted(_some(table)["pair"].unique())
    figure, panels = plt.subplots(
        1,
        len(pairs),
        figsize=(1 + 3.2 * len(pairs), 3.6),
        sharey=True,
        squeeze=False,
    )
    for axes, pair in zip(panels.flat, pairs, strict=True):
        for how, rows in table[table["pair"] == pair].groupby("reduction", sort=False):
            axes.plot(rows["layer"], 100 * rows["sparsity"], label=how, **STYLES[how])
        axes.set(title=f"{pair:g} times fewer", ylim=(-3, 103))
        axes.tick_params(axis="x", rotation=60)
    panels[0, 0].set_ylabel("irrelevant weights, percent")
    panels[0, 0].legend(title="KL within a layer")
    figure.supxlabel("layer, from the input on", fontsize=10)
    return figure


@style.styled
def scores(table: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Left: the spread over layers; right: average precision around fine-tuning. table: of `reductions.pairs`."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for how, rows in _some(table).groupby("reduction", sort=False):
        look = STYLES[how]
        left.plot(rows["pair"], rows["std"], label=how, **look)
        right.plot(rows["pair"], rows["after"], label=f"{how}, after fine-tuning", **look)
        right.plot(
            rows["pair"], rows["before"], label=f"{how}, before", **look, mfc="white", alpha=0.6
        )
    right.axhline(table["dense"].mean(), color="0.3", lw=1, label="dense")
    left.set(
        ylabel="spread of sparsity over layers,\nstandard deviation, percentage points",
        ylim=(0, None),
    )
    right.set(ylabel=f"{PRECISION}, {scorer}")
    ticks = sorted(table["pair"].unique())
    for axes in (left, right):
        axes.set(xscale="log", xlabel="compression, times fewer real numbers")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    left.legend(title="KL within a layer")
    right.legend(fontsize=8)
    return figure


def _some(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        raise ValueError(
            "expected runs at equal compression, got none with scores; try to run the folder first"
        )
    return table
