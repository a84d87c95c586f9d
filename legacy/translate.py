"""Manifests of the older complex_paper system (Nazarov and Burnaev 2020) into those of this one.

`translate_file("musicnet[003]-101.json", "runs/old/101.json")`, or
`python -m cplxnet.auto translate OLD NEW`.

Keys without a counterpart are faults, all of them reported at once, each with its path in the old
file. What changes on the way (folders, device) is said in notes. Defaults of the older system are
written out, since ours differ: a stage without `grad_clip` has 0.5 there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cplxnet.auto.manifest.errors import (
    ABSENT,
    Fault,
    ManifestError,
    ManifestNotFoundError,
    one_of,
    shown,
)
from cplxnet.auto.manifest.read import (
    Manifest,
    is_older,
    json_values,
    parse,
    plain,
)

from . import complex_paper

# How windows are loaded, not which: has no counterpart and needs none.
_LOADER = ("pin_memory", "num_workers", "timeout", "worker_init_fn")
_FEATURE_KINDS = ("raw", "fft", "fft-shifted", "stft")  # of the earlier form
# Defaults of the older system.
_STAGE = {
    "snapshot": None,
    "restart": False,
    "reset": False,
    "grad_clip": 0.5,
    "early": None,
    "lr_scheduler": {"cls": "<class 'musicnet.lr_scheduler.Trabelsi2017LRSchedule'>"},
    "optimizer": {"cls": "<class 'torch.optim.adam.Adam'>", "lr": 1e-3},
}
_EARLY = {"patience": 10, "cooldown": 1, "rtol": 1e-3, "atol": 1e-4}
# Defaults of torch, which are left out here.
_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0, "amsgrad": False}


@dataclass
class Translation:
    """A translation at work.

    Attributes:
        new: the new manifest, as JSON values.
        faults: what could not be translated.
        notes: what to know of the translation.
        early_scorers: scorers made for earlier manifests, whose early stopping names a feed.
    """

    new: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    early_scorers: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Note something once."""
        if text not in self.notes:
            self.notes.append(text)


class Row:
    """An object of the old manifest. Its keys are taken one by one; those that stay are faults.

    Attributes:
        path: of the object in the old file.
        left: the keys that were not taken yet.
        into: where faults and notes go.
    """

    def __init__(self, path: str, value: Any, into: Translation) -> None:
        self.path = path
        self.into = into
        self.left = dict(value) if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            self.fault("", "not an object", value, "an object")

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}".strip(".")

    def fault(self, key: str, problem: str, value: Any = ABSENT, accepted: str = "") -> None:
        self.into.faults.append(Fault(self.at(key), problem, value, accepted))

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self.left.pop(key, default)

    def need(self, key: str) -> Any:
        """The value of a key; a fault where it is missing."""
        if key not in self.left:
            self.fault(key, "missing key")
        return self.left.pop(key, None)

    def part(self, key: str, default: Any = None) -> Row:
        """An object; a fault where it is missing and there is no default."""
        if key not in self.left and default is None:
            self.fault(key, "missing key")
        value = self.left.pop(key, default if default is not None else {})
        return Row(self.at(key), value, self.into)

    def table(self, key: str, default: Any = None) -> list[tuple[str, Row]]:
        """The objects of an object, each with its name."""
        rows = self.part(key, default)
        return [(name, Row(rows.at(name), value, self.into)) for name, value in rows.left.items()]

    def one(self, key: str, *accepted: Any) -> None:
        """Take a key that has a counterpart for these values only; the first is its default."""
        value = self.left.pop(key, accepted[0])
        if value not in accepted:
            self.fault(key, "cannot be translated", value, " or ".join(map(shown, accepted)))

    def named(self, known: Mapping[str, str], *, default: str = "") -> str:
        """What the class string `cls` is called here; a fault where it is not `known`."""
        text = self.left.pop("cls", default)
        name = complex_paper.component(text, known)
        if name is None:
            self.fault("cls", "a class without a counterpart", text, one_of(known))
        return name or ""

    def close(self, *ignored: str) -> None:
        """Make a fault of every key that was not taken."""
        for key, value in self.left.items():
            if key not in ignored:
                self.fault(key, "cannot be translated", value)


def translate_folder(old: str | Path, new: str | Path) -> dict[str, list[str]]:
    """Translate every old manifest of the folder `old` into the folder `new`: all of them or none.

    musicnet[003]-101.json becomes musicnet-003-101.json, since names with brackets are patterns to
    a shell.

    Returns:
        {new file's name: notes}.

    Raises:
        ManifestError: with every fault of every file.
        ManifestNotFoundError: no .json file in `old`.
    """
    paths = sorted(Path(old).glob("*.json"))
    if not paths:
        raise ManifestNotFoundError(
            old, [Fault("", "no manifests", accepted="a folder of .json files")]
        )

    translated: dict[str, tuple[Manifest, list[str]]] = {}
    faults: list[Fault] = []
    for path in paths:
        name = re.sub(r"\[(\d+)\]", r"-\1", path.stem) + ".json"
        try:
            translated[name] = translate_file(path)
        except ManifestError as error:
            faults += [replace(fault, path=f"{path.name}: {fault.path}") for fault in error.faults]
    if faults:
        raise ManifestError(old, faults)

    for name, (manifest, _) in translated.items():
        manifest.save(Path(new) / name)
    return {name: notes for name, (_, notes) in translated.items()}


def translate_file(old: str | Path, new: str | Path | None = None) -> tuple[Manifest, list[str]]:
    """Translate the manifest in the file `old` and check it as `load` does.

    The seed is the replicate's number, if the file is named as the older system's generator names
    it: musicnet[003]-101.

    Args:
        old: the file to read.
        new: the file to write; None: none.

    Returns:
        The manifest, and notes of what changed.

    Raises:
        ManifestError: with every fault, and for a file that is not an old manifest.
    """
    old = Path(old)
    raw, faults = plain(json_values(old), source=old)
    if not is_older(raw):
        accepted = (
            "the keys stage-order and __name__; cplxnet.auto.load reads manifests of this system"
        )
        fault = Fault("", "not a manifest of the older system", accepted=accepted)
        raise ManifestError(old, [*faults, fault])

    replicate = re.search(r"\[(\d+)\]", old.stem)
    seed = int(replicate[1]) if replicate else 0
    translation = translate(raw, name=old.stem, seed=seed, source=old)
    if not replicate:
        translation.note("seed: 0, since old manifests have none")

    manifest = parse(translation.new, source=f"{old}, translated", faults=faults)
    if new is not None:
        manifest.save(new)
    return manifest, translation.notes


def translate(
    raw: Any, *, name: str = "translated", seed: int = 0, source: str | Path = "manifest"
) -> Translation:
    """Translate an old manifest.

    Args:
        raw: the manifest as `json.load` gives it.
        name: for a manifest without one.
        seed: old manifests have none; their file names tell replicates apart.
        source: for errors.

    Returns:
        The translation, its manifest in `.new` and what to know of it in `.notes`.

    Raises:
        ManifestError: with a fault for every key that has no counterpart.
    """
    into = Translation()
    top = Row("", raw, into)

    datasets = _datasets(top)
    windows = {key: dataset["window"] for key, dataset in datasets.items()}
    model, is_complex = _first_model(top, windows)
    into.new = {
        "schema": 1,
        "name": str(top.take("__name__") or name),
        "seed": seed,
        "threshold": top.take("threshold", -0.5),
        "datasets": datasets,
        "features": _features(top.part("features"), is_complex),
        "feeds": {key: _feed(row) for key, row in top.table("feeds")},
        "scorers": {key: _scorer(row, raw) for key, row in top.table("scorers", {})},
        "objective_terms": {key: _term(row) for key, row in top.table("objective_terms")},
        "model": model,
        "stages": _stages(top.part("stages")),
        "stage_order": top.need("stage-order"),
    }
    into.new["scorers"] |= into.early_scorers
    if top.take("device") is not None:
        into.note("device: left out; try python -m cplxnet.auto run --devices")

    top.close()
    if into.faults:
        raise ManifestError(source, into.faults)
    return into


# Data: datasets, features, feeds, scorers, terms


def _datasets(top: Row) -> dict[str, Any]:
    """The table `datasets`; earlier manifests have `dataset_sources`, and one class for all."""
    key = "dataset_sources" if "dataset_sources" in top.left else "datasets"
    shared: dict[str, Any] = {}
    if key == "dataset_sources":
        dataset = top.part("dataset")
        shared["default"] = dataset.need("cls")
        dataset.close()

    datasets: dict[str, Any] = {}
    for name, row in top.table(key):
        row.named(complex_paper.DATASETS, **shared)
        window = row.take("window", 4096)
        row.one("at", None, window // 2 if isinstance(window, int) else None)
        datasets[name] = {"file": _file(row), "window": window, "stride": row.take("stride", 512)}
        row.close()
    return datasets


def _file(row: Row) -> Any:
    """The file's name alone: the data folder is given to `run`, not written into manifests."""
    written = row.need("filename")
    if not isinstance(written, str):
        return written

    name = PurePosixPath(PureWindowsPath(written).as_posix()).name
    if name != written:
        row.into.note(f"{row.at('filename')}: {written} is now {name} in the data folder (--data)")
    return name


def _features(row: Row, is_complex: bool) -> dict[str, Any]:
    """The features; `fft-shifted` of the earlier form is what FeedFourierFeatures calls shift."""
    kind = row.named(complex_paper.FEATURES)
    row.one("signal_ndim", 1)

    if kind == "raw":
        row.left.clear()  # the old class takes any keyword and uses none
        return {"kind": "raw", "cplx": is_complex, "shift": False}

    if kind == "by kind":
        kind = row.take("kind", "fft")
        if kind not in _FEATURE_KINDS:
            row.fault("kind", "cannot be translated", kind, one_of(_FEATURE_KINDS))
        cplx = row.take("cplx", True)
        shift = kind == "fft-shifted"
        kind = str(kind).removesuffix("-shifted")
    else:
        kind = "fft"
        cplx = row.take("cplx", True)
        shift = row.take("shift", False)
    row.close()
    return {"kind": kind, "cplx": cplx, "shift": shift}


def _feed(row: Row) -> dict[str, Any]:
    sampler = row.named(complex_paper.FEEDS, default="torch.utils.data.DataLoader")
    feed = {"dataset": row.need("dataset"), "sampler": sampler}

    if sampler == "one-per-recording":
        n_batches = row.take("n_batches", -1)
        if n_batches == -1:
            accepted = "a number of batches an epoch, such as 1000"
            row.fault("n_batches", "no limit cannot be translated", -1, accepted)
        feed["n_batches"] = n_batches
    else:
        row.one("n_batches", -1)
        row.one("shuffle", False)
        row.one("drop_last", False)
        feed["batch_size"] = row.take("batch_size", 1)
    row.close(*_LOADER)
    return feed


def _scorer(row: Row, raw: Mapping[str, Any]) -> dict[str, Any]:
    row.named(complex_paper.SCORERS)
    row.one("threshold", raw.get("threshold", -0.5))  # compression is counted at the manifest's
    scorer = {"feed": row.need("feed"), "curves": row.take("curves", False)}
    row.close()
    return scorer


def _term(row: Row) -> dict[str, Any]:
    term: dict[str, Any] = {"name": row.named(complex_paper.TERMS)}
    if term["name"] == "kl":
        term["reduction"] = row.take("reduction", "sum")
        term["coef"] = row.take("coef", 1.0)
    else:
        row.one("pos_weight", None)
        reduction = row.take("reduction", "mean")
        if reduction != "mean":  # the mean is the loss's own
            term["reduction"] = reduction
    row.close()
    return term


# Networks


def _first_model(top: Row, windows: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The manifest's model, and whether it is a complex one.

    Sizes that follow from the data are checked and left out.

    Args:
        top: the manifest.
        windows: the length of each dataset's windows.
    """
    row = top.part("model")
    if "cls" not in row.left:  # earlier manifests name it in the stages only
        row.left["cls"] = _class_of_first_stage(top.left)
    network = complex_paper.model(row.left.get("cls"))
    is_complex = network is not None and network.is_complex

    length = row.take("n_seq")
    if length is not None and any(window != length for window in windows.values()):
        accepted = str(next(iter(windows.values())))
        row.fault("n_seq", "another length than the windows'", length, accepted)
    row.one("n_outputs", 84)
    row.one("n_channels", *((1,) if is_complex else (2, 1)))

    if network is not None and network.name.startswith("complex.DeepConvNet"):
        row.left.setdefault("legacy", True)
    return _model(row), is_complex


def _model(row: Row) -> dict[str, Any]:
    """A model's name, and its first kernel: 3 where `legacy` is true, else ours of 6."""
    model: dict[str, Any] = {}
    if "cls" in row.left:
        text = row.take("cls")
        network = complex_paper.model(text)
        if network is None:
            row.fault("cls", "a class without a counterpart", text, complex_paper.MODELS)
        else:
            model["name"] = network.name
            if network.note:
                row.into.note(f"{network.name} {network.note}")

    if row.take("legacy", False):
        model["kernel_size"] = 3
    row.close()
    return model


def _class_of_first_stage(manifest: Mapping[str, Any]) -> Any:
    """The class of the first stage's model, or None."""
    stages = manifest.get("stages")
    order = manifest.get("stage-order")
    if not isinstance(stages, Mapping) or not isinstance(order, list) or not order:
        return None

    first = stages.get(order[0])
    model = first.get("model") if isinstance(first, Mapping) else None
    return model.get("cls") if isinstance(model, Mapping) else None


# Stages


def _stages(table: Row) -> dict[str, Any]:
    """The table `stages`."""
    return {name: _stage(table.at(name), value, table.into) for name, value in table.left.items()}


def _stage(path: str, value: Any, into: Translation) -> dict[str, Any]:
    """A stage, the older system's defaults written out."""
    row = Row(path, {**_STAGE, **value} if isinstance(value, Mapping) else value, into)
    snapshot = row.take("snapshot")
    if snapshot is not None:
        row.fault("snapshot", "a start from a file cannot be translated", snapshot, "null")

    stage = {
        "feed": row.need("feed"),
        "n_epochs": row.need("n_epochs"),
        "model": _model(Row(row.at("model"), row.take("model") or {}, into)),
        "restart": row.take("restart"),
        "reset": row.take("reset"),
        "grad_clip": row.take("grad_clip"),
        "objective": _objective(row),
        "optimizer": _optimizer(row.part("optimizer")),
        "lr_scheduler": _schedule(row.part("lr_scheduler")),
        "early": _early(row),
    }
    row.close()
    return stage


def _objective(row: Row) -> Any:
    weights = row.need("objective")
    if isinstance(weights, str):
        accepted = "an object of terms and weights"
        row.fault("objective", "an expression cannot be translated", weights, accepted)
    return weights


def _optimizer(row: Row) -> dict[str, Any]:
    optimizer = {"name": row.named(complex_paper.OPTIMIZERS), "lr": row.take("lr", 1e-3)}
    for key, default in _ADAM.items():
        value = row.take(key, default)
        if value != default:
            optimizer[key] = value
    row.close()
    return optimizer


def _schedule(row: Row) -> dict[str, Any]:
    schedule = {"name": row.named(complex_paper.SCHEDULES)}
    row.close()
    return schedule


def _early(stage: Row) -> dict[str, Any] | None:
    """Early stopping. The earlier form names a feed; a scorer of that feed is made for it."""
    value = stage.take("early")
    if value is None:
        return None

    row = Row(stage.at("early"), value, stage.into)
    row.named(complex_paper.STOPPERS, default=next(iter(complex_paper.STOPPERS)))
    raises = row.take("raises", "StopIteration")
    if complex_paper.class_path(raises) not in ("StopIteration", "builtins.StopIteration"):
        row.fault("raises", "cannot be translated", raises, "<class 'StopIteration'>")

    if "feed" in row.left:
        feed = row.take("feed")
        scorer = f"early-{feed}"
        row.into.early_scorers[scorer] = {"feed": feed, "curves": False}
    else:
        scorer = row.need("scorer")
    early = {"scorer": scorer, **{key: row.take(key, value) for key, value in _EARLY.items()}}
    row.close()
    return early
