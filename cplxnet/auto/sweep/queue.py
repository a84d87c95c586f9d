"""The queue of a folder's runs: what is left, which run is next; and doing one (`run_one`)."""

import itertools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cplxnet.auto.manifest.read import Manifest, content_of, load
from cplxnet.auto.runner import lock, stages
from cplxnet.auto.runner.folder import RunFolder, refuse_changes, unchanged
from cplxnet.auto.runner.run import check_device, run
from cplxnet.auto.runner.stop import Stop
from cplxnet.auto.train.loop import Diverged

BAD = ("failed", "diverged")
LOOK_EVERY_S = 1.0  # at runs of other processes, and at stages that runs wait for


class Outcome(NamedTuple):
    """How one run ended: its name, its state and the reason if it failed.

    state: done, skipped (it was done before), failed, diverged, interrupted, or elsewhere (another
    process has it).
    """

    name: str
    state: str
    reason: str | None = None


@dataclass(frozen=True)
class Settings:
    """What every run of a folder is run with, as plain values that other machines can have."""

    folder: Path  # absolute paths that every machine sees
    data: Path
    reuse: bool = True  # runs take stages that they share from each other
    progress: bool = True
    accept_changes: bool = False  # as of `run`
    timeout_s: float = lock.TIMEOUT_S
    # the status of each failed run to be tried again, as it was when the command was started: one
    # that another command has tried again since is left
    retry: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    again: frozenset[str] = frozenset()  # runs that are looked at although they are done


@dataclass(eq=False)
class Queue:
    """Gives out names of runs, each once at a time, and collects their outcomes.

    A run whose first stage another run is training waits while there is other work.
    """

    manifests: Mapping[str, Manifest]  # the runs by name
    settings: Settings  # what they are run with

    def __post_init__(self) -> None:
        self.names = list(self.manifests)
        self.pending = list(self.manifests)
        self.running: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}
        self._done_before = {
            name for name in self.names if self.status(name).get("state") == "done"
        }
        self._elsewhere: dict[str, float] = {}  # with other processes -> when last looked at
        self._n_epochs: dict[str, int] = {}  # of a run given out, at that time

        # runs that share their first stage are a group
        self._group: dict[str, stages.Shared | str] = {
            name: next(stages.planned(manifest))[1] if self.settings.reuse else name
            for name, manifest in self.manifests.items()
        }
        self._group_trained: set[stages.Shared | str] = set()
        self._group_looked: dict[stages.Shared | str, float] = {}

    def take(self) -> str | None:
        """Give out the next run; None if none is due now."""
        now = time.monotonic()
        due = [
            name
            for name in self.pending
            if now - self._elsewhere.get(name, -math.inf) >= LOOK_EVERY_S
        ]
        busy = {self._group[name] for name in (*self.running, *self._elsewhere)}

        ready = (
            name
            for name in due
            if self._group[name] not in busy or self._has_first_stage(self._group[name], now)
        )
        # where all that is left waits for a stage: what is elsewhere may have come free
        elsewhere = (name for name in due if name in self._elsewhere)
        name = next(itertools.chain(ready, elsewhere), None)

        if name is not None:
            self.pending.remove(name)
            self.running.add(name)
            self._n_epochs[name] = self._epochs_trained(name)
        return name

    def _has_first_stage(self, group: stages.Shared | str, now: float) -> bool:
        """Whether a run of the group has finished its first stage, as of the last look."""
        if group in self._group_trained:
            return True
        if now - self._group_looked.get(group, -math.inf) < LOOK_EVERY_S:
            return False

        self._group_looked[group] = now
        for name in [name for name in self.names if self._group[name] == group]:
            if self.manifests[name].stage_order[0] in self.status(name).get("stages", {}):
                self._group_trained.add(group)
                return True
        return False

    def settle(self, outcome: Outcome) -> None:
        """Take in the outcome of a run; one that another process has is looked at again."""
        name = outcome.name
        self.running.discard(name)
        if outcome.state == "elsewhere":
            self._elsewhere[name] = time.monotonic()
            self.pending.append(name)
            return

        if outcome.state == "skipped" and name not in self._done_before:
            # done by another command, or by a worker that died before it could say so
            outcome = Outcome(name, "done")
        self._elsewhere.pop(name, None)
        self.outcomes[name] = outcome

    def put_back(self, name: str) -> None:
        """Give out a run again that came to nothing through no fault of its own."""
        self.running.discard(name)
        self.pending.insert(0, name)

    def has_progressed(self, name: str) -> bool:
        """Whether a run that was given out has trained an epoch since."""
        return self._epochs_trained(name) > self._n_epochs[name]

    @property
    def waiting(self) -> bool:
        """Whether all that is left is with other processes."""
        return bool(self.pending) and all(name in self._elsewhere for name in self.pending)

    @property
    def open(self) -> bool:
        """Whether anything is left to give out or to wait for."""
        return bool(self.pending or self.running)

    def all_outcomes(self) -> list[Outcome]:
        """The outcomes in the order of the names."""
        return [self.outcomes[name] for name in self.names if name in self.outcomes]

    def status(self, name: str) -> dict[str, Any]:
        """The status of a run; empty if it is damaged, which the run itself reports."""
        return _status(self.settings.folder / name)

    def _epochs_trained(self, name: str) -> int:
        try:
            return len(RunFolder(self.settings.folder / name).history)
        except (OSError, ValueError):  # damaged: its own run reports it
            return 0


def _status(path: Path) -> dict[str, Any]:
    """As `Queue.status`, of the run in the folder `path`."""
    try:
        return RunFolder(path).status
    except (OSError, ValueError):
        return {}


def failed(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The status of those runs that failed or diverged, by name."""
    statuses = {name: _status(folder / name) for name in names}
    return {name: status for name, status in statuses.items() if status.get("state") in BAD}


# -- one run ---------------------------------------------------------------------------------------


def run_one(
    name: str,
    settings: Settings,
    *,
    device: str,
    read: Manifest | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Run `folder/name.json` in `folder/name/` if it is to be run; never raises `Exception`.

    Other arguments as of `run`.

    Args:
        read: the manifest as the command read it, perhaps hours ago. An edit since then, before
            the run's turn or while it runs, is a failure that leaves the folder as it is.
    """
    path = settings.folder / name
    file = settings.folder / f"{name}.json"
    try:
        check_device(device)
        manifest = _now(file, read)
        outcome = settled(name, manifest, settings, read)
        if outcome is not None:
            lock.clear(path / "claim")
            return outcome

        with lock.hold(path / "claim", settings.timeout_s) as held:
            # another process may have finished it since
            outcome = settled(name, manifest, settings, read)
            if outcome is not None:
                if outcome.state == "skipped":
                    held.finish()
                return outcome

            run(
                manifest,
                path,
                device=device,
                data=settings.data,
                progress=settings.progress,
                reuse=stages.neighbours(file) if settings.reuse else None,
                accept_changes=settings.accept_changes,
                again=name in settings.again,
                claim=held,
                stop=stop,
            )

        if not settings.accept_changes:
            refuse_changes(RunFolder(path), _now(file, manifest))
    except (lock.Held, lock.ClaimLost) as error:
        return Outcome(name, "elsewhere", str(error))
    except Exception as error:  # the edge of a run: its folder has the traceback and the reason
        state = "diverged" if isinstance(error, Diverged) else "failed"
        return Outcome(name, state, f"{type(error).__name__}: {error}")
    return Outcome(name, "done")


def _now(file: Path, before: Manifest | None) -> Manifest:
    """The manifest in `file`; it is `before` if the text of that stands there."""
    if before is not None and content_of(file) == before.to_json().encode():
        return before
    return load(file)


def settled(
    name: str, manifest: Manifest, settings: Settings, read: Manifest | None = None
) -> Outcome | None:
    """The outcome of a run that is done, or has failed and is not to be tried again; else None.

    Raises:
        ManifestChanged: it was started with another manifest, or that has changed since it was
            `read`, and changes are not accepted.
    """
    files = RunFolder(settings.folder / name)
    try:
        status = files.status
    except ValueError:  # damaged: the run sets it aside
        status = {"state": "interrupted"}
    state = status["state"]
    if not settings.accept_changes:
        refuse_changes(files, manifest, read)
    elif not unchanged(files, manifest):
        return None

    if state == "done" and name not in settings.again:
        return Outcome(name, "skipped")
    if state in BAD and status != settings.retry.get(name):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.get("updated")))
        return Outcome(name, state, f"{status['reason']}, on {when}")
    return None
