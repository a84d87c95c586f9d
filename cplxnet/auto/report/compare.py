"""Two methods at equal compression: paired differences of their scores with bootstrap intervals.

Per replicate (seed) and method the score after fine-tuning is interpolated linearly over the
logarithm of compression; the difference is taken where both methods of every pair have runs on
both sides.
"""

import itertools
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from . import style
from .request import Report, Request
from .tables import Lacking, by_method, of_scorer

N_POINTS = 25  # of compression, evenly in its logarithm
N_RESAMPLES = 9999
LEVEL = 0.95

Curves = dict[str, dict[int, pd.Series]]  # method -> seed -> score by rising compression


def report(request: Request) -> Report:
    """two methods (VD and ARD, real and complex): paired differences at equal compression"""
    table = request.table()
    differences = rows(table, scorer=request.scorer)
    said = sentences(table, differences, scorer=request.scorer)
    drawn = figure(differences, scorer=request.scorer) if len(differences) else None
    return Report(drawn, differences, said)


def rows(table: pd.DataFrame, *, scorer: str = "test", seed: int = 0) -> pd.DataFrame:
    """A row a pair of methods and compression.

    Args:
        table: of `tables.gather`.
        scorer: whose scores.
        seed: of the bootstrap.

    Returns:
        Columns first, second, n (pairs of runs), compression; difference (first - second, the
        mean over pairs), low and high (its 95 percent percentile bootstrap interval over pairs;
        NaN with one pair); overall, overall_low and overall_high, the same of each pair's mean
        over the common range. Methods without a common range or seed have no row; `sentences`
        says so.

    Raises:
        Lacking: the runs are all of one method.
    """
    curves = _curves(table, scorer)
    differences = []
    for first, second in itertools.combinations(curves, 2):
        seeds = sorted(set(curves[first]) & set(curves[second]))
        shared = _shared_range([curves[method][s] for method in (first, second) for s in seeds])
        if shared is None:
            continue

        deltas = np.array(
            [
                _score_at(curves[first][s], shared) - _score_at(curves[second][s], shared)
                for s in seeds
            ]
        )
        low, high = _bootstrap(deltas, seed)
        overall = deltas.mean(axis=1, keepdims=True)
        overall_low, overall_high = _bootstrap(overall, seed)

        points = pd.DataFrame(
            {
                "first": first,
                "second": second,
                "n": len(seeds),
                "compression": shared,
                "difference": deltas.mean(axis=0),
                "low": low,
                "high": high,
                "overall": overall.mean(),
                "overall_low": overall_low[0],
                "overall_high": overall_high[0],
            }
        )
        differences.append(points)

    return pd.concat(differences, ignore_index=True) if differences else pd.DataFrame(columns=NAMES)


NAMES = ["first", "second", "n", "compression", "difference", "low", "high"]
NAMES += ["overall", "overall_low", "overall_high"]


def _curves(table: pd.DataFrame, scorer: str) -> Curves:
    tuned = of_scorer(table, scorer, "fine-tune").astype({"compression": float})
    curves = {
        method: {
            int(seed): replicate.groupby("compression")["average_precision"].mean()
            for seed, replicate in runs.groupby("seed")
        }
        for method, runs in by_method(tuned.dropna(subset=["compression"]))
    }
    if len(curves) < 2:
        raise Lacking(
            "expected runs of two methods (VD and ARD, say), finished with fine-tuning, got one; "
            "try a second folder, or wait for the others"
        )
    return curves


def _shared_range(curves: list[pd.Series]) -> np.ndarray | None:
    """Compressions over the range that all curves span; None if there is none."""
    if not curves:
        return None

    low = max(curve.index.min() for curve in curves)
    high = min(curve.index.max() for curve in curves)
    return np.geomspace(low, high, N_POINTS) if low < high else None


def _score_at(curve: pd.Series, compression: np.ndarray) -> np.ndarray:
    known = np.log(curve.index.to_numpy(float))
    return np.interp(np.log(compression), known, curve.to_numpy(float))


def _bootstrap(deltas: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the mean over pairs. deltas: (pairs, points)."""
    if len(deltas) < 2:
        nothing = np.full(deltas.shape[1], np.nan)
        return nothing, nothing

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


def sentences(table: pd.DataFrame, differences: pd.DataFrame, *, scorer: str = "test") -> list[str]:
    """For each pair of methods: which is better, where and by how much, or why nothing is known.

    Args:
        table: of `tables.gather`.
        differences: of `rows`.
        scorer: as of `rows`.
    """
    curves = _curves(table, scorer)
    said: list[str] = []
    for first, second in itertools.combinations(curves, 2):
        pair = (differences["first"] == first) & (differences["second"] == second)
        if pair.any():
            said += _verdict(differences[pair])
        else:
            said.append(_no_verdict(curves, first, second))
    return said


def _verdict(rows: pd.DataFrame) -> Iterator[str]:
    first, second, n = rows.iloc[0][["first", "second", "n"]]
    overall, low, high = rows.iloc[0][["overall", "overall_low", "overall_high"]]
    better, worse = (first, second) if overall >= 0 else (second, first)

    spans = f"from {rows['compression'].min():.3g} to {rows['compression'].max():.3g} times fewer"
    text = (
        f"{better} against {worse}, {spans}, {n} pair{'s' if n > 1 else ''}: "
        f"better by {abs(overall):.4f} on average"
    )
    if n == 1:
        yield f"{text}; one pair has no interval, so this may be chance."
        return

    # the interval of |overall|
    low, high = (low, high) if overall >= 0 else (-high, -low)
    unclear = "" if low > 0 else ", which does not tell them apart"
    yield f"{text}, 95 percent interval {low:.4f} to {high:.4f}{unclear}."
    yield from _stretches(rows)

    if n < 6:  # 1 - 2^(1 - n) < 0.95
        coverage = 100 * (1 - 2.0 ** (1 - n))
        yield (
            f"A bootstrap of {n} pairs reaches at most from the least to the greatest difference, "
            f"which for a median covers {coverage:.3g} percent: read these intervals as too narrow."
        )


def _stretches(rows: pd.DataFrame) -> Iterator[str]:
    """The stretches of compression in which the interval leaves 0 out."""
    signs = np.where(rows["low"] > 0, 1, np.where(rows["high"] < 0, -1, 0))
    for sign, indices in itertools.groupby(range(len(rows)), key=lambda k: int(signs[k])):
        stretch = rows.iloc[list(indices)]
        if sign == 0:
            continue

        better = stretch["first"].iloc[0] if sign > 0 else stretch["second"].iloc[0]
        top = stretch.loc[stretch["difference"].abs().idxmax()]
        yield (
            f"{better} is better from {stretch['compression'].min():.3g} to "
            f"{stretch['compression'].max():.3g} times, most at {top['compression']:.3g}, "
            f"by {abs(top['difference']):.4f}."
        )


def _no_verdict(curves: Curves, first: str, second: str) -> str:
    if not set(curves[first]) & set(curves[second]):
        return f"{first} and {second} have no seed in common: nothing to pair."

    spans = []
    for method in (first, second):
        low = min(curve.index.min() for curve in curves[method].values())
        high = max(curve.index.max() for curve in curves[method].values())
        spans.append(f"{method} {low:.3g} to {high:.3g}")
    return (
        f"{first} and {second} share no range of compression ({'; '.join(spans)} times): "
        "nothing is extrapolated."
    )


@style.styled
def figure(differences: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Difference of average precision against compression, with its interval from two pairs on."""
    drawn, axes = plt.subplots(figsize=(7, 4.2))
    pairs = differences.groupby(["first", "second"], sort=False)
    for index, ((first, second), rows) in enumerate(pairs):
        colour, _ = style.of(index)
        x = rows["compression"]
        axes.plot(x, rows["difference"], color=colour, label=f"{first} - {second}")
        axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.2, lw=0)

    axes.axhline(0, color="0.3", lw=1)
    axes.set(xscale="log", xlabel=style.TIMES, ylabel=f"difference of AP, {scorer}")
    style.plain_log(axes)
    if len(differences):
        axes.legend()
    return drawn
