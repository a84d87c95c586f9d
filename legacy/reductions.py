"""Sum against mean of the KL at equal compression: the layers' sparsity, its spread over them, the score each keeps."""

from pathlib import Path

import numpy as np
import pandas as pd

from cplxnet.auto import report
from cplxnet.auto.manifest.experiments import REDUCTION, C


def sparsity(folder: str | Path, stage: str = "sparsify") -> pd.DataFrame:
    """Share of irrelevant weights: a row per run and layer that has weights to lose, from the input on.

    folder: of `equalise`. Columns: run, pair (the compression of the run under "sum" that it is compared at),
    reduction, C, layer, n_par, n_zero (real numbers, biases included), sparsity. Empty while there is none.
    """
    table = report.layers(folder)
    if table.empty:
        return table
    chosen = _labelled(table[table["stage"] == stage])
    chosen = chosen[
        chosen.groupby("layer")["n_zero"].transform("max") > 0
    ]  # batch norm has none to lose
    return chosen[
        ["run", "pair", "reduction", "C", "layer", "n_par", "n_zero", "sparsity"]
    ].reset_index(drop=True)


def spread(layers: pd.DataFrame) -> pd.DataFrame:
    """How unlike each other the layers of a run are: a row per run of `sparsity`.

    Every layer counts once, whatever its size. Columns: pair, reduction, run, C; std (standard deviation over the
    layers of the percentage of irrelevant weights, dividing by their number), low and high (least and greatest
    percentage), ratio (the greatest share of its weights that a layer keeps over the least).
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
    """A row per run, the two of a pair one after the other: the scores around fine-tuning beside `spread`.

    Columns: pair, reduction, C, threshold, compression, before, after (average precision by `scorer`), dense (of the
    same network before it was compressed), std, low, high, ratio. Runs without scores are left out.
    """
    table = report.collect(folder)
    if table.empty:
        return table
    chosen = _labelled(table[table["scorer"] == scorer])
    dense = chosen[chosen["stage"] == "dense"].set_index("run")["average_precision"].rename("dense")
    tuned = chosen[chosen["stage"] == "fine-tune"].rename(
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
        by = rows.set_index("reduction")
        if not {"sum", "mean"} <= set(by.index):
            continue
        a, b = by.loc["sum"], by.loc["mean"]
        loss = a["after"] - b["after"]
        sentences.append(
            f"At {pair:.4g} times fewer real numbers, under sum the layers' sparsity is {a['low']:.1f} to "
            f"{a['high']:.2f} percent (standard deviation {a['std']:.1f} points), under mean {b['low']:.1f} to "
            f"{b['high']:.2f} ({b['std']:.1f}). Average precision before and after fine-tuning: {a['before']:.3f} and "
            f"{a['after']:.3f} under sum, {b['before']:.3f} and {b['after']:.3f} under mean, which is "
            f"{abs(loss):.3f} {'lower' if loss >= 0 else 'higher'} in the end."
        )
    return sentences


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    """The columns pair, reduction and C beside those of `report`; run names are <reduction>-x<compression>."""
    if REDUCTION not in table:
        raise ValueError(
            f"expected runs under sum and under mean, got {sorted(set(table['run']))}; try equalise"
        )
    named = table.rename(columns={REDUCTION: "reduction", C: "C"})
    pair = named["run"].str.extract(r"-x(\d+(?:\.\d+)?)$")[0].astype(float)
    return named.assign(pair=pair)
