"""Tables of how far runs are and what they reached, read from their folders.

Snapshots are never opened, so that a table of a hundred runs takes a second. A run whose files
cannot be read is named on stderr and left out; the others are shown.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import METHOD, C
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.progress import duration, show
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder

STATUS = ("state", "stage", "epoch", "n_epochs", "validation", "left", "owner", "reason")
COUNTS = ("n_par", "n_zero", "compression", "epochs", "stopped_early", "seconds", "reused_from")
SCORES = ("average_precision", "average_precision_trabelsi2018", "positive_share", "n_windows")


class Lacking(ValueError):
    """No run has what a report is made of; the text says what that is."""


# ---------------------------------------------------------------------------------------------
# how far each run is


def status(folder: str | Path) -> pd.DataFrame:
    """How far each run of a folder of manifests is, a row a run.

    Returns:
        Columns state, stage, epoch, n_epochs, validation (the last score), left (at the pace of
        the last epoch), owner and reason. A run whose process is known to be gone counts as
        interrupted, one whose status cannot be read as damaged.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    rows = {
        path.stem: _status_row(RunFolder(path.with_suffix("")))
        for path in sorted(_existing(folder).glob("*.json"))
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(STATUS)).rename_axis("run")


def _status_row(files: RunFolder) -> dict[str, Any]:
    try:
        status = files.status
        if status["state"] == "done" and "stage" not in status:
            status = status | _last_stage(files)

        row = {key: status.get(key) for key in STATUS} | {"owner": None}
        if status["state"] != "running":
            return row

        owner = status.get("owner")
        row["owner"] = f"{owner['host']}:{owner['pid']}" if owner else None
        if _is_gone(files):
            reason = "its process is gone; the same command goes on with it"
            return row | {"state": "interrupted", "reason": reason}

        left_s = status.get("left_s")
        row["left"] = None if left_s is None else duration(left_s)
        return row
    except (OSError, ValueError, TypeError, KeyError) as error:
        return {"state": "damaged", "reason": f"{type(error).__name__}: {error}"}


def _last_stage(files: RunFolder) -> dict[str, Any]:
    """The last stage of a run that is done and was kept without its status.json."""
    stage, result = list((files.scores or {})["stages"].items())[-1]
    planned = files.config["manifest"]["stages"][stage]["n_epochs"]
    return {"stage": stage, "epoch": result["epochs"], "n_epochs": planned}


def _is_gone(files: RunFolder) -> bool:
    """Whether nobody has a claim on a run marked as running, or whoever has it is gone."""
    claim = lock.newest(files.path / "claim")
    return claim is None or claim.released or (claim.owner is not None and claim.owner.gone())


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing there"
        raise FileNotFoundError(f"{folder}: expected a folder of manifests, got {there}")
    return folder


# ---------------------------------------------------------------------------------------------
# what runs of one folder reached


def collect(folder: str | Path) -> pd.DataFrame:
    """Scores and compression of a folder's runs: a row per run, stage and scorer.

    Returns:
        Columns run, state, one for every parameter that the manifests vary (by its dotted path),
        stage, scorer, average_precision, average_precision_trabelsi2018, positive_share,
        n_windows, average_precision_start (before the stage's first epoch, if it inherited
        masks), n_par, n_zero (real numbers), compression, epochs, stopped_early, seconds and
        reused_from. Runs without scores are left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ManifestError: its manifests cannot be read.
    """
    rows = []
    for parameters, stages in runs(folder):
        state = _status_row(RunFolder(Path(folder) / parameters["run"]))["state"]
        for stage, result in stages.items():
            row = {"run": parameters["run"], "state": state, **parameters, "stage": stage}
            for scorer, scores in result["scores"].items():
                rows.append(row | _score_row(result, scorer, scores))
    return pd.DataFrame(rows)


def runs(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The name and varied parameters of each run, and the stages of its scores.json.

    Scores of an older version of the manifest are skipped.
    """
    manifests = grid.read(_existing(folder))
    varied = grid.varied(manifests)
    if C not in varied:  # one value in all runs; readers look for the column all the same
        varied[C] = [grid.value(manifest, C) for manifest in manifests.values()]

    for run, parameters in varied.iterrows():
        try:
            stages = _stages(RunFolder(Path(folder) / str(run)), manifests[str(run)])
        except (OSError, ValueError) as error:
            show(f"{run} is left out: {error}", sys.stderr)
            continue
        if stages:
            own = {str(path): value for path, value in parameters.items()}
            yield {"run": str(run), **own}, stages


def _stages(files: RunFolder, manifest: Manifest) -> dict[str, Any]:
    """The stages of scores.json if it is of this manifest. Raises ValueError if incomplete."""
    scores = files.scores
    if not scores:
        return {}

    path = files.path / "scores.json"
    if not isinstance(scores.get("manifest"), dict):
        raise ValueError(f"{path}: expected the run's manifest, got none")
    if Manifest.model_validate(scores["manifest"]).fingerprint() != manifest.fingerprint():
        return {}

    for stage, result in scores["stages"].items():
        expected = {*COUNTS, "layers", "scores"}
        if stage not in manifest.stages or not expected <= result.keys():
            lacking = ", ".join(sorted(expected - result.keys())) or "no such stage in its manifest"
            raise ValueError(f"{path}: expected a whole stage {stage}, got one without: {lacking}")
        for scorer, scored in result["scores"].items():
            if (
                scorer not in manifest.scorers
                or not set(SCORES) <= (scored.get("end") or {}).keys()
            ):
                raise ValueError(f"{path}: expected scores of {stage} by {scorer}, got {scored}")
    return scores["stages"]


def _score_row(result: dict[str, Any], scorer: str, scores: dict[str, Any]) -> dict[str, Any]:
    start = scores["start"]
    return {
        "scorer": scorer,
        **{name: scores["end"][name] for name in SCORES},
        "average_precision_start": None if start is None else start["average_precision"],
        **{name: result[name] for name in COUNTS},
    }


def layers(folder: str | Path) -> pd.DataFrame:
    """Sparsity by layer: a row per run, stage and layer.

    Returns:
        Columns run, the varied parameters, stage, layer, n_par and n_zero (real numbers), and
        sparsity = n_zero/n_par.
    """
    rows = []
    for parameters, stages in runs(folder):
        for stage, result in stages.items():
            for layer, count in result["layers"].items():
                sparsity = count["n_zero"] / count["n_par"]
                own = {"stage": stage, "layer": layer, **count, "sparsity": sparsity}
                rows.append(parameters | own)
    return pd.DataFrame(rows)


def history(run: str | Path) -> pd.DataFrame:
    """One run's history.jsonl, a row an epoch.

    Returns:
        Columns stage, epoch, loss, kl, grad_norm, lr, validation, seconds.

    Raises:
        FileNotFoundError: the run has trained no epoch yet.
    """
    lines = RunFolder(run).history
    if not lines:
        raise FileNotFoundError(
            f"{run}: expected a history.jsonl with at least one epoch, got none; "
            "is the run started?"
        )
    return pd.DataFrame(lines)


def of_run(scores: Mapping[str, Any]) -> pd.DataFrame:
    """What `auto.run` returns as a table: a row per stage and scorer, rounded to three places."""
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
    """Mean and standard deviation of scores and compression, and n, a row a combination of `by`."""
    values = ["average_precision", "average_precision_start", "compression"]
    numbers = table.astype(dict.fromkeys(values, float))  # a column of None alone has no mean
    grouped = numbers.groupby(by, dropna=False, sort=True)[values]

    result = grouped.agg(["mean", "std"])
    result.columns = [name if how == "mean" else f"{name}_std" for name, how in result.columns]
    return result.assign(n=grouped.size()).reset_index()


def summary(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """The short table for a terminal: a row per run and stage, with the scores after and before."""
    if table.empty:
        return table

    names = {
        "run": "run",
        "stage": "stage",
        "average_precision": "AP",
        "average_precision_start": "AP before",
        "compression": "compression",
        "epochs": "epochs",
        "seconds": "seconds",
    }
    return table[table["scorer"] == scorer][list(names)].rename(columns=names).round(4)


def form(rows: pd.DataFrame) -> pd.Series:
    """VD or ARD, from the network that is sparsified; "sparse" if the grid has one form only."""
    if METHOD not in rows:
        return pd.Series("sparse", index=rows.index)
    return rows[METHOD].str.extract(r"(VD|ARD)$")[0].fillna(rows[METHOD])


# ---------------------------------------------------------------------------------------------
# the runs of several folders together


@dataclass(frozen=True)
class Run:
    """A run in one of several folders. method: in words what it differs in from the others."""

    folder: str
    name: str
    manifest: Manifest
    method: str

    @property
    def files(self) -> RunFolder:
        return RunFolder(Path(self.folder) / self.name)

    @property
    def columns(self) -> dict[str, Any]:
        """What every table of several folders says of a run."""
        about = {"folder": self.folder, "run": self.name, "method": self.method}
        return about | {C: grid.value(self.manifest, C), "seed": self.manifest.seed}


def every_run(folders: Iterable[str | Path]) -> dict[tuple[str, str], Run]:
    """The runs of the folders by (folder, name), whether or not they have scores."""
    manifests = {
        (str(folder), name): manifest
        for folder in folders
        for name, manifest in grid.read(folder).items()
    }
    named = methods(manifests)
    return {key: Run(*key, manifest, named[key]) for key, manifest in manifests.items()}


def gather(*folders: str | Path) -> pd.DataFrame:
    """`collect` of several folders, one under another, with what tells their runs apart.

    Returns:
        The columns of `collect`, and folder, method (what a run differs in beside C, seed and
        threshold, "complex VD" say; empty if nothing does), seed, C, n_epochs (planned for the
        row's stage) and file (which the row's scorer reads).

    Raises:
        ValueError: no folder at all.
        FileNotFoundError, ManifestError: as `collect`.
    """
    if not folders:
        raise ValueError("expected a folder of manifests at least, got none; try runs/demo")

    everything = every_run(folders)
    rows = []
    for folder in dict.fromkeys(map(str, folders)):
        for row in collect(folder).to_dict("records"):
            run = everything[folder, row["run"]]
            feed = run.manifest.feeds[run.manifest.scorers[row["scorer"]].feed]
            own = {
                "n_epochs": run.manifest.stage(row["stage"]).n_epochs,
                "file": run.manifest.datasets[feed.dataset].file,
            }
            rows.append({str(key): value for key, value in row.items()} | run.columns | own)
    return pd.DataFrame(rows)


def methods(manifests: Mapping[Any, Manifest]) -> dict[Any, str]:
    """In words what each manifest differs in from the others, beside C, seed and threshold.

    What differs inside the model is said by the network's name and its options.
    """
    varied = grid.varied({str(key): manifest for key, manifest in manifests.items()})
    not_a_method = ("name", "seed", "threshold", C)
    others = [
        path
        for path in varied
        if path not in not_a_method
        and not path.startswith(("model.", "features.cplx"))
        and ".model." not in path
    ]

    traits = {
        key: _network_traits(manifest) | {path: varied[path][str(key)] for path in others}
        for key, manifest in manifests.items()
    }
    names = dict.fromkeys(name for own in traits.values() for name in own)
    differing = [
        name for name in names if len({repr(own.get(name)) for own in traits.values()}) > 1
    ]
    return {
        key: " ".join(_trait(name, own.get(name)) for name in differing).strip()
        for key, own in traits.items()
    }


def _network_traits(manifest: Manifest) -> dict[str, Any]:
    """Field, architecture, variational form and options of the network that is sparsified."""
    forms = ("VD", "ARD")
    models = [stage.model for stage in manifest.all_stages()]
    model = next((model for model in models if model.name.endswith(forms)), models[0])

    field, _, network = model.name.rpartition(".")
    form = next((form for form in ("ARD", "VD") if network.endswith(form)), "")
    return {"field": field, "network": network.removesuffix(form), "form": form} | model.kwargs


def _trait(name: str, value: Any) -> str:
    if name in ("field", "network", "form"):
        return str(value)
    short = name.rpartition(".")[2]
    return f"{short} default" if value is None else f"{short}={value}"


def of_scorer(table: pd.DataFrame, scorer: str, stage: str | None = None) -> pd.DataFrame:
    """The rows of one scorer, and of one stage; columns that `collect` alone lacks are filled.

    Raises:
        Lacking: there are none; the text says what there is instead.
    """
    if table.empty or not (table["scorer"] == scorer).any():
        scorers = ", ".join(sorted(set(table["scorer"]))) if len(table) else "none"
        raise Lacking(
            f"expected runs scored by {scorer!r}, got none (scorers: {scorers}); "
            "try `python -m cplxnet.auto status` on the folder"
        )

    defaults = {"method": "", "seed": 0, "folder": ""}
    lacking = {name: value for name, value in defaults.items() if name not in table}
    table = table.assign(**lacking)
    table = table[table["scorer"] == scorer]

    rows = table if stage is None else table[table["stage"] == stage]
    if rows.empty:
        raise Lacking(
            f"expected runs with scores after stage {stage!r}, got none "
            f"(stages: {', '.join(dict.fromkeys(table['stage']))}); "
            "try again when one is through with it"
        )
    return rows.reset_index(drop=True)


def by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each method, in the order of their names."""
    return [(str(method), group) for method, group in rows.groupby("method", sort=True)]
