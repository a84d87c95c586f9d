"""Sum against mean of the KL at equal compression, for `legacy_analysis.ipynb`: tables and figures.

How sparse each layer is, how unlike each other the layers of a run are, and what score each keeps.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto import report
from cplxnet.auto.manifest.grid import REDUCTION, C
from cplxnet.auto.report import style
from cplxnet.auto.report.style import COLOURS, MARKERS, PRECISION

STYLES = {  # dashes too, so that no reading rests on colour alone
    "sum": {"color": COLOURS[0], "marker": MARKERS[0], "ls": "-"},
    "mean": {"color": COLOURS[1], "marker": MARKERS[1], "ls": "--"},
}


def sparsity(folder: str | Path, stage: str = "sparsify") -> pd.DataFrame:
    """Share of irrelevant weights: a row per run and layer that has weights to lose.

    Args:
        folder: of runs at equal compression, as `python -m cplxnet.auto equalise` makes it.
        stage: whose weights.

    Returns:
        Layers from the input on. Columns: run, pair (the compression of the run under "sum" that it
        is compared at), reduction, C, layer, n_par, n_zero (real numbers, biases included),
        sparsity. Empty while there is no run with scores.
    """
    table = report.layers(folder)
    if table.empty:
        return table

    rows = _labelled(table[table["stage"] == stage])
    has_weights = rows.groupby("layer")["n_zero"].transform("max") > 0  # batch norm has none
    columns = ["run", "pair", "reduction", "C", "layer", "n_par", "n_zero", "sparsity"]
    return rows.loc[has_weights, columns].reset_index(drop=True)


def spread(layers: pd.DataFrame) -> pd.DataFrame:
    """How unlike each other the layers of a run are: a row per run of `sparsity`.

    Every layer counts once, whatever its size. Columns: pair, reduction, run, C; std (standard
    deviation over the layers of the percentage of irrelevant weights, dividing by their number),
    low and high (least and greatest percentage), ratio (the greatest share of its weights that a
    layer keeps over the least).
    """
    if layers.empty:
        return layers

    grouped = layers.groupby(["pair", "reduction", "run", "C"], sort=False)["sparsity"]
    percent = pd.DataFrame(
        {"std": 100 * grouped.std(ddof=0), "low": 100 * grouped.min(), "high": 100 * grouped.max()}
    )

    kept = 1 - grouped.max()
    percent["ratio"] = (1 - grouped.min()) / kept.where(kept > 0, np.nan)
    return percent.reset_index()


def pairs(folder: str | Path, scorer: str = "test") -> pd.DataFrame:
    """Scores around fine-tuning beside `spread`: a row per run, the two of a pair in turn.

    Columns: pair, reduction, C, threshold, compression, before, after (average precision by
    `scorer`), dense (of the same network before it was compressed), std, low, high, ratio. Runs
    without scores are left out.
    """
    table = report.collect(folder)
    if table.empty:
        return table

    rows = _labelled(table[table["scorer"] == scorer])
    dense = rows[rows["stage"] == "dense"].set_index("run")["average_precision"].rename("dense")
    tuned = rows[rows["stage"] == "fine-tune"].rename(
        columns={"average_precision_start": "before", "average_precision": "after"}
    )

    columns = ["run", "pair", "reduction", "C", "threshold", "compression", "before", "after"]
    measures = spread(sparsity(folder))[["run", "std", "low", "high", "ratio"]]
    joined = tuned[columns].join(dense, on="run").merge(measures, on="run")
    return joined.sort_values(["pair", "reduction"], ascending=[True, False]).reset_index(drop=True)


def readings(table: pd.DataFrame) -> list[str]:
    """What `pairs` says, a sentence a pair."""
    sentences = []
    for pair, rows in table.groupby("pair"):
        by_reduction = rows.set_index("reduction")
        if not {"sum", "mean"} <= set(by_reduction.index):
            continue

        a = by_reduction.loc["sum"]
        b = by_reduction.loc["mean"]
        loss = a["after"] - b["after"]
        sentences.append(
            f"At {pair:.4g} times fewer real numbers, under sum the layers' sparsity is "
            f"{a['low']:.1f} to {a['high']:.2f} percent (standard deviation {a['std']:.1f} points),"
            f" under mean {b['low']:.1f} to {b['high']:.2f} ({b['std']:.1f}). "
            "Average precision before and after fine-tuning: "
            f"{a['before']:.3f} and {a['after']:.3f} under sum, "
            f"{b['before']:.3f} and {b['after']:.3f} under mean, which is "
            f"{abs(loss):.3f} {'lower' if loss >= 0 else 'higher'} in the end."
        )
    return sentences


@style.styled
def plot_layers(table: pd.DataFrame) -> Figure:
    """Irrelevant weights in every layer under sum and mean, a panel a compression.

    Args:
        table: of `sparsity`.

    Raises:
        ValueError: the table is empty.
    """
    compressions = sorted(_not_empty(table)["pair"].unique())
    figure, panels = plt.subplots(
        1,
        len(compressions),
        figsize=(1 + 3.2 * len(compressions), 3.6),
        sharey=True,
        squeeze=False,
    )

    for axes, pair in zip(panels.flat, compressions, strict=True):
        for how, rows in table[table["pair"] == pair].groupby("reduction", sort=False):
            axes.plot(rows["layer"], 100 * rows["sparsity"], label=how, **STYLES[how])
        axes.set(title=f"{pair:g} times fewer", ylim=(-3, 103))
        axes.tick_params(axis="x", rotation=60)

    panels[0, 0].set_ylabel("irrelevant weights, percent")
    panels[0, 0].legend(title="KL within a layer")
    figure.supxlabel("layer, from the input on", fontsize=10)
    return figure


@style.styled
def plot_scores(table: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """The spread over layers on the left, average precision around fine-tuning on the right.

    Args:
        table: of `pairs`.
        scorer: its name, for the axis.

    Raises:
        ValueError: the table is empty.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    for how, rows in _not_empty(table).groupby("reduction", sort=False):
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


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns pair, reduction and C; run names are <reduction>-x<compression>."""
    if REDUCTION not in table:
        raise ValueError(
            f"expected runs under sum and under mean, got {sorted(set(table['run']))}; "
            "try python -m cplxnet.auto equalise"
        )

    named = table.rename(columns={REDUCTION: "reduction", C: "C"})
    pair = named["run"].str.extract(r"-x(\d+(?:\.\d+)?)$")[0].astype(float)
    return named.assign(pair=pair)


def _not_empty(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        raise ValueError(
            "expected runs at equal compression, got none with scores; try to run the folder first"
        )
    return table
