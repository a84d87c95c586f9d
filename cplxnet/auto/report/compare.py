"""Two methods at equal compression: paired differences of their scores with bootstrap intervals.

Per replicate (seed) and method the score after fine-tuning is interpolated linearly over the
logarithm of compression; the difference is taken where both methods of every pair have runs on
both sides.

An interval is given, and a method called better, from six pairs on. A bootstrap reaches from the
least to the greatest difference at most, which for a median covers 1 - 2^(1 - n): less than 95
percent below six.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from cplxnet.auto.manifest.grid import FINE_TUNE

from . import style
from .style import Report, Request
from .tables import Lacking, by_method, of_scorer, spans

TIMES = (20.0, 50.0, 100.0, 200.0, 400.0)  # compressions at which methods are ranked
N_POINTS = 25  # of compression, evenly in its logarithm
N_RESAMPLES = 9999
LEVEL = 0.95
LEAST_PAIRS = 6
MOST_DRAWN = 6  # pairs of methods: those of four
FAR = 0.1  # a difference of AP that would hide the others
BETTER, ABOVE, ONE = "better than", "in every pair above", "in the one pair above"
NOT_APART, UNPAIRED = "not told apart from", "without a pair with"

OVER_PAIRS = ("difference", "least", "greatest", "low", "high")
PAIR = ("first", "second", "n", "compression", *OVER_PAIRS, *(f"overall_{k}" for k in OVER_PAIRS))
RANK = ("times", "method", "score", "winner", "n", *OVER_PAIRS, "verdict")

Curves = dict[str, dict[int, pd.Series]]  # method -> seed -> score by rising compression


def report(request: Request) -> Report:
    """The report of the kind "compare"."""
    table = request.table()
    differences = rows(table, scorer=request.scorer)
    figure = draw(differences, scorer=request.scorer) if len(differences) else None
    ranks = ranking(table, scorer=request.scorer)
    texts = sentences(table, differences, scorer=request.scorer) + winners(ranks)
    return Report(figure, differences, texts, more={"ranking": ranks})


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a pair of methods and compression, of a table of `tables.collect`.

    Returns:
        Columns first, second, n (pairs of runs), compression; difference (first - second, the mean
        over pairs), least and greatest (of the pairs), low and high (95 percent percentile
        bootstrap interval of the mean over pairs; NaN below six pairs); and overall_... of these,
        of each pair's mean over the common range. Methods without a common range or seed have no
        row; `sentences` says so.

    Raises:
        Lacking: the runs are all of one method, or their scores do not compare.
    """
    curves = _curves(table, scorer)
    differences = []
    for first, second in itertools.combinations(curves, 2):
        shared, deltas = _deltas(curves[first], curves[second])
        if not len(deltas):
            continue

        names = {"first": first, "second": second, "n": len(deltas), "compression": shared}
        points = pd.DataFrame(names | _over_pairs(deltas))
        for name, values in _over_pairs(deltas.mean(axis=1, keepdims=True)).items():
            points[f"overall_{name}"] = values[0]
        differences.append(points)

    if not differences:
        return pd.DataFrame(columns=list(PAIR))  # a CSV without a header is no CSV
    return pd.concat(differences, ignore_index=True)


def _curves(table: pd.DataFrame, scorer: str) -> Curves:
    tuned = of_scorer(table, scorer, FINE_TUNE)
    tuned = tuned.astype({"compression": float, "average_precision": float})
    curves = {
        method: {
            int(seed): replicate.groupby("compression")["average_precision"].mean()
            for seed, replicate in runs.groupby("seed")
        }
        for method, runs in by_method(tuned.dropna(subset=["compression", "average_precision"]))
    }
    if len(curves) < 2:
        raise Lacking(
            "expected runs of two methods (VD and ARD, say), finished with fine-tuning, got "
            f"{'one' if curves else 'none'}; try a second folder, or wait for the others"
        )
    return curves


def _deltas(
    first: dict[int, pd.Series], second: dict[int, pd.Series]
) -> tuple[np.ndarray, np.ndarray]:
    """Compressions that all curves of the pairs span; first - second there (pairs, points).

    A seed whose two curves share no range yet, as one with a single run does, makes no pair.
    """
    pairs = [(first[seed], second[seed]) for seed in sorted(first) if seed in second]
    pairs = [pair for pair in pairs if operator.lt(*_range(pair))]
    low, high = _range([curve for pair in pairs for curve in pair])
    if low >= high:
        return np.empty(0), np.empty((0, 0))

    shared = np.geomspace(low, high, N_POINTS)
    return shared, np.array([_at(one, shared) - _at(other, shared) for one, other in pairs])


def _range(curves: Sequence[pd.Series]) -> tuple[float, float]:
    """Least and greatest compression that all curves span: none where the least is not less."""
    low = max((curve.index[0] for curve in curves), default=np.inf)
    high = min((curve.index[-1] for curve in curves), default=0.0)
    return low, high


def _at(curve: pd.Series, times: Any) -> Any:
    """A replicate's score at one or several compressions, linear in their logarithm."""
    return np.interp(np.log(times), np.log(curve.index.to_numpy(float)), curve)


def _over_pairs(deltas: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, range and interval of the mean over pairs. deltas: (pairs, points)."""
    low = high = np.full(deltas.shape[1], np.nan)
    if len(deltas) >= LEAST_PAIRS:
        low, high = stats.bootstrap(
            (deltas,),
            np.mean,
            axis=0,
            n_resamples=N_RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    values = (deltas.mean(axis=0), deltas.min(axis=0), deltas.max(axis=0), low, high)
    return dict(zip(OVER_PAIRS, values, strict=True))


def ranking(
    table: pd.DataFrame,
    *,
    scorer: str = "test",
    times: Sequence[float] = TIMES,
) -> pd.DataFrame:
    """Who wins where: a row a compression and method that spans it, the best mean score first.

    A replicate takes part if its runs span the compression (`tables.spans`). A compression that one
    method alone spans has no row.

    Returns:
        Columns times, method, score (mean over its replicates), winner, n (pairs with the winner),
        difference (from the winner, the mean over pairs), least and greatest, low and high as of
        `rows`; and verdict on the winner: "better than" the method, by the interval; with two to
        five pairs "in every pair above" it; with one "in the one pair above"; "not told apart
        from"; or, where no seed has both, "without a pair with". Empty for the winner itself.
    """
    curves = _curves(table, scorer)
    ranks = []
    for level in times:
        reached = {
            method: {
                seed: _at(curve, level) for seed, curve in own.items() if spans(curve.index, level)
            }
            for method, own in curves.items()
        }
        scores = pd.DataFrame(reached, dtype=float)  # a row a seed
        means = scores.mean().dropna().sort_values(ascending=False)
        if len(means) < 2:
            continue
        winner = means.index[0]
        for method, mean in means.items():
            deltas = (scores[method] - scores[winner]).dropna().to_numpy(float)[:, None]
            row = {"times": level, "method": method, "score": mean, "winner": winner}
            row |= {"n": len(deltas), "verdict": ""}
            if method != winner and len(deltas):
                row |= {key: values[0] for key, values in _over_pairs(deltas).items()}
            if method != winner:
                row["verdict"] = _verdict_on_winner(row)
            ranks.append(row)
    return pd.DataFrame(ranks, columns=list(RANK))


def _verdict_on_winner(row: dict[str, Any]) -> str:
    if row["n"] == 0:
        return UNPAIRED
    if row["n"] >= LEAST_PAIRS:
        return BETTER if row["high"] < 0 else NOT_APART
    if row["greatest"] >= 0:
        return NOT_APART
    return ABOVE if row["n"] > 1 else ONE


def winners(ranks: pd.DataFrame, *, unit: str = "times fewer") -> list[str]:
    """A sentence a level of `ranking`, in `unit`: who wins, over whom, by how much, how sure."""
    sentences = []
    for level, rows in ranks.groupby("times", sort=False):
        clauses = [f"At {level:,.10g} {unit} {rows['winner'].iloc[0]} has the highest mean"]
        for verdict in (BETTER, ABOVE, ONE, NOT_APART, UNPAIRED):
            named = [
                f"{row['method']} ({_by_how_much(row)})"
                for _, row in rows[rows["verdict"] == verdict].iterrows()
            ]
            clauses += [f"{verdict} {', '.join(named)}"] if named else []
        sentences.append("; ".join(clauses) + ".")
    return sentences


def _by_how_much(row: pd.Series) -> str:
    """The winner's lead over the pairs."""
    if not row["n"]:
        return f"mean {row['score']:.4f}"
    return f"{-row['difference']:+z.4f}, {_pairs(row['n'])}"


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


def sentences(table: pd.DataFrame, differences: pd.DataFrame, *, scorer: str = "test") -> list[str]:
    """For each pair of methods: how they differ by `rows`, and how sure that is, or why not."""
    curves = _curves(table, scorer)
    rows_of = dict(list(differences.groupby(["first", "second"])))
    return [
        _verdict(rows_of[pair]) if pair in rows_of else _no_verdict(curves, *pair)
        for pair in itertools.combinations(curves, 2)
    ]


def _verdict(rows: pd.DataFrame) -> str:
    first, second, n = rows.iloc[0][["first", "second", "n"]]
    mean, least, greatest, low, high = rows.iloc[0][[f"overall_{name}" for name in OVER_PAIRS]]
    spans = f"from {rows['compression'].min():.3g} to {rows['compression'].max():.3g} times fewer"
    if n < LEAST_PAIRS:
        pairs = f"{n} pairs, from {least:z.4f} to {greatest:z.4f}" if n > 1 else "one pair"
        return (
            f"{first} - {second}, {spans}: {mean:+z.4f} on average ({pairs}). "
            f"Fewer than {LEAST_PAIRS} pairs tell neither an interval nor which is better."
        )

    if mean < 0:
        first, second, mean, low, high = second, first, -mean, -high, -low
    differs = f"better by {mean:.4f} on average" if low > 0 else f"{mean:.4f} more on average"
    unclear = "" if low > 0 else ", which does not tell them apart"
    return (
        f"{first} against {second}, {spans}, {n} pairs: {differs}, "
        f"95 percent interval {low:z.4f} to {high:z.4f}{unclear}."
    )


def _no_verdict(curves: Curves, first: str, second: str) -> str:
    if not set(curves[first]) & set(curves[second]):
        return f"{first} and {second} have no seed in common: nothing to pair."

    spans = []
    for method in (first, second):
        compressions = pd.concat(list(curves[method].values())).index
        spans.append(f"{method} {compressions.min():.3g} to {compressions.max():.3g}")
    return (
        f"{first} and {second} share no range of compression ({'; '.join(spans)} times): "
        "nothing is extrapolated."
    )


def _from_one(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of the pairs with one method, which is the second of each."""
    turned = differences.rename(columns={"first": "second", "second": "first"})
    for one, other in (("difference", "difference"), ("least", "greatest"), ("low", "high")):
        for part in ("", "overall_"):
            turned[part + one] = -differences[part + other]
            turned[part + other] = -differences[part + one]

    both_directions = pd.concat([differences, turned])
    ranges = both_directions.groupby(["second", "first"])["compression"].agg(["min", "max"])
    widths = np.log(ranges["max"] / ranges["min"]).groupby("second").sum()
    return both_directions[both_directions["second"] == widths.idxmax()]


@style.styled
def draw(differences: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """Difference of average precision, the mean over pairs, against compression.

    The band is the interval of the mean, or below six pairs the range of the pairs. Of more than
    four methods only the differences from one are drawn, in each method's colour: from the one that
    others are beside over the widest ranges.
    """
    figure, axes = plt.subplots(figsize=(7, 4.2))
    numbers: dict[str, int] = {}
    if len(differences[["first", "second"]].drop_duplicates()) > MOST_DRAWN:
        methods = sorted(set(differences["first"]) | set(differences["second"]))
        numbers = {method: k for k, method in enumerate(methods)}
        differences = _from_one(differences)
    pairs = differences.groupby(["first", "second"], sort=False)
    for k, ((first, second), rows) in enumerate(pairs):
        n = rows["n"].iloc[0]
        label = f"{first} - {second} ({_pairs(n)})"
        turn, number = divmod(numbers.get(first, k), len(style.COLOURS))
        dashes, colour = style.LINES[turn % len(style.LINES)], style.COLOURS[number]
        axes.plot(rows["compression"], rows["difference"], dashes, color=colour, label=label)

        low, high, name = "low", "high", "95 percent interval of the mean"
        if n < LEAST_PAIRS:
            low, high, name = "least", "greatest", "range of the pairs"
        if n > 1:
            style.band(axes, rows["compression"], rows[low], rows[high], colour=colour, label=name)

    axes.axhline(0, color=style.GUIDE, lw=1)
    axes.set(xscale="log", xlabel=style.TIMES, ylabel=f"difference of AP, {scorer}")
    style.plain_log(axes)
    if differences["difference"].abs().max() > FAR:
        axes.set_yscale("symlog", linthresh=FAR / 10)
        axes.yaxis.set_major_formatter("{x:g}")
    style.legend(axes)
    return figure
