"""Sparsity of every layer, a line for each C or sparsity, a panel for each method."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.models import build
from cplxnet.nn.gaussian import Penalised

from . import style, tables
from .style import Report, Request
from .tables import Lacking, by_method, by_setting

STAGE = "sparsify"  # whose weights are counted


def report(request: Request) -> Report:
    """sparsity of every layer, a line for each C (or sparsity of a pruner)"""
    layers = rows(*request.folders)
    return Report(figure(layers), layers, list(_sentences(layers)))


def rows(*folders: str | Path) -> pd.DataFrame:
    """A row a run and layer that has weights to lose, from the input on.

    Returns:
        Columns folder, run, method, C, setting, seed, layer, n_par and n_zero (real numbers), sparsity.

    Raises:
        Lacking: no run is through with the stage, or none that is has a C or a sparsity.
    """
    runs = [run for run in tables.every_run(folders) if STAGE in run.stages]
    if not runs:
        raise Lacking(
            f"expected runs through with {STAGE!r}, got none; "
            "try again when one is, or run the folder"
        )

    networks: dict[str, list[str]] = {}
    counts = []
    for run in runs:
        network = f"{run.manifest.stage(STAGE).model} {run.manifest.features}"
        if network not in networks:
            networks[network] = _variational(run.manifest)
        counts += [
            run.columns | {"layer": layer} | run.stages[STAGE]["layers"][layer]
            for layer in networks[network]
        ]
    layers = tables.with_c(pd.DataFrame(counts), or_sparsity=True)
    return layers.assign(sparsity=layers["n_zero"] / layers["n_par"])


def _variational(manifest: Manifest) -> list[str]:
    """The layers with a posterior: others, as batch norm, have no weights to lose."""
    model = build(manifest, manifest.stage(STAGE))
    return [name for name, layer in model.named_modules() if isinstance(layer, Penalised)]


def _sentences(layers: pd.DataFrame) -> Iterator[str]:
    """Where the zeros are at the greatest C or sparsity of each method."""
    greatest = {method: (setting, runs) for method, setting, runs in by_setting(layers)}
    for method, (setting, runs) in greatest.items():
        percent = 100 * runs.groupby("layer", sort=False)["sparsity"].mean()
        yield (
            f"{tables.named(method, setting)}: the most irrelevant weights are in "
            f"{percent.idxmax()} ({percent.max():.3g} percent of its real numbers), the fewest in "
            f"{percent.idxmin()} ({percent.min():.3g} percent)."
        )


@style.styled
def figure(layers: pd.DataFrame) -> Figure:
    """Share of irrelevant weights in every layer, from the input on; replicates are averaged.

    Args:
        layers: of `rows`.
    """
    panels = by_method(layers)
    colour_of = style.colours(layers)
    size = (7, 1 + 3.5 * len(panels))
    drawn, all_axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False)

    for axes, (method, group) in zip(all_axes.flat, panels, strict=True):
        names = list(dict.fromkeys(group["layer"]))
        for _, setting, replicates in by_setting(group):
            means = 100 * replicates.groupby("layer")["sparsity"].mean().reindex(names)
            axes.plot(names, means, "o-", color=colour_of[setting], label=setting)
        axes.set(ylabel="irrelevant weights, percent", ylim=(-3, 103), title=method)
        axes.legend()

    all_axes.flat[-1].set_xlabel("layer, from the input on")
    return drawn
