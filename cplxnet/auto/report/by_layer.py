"""Sparsity of every layer, one line for each value of C, a panel for each method."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C

from . import plots, tables
from .folders import Lacking, by_method, methods


def rows(*folders: str | Path, stage: str = "sparsify") -> pd.DataFrame:
    """A row a run and layer: folder, run, method, C, seed, layer, n_par and n_zero (real numbers), sparsity.

    Raises ValueError where no run is through with the stage.
    """
    manifests = {
        f"{folder}/{name}": one for folder in folders for name, one in grid.read(folder).items()
    }
    labels, found = methods(manifests), []
    for folder in dict.fromkeys(map(str, folders)):
        for row in tables.layers(folder).to_dict("records"):
            if row["stage"] == stage:
                run = f"{folder}/{row['run']}"
                own = {
                    "method": labels[run],
                    C: grid.value(manifests[run], C),
                    "seed": manifests[run].seed,
                }
                counts = {key: row[key] for key in ("layer", "n_par", "n_zero", "sparsity")}
                found.append({"folder": folder, "run": row["run"], **own, **counts})
    if not found:
        raise Lacking(
            f"expected runs through with {stage!r}, got none; try again when one is, or run the folder"
        )
    return pd.DataFrame(found)


def figure(found: pd.DataFrame, *, label: str = "C") -> Figure:
    """Share of irrelevant weights in every layer that has any, from the input on; replicates are averaged.

    found: of `rows`. Raises ValueError where no layer has a zero.
    """
    found = found.assign(method="") if "method" not in found else found
    found = found[found.groupby("layer")["n_zero"].transform("max") > 0]
    if found.empty:
        raise Lacking("expected runs with irrelevant weights, got none; try a larger C")
    panels, norm = by_method(found), plots.log_norm(found[C])
    drawn, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7, 1 + 3.5 * len(panels)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for one, (method, group) in zip(axes.flat, panels, strict=True):
        _lines(one, group, norm, label)
        one.set(ylabel="irrelevant weights, percent", ylim=(-3, 103), title=method)
        one.legend(frameon=False, fontsize=9)
        one.grid(alpha=0.25)
    axes.flat[-1].set_xlabel("layer, from the input on")
    return drawn


def _lines(axes: Axes, group: pd.DataFrame, norm: LogNorm, label: str) -> None:
    names = list(dict.fromkeys(group["layer"]))
    for value, replicates in group.groupby(C):
        means = 100 * replicates.groupby("layer")["sparsity"].mean().reindex(names)
        axes.plot(
            names,
            means,
            "o-",
            color=plt.get_cmap(plots.COLOURS)(norm(value)),
            label=f"{label} = {value:g}",
        )
