"""How all figures look, and how they are written: PDF, PNG and the data as CSV.

Colours, grid and legends are in `style.mplstyle`; a function that draws is decorated with `styled`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cplxnet import files

SHEET = Path(__file__).with_name("style.mplstyle")
PRECISION = "pooled average precision"
TIMES = "compression, times fewer real numbers"


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
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # beside the colours: nothing rests on them alone


def of(index: int) -> tuple[str, str]:
    """Colour and marker of the method with this number."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def colours_of_c(*values: pd.Series) -> Callable[[float], tuple[float, ...]]:
    """A colour for each value of C: viridis over its logarithm, readable in grey.

    Values of 0, and a grid that does not write C, get an end of the palette.
    """
    c = pd.concat(values)
    c = c[c > 0].dropna()
    # up to 1.6 times the greatest: the palest end of the palette does not print
    norm = LogNorm(1.0, 10.0) if c.empty else LogNorm(c.min() / 1.001, c.max() * 1.6)
    palette = matplotlib.colormaps["viridis"]
    return lambda value: palette(norm(value))


def dense_band(axes: Axes, scores: pd.Series, colour: str, label: str) -> None:
    """The dense networks' scores: a line at their mean, a band from the least to the greatest."""
    low, high = scores.min(), scores.max()
    spread = f" to {high:.3f}" if high - low > 5e-4 else ""
    text = f"{label}, {low:.3f}{spread}"

    axes.axhspan(low - 1e-3, high + 1e-3, color=colour, alpha=0.3, lw=0, label=text)
    axes.axhline(scores.mean(), color=colour, lw=1)


def plain_log(axes: Axes, *, axis: str = "x") -> None:
    """Ticks of a log axis as plain numbers at 1, 2 and 5 of each decade."""
    log_axis = axes.xaxis if axis == "x" else axes.yaxis
    low, high = log_axis.get_view_interval()

    log_axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 1e4 * low else (1,)))
    log_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    log_axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
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
    written = []

    if figure is not None:
        pdf = path.with_name(f"{path.name}.pdf")
        png = path.with_name(f"{path.name}.png")
        dateless = {"CreationDate": None}  # the same figure is the same file
        files.write(pdf, lambda file: figure.savefig(file, format="pdf", metadata=dateless))
        files.write(png, lambda file: figure.savefig(file, format="png"))
        written += [pdf, png]

    table = path.with_name(f"{path.name}.csv")
    files.write_text(table, rows.to_csv(index=False))
    return [*written, table]
