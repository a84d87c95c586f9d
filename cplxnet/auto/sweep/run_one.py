"""One run among many: looked at, claimed, run if need be; its outcome is told, not raised."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cplxnet.auto.manifest.read import Manifest, load
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder, refuse_changes, unchanged
from cplxnet.auto.runner.run import check_device, run
from cplxnet.auto.runner.stages import neighbours
from cplxnet.auto.runner.stop import Stop
from cplxnet.auto.train.loop import Diverged

BAD = ("failed", "diverged")


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
    """What every run of a folder is run with; plain values, so that other machines can have them."""

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


def run_one(
    name: str,
    settings: Settings,
    *,
    device: str,
    read: Manifest | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Run `folder/name.json` in `folder/name/` if it is to be run; never raises `Exception`.

    Args:
        name: of the run.
        settings: of the command.
        device: as torch names it.
        read: the manifest as the command read it, perhaps hours ago. An edit since then, before
            the run's turn or while it runs, is a failure that leaves the folder as it is.
        stop: a request to stop, as of `run`.
    """
    path = settings.folder / name
    file = settings.folder / f"{name}.json"
    try:
        check_device(device)
        manifest = load(file)
        if read is not None and not settings.accept_changes:
            refuse_changes(RunFolder(path), manifest, read)
        outcome = settled(name, manifest, settings)
        if outcome is not None:
            lock.clear(path / "claim")
            return outcome

        with lock.hold(path / "claim", settings.timeout_s, stop=stop) as held:
            outcome = settled(name, manifest, settings)  # another may have finished it since
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
                reuse=neighbours(file) if settings.reuse else None,
                accept_changes=settings.accept_changes,
                again=name in settings.again,
                claim=held,
            )

        if not settings.accept_changes:
            refuse_changes(RunFolder(path), load(file))
    except (lock.Held, lock.ClaimLost) as error:
        return Outcome(name, "elsewhere", str(error))
    except Exception as error:  # the edge of a run: its folder has the traceback and the reason
        state = "diverged" if isinstance(error, Diverged) else "failed"
        return Outcome(name, state, f"{type(error).__name__}: {error}")
    return Outcome(name, "done")


def settled(name: str, manifest: Manifest, settings: Settings) -> Outcome | None:
    """The outcome of a run that is done, or has failed and is not to be tried again; else None.

    Raises:
        ManifestChanged: it was started with another manifest, and changes are not accepted.
    """
    files = RunFolder(settings.folder / name)
    try:
        status = files.status
    except ValueError:  # damaged: the run sets it aside
        status = {"state": "interrupted"}
    if not settings.accept_changes:
        refuse_changes(files, manifest)
    elif not unchanged(files, manifest):
        return None

    if status["state"] == "done" and name not in settings.again:
        return Outcome(name, "skipped")
    if status["state"] in BAD and status != settings.retry.get(name):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(status.get("updated")))
        return Outcome(name, status["state"], f"{status['reason']}, on {when}")
    return None
