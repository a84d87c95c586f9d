"""What C does: score, compression and sparsity against it, as means over replicates with 95 percent
bands; and the sparsity of every layer.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from cplxnet.auto import tasks
from cplxnet.auto.manifest.grid import FINE_TUNE, SPARSIFY, C
from cplxnet.auto.manifest.read import Manifest
from cplxnet.nn.gaussian import Penalised
from cplxnet.nn.masked import Masked

from . import style, tables, trade_off
from .style import Report, Request
from .tables import Lacking, by_method, by_setting, of_scorer, with_c

LEVEL = 0.95


def report(request: Request) -> Report:
    """The report of the kind "c-profile"."""
    table = request.table()
    means = rows(table, scorer=request.scorer)
    n_alone = int((means["n"] < 2).sum())
    alone = f"{n_alone} of {len(means)} values of C have one replicate, hence no band."
    sentences = [alone] if n_alone else []
    pruned = tables.of_scorer(table, request.scorer, FINE_TUNE)
    pruned = pruned[pruned[C].isna() & (pruned["setting"] != "")]
    if len(pruned):
        sentences.append(f"Without a C, so left out: {', '.join(sorted(set(pruned['method'])))}.")

    positive = means[means[C] > 0]
    if len(positive) < len(means):
        sentences.append("C = 0 has no place on an axis of logarithms: it is in the CSV alone.")
    dense = trade_off.rows(table, scorer=request.scorer)
    figure = draw(positive, dense=dense, scorer=request.scorer) if len(positive) else None
    return Report(figure, means, sentences)


def interval(values: pd.Series, *, log: bool = False) -> tuple[float, float, float]:
    """Mean and its 95 percent interval by Student's t: mean -+ t s/sqrt(n), n - 1 degrees.

    Args:
        values: of n independent replicates.
        log: work on the logarithms and take the result back: a geometric mean.

    Returns:
        Mean, low, high. One value alone has no interval: NaN.
    """
    x = values.dropna().astype(float)
    x = np.log(x) if log else x
    # of one value s is NaN, and so are the limits
    half = stats.t.ppf((1 + LEVEL) / 2, max(len(x) - 1, 1)) * x.std() / np.sqrt(len(x) or 1)
    limits = np.array([x.mean(), x.mean() - half, x.mean() + half])
    middle, low, high = np.exp(limits) if log else limits
    return float(middle), float(low), float(high)


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a method and C, of a table of `tables.collect`.

    Returns:
        Columns method, C, n (replicates); mean, _low and _high of before and after (average
        precision), sparsity (percent) and compression (a ratio: its mean is of logarithms).

    Raises:
        Lacking: no such run, or none with a C.
    """
    tuned = with_c(of_scorer(table, scorer, FINE_TUNE))
    numbers = {
        "before": tuned["average_precision_start"].astype(float),
        "after": tuned["average_precision"].astype(float),
        "sparsity": 100 * tuned["n_zero"].astype(float) / tuned["n_par"].astype(float),
        "compression": tuned["compression"].astype(float),
    }

    means = []
    replicates = tuned[["method", C]].assign(**numbers)
    for (method, c), group in replicates.groupby(["method", C], sort=True):
        row = {"method": method, C: c, "n": len(group)}
        for name in numbers:
            mean, low, high = interval(group[name], log=name == "compression")
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        means.append(row)
    return pd.DataFrame(means)


@style.styled
def draw(means: pd.DataFrame, *, dense: pd.DataFrame | None = None, scorer: str = "test") -> Figure:
    """Above the scores before and after fine-tuning, below the compression and the sparsity.

    The means are those of `rows`, the dense networks those of `trade_off.rows`. A point without a
    band has one replicate only. The axes follow the means: the band of two replicates, 12.7 times
    their standard error, goes beyond.
    """
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6.5), sharex=True)
    if dense is not None:
        is_drawn = dense["method"].isin(means["method"])
        style.dense(upper, dense[is_drawn])  # colours are given out over the methods

    looks = style.looks(means)
    for method, group in by_method(means):
        colour, marker = looks[method]
        before = {"mfc": "white", "label": f"{method} before fine-tuning"}
        after = {"label": f"{method} after fine-tuning"}
        _band(upper, group, "before", f"{marker}--", color=colour, **before)
        _band(upper, group, "after", f"{marker}-", color=colour, **after)
        _band(lower, group, "compression", f"{marker}-", color=colour, label=method)

    upper.set(ylabel=f"{style.PRECISION}, {scorer}")
    style.legend(upper)
    lower.set(
        xscale="log",
        yscale="log",
        xlabel="C, weight of the KL term",
        ylabel="compression, times",
    )
    style.plain_log(lower, axis="y")
    style.plain_log(lower)

    # the same axis in other words: k times fewer numbers are 100 - 100/k percent zeros
    right = lower.secondary_yaxis("right", functions=(lambda x: x, lambda x: x))
    right.set_ylabel("zeros, percent of all numbers")
    right.yaxis.set_major_locator(lower.yaxis.get_major_locator())
    right.yaxis.set_major_formatter(lambda times, _: _percent_zeros(times))
    right.yaxis.set_minor_locator(NullLocator())
    right.grid(False)
    return figure


def _percent_zeros(times: float) -> str:
    """The zeros of a network with so many times fewer numbers, never rounded to 100."""
    if times < 1:
        return ""
    return f"{round(100 - 100 / times, math.floor(math.log10(times))):g}"


def _band(axes: Axes, group: pd.DataFrame, name: str, fmt: str, *, color: str, **look: Any) -> None:
    axes.plot(group[C], group[name], fmt, color=color, **look)

    limits = axes.dataLim.frozen()
    style.band(axes, group[C], group[f"{name}_low"], group[f"{name}_high"], colour=color)
    axes.dataLim.set(limits)  # the band has no part in the limits of the axes


# ---- by layer ------------------------------------------------------------------------------------


def layers_report(request: Request) -> Report:
    """The report of the kind "layers"."""
    layers = layer_rows(*request.folders)
    return Report(layer_figure(layers), layers, list(_where_zeros_are(layers)))


def layer_rows(*folders: str | Path) -> pd.DataFrame:
    """A row a run and layer that has weights to lose, from the input on.

    Returns:
        Columns folder, run, method, C, setting, seed, layer, n_par and n_zero (real numbers), and
        sparsity.

    Raises:
        Lacking: no run is through with the stage, or none that is has a C or a sparsity.
    """
    runs = [run for run in tables.every_run(folders) if SPARSIFY in run.stages]
    if not runs:
        raise Lacking(
            f"expected runs through with {SPARSIFY!r}, got none; "
            "try again when one is, or run the folder"
        )

    counts = []
    for run in runs:
        names = _layers_with_weights(run.manifest)
        counted = run.stages[SPARSIFY]["layers"]
        with tables.or_left_out(run):
            if not counted.keys() >= set(names):
                raise ValueError(f"expected counts of {', '.join(names)}, got fewer")
            counts += [run.columns | {"layer": name} | counted[name] for name in names]
    if not counts:
        raise Lacking(
            f"expected runs that lose weights in {SPARSIFY!r}, got none; try another grid"
        )
    layers = tables.with_c(pd.DataFrame(counts), or_sparsity=True)
    return layers.assign(sparsity=layers["n_zero"] / layers["n_par"])


def _layers_with_weights(manifest: Manifest) -> list[str]:
    """The layers with a posterior, gates or a mask; others, as batch norm, lose no weights."""
    model = manifest.stage(SPARSIFY).model
    network = tasks.network(manifest.task, model, manifest.features, manifest.window)
    layers = network.named_modules()
    return [name for name, layer in layers if isinstance(layer, Penalised | Masked)]


def _where_zeros_are(layers: pd.DataFrame) -> Iterator[str]:
    """Where the zeros are at the greatest C or sparsity of each method."""
    greatest = {method: (setting, runs) for method, setting, runs in by_setting(layers)}
    for method, (setting, runs) in greatest.items():
        percent = 100 * runs.groupby("layer", sort=False)["sparsity"].mean()
        yield (
            f"{tables.group_name(method, setting)}: the most irrelevant weights are in "
            f"{percent.idxmax()} ({percent.max():.3g} percent of its real numbers), the fewest in "
            f"{percent.idxmin()} ({percent.min():.3g} percent)."
        )


@style.styled
def layer_figure(layers: pd.DataFrame) -> Figure:
    """Share of irrelevant weights in the layers of `layer_rows`; replicates are averaged."""
    panels = by_method(layers)
    colour_of = style.colours(layers)
    size = (7, 1 + 3.5 * len(panels))
    figure, all_axes = plt.subplots(len(panels), 1, figsize=size, sharex=True, squeeze=False)

    for axes, (method, group) in zip(all_axes.flat, panels, strict=True):
        names = list(dict.fromkeys(group["layer"]))
        for _, setting, replicates in by_setting(group):
            means = 100 * replicates.groupby("layer")["sparsity"].mean().reindex(names)
            axes.plot(names, means, "o-", color=colour_of[setting], label=setting)
        axes.set(ylabel="irrelevant weights, percent", ylim=(-3, 103), title=method)
        style.legend(axes, on=axes)

    all_axes.flat[-1].set_xlabel("layer, from the input on")
    return figure
