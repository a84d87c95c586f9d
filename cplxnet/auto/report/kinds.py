"""The kinds of report by name, and the one call that makes one: for the command line and for notebooks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder

from . import by_layer, compare, curves, profile, stopping, style, threshold, trade_off
from .folders import Lacking, gather, missing


@dataclass(frozen=True)
class Asked:
    """What a report is made of. runs, tune, at and device are for threshold alone; data also for published figures."""

    folders: Sequence[Path]
    out: Path
    scorer: str = "test"
    data: Path = Path("data")
    device: str = "cpu"
    runs: Sequence[str] | None = None
    at: Sequence[float] = threshold.THRESHOLDS
    tune: bool = False


class Made(NamedTuple):
    """A report: its figure, its data, what they say, and the files written."""

    figure: Figure | None
    rows: pd.DataFrame
    sentences: list[str]
    paths: list[Path]


@dataclass
class _Parts:
    figure: Figure | None
    rows: pd.DataFrame
    sentences: list[str] = field(default_factory=list)
    beside: dict[str, pd.DataFrame] = field(
        default_factory=dict
    )  # further tables, by what their file is called


def _trade_off(asked: Asked) -> _Parts:
    table = gather(*asked.folders)
    rows = trade_off.rows(table, scorer=asked.scorer)
    known = _published(table, asked)
    return _Parts(
        trade_off.figure(rows, scorer=asked.scorer, published=known),
        rows,
        trade_off.sentences(rows),
    )


def _published(table: pd.DataFrame, asked: Asked) -> dict[str, float]:
    """Published scores, where all runs were scored on what they were published for."""
    scored = table[table["scorer"] == asked.scorer]
    found: dict[str, float] = {}
    task = tasks.TASKS[next(iter(grid.read(asked.folders[0]).values())).task]
    for file, rows in scored.groupby("file"):
        older = bool(rows["average_precision_trabelsi2018"].notna().any())
        known = (
            task.published(str(file), data=asked.data, older_protocol=older)
            if hasattr(task, "published")
            else {}
        )
        if not known:
            return {}
        found |= known
    return found


def _threshold(asked: Asked) -> _Parts:
    options = {
        "runs": asked.runs,
        "at": asked.at,
        "scorer": asked.scorer,
        "data": asked.data,
        "device": asked.device,
    }
    rows = threshold.scan(asked.folders, **options)  # type: ignore[arg-type]
    if asked.tune:
        again = threshold.tune(asked.folders, asked.out / "threshold-runs", **options)  # type: ignore[arg-type]
        rows = pd.DataFrame([*rows.to_dict("records"), *again.to_dict("records")])
    said = threshold.without_snapshot(asked.folders, asked.runs)
    return _Parts(threshold.figure(rows, scorer=asked.scorer), rows, said)


def _layers(asked: Asked) -> _Parts:
    rows = by_layer.rows(*asked.folders)
    return _Parts(by_layer.figure(rows), rows)


def _profile(asked: Asked) -> _Parts:
    rows = profile.rows(gather(*asked.folders), scorer=asked.scorer)
    alone = int((rows["n"] < 2).sum())
    said = (
        [f"{alone} of {len(rows)} values of C have one replicate, hence no band."] if alone else []
    )
    return _Parts(profile.figure(rows, scorer=asked.scorer), rows, said)


def _stopping(asked: Asked) -> _Parts:
    rows = stopping.rows(gather(*asked.folders), scorer=asked.scorer)
    return _Parts(stopping.figure(rows), rows, stopping.sentences(rows))


def _curves(asked: Asked) -> _Parts:
    pooled, notes = curves.rows(*asked.folders, scorer=asked.scorer)
    said = (
        []
        if len(pooled)
        else [f"No pooled curves: scorer {asked.scorer!r} does not keep them (curves: true)."]
    )
    return _Parts(
        curves.figure(pooled, notes, scorer=asked.scorer), pooled, said, {"by-note": notes}
    )


def _compare(asked: Asked) -> _Parts:
    table = gather(*asked.folders)
    rows = compare.rows(table, scorer=asked.scorer)
    said = compare.sentences(table, rows, scorer=asked.scorer)
    return _Parts(compare.figure(rows, scorer=asked.scorer) if len(rows) else None, rows, said)


KINDS: dict[str, Callable[[Asked], _Parts]] = {
    "trade-off": _trade_off,
    "threshold": _threshold,
    "layers": _layers,
    "c-profile": _profile,
    "stopping": _stopping,
    "curves": _curves,
    "compare": _compare,
}


def make(
    kind: str,
    folders: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    scorer: str = "test",
    data: str | Path = "data",
    device: str = "cpu",
    runs: Sequence[str] | None = None,
    at: Sequence[float] = threshold.THRESHOLDS,
    tune: bool = False,
    strict: bool = True,
) -> Made:
    """One kind of report from folders of runs, written to `out` as PDF, PNG and CSV under the kind's name.

    Args:
        kind: a name in `KINDS`. folders: of manifests and runs, one or several; runs without scores are named.
        out: the folder for the files; None: `figures` in the first folder.
        scorer: whose scores.
        data, device: where the data files are, and what scores them (threshold).
        runs: the names of those to be masked again (threshold); None: all.
        at: thresholds on log alpha. tune: fine-tune again at each (minutes to hours), in `out`/threshold-runs.
        strict: raise where no run has what the kind needs; False: say it in the sentences, and make no figure.

    Raises:
        ValueError: no such kind, or no run has what it needs, and the text says what; FileNotFoundError, ManifestError:
        not a folder of manifests.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a kind of report ({', '.join(KINDS)}), got {kind!r}")
    places = (
        [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
    )
    for place in places:
        _check(place)
    asked = Asked(
        folders=places,
        out=Path(out) if out is not None else places[0] / "figures",
        scorer=scorer,
        data=Path(data),
        device=device,
        runs=runs,
        at=at,
        tune=tune,
    )
    try:
        parts = KINDS[kind](asked)
    except Lacking as lacking:
        if strict:
            raise
        return Made(None, pd.DataFrame(), [f"No {kind} here: {lacking}.", *missing(places)], [])
    paths = style.write(asked.out / kind, parts.figure, parts.rows)
    for name, rows in parts.beside.items():
        paths += style.write(asked.out / f"{kind}-{name}", None, rows)
    return Made(parts.figure, parts.rows, [*parts.sentences, *missing(places)], paths)


def _check(place: Path) -> None:
    if place.is_dir() and not list(place.glob("*.json")):
        raise ValueError(
            f"{place}: expected a folder of manifests, got no manifests in this folder (*.json)"
        )
    if place.is_dir() and RunFolder(place).config:
        raise ValueError(
            f"{place}: expected a folder of manifests, got the folder of one run; try {place.parent}"
        )
