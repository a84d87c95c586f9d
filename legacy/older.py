"""Manifests of the older complex_paper system (Nazarov and Burnaev 2020) into those of this one.

`translate_file("musicnet[003]-101.json", "runs/old/101.json")`, or `python -m cplxnet.auto translate OLD NEW`. What has
no counterpart is named, all of it at once, with its path in the old file. What changes on the way (folders, device) is
said in notes. Defaults are written out, since they are not ours: a stage without `grad_clip` has 0.5 there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cplxnet.auto.manifest import strict_json
from cplxnet.auto.manifest.errors import Fault, ManifestError, ManifestNotFoundError, one_of
from cplxnet.auto.manifest.read import Manifest, is_older, parse

from . import older_names as names
from .older_models import top_model
from .older_rows import Row, Translation
from .older_stages import Stages

_LOADER = (
    "pin_memory",
    "num_workers",
    "timeout",
    "worker_init_fn",
)  # how windows are fed, not which


def translate(
    raw: Any, *, name: str = "translated", seed: int = 0, source: str | Path = "manifest"
) -> Translation:
    """The counterpart of `raw`, an old manifest as `json.load` gives it, in `.new`; in `.notes` what to know of it.

    name: for an old manifest without one. seed: old manifests have none; their file names tell replicates apart.

    Raises:
        ManifestError: with a fault for every key that has no counterpart.
    """
    into = Translation()
    top = Row("", raw, into)
    stages = Stages(into)
    windows = _datasets(top, into)
    model, is_complex = top_model(top, windows)
    into.new = {
        "schema": 1,
        "name": str(top.take("__name__") or name),
        "seed": seed,
        "threshold": top.take("threshold", -0.5),
        "datasets": into.new["datasets"],
        "features": _features(top.part("features"), is_complex),
        "feeds": {key: _feed(row) for key, row in _rows(top, "feeds")},
        "scorers": {key: _scorer(row, raw) for key, row in _rows(top, "scorers", {})},
        "objective_terms": {key: _term(row) for key, row in _rows(top, "objective_terms")},
        "model": model,
        "stages": stages.all(top.part("stages")),
        "stage_order": top.need("stage-order"),
    }
    into.new["scorers"] |= stages.scorers
    if top.take("device") is not None:
        into.note("device: left out; try python -m cplxnet.auto run --devices")
    top.close()
    if into.faults:
        raise ManifestError(source, into.faults)
    return into


def translate_file(old: str | Path, new: str | Path | None = None) -> tuple[Manifest, list[str]]:
    """The manifest in the file `old`, translated and checked as `load` does; written to `new` where that is given.

    The seed is the replicate's number where the file is named as the older system's generator did, musicnet[003]-101.

    Raises:
        ManifestError: with every fault, and for a file that is not an old manifest.
    """
    old = Path(old)
    raw, faults = strict_json.parse(strict_json.read(old), source=old)
    if not is_older(raw):
        accepted = (
            "the keys stage-order and __name__; cplxnet.auto.load reads manifests of this system"
        )
        raise ManifestError(
            old, [*faults, Fault("", "not a manifest of the older system", accepted=accepted)]
        )
    replicate = re.search(r"\[(\d+)\]", old.stem)
    made = translate(raw, name=old.stem, seed=int(replicate[1]) if replicate else 0, source=old)
    if not replicate:
        made.note("seed: 0, since old manifests have none")
    manifest = parse(made.new, source=f"{old}, translated", faults=faults)
    if new is not None:
        manifest.save(new)
    return manifest, made.notes


def translate_folder(old: str | Path, new: str | Path) -> dict[str, list[str]]:
    """Every old manifest of the folder `old` into the folder `new`: {new file's name: notes}. All of them or none.

    musicnet[003]-101.json becomes musicnet-003-101.json, since names with brackets are patterns to a shell.

    Raises:
        ManifestError: with every fault of every file; ManifestNotFoundError: no .json file in `old`.
    """
    made: dict[str, tuple[Manifest, list[str]]] = {}
    faults: list[Fault] = []
    paths = sorted(Path(old).glob("*.json"))
    if not paths:
        raise ManifestNotFoundError(
            old, [Fault("", "no manifests", accepted="a folder of .json files")]
        )
    for path in paths:
        try:
            made[re.sub(r"\[(\d+)\]", r"-\1", path.stem) + ".json"] = translate_file(path)
        except ManifestError as error:
            faults += [replace(fault, path=f"{path.name}: {fault.path}") for fault in error.faults]
    if faults:
        raise ManifestError(old, faults)
    for name, (manifest, _) in made.items():
        manifest.save(Path(new) / name)
    return {name: notes for name, (_, notes) in made.items()}


def _rows(top: Row, key: str, default: Any = None) -> list[tuple[str, Row]]:
    table = top.part(key, default)
    return [(name, Row(f"{key}.{name}", value, top.into)) for name, value in table.left.items()]


def _datasets(top: Row, into: Translation) -> dict[str, Any]:
    """Fill in the datasets; returns the window of each."""
    key = "dataset_sources" if "dataset_sources" in top.left else "datasets"
    shared = top.part("dataset") if key == "dataset_sources" else None
    cls = {} if shared is None else {"default": shared.need("cls")}
    if shared is not None:
        shared.close()
    found: dict[str, Any] = {}
    for name, row in _rows(top, key):
        row.named(names.DATASETS, **cls)
        window = row.take("window", 4096)
        row.one("at", None, window // 2 if isinstance(window, int) else None)
        found[name] = {"file": _file(row), "window": window, "stride": row.take("stride", 512)}
        row.close()
    into.new["datasets"] = found
    return {name: row["window"] for name, row in found.items()}


def _file(row: Row) -> Any:
    """The file's name alone: manifests here hold no folders of one machine; the data folder is given to `run`."""
    written = row.need("filename")
    if not isinstance(written, str):
        return written
    name = PurePosixPath(PureWindowsPath(written).as_posix()).name
    if name != written:
        row.into.note(f"{row.at('filename')}: {written} is now {name} in the data folder (--data)")
    return name


def _features(row: Row, is_complex: bool) -> dict[str, Any]:
    kind = row.named(names.FEATURES)
    row.one("signal_ndim", 1)
    if kind == "by kind":  # the earlier form: fft-shifted is what FeedFourierFeatures calls shift
        kind, cplx = row.take("kind", "fft"), row.take("cplx", True)
        if kind not in ("raw", "fft", "fft-shifted", "stft"):
            row.fault(
                "kind", "cannot be translated", kind, one_of(("raw", "fft", "fft-shifted", "stft"))
            )
        made = {
            "kind": str(kind).removesuffix("-shifted"),
            "cplx": cplx,
            "shift": kind == "fft-shifted",
        }
    elif kind == "raw":
        made = {"kind": "raw", "cplx": is_complex, "shift": False}
        row.left.clear()  # the old class takes any keyword and uses none
    else:
        made = {"kind": "fft", "cplx": row.take("cplx", True), "shift": row.take("shift", False)}
    row.close()
    return made


def _feed(row: Row) -> dict[str, Any]:
    sampler = row.named(names.FEEDS, default="torch.utils.data.DataLoader")
    made = {"dataset": row.need("dataset"), "sampler": sampler}
    if sampler == "one-per-recording":
        made["n_batches"] = row.take("n_batches", -1)
        if made["n_batches"] == -1:
            row.fault(
                "n_batches",
                "no limit cannot be translated",
                -1,
                "a number of batches an epoch, such as 1000",
            )
    else:
        row.one("n_batches", -1)
        row.one("shuffle", False)
        row.one("drop_last", False)
        made["batch_size"] = row.take("batch_size", 1)
    row.close(*_LOADER)
    return made


def _scorer(row: Row, raw: Mapping[str, Any]) -> dict[str, Any]:
    row.named(names.SCORERS)
    row.one(
        "threshold", raw.get("threshold", -0.5)
    )  # here compression is counted at the manifest's threshold
    made = {"feed": row.need("feed"), "curves": row.take("curves", False)}
    row.close()
    return made


def _term(row: Row) -> dict[str, Any]:
    name = row.named(names.TERMS)
    made: dict[str, Any] = {"name": name}
    if name == "kl":
        made |= {"reduction": row.take("reduction", "sum"), "coef": row.take("coef", 1.0)}
    else:
        row.one("pos_weight", None)
        reduction = row.take("reduction", "mean")
        made |= {} if reduction == "mean" else {"reduction": reduction}  # mean is the loss's own
    row.close()
    return made
