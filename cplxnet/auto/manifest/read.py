"""A manifest from a file (`load`) or from JSON values (`parse`), with every fault named at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from . import strict_json, vocabulary
from .checks import build, check
from .errors import ABSENT, Fault, ManifestError, ManifestNotFoundError, place, type_faults
from .schema import Manifest, Stage
from .vocabulary import Vocabulary

__all__ = [
    "Manifest",
    "ManifestError",
    "ManifestNotFoundError",
    "Stage",
    "Vocabulary",
    "load",
    "parse",
]

_TRANSLATED = (
    "one of this system; try `python -m cplxnet.auto translate OLD NEW`, which makes one of it"
)


def load(path: str | Path, *, task: Vocabulary | None = None) -> Manifest:
    """Read the manifest in the file `path`.

    Args:
        path: a JSON file.
        task: the component names that may be asked for; None: those of the manifest's task.

    Raises:
        ManifestError: with every fault of it.
        ManifestNotFoundError: no such file (also a FileNotFoundError).
    """
    raw, faults = strict_json.parse(strict_json.read(path), source=path)
    if not names_a_run(Path(path).stem):
        problem = "a file name that no run can have"
        accepted = "no leading dot, control character or second .json, and not figures.json"
        faults.append(Fault("", problem, Path(path).name, accepted))
    return parse(raw, task=task, source=path, faults=faults)


def names_a_run(stem: str) -> bool:
    """Whether a run's folder can have the name of its manifest's file without .json.

    It stands beside the manifest, among other manifests and the folders `figures` and `.claims`.
    "...json" would be a run in the folder above.
    """
    is_taken = stem.startswith(".") or stem.endswith(".json") or stem == "figures"
    return stem.isprintable() and not is_taken


def parse(
    raw: Any,
    *,
    task: Vocabulary | None = None,
    source: str | Path = "manifest",
    faults: Iterable[Fault] = (),
) -> Manifest:
    """A manifest from JSON values.

    Args:
        raw: a dict as `json.load` gives it.
        task: as in `load`.
        source: what the error's first line names.
        faults: those of the file, to be reported with the others.

    Raises:
        ManifestError: with every fault of it.
    """
    raw, own_faults = strict_json.plain(raw, source=source)
    faults = [*faults, *own_faults]
    if not isinstance(raw, dict):
        fault = Fault("", "not an object", raw, 'an object with the key "schema"')
        raise ManifestError(source, [*faults, fault])

    if is_older(raw):
        fault = Fault("", "a manifest of the older complex_paper system", accepted=_TRANSLATED)
        raise ManifestError(source, [fault])

    task = task or vocabulary.of_task(raw.get("task"))
    manifest = None
    try:
        manifest = Manifest.model_validate(raw, context=task.names(raw))
    except ValidationError as error:
        faults += type_faults(error, Manifest)
        raw = _without_faults(raw, error)
    faults += check(raw, task)
    if manifest is not None and not faults:
        faults += build(manifest, task)

    if faults or manifest is None:
        raise ManifestError(source, faults)
    return manifest


def _without_faults(raw: dict[str, Any], error: ValidationError) -> dict[str, Any]:
    """Put ABSENT in the place of each faulty value."""
    for item in error.errors(include_url=False):
        *parents, last = place(item)
        part: Any = raw
        for key in parents:
            part = part[key] if part is not ABSENT else part
        if part is not ABSENT and item["type"] != "missing":
            part[last] = ABSENT
    return raw


def is_older(raw: Any) -> bool:
    """Whether JSON values have the older complex_paper system's spellings of keys."""
    if not isinstance(raw, Mapping) or "schema" in raw:
        return False
    return not {"stage-order", "__name__", "dataset_sources"}.isdisjoint(raw)
