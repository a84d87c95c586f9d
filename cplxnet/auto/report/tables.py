"""Tables of what runs have reached, read from their folders; snapshots are never opened."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import METHOD, C
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep.progress import duration


def status(folder: str | Path) -> pd.DataFrame:
    """How far each run of a folder of manifests is, a row per run; read from status files alone.

    Columns: state (a run whose process is known to be gone counts as interrupted, one whose status cannot be read as
    damaged), stage, epoch, n_epochs, validation (the last score), left (at the pace of the last epoch), owner, reason.
    """
    rows = {
        path.stem: _status_row(path.with_suffix(""))
        for path in sorted(_existing(folder).glob("*.json"))
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(STATUS)).rename_axis("run")


STATUS = ("state", "stage", "epoch", "n_epochs", "validation", "left", "owner", "reason")


def _status_row(path: Path) -> dict[str, Any]:
    try:
        return _row_of(path, RunFolder(path).status)
    except (
        ValueError,
        TypeError,
        KeyError,
    ) as error:  # of one run; the others are shown all the same
        return {"state": "damaged", "reason": f"{type(error).__name__}: {error}"}


def _row_of(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    row = {key: found.get(key) for key in STATUS}
    running, owner = found["state"] == "running", found.get("owner")
    row["owner"] = f"{owner['host']}:{owner['pid']}" if running and owner else None
    row["left"] = duration(found["left_s"]) if running and found.get("left_s") is not None else None
    if running and _gone(path):
        row |= {
            "state": "interrupted",
            "left": None,
            "reason": "its process is gone; the same command goes on with it",
        }
    return row


def _gone(path: Path) -> bool:
    """Whether a run marked as running is known not to be: nobody has a claim on it, or who has it is gone."""
    held = lock.newest(path / "claim")
    return held is None or held.released or (held.owner is not None and held.owner.gone())


def collect(folder: str | Path) -> pd.DataFrame:
    """Scores and compression of a folder's runs, a row per run, stage and scorer; runs that lack scores are left out.

    Columns: run, state, a column for every parameter that the manifests vary (by its dotted path), stage, scorer,
    average_precision, average_precision_start (before the stage's first epoch, where it inherited masks),
    average_precision_trabelsi2018, positive_share, n_windows, n_par, n_zero (real numbers), compression, epochs,
    stopped_early, seconds, reused_from.

    Raises FileNotFoundError if there is no folder, ManifestError if its manifests cannot be read.
    """
    rows = []
    for about, results in runs(folder):
        state = RunFolder(Path(folder) / about["run"]).status["state"]
        for stage, result in results.items():
            row = {"run": about["run"], "state": state, **about, "stage": stage}
            rows += [
                row | _row(result, scorer, scored) for scorer, scored in result["scores"].items()
            ]
    return pd.DataFrame(rows)


def runs(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Of each run its name and varied parameters, and the stages of its scores.json.

    Scores of a manifest that has changed since are none of this one's: they are left out.
    """
    manifests = grid.read(_existing(folder))
    varied = grid.varied(manifests)
    if C not in varied:  # the same everywhere, or only one run: readers look for it all the same
        varied[C] = [grid.value(manifest, C) for manifest in manifests.values()]
    for run, parameters in varied.iterrows():
        scores = RunFolder(Path(folder) / str(run)).scores
        if (
            scores
            and Manifest.model_validate(scores["manifest"]).fingerprint()
            == manifests[str(run)].fingerprint()
        ):
            yield (
                {"run": str(run), **{str(path): value for path, value in parameters.items()}},
                scores["stages"],
            )


def _row(result: dict[str, Any], scorer: str, scored: dict[str, Any]) -> dict[str, Any]:
    end, start = scored["end"], scored["start"]
    names = ("average_precision", "average_precision_trabelsi2018", "positive_share", "n_windows")
    cost = ("n_par", "n_zero", "compression", "epochs", "stopped_early", "seconds", "reused_from")
    return {
        "scorer": scorer,
        **{name: end[name] for name in names},
        "average_precision_start": None if start is None else start["average_precision"],
        **{name: result[name] for name in cost},
    }


def layers(folder: str | Path) -> pd.DataFrame:
    """Sparsity by layer: a row per run, stage and layer (n_par, n_zero, sparsity), with the varied parameters."""
    rows = []
    for about, results in runs(folder):
        for stage, result in results.items():
            for layer, count in result["layers"].items():
                share = count["n_zero"] / count["n_par"]
                rows.append({**about, "stage": stage, "layer": layer, **count, "sparsity": share})
    return pd.DataFrame(rows)


def history(run: str | Path) -> pd.DataFrame:
    """One run's history.jsonl as a table, a row per epoch: stage, epoch, loss, kl, grad_norm, lr, validation, seconds.

    Raises FileNotFoundError if the run has trained no epoch yet.
    """
    lines = RunFolder(run).history
    if not lines:
        raise FileNotFoundError(
            f"{run}: expected a history.jsonl with at least one epoch, got none; is the run started?"
        )
    return pd.DataFrame(lines)


def of_run(scores: Mapping[str, Any]) -> pd.DataFrame:
    """One run's scores (what `run` returns) as a table: a row per stage and scorer, rounded to three places."""
    rows = [
        {
            "stage": stage,
            "scorer": scorer,
            "AP before": (scored["start"] or {}).get("average_precision"),
            "AP": scored["end"]["average_precision"],
            "positive share": scored["end"]["positive_share"],
            "compression": result["compression"],
        }
        for stage, result in scores["stages"].items()
        for scorer, scored in result["scores"].items()
    ]
    return pd.DataFrame(rows).round(3)


def aggregate(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over replicates of scores and compression, a row per combination of `by`."""
    values = ["average_precision", "average_precision_start", "compression"]
    numbers = table.astype(dict.fromkeys(values, float))  # a column of None only has no mean
    grouped = numbers.groupby(by, dropna=False, sort=True)[values]
    result = grouped.agg(["mean", "std"])
    result.columns = [name if how == "mean" else f"{name}_std" for name, how in result.columns]
    return result.assign(n=grouped.size()).reset_index()


def summary(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """The short table for a terminal: a row per run and stage, with the scores after it and before it."""
    if table.empty:
        return table
    chosen = table[table["scorer"] == scorer]
    columns = [
        "run",
        "stage",
        "average_precision",
        "average_precision_start",
        "compression",
        "epochs",
        "seconds",
    ]
    return (
        chosen[columns]
        .rename(columns={"average_precision": "AP", "average_precision_start": "AP before"})
        .round(4)
    )


def form(rows: pd.DataFrame) -> pd.Series:
    """VD or ARD, from the name of the network while sparsifying; "sparse" where the grid has one form only."""
    if METHOD not in rows:
        return pd.Series("sparse", index=rows.index)
    return rows[METHOD].str.extract(r"(VD|ARD)$")[0].fillna(rows[METHOD])


def readings(table: pd.DataFrame, scorer: str = "test") -> list[str]:
    """What the table says, a sentence for the dense network and one per form and C (means over replicates)."""
    chosen = table[table["scorer"] == scorer] if len(table) else table
    if chosen.empty:
        return []
    dense = chosen[chosen["stage"] == "dense"].drop_duplicates("average_precision")
    reference = dense["average_precision"].mean()
    sentences = [
        f"Dense: average precision {reference:.3f} on {scorer} ({dense['positive_share'].mean():.3f} would be chance), "
        f"{int(dense['n_par'].iloc[0]):,} real numbers."
    ]
    tuned = chosen[chosen["stage"] == "fine-tune"]
    for _, row in aggregate(tuned.assign(form=form(tuned)), by=["form", C]).iterrows():
        gain, said = (
            row["average_precision"] - reference,
            f"{row['form']}, " if METHOD in tuned else "",
        )
        sentences.append(
            f"{said}C = {row[C]:g}: {row['compression']:.3g} times fewer real numbers, average precision "
            f"{row['average_precision_start']:.3f} before and {row['average_precision']:.3f} after fine-tuning, "
            f"{abs(gain):.3f} {'above' if gain >= 0 else 'below'} dense."
        )
    return sentences


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a folder of manifests, got {'a file' if folder.exists() else 'nothing there'}"
        )
    return folder
