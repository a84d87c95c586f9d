"""What is left of a folder's runs, and which of it to take next."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.folder import RunFolder

from .run_one import BAD, Outcome, Settings

LOOK_EVERY_S = 1.0  # at runs that another process has


class Agenda:
    """Gives out names of runs, each once at a time, and collects their outcomes.

    Runs that share a first stage which one of them is training are held back until it is trained, if there are others
    to do: they would only wait for it. `retry` in `settings` is what `failed` gives for the runs to be tried again.
    """

    def __init__(self, manifests: Mapping[str, Manifest], settings: Settings) -> None:
        self.settings, self.manifests, self.names = settings, manifests, list(manifests)
        self.pending, self.running = list(manifests), set[str]()
        self.outcomes: dict[str, Outcome] = {}
        self._open = {
            name for name in manifests if _status(settings.folder / name).get("state") != "done"
        }  # at first
        self._elsewhere: dict[str, float] = {}  # name -> when it was last looked at
        self._first = {name: manifest.stage_order[0] for name, manifest in manifests.items()}
        self._group = {
            name: _first_stage(manifest) if settings.reuse else name
            for name, manifest in manifests.items()
        }
        self._trained: set[stages.Shared | str] = set()

    def take(self) -> str | None:
        """The next run to be given out; None if none is due now."""
        due = [
            name
            for name in self.pending
            if time.monotonic() - self._elsewhere.get(name, -1e9) >= LOOK_EVERY_S
        ]
        busy = {self._group[name] for name in (*self.running, *self._elsewhere)}
        name = next(
            (
                name
                for name in due
                if self._group[name] not in busy or self._ready(self._group[name])
            ),
            None,
        )
        if name is None:  # all that is left waits for a stage; what is elsewhere may have come free
            name = next((name for name in due if name in self._elsewhere), None)
        if name is not None:
            self.pending.remove(name)
            self.running.add(name)
        return name

    def _ready(self, group: stages.Shared | str) -> bool:
        """Whether a run of the group has finished the first stage."""
        if group not in self._trained:
            members = (name for name in self.names if self._group[name] == group)
            if any(self._has_first(name) for name in members):
                self._trained.add(group)
        return group in self._trained

    def _has_first(self, name: str) -> bool:
        return self._first[name] in _status(self.settings.folder / name).get("stages", {})

    def settle(self, outcome: Outcome) -> None:
        """Take in the outcome of a run given out; one that another process has will be looked at again."""
        name = outcome.name
        self.running.discard(name)
        if outcome.state == "elsewhere":
            self._elsewhere[name] = time.monotonic()
            self.pending.append(name)
            return
        if name in self._open and outcome.state == "skipped":
            outcome = Outcome(
                name, "done"
            )  # by another command, or by a worker that died before it could say so
        self._elsewhere.pop(name, None)
        self.outcomes[name] = outcome

    def put_back(self, name: str) -> None:
        """A run given out that came to nothing, through no fault of its own: to be given out again."""
        self.running.discard(name)
        self.pending.insert(0, name)

    @property
    def waiting(self) -> bool:
        """Whether all that is left is with other processes."""
        return bool(self.pending) and all(name in self._elsewhere for name in self.pending)

    @property
    def open(self) -> bool:
        """Whether anything is left to give out or to wait for."""
        return bool(self.pending or self.running)

    def all_outcomes(self) -> list[Outcome]:
        """In the order of the names."""
        return [self.outcomes[name] for name in self.names if name in self.outcomes]


def _status(path: Path) -> dict[str, Any]:
    """The status of the run in the folder `path`; empty where it is damaged, which its own run says."""
    try:
        return RunFolder(path).status
    except ValueError:
        return {}


def failed(folder: Any, names: Any) -> dict[str, dict[str, Any]]:
    """status.json of those runs that failed or diverged, by name."""
    found = {name: _status(folder / name) for name in names}
    return {name: status for name, status in found.items() if status.get("state") in BAD}


def _first_stage(manifest: Manifest) -> stages.Shared:
    """What two manifests have in common if they share their first stage."""
    return next(stages.planned(manifest))[1]
