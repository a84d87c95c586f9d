"""Score, compression and sparsity against C: means over replicates with 95 percent bands."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from cplxnet.auto.manifest.experiments import C

from . import plots, style
from .folders import by_method, chosen

QUANTITIES = ("before", "after", "sparsity", "compression")
LEVEL = 0.95


def interval(values: pd.Series, *, log: bool = False) -> tuple[float, float, float]:
    """Mean and its 95 percent interval by Student's t, of n independent replicates: mean -+ t s/sqrt(n), n - 1 degrees.

    log: of the logarithms, taken back: the geometric mean. One value alone has no interval: NaN.
    """
    x = values.dropna().to_numpy(float)
    x = np.log(x) if log else x
    if not len(x):
        return np.nan, np.nan, np.nan
    mean, half = x.mean(), np.nan
    if len(x) > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * stats.sem(x))
    low, middle, high = (np.exp(v) if log else v for v in (mean - half, mean, mean + half))
    return float(middle), float(low), float(high)


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a method and C: n (replicates), and mean, _low and _high of score, sparsity (percent) and compression.

    table: of `gather`, or of `report.collect`. Compression, a ratio, has its mean and interval in logarithms.
    dense, dense_low, dense_high: the dense networks' mean, least and greatest score.
    """
    tuned = chosen(table, scorer, "fine-tune")
    dense = table[(table["scorer"] == scorer) & (table["stage"] == "dense")][
        "average_precision"
    ].astype(float)
    numbers = {
        "before": tuned["average_precision_start"].astype(float),
        "after": tuned["average_precision"].astype(float),
        "sparsity": 100 * tuned["n_zero"].astype(float) / tuned["n_par"].astype(float),
        "compression": tuned["compression"].astype(float),
    }
    found = []
    for (method, c), group in (
        tuned[["method", C]].assign(**numbers).groupby(["method", C], sort=True)
    ):
        row = {"method": method, C: c, "n": len(group)}
        for name in QUANTITIES:
            limits = interval(group[name], log=name == "compression")
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), limits, strict=True))
        found.append(
            row | {"dense": dense.mean(), "dense_low": dense.min(), "dense_high": dense.max()}
        )
    return pd.DataFrame(found)


def figure(found: pd.DataFrame, *, scorer: str = "test", label: str = "C") -> Figure:
    """Above the scores before and after fine-tuning, below the compression, with the sparsity on the right.

    found: of `rows`. A point without a band has one replicate only. The axes follow the means: of two replicates the
    band, 12.7 times their standard error, goes beyond.
    """
    drawn, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6.5), sharex=True, layout="constrained")
    plots.dense_band(upper, found[["dense", "dense_low", "dense_high"]].iloc[0], "0.5", "dense")
    for index, (method, group) in enumerate(by_method(found)):
        colour, marker = style.of(index)
        _band(
            upper,
            group,
            "before",
            colour,
            f"{marker}--",
            f"{method} before fine-tuning".strip(),
            hollow=True,
        )
        _band(upper, group, "after", colour, f"{marker}-", f"{method} after fine-tuning".strip())
        _band(lower, group, "compression", colour, f"{marker}-", method)
    upper.set(ylabel=f"{plots.PRECISION}, {scorer}")
    upper.legend(frameon=False, fontsize=9)
    lower.set(
        xscale="log",
        yscale="log",
        xlabel=f"{label}, weight of the KL term",
        ylabel="compression, times",
    )
    plots.plain_log(lower, axis="y")
    plots.plain_log(lower)
    right = lower.secondary_yaxis("right", functions=(lambda x: x, lambda x: x))
    right.set_ylabel("zeros, percent of all numbers")
    right.yaxis.set_major_locator(lower.yaxis.get_major_locator())
    right.yaxis.set_major_formatter(
        lambda times, _: f"{100 - 100 / times:.3g}" if times >= 1 else ""
    )
    right.yaxis.set_minor_locator(plt.NullLocator())
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
    return drawn


def _band(
    axes: Axes,
    group: pd.DataFrame,
    name: str,
    colour: str,
    fmt: str,
    label: str,
    hollow: bool = False,
) -> None:
    face = "white" if hollow else colour
    axes.plot(group[C], group[name], fmt, color=colour, mfc=face, label=label)
    # no part in the axis limits: those are of the means
    limits = axes.dataLim.frozen()
    axes.fill_between(
        group[C], group[f"{name}_low"], group[f"{name}_high"], color=colour, alpha=0.15, lw=0
    )
    axes.dataLim.set(limits)
