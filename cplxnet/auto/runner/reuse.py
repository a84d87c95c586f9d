"""Finished stages that run folders hold, to be taken over in place of training them again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cplxnet import files

from .folder import RunFolder

if TYPE_CHECKING:
    from cplxnet.auto.manifest.read import Manifest

    from .stages import Shared  # with torch, which takes seconds to import


class Finished(NamedTuple):
    """A finished stage.

    Attributes:
        snapshot: what its file holds: weights, the optimiser's state or None, its history.
        result: its entry in scores.json.
    """

    snapshot: dict[str, Any]
    result: dict[str, Any]


def take_over(
    source: RunFolder,
    results: Mapping[str, Any],
    into: RunFolder,
    number: int,
    name: str,
    shared: Shared,
) -> Finished | None:
    """The stage `name` as the run in `source` has finished it; its snapshot is copied to `into`.

    None if it was not finished under the same key. Also None if the snapshot was saved without
    optimiser state and the next stage goes on with it. A damaged snapshot of `into` itself is named
    in its notes and set aside.

    Args:
        results: the stages in the source's scores.json.
        number: the stage's place in the manifest, from 0.
    """
    result = results.get(name, {})
    path = source.snapshot(number, name)
    target = into.snapshot(number, name)
    if result.get("key") != shared.key or not path.exists():
        return None

    try:
        snapshot = files.read_tensors(path)
    except ValueError as error:
        if path == target:
            into.set_aside(path, error)
        return None
    lacking = shared.goes_on and snapshot.get("optimizer") is None
    if snapshot.get("key") != shared.key or lacking:
        return None

    if "history" not in snapshot:  # of before 2026-11-23
        lines = [line for line in source.history if line["stage"] == name]
        snapshot["history"] = json.dumps(lines)

    if path != target:
        files.share(path, target, check=into.check)
        result = result | {"reused_from": result["reused_from"] or source.path.name}
    return Finished(snapshot, result)


def from_others(
    folders: Iterable[RunFolder], into: RunFolder, number: int, name: str, shared: Shared
) -> Finished | None:
    """The stage from the first of other runs' folders that has finished it; None if none has.

    A damaged folder is passed over, since its own run reports it. Arguments as of `take_over`.
    """
    for folder in folders:
        with contextlib.suppress(ValueError, AttributeError):  # a status that is no status of ours
            if folder.status.get("stages", {}).get(name, {}).get("key") != shared.key:
                continue
            results = (folder.scores or {}).get("stages", {})
            finished = take_over(folder, results, into, number, name, shared)
            if finished is not None:
                return finished
    return None


def of_parent(manifest: Manifest, folder: Path) -> list[Path]:
    """The runs' folders of the grid that holds the original of an edited manifest, its own first.

    Args:
        manifest: edited or not.
        folder: of its run.
    """
    if manifest.parent is None:
        return []
    original = folder.resolve().parent.parent / manifest.parent
    return [original, *neighbours(original.with_name(f"{original.name}.json"))]


def neighbours(manifest: Path) -> list[Path]:
    """The runs' folders of the other manifests in this one's folder."""
    return [
        path.with_suffix("")
        for path in sorted(manifest.parent.glob("*.json"))
        if path.name != manifest.name
    ]
