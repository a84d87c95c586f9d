"""Tables of how far runs are and what they reached, read from their folders.

Snapshots are never opened, so that a table of a hundred runs takes a second. A run whose files
cannot be read, or whose manifest has changed since, is named on stderr and left out.
"""

import contextlib
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.grid import DENSE, FINE_TUNE, C
from cplxnet.auto.manifest.read import Manifest, ManifestError, load
from cplxnet.auto.manifest.schema import leaves
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder, unchanged
from cplxnet.progress import duration, show

STATUS = ("state", "stage", "epoch", "n_epochs", "validation", "left", "owner", "reason")
SCORED = ("state", "stage", "scorer", "scored_on", "average_precision", "average_precision_start")
COUNTS = ("n_par", "n_zero", "compression", "epochs", "stopped_early", "seconds", "reused_from")
NETWORK = ["field", "architecture", "form"]
RUN = ("folder", "run", "method", C, "setting", "seed")
NEIGHBOURS = 4.0  # times between two compressions that a score may be read between


class Lacking(ValueError):
    """No run has what a report is made of; the text says what that is."""


# ---------------------------------------------------------------------------------------------
# how far each run is


def status(folder: str | Path) -> pd.DataFrame:
    """How far each run of a folder of manifests is, a row a run.

    Returns:
        Columns state, stage, epoch, n_epochs, validation (the last score), left (at the pace of
        the last epoch), owner and reason. A run whose process is known to be gone counts as
        interrupted, one whose status cannot be read as damaged; one that is not running counts as
        changed if its manifest has changed since, and as broken if that cannot be read.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    rows = {path.stem: _status_row(path) for path in sorted(_existing(folder).glob("*.json"))}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(STATUS)).rename_axis("run")
    return table.astype({"epoch": "Int64", "n_epochs": "Int64"})  # whole, though some are missing


def _status_row(manifest: Path) -> dict[str, Any]:
    files = RunFolder(manifest.with_suffix(""))
    try:
        row = _progress(files)
        return row if row["state"] == "running" else row | _change(manifest, files)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        return {"state": "damaged", "reason": f"{type(error).__name__}: {error}"}


def _progress(files: RunFolder) -> dict[str, Any]:
    status = files.status
    if status["state"] == "done" and "stage" not in status:  # kept without its status.json
        stage, result = list((files.scores or {})["stages"].items())[-1]
        planned = files.config["manifest"]["stages"][stage]["n_epochs"]
        status = status | {"stage": stage, "epoch": result["epochs"], "n_epochs": planned}

    row = {key: status.get(key) for key in STATUS} | {"owner": None}
    for key in ("epoch", "n_epochs"):
        if not isinstance(row[key], int | None):
            raise TypeError(f"expected {key} as a whole number, got {row[key]!r:.60}")
    if status["state"] != "running":
        return row

    owner = status.get("owner")
    row["owner"] = f"{owner['host']}:{owner['pid']}" if owner else None
    claim = lock.newest(files.path / "claim")
    if claim is None or claim.abandoned:
        reason = "its process is gone; the same command goes on with it"
        return row | {"state": "interrupted", "reason": reason}

    left_s = status.get("left_s")
    row["left"] = None if left_s is None else duration(left_s)
    return row


def _change(path: Path, files: RunFolder) -> dict[str, str]:
    """State and reason of a run whose manifest is not the one it was started with."""
    try:
        manifest = Manifest.model_validate(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        try:
            manifest = load(path)  # says what is wrong, in the words of a manifest; needs torch
        except ValueError as error:
            return {"state": "broken", "reason": " ".join(str(error).split())}

    if unchanged(files, manifest):
        return {}
    reason = (
        "its manifest has changed since it was run; try the manifest as it was, or "
        "--accept-changes, which keeps the stages that the change does not touch"
    )
    return {"state": "changed", "reason": reason}


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing there"
        raise FileNotFoundError(f"{folder}: expected a folder of manifests, got {there}")
    return folder


# ---------------------------------------------------------------------------------------------
# runs, and what they reached


@dataclass(frozen=True)
class Run:
    """A run among those of some folders."""

    folder: str
    name: str
    manifest: Manifest
    parameters: Mapping[str, Any]  # what the runs' manifests vary, by dotted path
    method: str  # what sparsifies it, and what else it differs in beside C, sparsity and seed
    stages: Mapping[str, Any]  # of its scores.json; empty as long as there are none

    @property
    def files(self) -> RunFolder:
        """What the run has written."""
        return RunFolder(Path(self.folder) / self.name)

    @property
    def columns(self) -> dict[str, Any]:
        """What every table says of a run.

        C is None where a pruner decides how much is left; `setting` is "C = 0.02" or "sparsity =
        0.98", and "" where neither is written.
        """
        pruners = [stage.pruner for stage in self.manifest.all_stages() if stage.pruner]
        sparsities = [pruner.sparsity for pruner in pruners if pruner.sparsity is not None]
        c = None if sparsities else grid.value(self.manifest, C)
        setting = "" if c is None else f"C = {c:g}"
        if sparsities:
            setting = f"sparsity = {sparsities[0]:g}"
        about = (self.folder, self.name, self.method, c, setting, self.manifest.seed)
        return dict(zip(RUN, about, strict=True))

    @property
    def described(self) -> dict[str, Any]:
        """Its columns, and what else the runs' manifests vary."""
        columns = self.columns
        return columns | {path: v for path, v in self.parameters.items() if path not in columns}

    def has_snapshot(self, stage: str) -> bool:
        """Whether the snapshot of a stage is here."""
        order = self.manifest.stage_order
        return stage in order and self.files.snapshot(order.index(stage), stage).is_file()

    def scored_on(self, scorer: str) -> tuple[str, int, int]:
        """The file, window and stride (samples) that a scorer reads."""
        feed = self.manifest.feeds[self.manifest.scorers[scorer].feed]
        dataset = self.manifest.datasets[feed.dataset]
        return dataset.file, dataset.window, dataset.stride


def every_run(folders: Iterable[str | Path]) -> list[Run]:
    """The runs of all manifests of the folders, by folder and name.

    Raises:
        FileNotFoundError: there is no such folder.
        ManifestError: none of its manifests can be read.
    """
    manifests = {
        f"{folder}/{name}": manifest
        for folder in dict.fromkeys(map(str, folders))
        for name, manifest in readable(folder).items()
    }
    parameters = _parameters(manifests)
    varied = parameters.to_dict("index")
    methods = _methods(manifests, parameters)
    runs = []
    for place, manifest in manifests.items():
        folder, _, name = place.rpartition("/")
        stages = _stages(Path(folder) / name, manifest)
        runs.append(Run(folder, name, manifest, varied[place], methods[place], stages))
    return runs


@contextlib.contextmanager
def or_left_out(run: Run) -> Iterator[None]:
    """A block that a run whose files cannot be read ends: it is named on stderr and left out."""
    try:
        yield
    except (OSError, ValueError) as error:
        show(f"{run.folder}/{run.name} is left out: {error}", sys.stderr)


def readable(folder: str | Path) -> dict[str, Manifest]:
    """The manifests of a folder by name; one that cannot be read is named on stderr and left out.

    Raises:
        FileNotFoundError: there is no such folder.
        ManifestError: none of them can be read, or there is none.
    """
    manifests: dict[str, Manifest] = {}
    faults = {}
    for path in sorted(_existing(folder).glob("*.json")):
        try:
            manifests[path.stem] = load(path)
        except ManifestError as error:
            faults[path.stem] = " ".join(str(error).split())

    if not manifests:
        return grid.read(folder)  # says why
    for name, fault in faults.items():
        show(f"{name} is left out: {fault}", sys.stderr)
    return manifests


def _parameters(manifests: Mapping[str, Manifest]) -> pd.DataFrame:
    """What the runs differ in: a row a run, a column a dotted path, the values those in force.

    A default that is written out makes no difference, and what stages inherit is the first one's.
    A part that some runs switch off, such as a stage's "distill", is a column too: "on" or None.
    """
    rows = {}
    for place, manifest in manifests.items():
        values = dict(leaves(manifest.whole()))
        parents = [path.split(".")[:n] for path in values for n in range(1, path.count(".") + 1)]
        rows[place] = {".".join(keys): "on" for keys in parents} | values

    in_force = grid.differing(rows)
    written = list(grid.varied(manifests))
    is_written = [any(f"{other}.".startswith(f"{path}.") for other in written) for path in in_force]
    return in_force.loc[:, is_written]


def _network(manifest: Manifest) -> tuple[str, str, str]:
    """The network's field and architecture, and what sparsifies it: "VD", or "gradual by layer"."""
    from cplxnet.nn.forms import FORMS  # torch takes a second, which `status` does not need

    field, architecture, form = "", "", ""
    for stage in manifest.all_stages():
        pattern = rf"(?:([^.]+)\.)?(.*?)({'|'.join(FORMS)}|Masked)?"
        of_stage = re.fullmatch(pattern, stage.model.name)
        if of_stage and form in ("", "Masked"):
            field, architecture, form = of_stage.groups("")
        if stage.pruner:
            form = stage.pruner.name + (" by layer" if stage.pruner.by_layer else "")
            break
    return field, architecture, form or "dense"


def _methods(manifests: Mapping[str, Manifest], parameters: pd.DataFrame) -> dict[str, str]:
    """In words what sparsifies each run, and what it differs in from the others.

    Neither C, nor the sparsity of a pruner, nor the seed makes a method. Values that most runs
    share are left out, and so are those that follow from the network and its pruner. Where whole
    folders differ the folder's name stands for it, everywhere else key and value: "complex VD",
    "real VD width=1.38" or "VD fine-tune lr=0.004 distill", say.
    """
    of_each = map(_network, manifests.values())
    parts = pd.DataFrame(of_each, index=parameters.index, columns=NETWORK)
    words = networks = parts.loc[:, (parts.nunique() > 1) | (parts.columns == "form")]

    everywhere = set.intersection(*(set(manifest.stage_order) for manifest in manifests.values()))
    varied = [
        path
        for path in parameters
        if path not in ("seed", C)
        and not path.endswith(".pruner.sparsity")
        and not _is_told_by_order(path, parameters[path], everywhere)
    ]
    pruned = tuple(path[: path.index("pruner")] for path in varied if ".pruner" in path)
    shown = parameters.astype(object).map(repr)
    where = pd.Series({place: place.rpartition("/")[0] for place in manifests})
    by_folder = False
    for path in varied:
        of_network = path.startswith(("model.", "features.", *pruned)) or ".model." in path
        columns_so_far = words if of_network else networks
        with_this = columns_so_far.assign(value=shown[path])
        if len(with_this.drop_duplicates()) == len(columns_so_far.drop_duplicates()):
            continue  # it follows from the network

        if where.nunique() > 1 and (shown[path].groupby(where).nunique() == 1).all():
            by_folder = True
        else:
            words = words.assign(**{path: _in_words(path, parameters[path], varied)})

    if by_folder:
        short = where.map(lambda folder: Path(folder).name)
        is_unique = short.nunique() == where.nunique()
        words.insert(0, "folder", short if is_unique else where)
    return {place: _joined(row) for place, row in words.to_dict("index").items()}


def _is_told_by_order(path: str, values: pd.Series, everywhere: set[str]) -> bool:
    """Whether runs differ in a path only because some have no stage of that name."""
    is_everywhere = _stage_of(path) in {"", *everywhere}
    return not is_everywhere and values.dropna().map(repr).nunique() < 2


def _in_words(path: str, values: pd.Series, varied: Sequence[str]) -> pd.Series:
    """Key and value of each run, empty for what most runs have."""
    parent, _, last = path.rpartition(".")
    is_implied = parent in varied or (last != "name" and f"{parent}.name" in varied)
    if is_implied and values.nunique() == 1:
        return values.map(lambda value: "")  # another key of this part tells the same

    key = _within_stage(path).removesuffix(".name")
    tail = key.rpartition(".")[2]
    tails = [_within_stage(other).rpartition(".")[2] for other in varied]
    if _stage_of(path) and tails.count(tail) < 2:
        key = tail
    lacks = "" if is_implied else f"no {key}"

    def word(value: Any) -> str:
        if value is None:
            return lacks
        if value == "on":
            return key
        listed = ",".join(value) if path == "stage_order" else value
        return f"{key}={listed}".removesuffix(".0")

    words = values.map(word)
    usual = words.mode()[0]
    is_usual = (words == usual).mean() > 0.5
    return words.mask(words == (usual if is_usual else lacks), "")


def _stage_of(path: str) -> str:
    """fine-tune for stages.fine-tune.optimizer.lr; nothing for model.width."""
    return path.split(".")[1] if path.startswith("stages.") else ""


def _within_stage(path: str) -> str:
    """optimizer.lr for stages.fine-tune.optimizer.lr; width for model.width."""
    return path.removeprefix(f"stages.{_stage_of(path)}.").removeprefix("model.")


def _joined(words: Mapping[Any, str]) -> str:
    """The words of a run, those of a stage after the stage's name."""
    parts: list[str] = []
    for path, word in words.items():
        if word and _stage_of(path) not in ("", *parts):
            parts.append(_stage_of(path))
        if word:
            parts.append(word)
    return " ".join(parts)


def _stages(run: Path, manifest: Manifest) -> dict[str, Any]:
    """The stages of a run's scores.json; none, and a line on stderr, if they cannot be used."""
    try:
        scores = RunFolder(run).scores
        if scores:
            _check(scores, manifest, run / "scores.json")
        return scores["stages"] if scores else {}
    except (OSError, ValueError) as error:
        show(f"{run.name} is left out: {error}", sys.stderr)
    except (KeyError, TypeError, AttributeError) as error:
        file = run / "scores.json"
        show(f"{run.name} is left out: {file}: expected scores, got {error!r}", sys.stderr)
    return {}


def _check(scores: dict[str, Any], manifest: Manifest, path: Path) -> None:
    """Raise if scores are incomplete (a KeyError says what is lacking), or of an older manifest."""
    if not isinstance(scores.get("manifest"), dict):
        raise ValueError(f"{path}: expected the run's manifest, got none")

    before = Manifest.model_validate(scores["manifest"])
    if before.fingerprint() != manifest.fingerprint():
        both = {"then": before.resolved(), "now": manifest.resolved()}
        raise ValueError(
            f"{path}: expected scores of its manifest, got those of the manifest as it was before "
            f"a change of {', '.join(grid.varied(both)) or 'its name'}"
        )

    for stage, result in scores["stages"].items():
        if stage not in manifest.stages or not result["scores"].keys() <= manifest.scorers.keys():
            raise ValueError(f"{path}: expected stages and scorers of its manifest, got {stage}")

        numbers = [result[name] for name in COUNTS if name != "reused_from"]
        for counts in result["layers"].values():
            numbers += [counts["n_par"], counts["n_zero"]]
        for scored in result["scores"].values():
            numbers += _scored_numbers(scored["end"]).values()
            if scored["start"]:
                numbers.append(scored["start"]["average_precision"])

        not_numbers = [n for n in numbers if not isinstance(n, int | float | None)]
        if not_numbers:
            raise ValueError(f"{path}: expected numbers in stage {stage}, got {not_numbers[0]!r}")


def _scored_numbers(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What a task scored in single numbers, counts last: no lists by class, no curves."""
    names = sorted(scores, key=lambda name: name.startswith("n_"))
    singles = {name: scores[name] for name in names if not isinstance(scores[name], dict | list)}
    return {"average_precision": scores["average_precision"]} | singles


def collect(*folders: str | Path) -> pd.DataFrame:
    """Scores and compression of the runs of some folders: a row per run, stage and scorer.

    Returns:
        Columns folder, run, method (what sparsifies the run, and what else it differs in), C,
        setting ("C = 0.02", or for pruners "sparsity = 0.98"), seed, state, one for every other
        parameter that the manifests vary (by its dotted path), stage, scorer, scored_on (file,
        window and stride that the scorer reads), average_precision and every other number that the
        task scored (NaN for runs that lack it), average_precision_start (before the stage's first
        epoch, if it inherited masks), n_par, n_zero (real numbers), compression, epochs, n_epochs
        (planned), stopped_early, seconds and reused_from. Runs without scores are left out.

    Raises:
        ValueError: no folder at all.
        FileNotFoundError: there is no such folder.
        ManifestError: none of its manifests can be read.
    """
    if not folders:
        raise ValueError("expected a folder of manifests at least, got none; try runs/demo")

    rows = []
    for run in every_run(folders):
        if not run.stages:
            continue

        status = _status_row(Path(run.folder) / f"{run.name}.json")
        about = run.described | {"state": status["state"]}
        for stage, result in run.stages.items():
            counts = {name: result[name] for name in COUNTS}
            counts["n_epochs"] = run.manifest.stage(stage).n_epochs
            for scorer, scores in result["scores"].items():
                start = scores["start"]
                own = {"stage": stage, "scorer": scorer, "scored_on": run.scored_on(scorer)}
                own |= _scored_numbers(scores["end"])
                own["average_precision_start"] = start and start["average_precision"]
                rows.append(about | own | counts)
    # a table without rows has columns all the same
    return pd.DataFrame(rows, columns=None if rows else [*RUN, *SCORED, *COUNTS, "n_epochs"])


def layers(folder: str | Path) -> pd.DataFrame:
    """Sparsity by layer: a row per run, stage and layer.

    Returns:
        Columns of the run as in `collect`, stage, layer, n_par and n_zero (real numbers), and
        sparsity = n_zero/n_par.
    """
    rows = [
        run.described | {"stage": stage, "layer": layer} | count
        for run in every_run([folder])
        for stage, result in run.stages.items()
        for layer, count in result["layers"].items()
    ]
    table = pd.DataFrame(rows)
    return table.assign(sparsity=table["n_zero"] / table["n_par"]) if rows else table


def history(run: str | Path) -> pd.DataFrame:
    """One run's history.jsonl, a row an epoch.

    Returns:
        Columns stage, epoch, loss, kl, grad_norm, lr, validation, seconds; where they were kept,
        validation_after and compression too.

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
            "positive share": scored["end"].get("positive_share"),
            "compression": result["compression"],
        }
        for stage, result in scores["stages"].items()
        for scorer, scored in result["scores"].items()
    ]
    return pd.DataFrame(rows).round(3)


def summary(table: pd.DataFrame, scorer: str = "test") -> pd.DataFrame:
    """The short table for a terminal: a row per run and stage, with the scores after and before."""
    short = table[table["scorer"] == scorer].rename(
        columns={"average_precision": "AP", "average_precision_start": "AP before"}
    )
    return short[["run", "stage", "AP", "AP before", "compression", "epochs", "seconds"]].round(4)


# ---------------------------------------------------------------------------------------------
# rows of a table


def of_scorer(
    table: pd.DataFrame, scorer: str, stage: str | None = None, *, on_one_set: bool = True
) -> pd.DataFrame:
    """The rows of one scorer after one stage.

    Args:
        table: of `collect`.
        scorer: as manifests name it.
        stage: None: after each of them.
        on_one_set: refuse runs whose scores are of different files or windows.

    Raises:
        Lacking: there are none, and the text says what there is instead; or `on_one_set`.
    """
    rows = table[table["scorer"] == scorer]
    if rows.empty:
        scorers = ", ".join(sorted(set(table["scorer"]))) or "none"
        raise Lacking(
            f"expected runs scored by {scorer!r}, got none (scorers: {scorers}); "
            "try `python -m cplxnet.auto status` on the folder"
        )

    if stage is not None:
        there = ", ".join(dict.fromkeys(rows["stage"]))
        rows = rows[rows["stage"] == stage]
        if rows.empty:
            raise Lacking(
                f"expected runs with scores after {stage}, got none (stages: {there}); "
                "try again when one is through with it"
            )

    if on_one_set:
        _refuse_several(zip(rows["folder"], rows["scored_on"], strict=True), scorer)
    return rows.reset_index(drop=True)


def by_run(rows: pd.DataFrame) -> pd.DataFrame:
    """What each run of `of_scorer` reached, a row a run.

    Returns:
        Columns folder, run, method, C, setting, seed; compression, before and after (average
        precision around fine-tuning) and kept (real numbers), NaN while it is not fine-tuned; dense
        (the dense network's score), n_par and chance (the share of positives, if it was scored).
    """
    key = ["folder", "run"]
    dense = rows[rows["stage"] == DENSE].set_index(key)
    tuned = rows[rows["stage"] == FINE_TUNE].set_index(key)

    runs = rows.drop_duplicates(key).set_index(key)[["method", C, "setting", "seed"]]
    runs[C] = runs[C].astype(float)  # of None alone: NaN
    reached = {
        "compression": tuned["compression"],
        "before": tuned["average_precision_start"],
        "after": tuned["average_precision"],
        "kept": tuned["n_par"] - tuned["n_zero"],
        "dense": dense["average_precision"],
        "n_par": dense["n_par"],
        "chance": dense.get("positive_share", pd.Series(dtype=float)),
    }
    for name, values in reached.items():
        runs[name] = values.astype(float)
    return runs.reset_index()


def refuse_other_windows(runs: Iterable[Run], scorer: str) -> None:
    """Raise Lacking if runs are scored on different files or windows: they do not compare."""
    _refuse_several(((run.folder, run.scored_on(scorer)) for run in runs), scorer)


def _refuse_several(sets: Iterable[tuple[str, Any]], scorer: str) -> None:
    folders = {scored_on: folder for folder, scored_on in sets}
    if len(folders) > 1:
        others = sorted(
            f"{folder}: {file}, {window} by {stride} samples"
            for (file, window, stride), folder in folders.items()
        )
        raise Lacking(
            f"expected scores by {scorer!r} of the same windows, got others "
            f"({'; '.join(others)}), which do not compare; try one folder at a time"
        )


def with_c(rows: pd.DataFrame, *, or_sparsity: bool = False) -> pd.DataFrame:
    """The rows of runs that write C, which is what a report is drawn over.

    Args:
        or_sparsity: also those of runs that are pruned to a sparsity.

    Raises:
        Lacking: none does.
    """
    written = rows[rows["setting"] != "" if or_sparsity else rows[C].notna()]
    if written.empty:
        raise Lacking(
            f"expected runs with a weight at {C}, got none; try a grid whose KL term has this name"
        )
    return written


def by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each method, in the order of their names."""
    return [(str(method), group) for method, group in rows.groupby("method", sort=True)]


def by_setting(rows: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """The rows of each method and setting, by the method's name and rising C or sparsity."""
    groups = rows.groupby(["method", numbers(rows["setting"]), "setting"], dropna=False)
    return [(method, setting, group) for (method, _, setting), group in groups]


def numbers(settings: pd.Series) -> pd.Series:
    """The number in each setting, which is a value of C or a sparsity; NaN where neither is."""
    return settings.str.extract("= (.*)", expand=False).astype(float)


def group_name(method: str, setting: str) -> str:
    """A group of runs as sentences call it: "VD at C = 0.02"."""
    return f"{method} at {setting}" if setting else method


def spans(compressions: Iterable[float], level: float) -> bool:
    """Whether two neighbours lie around a level of compression, or one at it.

    Neighbours are at most `NEIGHBOURS` times apart: a line between runs further apart says little
    of what is between them.
    """
    known = list(compressions)
    smaller = max((times for times in known if times <= level), default=0.0)
    larger = min((times for times in known if times >= level), default=math.inf)
    return larger <= NEIGHBOURS * smaller


def dense_scores(rows: pd.DataFrame) -> list[tuple[list[str], pd.Series]]:
    """The scores of each set of dense networks, after the methods that began from it or part of it.

    They are told apart by the rows' columns method, seed and dense (a score).
    """
    networks = rows.dropna(subset=["dense"]).drop_duplicates(["method", "seed", "dense"])
    sets: list[tuple[list[str], set[tuple[int, float]], pd.Series]] = []
    for method, own in sorted(by_method(networks), key=lambda item: -len(item[1])):
        began_from = set(zip(own["seed"], own["dense"], strict=True))
        for methods, known, _ in sets:
            if began_from <= known:
                methods.append(method)
                break
        else:
            sets.append(([method], began_from, own["dense"]))
    return [(methods, scores) for methods, _, scores in sets]
