"""Sparsity of every layer, a line for each value of C, a panel for each method."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto.manifest.experiments import C

from . import style, tables
from .request import Report, Request
from .tables import Lacking, by_method


def report(request: Request) -> Report:
    """sparsity of every layer, a line for each C"""
    layers = rows(*request.folders)
    return Report(figure(layers), layers)


def rows(*folders: str | Path, stage: str = "sparsify") -> pd.DataFrame:
    """A row a run and layer.

    Returns:
        Columns folder, run, method, C, seed, layer, n_par and n_zero (real numbers), sparsity.

    Raises:
        Lacking: no run is through with the stage.
    """
    everything = tables.every_run(folders)
    counts = ("layer", "n_par", "n_zero", "sparsity")
    layers = [
        everything[folder, row["run"]].columns | {name: row[name] for name in counts}
        for folder in dict.fromkeys(map(str, folders))
        for row in tables.layers(folder).to_dict("records")
        if row["stage"] == stage
    ]
    if not layers:
        raise Lacking(
            f"expected runs through with {stage!r}, got none; "
            "try again when one is, or run the folder"
        )
    return pd.DataFrame(layers)


@style.styled
def figure(layers: pd.DataFrame, *, label: str = "C") -> Figure:
    """Share of irrelevant weights in every layer that has any, from the input on.

    Replicates are averaged.

    Args:
        layers: of `rows`.
        label: of C in the legend.

    Raises:
        Lacking: no layer has a zero.
    """
    if "method" not in layers:
        layers = layers.assign(method="")
    layers = layers[layers.groupby("layer")["n_zero"].transform("max") > 0]
    if layers.empty:
        raise Lacking("expected runs with irrelevant weights, got none; try a larger C")

    panels = by_method(layers)
    colour_of = style.colours_of_c(layers[C])
    size = (7, 1 + 3.5 * len(panels))
    drawn, all_axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False)

    for axes, (method, group) in zip(all_axes.flat, panels, strict=True):
        names = list(dict.fromkeys(group["layer"]))
        for c, replicates in group.groupby(C):
            means = 100 * replicates.groupby("layer")["sparsity"].mean().reindex(names)
            axes.plot(names, means, "o-", color=colour_of(c), label=f"{label} = {c:g}")
        axes.set(ylabel="irrelevant weights, percent", ylim=(-3, 103), title=method)
        axes.legend()

    all_axes.flat[-1].set_xlabel("layer, from the input on")
    return drawn
