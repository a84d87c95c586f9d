"""A manifest from a file (`load`) or from JSON values (`parse`), with every fault named at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cplxnet.files import check_regular

from . import vocabulary
from .checks import build, check
from .errors import ABSENT, Fault, ManifestError, ManifestNotFoundError, place, type_faults
from .schema import Manifest, Stage

__all__ = [
    "Manifest",
    "ManifestError",
    "ManifestNotFoundError",
    "Stage",
    "load",
    "parse",
]

MAX_BYTES = 2**24  # of a file; a manifest has 2 thousand
MAX_DEPTH = 32  # levels of nesting; a manifest has 5

_TRANSLATED = (
    "one of this system; try `python -m cplxnet.auto translate OLD NEW`, which makes one of it"
)


def load(path: str | Path) -> Manifest:
    """Read the manifest in the JSON file `path`; the names it may use are those of its task.

    Raises:
        ManifestError: with every fault of it.
        ManifestNotFoundError: no such file (also a FileNotFoundError).
    """
    raw = json_values(path)
    faults = []
    if not names_a_run(Path(path).stem):
        problem = "a file name that no run can have"
        accepted = "no leading dot, control character or second .json, and not figures.json"
        faults.append(Fault("", problem, Path(path).name, accepted))
    return parse(raw, source=path, faults=faults)


def names_a_run(stem: str) -> bool:
    """Whether a run's folder can have the name of its manifest's file without .json.

    It stands beside the manifest, among other manifests and the folders `figures` and `.claims`.
    "...json" would be a run in the folder above.
    """
    is_taken = stem.startswith(".") or stem.endswith(".json") or stem == "figures"
    return stem.isprintable() and not is_taken


def parse(raw: Any, *, source: str | Path = "manifest", faults: Iterable[Fault] = ()) -> Manifest:
    """A manifest from JSON values.

    Args:
        raw: a dict as `json.load` gives it.
        source: what the error's first line names.
        faults: those of the file, to be reported with the others.

    Raises:
        ManifestError: with every fault of it.
    """
    raw, own_faults = plain(raw, source=source)
    faults = [*faults, *own_faults]
    if not isinstance(raw, dict):
        fault = Fault("", "not an object", raw, 'an object with the key "schema"')
        raise ManifestError(source, [*faults, fault])

    if is_older(raw):
        fault = Fault("", "a manifest of the older complex_paper system", accepted=_TRANSLATED)
        raise ManifestError(source, [fault])

    task = vocabulary.of_task(raw.get("task"))
    try:
        manifest = Manifest.model_validate(raw, context=task.names(raw))
    except ValidationError as error:
        faults += [*type_faults(error, Manifest), *check(_without_faults(raw, error), task)]
    else:
        faults += check(raw, task)
        if not faults:
            faults += build(manifest, task)
        if not faults:
            return manifest
    raise ManifestError(source, faults)


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


# -- JSON, read strictly: size, nesting, keys given twice, broken Unicode --------------------------


class _Pairs(dict[str, Any]):
    """A JSON object that remembers which of its keys were given twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.twice = [key for key, count in counts.items() if count > 1]


def content_of(path: str | Path) -> bytes:
    """The bytes of the file `path`.

    Raises:
        ManifestNotFoundError: no such file; the text names those that are there.
        ManifestError: the file cannot be read, or has more than 16 MiB.
    """
    path = Path(path)
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        manifest_names = sorted(file.name for file in path.parent.glob("*.json"))[:5]
        accepted = "a file: experiment_generator.ipynb writes the manifests"
        if manifest_names:
            accepted = "one of " + ", ".join(manifest_names)
        raise ManifestNotFoundError(path, [Fault("", "no such file", accepted=accepted)]) from None
    except OSError as error:
        reason = error.strerror or "no regular file"
        fault = Fault("", f"cannot be read ({reason})", accepted="a readable .json file")
        raise ManifestError(path, [fault]) from None

    if len(content) > MAX_BYTES:
        fault = Fault("", "too large for a manifest", accepted=f"at most {MAX_BYTES} bytes")
        raise ManifestError(path, [fault])
    return content


def json_values(path: str | Path) -> Any:
    """The JSON value in the file `path`; its objects remember keys given twice, for `plain`.

    NaN and Infinity come through as floats: whoever checks the value's type knows its path.

    Raises:
        ManifestError: not UTF-8, not JSON (with line and column) or nested too deeply; and as
            `content_of`.
    """
    content = content_of(path)
    try:
        return json.loads(content.decode(), object_pairs_hook=_Pairs)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text at byte {error.start}"
        accepted = "a JSON file in UTF-8"
    except json.JSONDecodeError as error:
        problem = f"not JSON at line {error.lineno} column {error.colno}: {error.msg}"
        accepted = "a JSON object, without comments and without a comma after a last entry"
    except RecursionError:
        problem = "nested too deeply"
        accepted = f"at most {MAX_DEPTH} levels"
    except ValueError as error:  # an integer of more than 4300 digits
        problem = f"not a usable number: {error}"
        accepted = "integers of up to 4300 digits"
    raise ManifestError(path, [Fault("", problem, accepted=accepted)])


def plain(value: Any, *, source: str | Path) -> tuple[Any, list[Fault]]:
    """A copy of `value` in dicts and lists, with a fault for each part that JSON cannot say.

    Those are keys given twice and text that is not Unicode (half a surrogate pair: it is escaped).

    Raises:
        ManifestError: nested too deeply.
    """
    faults: list[Fault] = []

    def copied(value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > MAX_DEPTH:
            accepted = f"at most {MAX_DEPTH} levels"
            fault = Fault(".".join(path[:4]), "nested too deeply", accepted=accepted)
            raise ManifestError(source, [fault])

        if isinstance(value, Mapping):
            for key in value.twice if isinstance(value, _Pairs) else []:
                faults.append(
                    Fault(".".join((*path, key)), "key given twice", key, "each key once")
                )
            return {
                copied(key, (*path, str(key))): copied(item, (*path, str(key)))
                for key, item in value.items()
            }

        if isinstance(value, (list, tuple)):
            return [copied(item, (*path, str(k))) for k, item in enumerate(value)]

        if isinstance(value, str) and not value.isascii():
            safe = value.encode("utf-8", "backslashreplace").decode("utf-8")
            if safe != value:
                accepted = "no unpaired surrogates"
                faults.append(Fault(".".join(path), "not Unicode text", value, accepted))
            return safe
        return value

    return copied(value, ()), faults
