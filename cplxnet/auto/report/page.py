"""The results of a grid in Markdown: a table with a row a group, then numbered readings, all from its files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cplxnet import files
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C

from . import tables

LEVELS = (50.0, 200.0)  # times fewer real numbers, of which the readings say what they cost
COLUMNS = [
    "form",
    "C",
    "n",
    "compression",
    "kept",
    "before",
    "after",
    "loss",
    "loss_low",
    "loss_high",
]
HEADS = "form | C | replicates | times fewer | real numbers kept | AP before fine-tuning | AP | below dense | of each"
BEGIN, END = "<!-- begin: python -m cplxnet.auto page {folder} --into FILE -->", "<!-- end -->"


def groups(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """A row for each form and value of C, over the replicates that are through with fine-tuning.

    table: of `report.collect`. Columns: form, C, n (replicates); compression, kept (real numbers), before and after
    (average precision around fine-tuning) as means; loss (dense - after, each replicate beside its own dense network;
    negative: a gain) as mean, and loss_low and loss_high, the least and the greatest.
    """
    if table.empty:
        return pd.DataFrame(columns=COLUMNS)
    chosen = table[table["scorer"] == scorer].set_index("run")
    dense = chosen.loc[chosen["stage"] == "dense", "average_precision"]
    last = chosen[chosen["stage"] == "fine-tune"]
    rows = pd.DataFrame(
        {
            "form": tables.form(last),
            "C": last[C].astype(float),
            "compression": last["compression"].astype(float),
            "kept": (last["n_par"] - last["n_zero"]).astype(float),
            "before": last["average_precision_start"].astype(float),
            "after": last["average_precision"].astype(float),
            "loss": (dense.reindex(last.index) - last["average_precision"]).astype(float),
        }
    )
    grouped = rows.groupby(["form", "C"], sort=True)
    spread = grouped["loss"].agg(n="size", loss_low="min", loss_high="max")
    return grouped.mean().join(spread).reset_index()[COLUMNS]


def markdown(folder: str | Path, scorer: str = "test") -> str:
    """The table and the readings of a folder of runs; of an unfinished grid what is there, and what is missing."""
    table = tables.collect(folder)
    found = groups(table, scorer)
    readings = [f"{k}. {text}" for k, text in enumerate(_readings(table, found, scorer), start=1)]
    through = set(table.loc[table["stage"] == "fine-tune", "run"]) if len(table) else set()
    manifests = grid.read(folder)
    left = [name for name in manifests if name not in through]
    if left:
        readings += ["", f"Not finished: {len(left)} of {len(manifests)} runs ({', '.join(left)})."]
    return "\n".join([*_table(found), "", *readings]).strip() + "\n"


def _table(found: pd.DataFrame) -> Iterator[str]:
    if found.empty:
        return
    yield f"| {HEADS} |"
    yield "|---|" + "---:|" * HEADS.count("|")
    for _, row in found.iterrows():
        numbers = (
            f"{row['C']:g}",
            f"{row['n']:d}",
            f"{row['compression']:.3g}",
            f"{row['kept']:,.0f}",
        )
        scores = (
            f"{row['before']:.4f}",
            f"{row['after']:.4f}",
            f"{row['loss']:z.4f}",
        )  # z: 0.0000, never -0.0000
        spread = (
            f"{row['loss_low']:z.4f} to {row['loss_high']:z.4f}" if row["n"] > 1 else "one only"
        )
        yield "| " + " | ".join((row["form"], *numbers, *scores, spread)) + " |"


def _readings(table: pd.DataFrame, found: pd.DataFrame, scorer: str) -> Iterator[str]:
    if table.empty:
        return
    chosen = table[(table["scorer"] == scorer) & (table["stage"] == "dense")]
    dense = chosen["average_precision"].drop_duplicates()  # runs share it
    n_par, chance = int(chosen["n_par"].iloc[0]), chosen["positive_share"].iloc[0]
    spread = float(dense.max() - dense.min()) if len(dense) > 1 else None
    scores = " and ".join(f"{value:.4f}" for value in sorted(dense))
    yield (
        f"Dense: {n_par:,} real numbers, average precision {scores} on {scorer} ({chance:.3f} would be chance), "
        + (
            "one replicate."
            if spread is None
            else f"so {len(dense)} replicates differ by {spread:.4f}."
        )
    )
    for _, row in found.iterrows():
        yield (
            f"{row['form']} at C = {row['C']:g} keeps {row['kept']:,.0f} of {n_par:,} real numbers, "
            f"{row['compression']:.3g} times fewer: average precision {row['after']:.4f}, {_beside(row['loss'])}."
        )
    for form, rows in found.groupby("form"):
        yield from (_at(str(form), level, rows, spread) for level in LEVELS)


def _beside(loss: float) -> str:
    return f"{abs(loss):.4f} {'below' if loss > 0 else 'above'} dense"


def _at(form: str, level: float, rows: pd.DataFrame, spread: float | None) -> str:
    """What `level` times fewer costs, between the two values of C around it (linear in the logarithm)."""
    rows = rows.sort_values("compression")
    least, most = rows["compression"].iloc[0], rows["compression"].iloc[-1]
    if not least <= level <= most:
        return f"{form} at {level:g} times fewer: not known, what is finished spans {least:.3g} to {most:.3g} times."
    loss = float(np.interp(np.log(level), np.log(rows["compression"]), rows["loss"]))
    text = f"{form} at {level:g} times fewer, between its neighbours in the table: {_beside(loss)}"
    if spread is None:
        return text + "."
    return f"{text}, {'beyond' if loss > spread else 'not beyond'} the {spread:.4f} by which dense replicates differ."


def insert(page: str | Path, folder: str | Path, **options: Any) -> None:
    """Put `markdown(folder)` into the file `page`, in place of what lies between its two marks; errors as of `put`."""
    put(page, BEGIN.format(folder=Path(folder).as_posix()), END, markdown(folder, **options))


def put(page: str | Path, begin: str, end: str, text: str) -> None:
    """Put `text` into the file `page`, in place of what lies between the lines `begin` and `end`.

    Raises ValueError where `begin` is not there once, or `end` not after it.
    """
    page = Path(page)
    head, found, rest = page.read_text(encoding="utf-8").partition(begin + "\n")
    _, ended, tail = rest.partition(end)
    if not found or not ended or begin in rest:
        raise ValueError(
            f"{page}: expected the lines {begin!r} and {end!r} once, got others; write them where it goes"
        )
    files.write_text(page, f"{head}{begin}\n\n{text.rstrip()}\n\n{end}{tail}")
