"""Score, compression and sparsity against C: means over replicates with 95 percent bands."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import stats

from cplxnet.auto.manifest.experiments import C

from . import style, tables, trade_off
from .style import Report, Request
from .tables import by_method, of_scorer, with_c

LEVEL = 0.95


def report(request: Request) -> Report:
    """score and sparsity against C: means over replicates, 95 percent bands (Student's t)"""
    table = request.table()
    means = rows(table, scorer=request.scorer)
    n_alone = int((means["n"] < 2).sum())
    alone = f"{n_alone} of {len(means)} values of C have one replicate, hence no band."
    said = [alone] if n_alone else []
    pruned = tables.of_scorer(table, request.scorer, "fine-tune")
    pruned = pruned[pruned[C].isna() & (pruned["setting"] != "")]
    if len(pruned):
        said.append(f"Without a C, so left out: {', '.join(sorted(set(pruned['method'])))}.")
    dense = trade_off.rows(table, scorer=request.scorer)
    drawn = figure(means, dense=dense, scorer=request.scorer)
    return Report(drawn, means, said)


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
    """A row a method and C.

    Args:
        table: of `tables.collect`.
        scorer: whose scores.

    Returns:
        Columns method, C, n (replicates); mean, _low and _high of before and after (average
        precision), sparsity (percent) and compression (a ratio: its mean is of logarithms).

    Raises:
        Lacking: no such run, or none with a C.
    """
    tuned = with_c(of_scorer(table, scorer, "fine-tune"))
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
def figure(
    means: pd.DataFrame, *, dense: pd.DataFrame | None = None, scorer: str = "test"
) -> Figure:
    """Above the scores before and after fine-tuning, below the compression and the sparsity.

    A point without a band has one replicate only. The axes follow the means: the band of two
    replicates, 12.7 times their standard error, goes beyond.

    Args:
        means: of `rows`.
        dense: of `trade_off.rows`; None: not drawn.
        scorer: named on the axis.
    """
    drawn, (upper, lower) = plt.subplots(2, 1, figsize=(7, 6.5), sharex=True)
    if dense is not None:
        style.dense(upper, dense)

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
    right.yaxis.set_major_formatter(
        lambda times, _: f"{100 - 100 / times:.3g}" if times >= 1 else ""
    )
    right.yaxis.set_minor_locator(NullLocator())
    right.grid(False)
    return drawn


def _band(axes: Axes, group: pd.DataFrame, name: str, fmt: str, *, color: str, **look: Any) -> None:
    axes.plot(group[C], group[name], fmt, color=color, **look)

    limits = axes.dataLim.frozen()
    axes.fill_between(
        group[C], group[f"{name}_low"], group[f"{name}_high"], color=color, alpha=0.15, lw=0
    )
    axes.dataLim.set(limits)  # the band has no part in the limits of the axes
