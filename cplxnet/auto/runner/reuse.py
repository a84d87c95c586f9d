"""Finished stages that run folders hold, to be taken over in place of training them again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
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


def read_snapshot(
    folder: RunFolder, number: int, name: str, shared: Shared
) -> dict[str, Any] | None:
    """The snapshot of a stage in a run's folder.

    None if it was not finished under the same key, or was saved without optimiser state and the
    next stage goes on with it.

    Args:
        number: the stage's place in the manifest, from 0.

    Raises:
        ValueError: the snapshot is damaged.
    """
    path = folder.snapshot(number, name)
    if not path.exists():
        return None

    snapshot = files.read_tensors(path)
    lacking = shared.goes_on and snapshot.get("optimizer") is None
    if snapshot.get("key") != shared.key or lacking:
        return None

    if "history" not in snapshot:  # of before 2026-11-23
        lines = [line for line in folder.history if line["stage"] == name]
        snapshot["history"] = json.dumps(lines)
    return snapshot


def from_others(
    folders: Iterable[RunFolder], into: RunFolder, number: int, name: str, shared: Shared
) -> Finished | None:
    """The stage from the first of other runs' folders that has finished it; None if none has.

    Its snapshot is copied to `into`. A folder with damage is passed over: its own run says so.
    """
    for folder in folders:
        with contextlib.suppress(ValueError, AttributeError):  # a status that is no status of ours
            if folder.status.get("stages", {}).get(name, {}).get("key") != shared.key:
                continue
            result = (folder.scores or {}).get("stages", {}).get(name, {})
            snapshot = read_snapshot(folder, number, name, shared)
            if result.get("key") != shared.key or snapshot is None:
                continue

            files.share(
                folder.snapshot(number, name), into.snapshot(number, name), check=into.check
            )
            origin = result["reused_from"] or folder.path.name
            return Finished(snapshot, result | {"reused_from": origin})
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
