"""Two methods at equal compression: paired differences of their scores with bootstrap intervals.

Per replicate (seed) and method the score after fine-tuning is interpolated linearly over the logarithm of compression;
the difference is taken where both methods of every pair have runs on both sides.
"""

import itertools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from . import plots, style
from .folders import Lacking, by_method, chosen

N_POINTS = 25  # of compression, evenly in its logarithm
N_RESAMPLES = 9999
LEVEL = 0.95


def rows(table: pd.DataFrame, *, scorer: str = "test", seed: int = 0) -> pd.DataFrame:
    """A row a pair of methods and compression: first, second, n (pairs), compression, difference, low, high, overall...

    difference: first - second, the mean over pairs; low, high: its 95 percent percentile bootstrap interval over pairs
    (NaN with one pair). overall, overall_low, overall_high: the same of each pair's mean over the common range. Methods
    without a common range or a common seed have no row; `sentences` says so.

    Raises ValueError where the runs are all of one method.
    """
    curves = _curves(table, scorer)
    columns = ("compression", "difference", "low", "high")
    found: list[dict[str, object]] = []
    for first, second in itertools.combinations(curves, 2):
        seeds = sorted(set(curves[first]) & set(curves[second]))
        shared = _shared([curves[method][s] for method in (first, second) for s in seeds])
        if shared is None:
            continue
        deltas = np.array(
            [_at(curves[first][s], shared) - _at(curves[second][s], shared) for s in seeds]
        )
        low, high = _bootstrap(deltas, seed)
        overall = deltas.mean(axis=1, keepdims=True)
        whole = (float(overall.mean()), *(float(limit[0]) for limit in _bootstrap(overall, seed)))
        about = {"first": first, "second": second, "n": len(seeds)}
        about |= dict(zip(("overall", "overall_low", "overall_high"), whole, strict=True))
        points = zip(shared, deltas.mean(axis=0), low, high, strict=True)
        found += [about | dict(zip(columns, map(float, point), strict=True)) for point in points]
    names = ["first", "second", "n", *columns, "overall", "overall_low", "overall_high"]
    return pd.DataFrame(found, columns=names)


def _curves(table: pd.DataFrame, scorer: str) -> dict[str, dict[int, pd.Series]]:
    """method -> seed -> score by rising compression."""
    tuned = (
        chosen(table, scorer, "fine-tune")
        .astype({"compression": float})
        .dropna(subset=["compression"])
    )
    found = {
        method: {
            int(seed): replicate.groupby("compression")["average_precision"].mean()
            for seed, replicate in runs.groupby("seed")
        }
        for method, runs in by_method(tuned)
    }
    if len(found) < 2:
        raise Lacking(
            "expected runs of two methods (VD and ARD, say), finished with fine-tuning, got one; "
            "try a second folder, or wait for the others"
        )
    return found


def _shared(curves: list[pd.Series]) -> np.ndarray | None:
    """The range of compression that all curves span; None where there is none."""
    if not curves:
        return None
    low, high = (
        max(curve.index.min() for curve in curves),
        min(curve.index.max() for curve in curves),
    )
    return np.geomspace(low, high, N_POINTS) if low < high else None


def _at(curve: pd.Series, compression: np.ndarray) -> np.ndarray:
    return np.interp(
        np.log(compression), np.log(curve.index.to_numpy(float)), curve.to_numpy(float)
    )


def _bootstrap(deltas: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the mean over pairs. deltas: (pairs, points)."""
    if len(deltas) < 2:
        return np.full(deltas.shape[1], np.nan), np.full(deltas.shape[1], np.nan)
    result = stats.bootstrap(
        (deltas,),
        np.mean,
        axis=0,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def sentences(table: pd.DataFrame, found: pd.DataFrame, *, scorer: str = "test") -> list[str]:
    """For each pair of methods: which is better, where and by how much, or why nothing can be said."""
    said = []
    for first, second in itertools.combinations(_curves(table, scorer), 2):
        rows = found[(found["first"] == first) & (found["second"] == second)]
        said += list(_said(rows)) if len(rows) else [_nothing(table, first, second, scorer)]
    return said


def _said(rows: pd.DataFrame) -> Iterator[str]:
    first, second, n, overall, low, high = (
        rows.iloc[0][name]
        for name in ("first", "second", "n", "overall", "overall_low", "overall_high")
    )
    better, worse = (first, second) if overall >= 0 else (second, first)
    span = f"from {rows['compression'].min():.3g} to {rows['compression'].max():.3g} times fewer"
    text = f"{better} against {worse}, {span}, {n} pair{'s' if n > 1 else ''}: better by {abs(overall):.4f} on average"
    if n == 1:
        yield f"{text}; one pair has no interval, so this may be chance."
        return
    sign = 1 if overall >= 0 else -1
    limits = sorted((sign * low, sign * high))
    clear = "" if limits[0] > 0 else ", which does not tell them apart"
    yield f"{text}, 95 percent interval {limits[0]:.4f} to {limits[1]:.4f}{clear}."
    yield from _where(rows)
    if n < 6:  # 1 - 2^(1 - n) < 0.95
        yield (
            f"A bootstrap of {n} pairs reaches at most from the least to the greatest difference, which for a median "
            f"covers {100 * (1 - 2.0 ** (1 - n)):.3g} percent: read these intervals as too narrow."
        )


def _where(rows: pd.DataFrame) -> Iterator[str]:
    """The stretches of compression in which the interval leaves 0 out."""
    sign = np.where(rows["low"] > 0, 1, np.where(rows["high"] < 0, -1, 0))
    for side, group in itertools.groupby(range(len(rows)), key=lambda k: int(sign[k])):
        part = rows.iloc[list(group)]
        if side:
            better = part["first"].iloc[0] if side > 0 else part["second"].iloc[0]
            top = part.loc[part["difference"].abs().idxmax()]
            yield (
                f"{better} is better from {part['compression'].min():.3g} to {part['compression'].max():.3g} times, "
                f"most at {top['compression']:.3g}, by {abs(top['difference']):.4f}."
            )


def _nothing(table: pd.DataFrame, first: str, second: str, scorer: str) -> str:
    curves = _curves(table, scorer)
    if not set(curves[first]) & set(curves[second]):
        return f"{first} and {second} have no seed in common: nothing to pair."
    spans = [
        f"{method} {min(c.index.min() for c in curves[method].values()):.3g} to "
        f"{max(c.index.max() for c in curves[method].values()):.3g}"
        for method in (first, second)
    ]
    return f"{first} and {second} share no range of compression ({'; '.join(spans)} times): nothing is extrapolated."


def figure(found: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Difference of average precision against compression, with its interval where there are two pairs or more."""
    drawn, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for index, ((first, second), rows) in enumerate(found.groupby(["first", "second"], sort=False)):
        colour, _ = style.of(index)
        axes.plot(
            rows["compression"], rows["difference"], color=colour, label=f"{first} - {second}"
        )
        axes.fill_between(
            rows["compression"], rows["low"], rows["high"], color=colour, alpha=0.2, lw=0
        )
    axes.axhline(0, color="0.3", lw=1)
    axes.set(
        xscale="log",
        xlabel="compression, times fewer real numbers",
        ylabel=f"difference of AP, {scorer}",
    )
    plots.plain_log(axes)
    if len(found):
        axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    return drawn
