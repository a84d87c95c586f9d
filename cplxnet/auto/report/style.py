"""How all figures of the reports look, and how they are written: PDF, PNG and the data as CSV."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cplxnet import files

from . import plots

# Okabe and Ito (2008), yellow left out: it does not print. Markers too, so that nothing rests on colour alone.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def of(index: int) -> tuple[str, str]:
    """Colour and marker of the method with this number."""
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def write(path: str | Path, figure: Figure | None, rows: pd.DataFrame) -> list[Path]:
    """Write path.pdf, path.png (150 dots per inch) and path.csv, each atomically; returns them. No figure: CSV only."""
    path, written = Path(path), []
    if figure is not None:
        pdf = path.with_name(f"{path.name}.pdf")
        # no date inside: the same figure is the same file
        files.write(
            pdf, lambda file: figure.savefig(file, format="pdf", metadata={"CreationDate": None})
        )
        written += [pdf, plots.save(figure, path.with_name(f"{path.name}.png"))]
    table = path.with_name(f"{path.name}.csv")
    files.write_text(table, rows.to_csv(index=False))
    return [*written, table]
