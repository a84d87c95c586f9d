"""What all reports share: what is asked for and given, how figures look and how they are written.

Colours, grid and legends are in `style.mplstyle`; a function that draws is decorated with `styled`.
"""

import contextlib
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from cplxnet import files

from . import tables

SHEET = Path(__file__).with_name("style.mplstyle")
MOST_LISTED = 3  # methods that are named each where they share a dense network
PRECISION = "pooled average precision"
TIMES = "compression, times fewer real numbers"


@dataclass(frozen=True)
class Request:
    """Which runs a report is of, and how they are to be read."""

    folders: Sequence[Path]  # of manifests and runs
    out: Path  # the folder for the files
    scorer: str = "test"  # whose scores, as manifests name it
    data: Path = Path("data")  # the folder of the data files
    # of the kind threshold alone:
    device: str = "cpu"  # what scores and trains
    runs: Sequence[str] | None = None  # the names of those to be masked again; None: all
    at: Sequence[float] | None = None  # thresholds on log alpha; None: -6, -5, ..., 6
    tune: bool = False  # fine-tune again at each threshold

    def table(self) -> pd.DataFrame:
        """The scores of all runs (`tables.collect`)."""
        return tables.collect(*self.folders)


@dataclass(frozen=True)
class Report:
    """A report: its figure, its data, and what they say."""

    figure: Figure | None  # None: there is nothing to draw
    rows: pd.DataFrame
    sentences: list[str] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)  # the files written
    more: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # by what their names end in


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """The sheet's settings. A notebook's first figure makes matplotlib interactive: that stays."""
    with matplotlib.style.context(SHEET):
        yield
        is_interactive = matplotlib.is_interactive()
    matplotlib.interactive(is_interactive)


styled = _style()  # a decorator

COLOURS: tuple[str, ...] = tuple(
    matplotlib.rc_params_from_file(SHEET)["axes.prop_cycle"].by_key()["color"]
)
LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # beside the colours: nothing rests on them alone
GUIDE = "0.3"  # the grey of lines and marks that belong to no method
DENSE = "0.5"  # the grey of dense networks that all methods share


def looks(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method of some rows: a pair of its own, for up to 49 of them."""
    n = len(COLOURS)
    return {
        str(method): (COLOURS[k % n], MARKERS[(k + k // n) % len(MARKERS)])
        for k, method in enumerate(sorted(set(rows["method"])))
    }


def colours(*tables_of_runs: pd.DataFrame) -> dict[str, tuple[float, ...]]:
    """A colour for each setting: viridis, readable in grey.

    It goes over the logarithm of C, and over that of the compression that pruners aim at, which is
    1 / (1 - sparsity). C of 0, and no setting, get an end of the palette.
    """
    settings = pd.concat([table["setting"] for table in tables_of_runs]).drop_duplicates()
    palette = matplotlib.colormaps["viridis"]
    colour_of: dict[str, tuple[float, ...]] = {}
    for kind, group in settings.groupby(settings.str.extract("^(.*?)(?: =|$)", expand=False)):
        values = tables.numbers(group)
        values = 1 / (1 - values) if kind == "sparsity" else values
        least, greatest = values[values > 0].agg(["min", "max"]).fillna(1.0)
        norm = LogNorm(least / 1.001, greatest * 1.6)  # the palest end does not print
        inside = values.fillna(least).clip(lower=least)
        colour_of |= zip(group, map(palette, norm(inside.to_numpy())), strict=True)
    return colour_of


def dense(axes: Axes, rows: pd.DataFrame) -> None:
    """The dense networks' scores: a line at their mean; where they differ, a band of their range.

    One for all methods that began from the same networks, by the rows' method, seed and dense.
    """
    looks_of = looks(rows)
    sets = tables.dense_scores(rows)
    spreads = [scores.max() - scores.min() for _, scores in sets]
    digits = max([3, *(1 - math.floor(math.log10(spread)) for spread in spreads if spread > 0)])
    for (methods, scores), spread in zip(sets, spreads, strict=True):
        is_only = len(sets) == 1
        is_shared = is_only or len(methods) > MOST_LISTED
        colour = DENSE if is_shared else looks_of[methods[0]][0]
        name = "dense" if is_only else f"dense {_in_common(methods)}"
        if spread > 0:
            limits = f"{scores.min():.{digits}f} to {scores.max():.{digits}f}"
            label = f"{name}, {limits} ({len(scores)} replicates)"
            band(axes, None, scores.min(), scores.max(), colour=colour, label=label)
        mean = f"{'mean ' if len(scores) > 1 else ''}{scores.mean():.{digits}f}"
        axes.axhline(scores.mean(), color=colour, lw=1, label=f"{name}, {mean}")


def band(
    axes: Axes, x: pd.Series | None, low: Any, high: Any, *, colour: Any, label: str | None = None
) -> None:
    """The range from `low` to `high` at each `x`; None: one range over the whole width."""
    look = {"color": colour, "alpha": 0.2, "lw": 0, "label": label}
    if x is None:
        axes.axhspan(low, high, **look)
    else:
        axes.fill_between(x, low, high, **look)


def _in_common(methods: Sequence[str]) -> str:
    """The words that many methods begin with, or all their names."""
    columns = zip(*(method.split() for method in methods), strict=False)
    words = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return " ".join(words) if len(methods) > MOST_LISTED and words else ", ".join(methods)


Place = Literal["best", "center", "upper left"]


def legend(axes: Axes, *, on: Axes | None = None, place: Place = "best") -> None:
    """Each label once, inside the axes, or where labels are long or many on paper added below.

    Args:
        axes: whose lines it names.
        on: axes that it is put on however many short labels there are.
        place: where in them, as matplotlib's `loc`.
    """
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    unique = {label: first[label] for label in dict.fromkeys(labels) if label}
    longest = max(map(len, unique), default=0)
    if longest <= 40 and (on or len(unique) <= 8):
        (on or axes).legend(unique.values(), unique.keys(), loc=place)
        return

    figure = axes.get_figure(root=True)
    assert figure is not None
    n_columns = 1 if longest > 42 and len(unique) < 12 else 2  # of a figure 7 inches wide
    width = 80 // n_columns
    lines = [textwrap.fill(label, width, break_on_hyphens=False) for label in unique]
    key = figure.legend(unique.values(), lines, loc="outside lower center", ncols=n_columns)

    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + key.get_window_extent().height / figure.dpi)


def near_one(axes: Axes, scores: np.ndarray) -> None:
    """A y axis on which scores near 1 are told apart: the logarithm of 1 - score.

    For scores of which the worst misses more than ten times as much of 1 as the best; the axis
    stays as it is for others. `scores` are all that is drawn, at most 1; NaN counts for nothing.
    """
    missed = 1 - scores[np.isfinite(scores)]
    if not len(missed) or not 0 < 10 * missed.min() < missed.max():
        return

    def closeness(score: np.ndarray) -> np.ndarray:
        return -np.log10(np.maximum(1 - score, 1e-9))

    axes.set_yscale("function", functions=(closeness, lambda height: 1 - 10**-height))
    low, high = 1.15 * missed.max(), missed.min() / 1.15
    ticks = [m / 10**k for k in range(7) for m in (1, 5, 2)]
    axes.set_ylim(1 - low, 1 - high)
    axes.set_yticks([1 - tick for tick in ticks if high <= tick <= low])
    axes.yaxis.set_major_formatter("{x:.6g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{axes.get_ylabel()} (logarithm of 1 - it)")


def plain_log(axes: Axes, *, axis: str = "x") -> None:
    """Ticks of a log axis as plain numbers at 1, 2 and 5 of each decade."""
    log_axis = axes.xaxis if axis == "x" else axes.yaxis
    low, high = log_axis.get_view_interval()

    log_axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 1e4 * low else (1,)))
    log_axis.set_major_formatter("{x:g}")
    log_axis.set_minor_formatter("")
    log_axis.set_minor_locator(NullLocator())


@styled
def write(path: str | Path, figure: Figure | None, rows: pd.DataFrame) -> list[Path]:
    """Write path.pdf, path.png (150 dots per inch) and path.csv, each whole or not at all.

    Args:
        path: the files' name without ending.
        figure: None writes the CSV alone.
        rows: the figure's data.

    Returns:
        The paths written.
    """
    path = Path(path)
    pdf, png, csv = (path.with_name(f"{path.name}.{ending}") for ending in ("pdf", "png", "csv"))
    files.write_text(csv, rows.to_csv(index=False))
    if figure is not None:
        dateless = {"CreationDate": None}  # the same figure is the same file
        files.write(pdf, lambda file: figure.savefig(file, format="pdf", metadata=dateless))
        files.write(png, lambda file: figure.savefig(file, format="png"))
    return [csv] if figure is None else [pdf, png, csv]
