"""What results say in words: readings of a table, what is missing, a grid's page in Markdown.

Every number is worked out from the runs' files when it is asked for.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cplxnet import files
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import METHOD, C

from . import tables

DENSE = "dense"
TUNED = "fine-tune"

LEVELS = (50.0, 200.0)  # times fewer real numbers, of which the page says what they cost
HEADS = (
    "form | C | replicates | times fewer | real numbers kept | AP before fine-tuning | AP "
    "| below dense | of each"
)
BEGIN = "<!-- begin: python -m cplxnet.auto page {folder} --into FILE -->"
END = "<!-- end -->"


def readings(table: pd.DataFrame, scorer: str = "test") -> list[str]:
    """What a table of `tables.collect` says, in means over replicates.

    A sentence for the dense networks, one for each form and C, and one for each kind of run that
    is left out of these: without this scorer, or without stages called dense and fine-tune.
    """
    rows = table[table["scorer"] == scorer] if len(table) else table
    sentences = []

    reference = np.nan
    dense = rows[rows["stage"] == DENSE].drop_duplicates("average_precision") if len(rows) else rows
    if len(dense):
        reference = dense["average_precision"].mean()
        chance = dense["positive_share"].mean()
        sentences.append(
            f"Dense: average precision {reference:.3f} on {scorer} ({chance:.3f} would be chance), "
            f"{int(dense['n_par'].iloc[0]):,} real numbers."
        )

    tuned = rows[rows["stage"] == TUNED] if len(rows) else rows
    if len(tuned):
        groups = tables.aggregate(tuned.assign(form=tables.form(tuned)), by=["form", C])
        for _, row in groups.iterrows():
            form = f"{row['form']}, " if METHOD in tuned else ""
            gain = row["average_precision"] - reference
            than_dense = f", {abs(gain):.3f} {'above' if gain >= 0 else 'below'} dense"
            sentences.append(
                f"{form}C = {row[C]:g}: {row['compression']:.3g} times fewer real numbers, "
                f"average precision {row['average_precision_start']:.3f} before and "
                f"{row['average_precision']:.3f} after fine-tuning"
                f"{than_dense if len(dense) else ''}."
            )

    return sentences + left_out(table, scorer)


def left_out(table: pd.DataFrame, scorer: str) -> list[str]:
    """A sentence for runs without this scorer, and for finished runs without the two stages."""
    if table.empty:
        return []

    sentences = []
    for scorers, runs in _grouped(table, "scorer").items():
        if scorer not in scorers:
            sentences.append(
                f"Not scored by {scorer!r}, so left out: {', '.join(runs)} "
                f"(scorers: {', '.join(scorers)})."
            )

    finished = table[table["state"] == "done"] if "state" in table else table
    for stages, runs in _grouped(finished, "stage").items():
        if not {DENSE, TUNED} <= set(stages):
            sentences.append(
                f"Without stages called {DENSE} and {TUNED}, so compared in part only: "
                f"{', '.join(runs)} (stages: {', '.join(stages)})."
            )
    return sentences


def _grouped(table: pd.DataFrame, column: str) -> dict[tuple[str, ...], list[str]]:
    """The names of the runs with the same values in a column, by these values."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for run, rows in table.groupby("run", sort=False):
        groups.setdefault(tuple(dict.fromkeys(rows[column])), []).append(str(run))
    return groups


def missing(folders: Iterable[str | Path]) -> list[str]:
    """A sentence a folder with runs that are not done: how many, which, and how far each is."""
    sentences = []
    for folder in folders:
        states = tables.status(folder)
        unfinished = states[states["state"] != "done"]
        if unfinished.empty:
            continue

        named = [_how_far(str(run), row) for run, row in unfinished.head(8).iterrows()]
        more = f" and {len(unfinished) - 8} more" if len(unfinished) > 8 else ""
        sentences.append(
            f"{folder}: {len(unfinished)} of {len(states)} runs are not done: "
            f"{', '.join(named)}{more}."
        )
    return sentences


def _how_far(run: str, row: pd.Series) -> str:
    if pd.isna(row["stage"]) or pd.isna(row["epoch"]) or pd.isna(row["n_epochs"]):
        return f"{run} ({row['state']})"
    epochs = f"epoch {row['epoch']:.0f} of {row['n_epochs']:.0f}"
    return f"{run} ({row['state']} in {row['stage']}, {epochs})"


# ---------------------------------------------------------------------------------------------
# a grid's page


def groups(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """A row for each form and value of C, over the replicates that are through with fine-tuning.

    Args:
        table: of `tables.collect`.
        scorer: whose scores.

    Returns:
        Columns form, C, n (replicates); means of compression, kept (real numbers), before and
        after (average precision around fine-tuning), and loss (dense - after, each replicate
        beside its own dense network; negative: a gain); loss_low and loss_high, the least and the
        greatest.
    """
    columns = ["form", "C", "n", "compression", "kept", "before", "after"]
    columns += ["loss", "loss_low", "loss_high"]
    if table.empty:
        return pd.DataFrame(columns=columns)

    scored = table[table["scorer"] == scorer].set_index("run")
    dense = scored.loc[scored["stage"] == DENSE, "average_precision"]
    tuned = scored[scored["stage"] == TUNED]
    numbers = pd.DataFrame(
        {
            "C": tuned[C],
            "compression": tuned["compression"],
            "kept": tuned["n_par"] - tuned["n_zero"],
            "before": tuned["average_precision_start"],
            "after": tuned["average_precision"],
            "loss": dense.reindex(tuned.index) - tuned["average_precision"],
        }
    ).astype(float)

    grouped = numbers.assign(form=tables.form(tuned)).groupby(["form", "C"], sort=True)
    spread = grouped["loss"].agg(n="size", loss_low="min", loss_high="max")
    return grouped.mean().join(spread).reset_index()[columns]


def markdown(folder: str | Path, scorer: str = "test") -> str:
    """The page of a folder of runs: a table with a row a group, then numbered readings.

    An unfinished grid has what is there, and what is missing is named.
    """
    table = tables.collect(folder)
    rows = groups(table, scorer)
    numbered = [f"{k}. {text}" for k, text in enumerate(_page_readings(table, rows, scorer), 1)]
    notes = left_out(table, scorer)

    through = set(table.loc[table["stage"] == TUNED, "run"]) if len(table) else set()
    manifests = grid.read(folder)
    unfinished = [name for name in manifests if name not in through]
    if unfinished:
        notes.append(
            f"Not finished: {len(unfinished)} of {len(manifests)} runs ({', '.join(unfinished)})."
        )

    lines = [*_markdown_table(rows), "", *numbered]
    for note in notes:
        lines += ["", note]
    return "\n".join(lines).strip() + "\n"


def _markdown_table(rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        return

    yield f"| {HEADS} |"
    yield "|---|" + "---:|" * HEADS.count("|")
    for _, row in rows.iterrows():
        # z: 0.0000, never -0.0000
        spread = f"{row['loss_low']:z.4f} to {row['loss_high']:z.4f}"
        cells = (
            row["form"],
            f"{row['C']:g}",
            f"{row['n']:d}",
            f"{row['compression']:.3g}",
            f"{row['kept']:,.0f}",
            f"{row['before']:.4f}",
            f"{row['after']:.4f}",
            f"{row['loss']:z.4f}",
            spread if row["n"] > 1 else "one only",
        )
        yield f"| {' | '.join(cells)} |"


def _page_readings(table: pd.DataFrame, rows: pd.DataFrame, scorer: str) -> Iterator[str]:
    if table.empty:
        return
    dense = table[(table["scorer"] == scorer) & (table["stage"] == DENSE)]
    if dense.empty:
        return

    n_par = int(dense["n_par"].iloc[0])
    chance = dense["positive_share"].iloc[0]
    scores = dense["average_precision"].drop_duplicates()  # runs share their dense networks
    spread = float(scores.max() - scores.min()) if len(scores) > 1 else None

    listed = " and ".join(f"{score:.4f}" for score in sorted(scores))
    replicates = "one replicate."
    if spread is not None:
        replicates = f"so {len(scores)} replicates differ by {spread:.4f}."
    yield (
        f"Dense: {n_par:,} real numbers, average precision {listed} on {scorer} "
        f"({chance:.3f} would be chance), {replicates}"
    )

    for _, row in rows.iterrows():
        yield (
            f"{row['form']} at C = {row['C']:g} keeps {row['kept']:,.0f} of {n_par:,} real "
            f"numbers, {row['compression']:.3g} times fewer: average precision "
            f"{row['after']:.4f}, {_than_dense(row['loss'])}."
        )

    for form, group in rows.groupby("form"):
        for level in LEVELS:
            yield _cost_at(str(form), level, group, spread)


def _than_dense(loss: float) -> str:
    return f"{abs(loss):.4f} {'below' if loss > 0 else 'above'} dense"


def _cost_at(form: str, level: float, rows: pd.DataFrame, spread: float | None) -> str:
    """What `level` times fewer costs, between the two values of C around it.

    The loss is interpolated linearly in the logarithm of compression.
    """
    rows = rows.sort_values("compression")
    least = rows["compression"].iloc[0]
    most = rows["compression"].iloc[-1]
    if not least <= level <= most:
        return (
            f"{form} at {level:g} times fewer: not known, what is finished spans {least:.3g} "
            f"to {most:.3g} times."
        )

    loss = float(np.interp(np.log(level), np.log(rows["compression"]), rows["loss"]))
    text = (
        f"{form} at {level:g} times fewer, between its neighbours in the table: {_than_dense(loss)}"
    )
    if spread is None:
        return f"{text}."
    beyond = "beyond" if loss > spread else "not beyond"
    return f"{text}, {beyond} the {spread:.4f} by which dense replicates differ."


def insert(page: str | Path, folder: str | Path, scorer: str = "test") -> None:
    """Put `markdown(folder)` between its two marks in the file `page`. Raises as `put`."""
    put(page, BEGIN.format(folder=Path(folder).as_posix()), END, markdown(folder, scorer))


def put(page: str | Path, begin: str, end: str, text: str) -> None:
    """Replace what lies between the lines `begin` and `end` of the file `page` by `text`.

    Raises:
        ValueError: `begin` is not there once, or `end` not after it.
    """
    page = Path(page)
    before, begun, inside = page.read_text(encoding="utf-8").partition(begin + "\n")
    _, ended, after = inside.partition(end)
    if not begun or not ended or begin in inside:
        raise ValueError(
            f"{page}: expected the lines {begin!r} and {end!r} once, got others; "
            "write them where the text goes"
        )
    files.write_text(page, f"{before}{begin}\n\n{text.rstrip()}\n\n{end}{after}")
