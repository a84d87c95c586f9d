"""What results say in words: readings of a table, what is missing, a grid's page in Markdown.

Every number is worked out from the runs' files when it is asked for.
"""

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cplxnet import files
from cplxnet.auto.manifest.grid import DENSE, FINE_TUNE, C

from . import tables

NUMBERS = ["n_par", "compression", "kept", "before", "after", "loss"]
LEVELS = (50.0, 200.0)  # times fewer real numbers, of which the page says what they cost
NEAR = 1.1  # times between a level and a group that stands for it
HEADS = (
    "form | {setting} | replicates | times fewer | real numbers kept | AP before fine-tuning | AP "
    "| below dense | range over seeds"
)
BEGIN = "<!-- begin: python -m cplxnet.auto page {folder} --into FILE -->"
END = "<!-- end -->"


def groups(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """A row for each form and value of C, over the replicates that are through with fine-tuning.

    Returns:
        Columns form (a method of `collect`), C, setting, n (replicates); means of n_par and kept
        (real numbers), compression, before and after (average precision around fine-tuning), and
        loss (dense - after, each replicate beside its own dense network; negative: a gain);
        loss_low and loss_high, the least and the greatest.
    """
    runs = _runs(table, scorer)
    runs = runs[runs["after"].notna()].rename(columns={"method": "form", C: "C"})
    grouped = runs.assign(number=tables.numbers(runs["setting"])).groupby(
        ["form", "number", "C", "setting"], dropna=False
    )
    spread = grouped["loss"].agg(n="size", loss_low="min", loss_high="max")
    rows = grouped[NUMBERS].mean().join(spread).reset_index()
    return rows[["form", "C", "setting", "n", *NUMBERS, "loss_low", "loss_high"]]


def _runs(table: pd.DataFrame, scorer: str) -> pd.DataFrame:
    """A row for each run that has finished dense: its scores there and after fine-tuning."""
    is_of_both = (table["scorer"] == scorer) & table["stage"].isin([DENSE, FINE_TUNE])
    runs = tables.by_run(table[is_of_both])
    return runs.assign(loss=runs["dense"] - runs["after"])


def _dense(runs: pd.DataFrame) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """The name, the scores and any one run of each set of dense networks."""
    sets = tables.dense_scores(runs)
    for methods, scores in sets:
        name = "Dense" if len(sets) == 1 else f"Dense, {', '.join(methods)}"
        yield name, scores, runs.loc[scores.index[0]]


def readings(table: pd.DataFrame, scorer: str = "test") -> list[str]:
    """What a table of `tables.collect` says, in means over replicates.

    A sentence for the dense networks, one for each form and C, and one for each kind of run that
    is left out of these: without this scorer, or without stages called dense and fine-tune.
    """
    sentences = [
        f"{name}: average precision {scores.mean():.3f} on {scorer}{_chance(run)}, "
        f"{run['n_par']:,.0f} real numbers."
        for name, scores, run in _dense(_runs(table, scorer))
    ]
    for _, row in groups(table, scorer).iterrows():
        group = ", ".join(filter(None, (row["form"], row["setting"])))
        before = "" if np.isnan(row["before"]) else f"{row['before']:.3f} before and "
        sentences.append(
            f"{group}: {_times_fewer(row, ' real numbers')}, average precision {before}"
            f"{row['after']:.3f} after fine-tuning{_than_dense(row['loss'], 3)}."
        )
    return sentences + left_out(table, scorer)


def _chance(run: pd.Series) -> str:
    """The score of a random ranking in brackets; nothing where it is not known."""
    return "" if np.isnan(run["chance"]) else f" ({run['chance']:.3f} would be chance)"


def _times_fewer(row: pd.Series, of_what: str = "") -> str:
    if np.isnan(row["compression"]):  # of nothing left
        return "nothing left"
    return f"{row['compression']:.3g} times fewer{of_what}"


def _than_dense(loss: float, digits: int = 4) -> str:
    """A loss against dense in words; nothing where it is not known."""
    if np.isnan(loss):
        return ""
    if not round(loss, digits):
        return ", as precise as dense"
    return f", {abs(loss):.{digits}f} {'below' if loss > 0 else 'above'} dense"


def left_out(table: pd.DataFrame, scorer: str) -> list[str]:
    """A sentence for runs without this scorer, for runs whose score by it is no number, and for
    finished runs without the two stages.
    """
    sentences = []
    for scorers, runs in _grouped(table, "scorer").items():
        if scorer not in scorers:
            sentences.append(
                f"Not scored by {scorer!r}, so left out: {', '.join(runs)} "
                f"(scorers: {', '.join(scorers)})."
            )

    unscored = table[(table["scorer"] == scorer) & table["average_precision"].isna()]
    for stage, consequence in ((DENSE, "not compared with it"), (FINE_TUNE, "left out")):
        runs = unscored.loc[unscored["stage"] == stage, "run"]
        if len(runs):
            sentences.append(
                f"Without an average precision on {scorer!r} after {stage}, so {consequence}: "
                f"{', '.join(runs)}."
            )

    for stages, runs in _grouped(table[table["state"] == "done"], "stage").items():
        if not {DENSE, FINE_TUNE} <= set(stages):
            sentences.append(
                f"Without stages called {DENSE} and {FINE_TUNE}, so compared in part only: "
                f"{', '.join(runs)} (stages: {', '.join(stages)})."
            )
    return sentences


def _grouped(table: pd.DataFrame, column: str) -> dict[tuple[str, ...], list[str]]:
    """The names of the runs with the same values in a column, by these values."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for (_, run), rows in table.groupby(["folder", "run"], sort=False):
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

        named = _listed([_how_far(str(run), row) for run, row in unfinished.iterrows()])
        sentences.append(
            f"{folder}: {len(unfinished)} of {len(states)} runs are not done: {named}."
        )
    return sentences


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _how_far(run: str, row: pd.Series) -> str:
    if row["state"] in ("changed", "broken"):
        return f"{run} ({row['reason']})"
    if pd.isna(row["stage"]) or pd.isna(row["epoch"]) or pd.isna(row["n_epochs"]):
        return f"{run} ({row['state']})"
    epochs = f"epoch {row['epoch']:.0f} of {row['n_epochs']:.0f}"
    return f"{run} ({row['state']} in {row['stage']}, {epochs})"


# ---------------------------------------------------------------------------------------------
# a grid's page


def markdown(folder: str | Path, scorer: str = "test") -> str:
    """The page of a folder of runs: a table with a row a group, then numbered readings.

    Several methods are ranked: a table of who wins where, and its readings in place of one for
    every group. An unfinished grid has what is there, and what is missing is named.
    """
    return _page(tables.collect(folder), folder, scorer)


def _page(table: pd.DataFrame, folder: str | Path, scorer: str) -> str:
    """`markdown` of a table that is read already."""
    rows = groups(table, scorer)
    runs = _runs(table, scorer)
    readings = list(_dense_readings(runs, scorer))
    ranking = []
    if rows["form"].nunique() > 1:
        from . import compare  # loads matplotlib and scipy

        ranks = compare.ranking(table, scorer=scorer)
        ranking = ["", *ranking_table(ranks)] if len(ranks) else []
        readings += compare.winners(ranks)
    else:
        readings += _group_readings(rows, runs)
    numbered = [f"{k}. {text}" for k, text in enumerate(readings, 1)]
    remarks = left_out(table, scorer)

    through = set(table.loc[table["stage"] == FINE_TUNE, "run"])
    names = [path.stem for path in sorted(Path(folder).glob("*.json"))]
    unfinished = [name for name in names if name not in through]
    if unfinished:
        remarks.append(
            f"Not finished: {len(unfinished)} of {len(names)} runs ({_listed(unfinished)})."
        )

    lines = [*_markdown_table(rows), *ranking, "", *map(_escaped, numbered)]
    for remark in remarks:
        lines += ["", _escaped(remark)]
    return "\n".join(lines).strip() + "\n"


def _escaped(text: str) -> str:
    """Text whose names Markdown neither splits into cells nor takes for HTML."""
    return re.sub(r"([|`\\])", r"\\\1", html.escape(text, quote=False))


def _markdown_table(rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        return

    has_sparsity = rows["setting"].str.startswith("sparsity").any()
    yield f"| {HEADS.format(setting='C or sparsity' if has_sparsity else 'C')} |"
    yield "|---|" + "---:|" * HEADS.count("|")
    for _, row in rows.iterrows():
        spread = f"{_number(row['loss_low'])} to {_number(row['loss_high'])}"
        cells = (
            _escaped(row["form"]),
            row["setting"].removeprefix("C = ") or "none",
            f"{row['n']:d}",
            _number(row["compression"], ".3g"),
            f"{row['kept']:,.0f}",
            _number(row["before"]),
            _number(row["after"]),
            _number(row["loss"]),
            spread if row["n"] > 1 else "one only",
        )
        yield f"| {' | '.join(cells)} |"


def _number(value: float, form: str = "z.4f") -> str:
    """A number in a cell; z: 0.0000, never -0.0000."""
    return "none" if np.isnan(value) else format(value, form)


def ranking_table(ranks: pd.DataFrame, *, unit: str = "at times fewer") -> Iterator[str]:
    """`compare.ranking` in Markdown, a row a level (in `unit`) and method, the best first."""
    yield f"| {unit} | form | AP | below the best | range over seeds | pairs |"
    yield "|---:|---|---:|---:|---:|---:|"
    for _, row in ranks.iterrows():
        below = least = "the best"
        if row["method"] != row["winner"]:
            below = _number(-row["difference"])
            least = f"{_number(-row['greatest'])} to {_number(-row['least'])}"
            least = least if row["n"] else "none"
        yield (
            f"| {row['times']:,.10g} | {_escaped(row['method'])} | {row['score']:.4f} | {below} "
            f"| {least} | {row['n']} |"
        )


def _dense_readings(runs: pd.DataFrame, scorer: str) -> Iterator[str]:
    for name, scores, run in _dense(runs):
        listed = sorted(round(score, 4) for score in scores)
        differ = "one replicate"
        if len(listed) > 1:
            differ = f"so {len(listed)} replicates differ by {np.ptp(listed):.4f}"
        yield (
            f"{name}: {run['n_par']:,.0f} real numbers, average precision "
            f"{' and '.join(f'{score:.4f}' for score in listed)} on {scorer}{_chance(run)}, "
            f"{differ}."
        )


def _group_readings(rows: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """Of the groups of one form."""
    for _, row in rows.iterrows():
        group_name = tables.group_name(row["form"], row["setting"])
        yield (
            f"{group_name} keeps {row['kept']:,.0f} of {row['n_par']:,.0f} real numbers, "
            f"{_times_fewer(row)}: average precision {row['after']:.4f}"
            f"{_than_dense(row['loss'])}."
        )

    sets = tables.dense_scores(runs)
    dense = {method: scores for methods, scores in sets for method in methods}
    for form, group in rows.dropna(subset=["compression", "loss"]).groupby("form"):
        for level in LEVELS:
            yield _cost_at(f"{form} at {level:g} times fewer", level, group, dense[str(form)])


def _cost_at(what: str, level: float, rows: pd.DataFrame, dense: pd.Series) -> str:
    """What `level` times fewer costs: between the two groups around it, or by the one near it.

    Between two, the loss is interpolated linearly in the logarithm of compression.
    """
    losses = rows.set_index("compression")["loss"].sort_index()
    times = losses.index.to_numpy(float)
    nearest = times[np.abs(np.log(times / level)).argmin()]

    if tables.spans(times, level):
        loss = float(np.interp(np.log(level), np.log(times), losses))
        where = "between its neighbours in the table"
    elif max(nearest / level, level / nearest) <= NEAR:
        loss = float(losses.loc[nearest].mean())
        where = f"as at {nearest:.3g} times"
    elif times[0] < level < times[-1]:
        around = f"{times[times < level][-1]:.3g} and {times[times > level][0]:.3g}"
        return f"{what}: not known, its neighbours are far apart, at {around} times."
    elif times[0] == times[-1]:
        return f"{what}: not known, what is finished is at {times[0]:.3g} times."
    else:
        ends = f"{times[0]:.3g} to {times[-1]:.3g}"
        return f"{what}: not known, what is finished spans {ends} times."

    text = f"{what}, {where}{_than_dense(loss).replace(',', ':', 1)}"
    if len(dense) < 2 or round(loss, 4) <= 0:
        return f"{text}."

    spread = np.ptp(dense.round(4))
    beyond = "beyond" if loss > spread else "not beyond"
    return f"{text}, {beyond} the {spread:.4f} by which dense replicates differ."


def insert(page: str | Path, folder: str | Path, scorer: str = "test") -> None:
    """Put `markdown(folder)` between its two marks, `BEGIN` and `END`, in the file `page`.

    Raises:
        Lacking: there are runs, and none has this scorer: nothing would be left on the page.
        ValueError: as `put`.
    """
    table = tables.collect(folder)
    if len(table):
        tables.of_scorer(table, scorer, on_one_set=False)
    begin = BEGIN.format(folder=Path(folder).as_posix())
    put(page, begin, END, _page(table, folder, scorer).rstrip())


def put(page: str | Path, begin: str, end: str, text: str) -> None:
    """Put `text` in place of all that is between the lines `begin` and `end` of the file `page`.

    Raises:
        ValueError: `begin` is not there once, or `end` not after it; no UTF-8.
    """
    page = Path(page)
    try:
        written = page.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{page}: expected text in UTF-8, got {error.reason}") from error
    before, begun, inside = written.partition(begin + "\n")
    _, ended, after = inside.partition(end)
    if not begun or not ended or begin in inside:
        raise ValueError(
            f"{page}: expected the lines {begin!r} and {end!r} once, got others; "
            "write them where the text goes"
        )
    files.write_text(page, f"{before}{begin}\n\n{text}\n\n{end}{after}")
