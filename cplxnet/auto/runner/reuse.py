"""Stages that a run folder holds from before, to be taken over in place of training them again."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cplxnet import files

from .folder import RunFolder


class Earlier(NamedTuple):
    """What a run folder held before this run began: its path, its finished stages, its history."""

    folder: RunFolder
    stages: dict[str, Any]
    history: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: RunFolder) -> "Earlier":
        """Raises ValueError, naming the file, where one is damaged."""
        return cls(folder, (folder.scores or {}).get("stages", {}), folder.history)

    def take_over(
        self, into: RunFolder, number: int, name: str, key: str, *, optimizer: bool
    ) -> "Finished | None":
        """The stage `name`, its snapshot copied to the folder `into`; None if it was not finished under `key`.

        optimizer: None too where the snapshot lacks the optimiser's state, as the stage after it needed none there. A
        snapshot of `into` itself that is damaged is named in its notes and set aside.
        """
        done = self.stages.get(name, {})
        source, target = self.folder.snapshot(number, name), into.snapshot(number, name)
        if done.get("key") != key or not source.exists():
            return None
        try:
            snapshot = files.read_tensors(source)
        except ValueError as error:
            if source == target:
                into.set_aside(source, error)
            return None
        if snapshot.get("key") != key or (optimizer and snapshot.get("optimizer") is None):
            return None
        if source != target:
            files.share(source, target, check=into.check)
            done = done | {"reused_from": done["reused_from"] or self.folder.path.name}
        return Finished(snapshot, done, [line for line in self.history if line["stage"] == name])


class Finished(NamedTuple):
    """A finished stage: its snapshot, its entry in scores.json, its lines of history.jsonl."""

    snapshot: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, Any]]


def neighbours(manifest: Path) -> list[Path]:
    """The runs' folders of the other manifests in this one's folder."""
    return [
        path.with_suffix("")
        for path in sorted(manifest.parent.glob("*.json"))
        if path.name != manifest.name
    ]


def finished_elsewhere(folders: Iterable[RunFolder], name: str, key: str) -> list[Earlier]:
    """What other runs' folders hold, of those whose status says that they have finished this stage under this key.

    A damaged folder is passed over, since its own run reports it.
    """
    found = []
    for folder in folders:
        with contextlib.suppress(ValueError, AttributeError):  # a status that is no status of ours
            if folder.status.get("stages", {}).get(name, {}).get("key") == key:
                found.append(Earlier.read(folder))
    return found
