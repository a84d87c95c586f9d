"""Many runs: every manifest of a folder, one after another, each in the folder of its name."""

from pathlib import Path
from typing import Any, NamedTuple

from . import grid
from .epoch import Diverged
from .folder import RunFolder
from .progress import bar
from .runner import check_device, run


class Outcome(NamedTuple):
    """How one run ended: its name, its state (done, skipped, failed, diverged) and the reason where it failed."""

    name: str
    state: str
    reason: str | None = None


def run_many(
    folder: str | Path,
    *,
    device: str = "cpu",
    data: str | Path = "data",
    progress: bool = True,
    retry_failed: bool = True,
    reuse: bool = True,
) -> list[Outcome]:
    """Run every manifest `folder/<name>.json` in `folder/<name>/` that is not done yet; returns an outcome for each.

    All manifests are read and checked before the first is run. A run that fails is reported in its own folder and in
    the outcomes, and the next one begins; Ctrl-C ends them all. A stage that two manifests share is trained once.

    Raises
    ------
    ManifestError: a manifest is faulty, or there is none; ValueError: no such device.
    """
    folder = Path(folder)
    manifests = grid.read(folder)
    check_device(device)
    outcomes = []
    with bar(manifests, desc=folder.name, unit="run", disable=not progress) as shown:
        for name in shown:
            shown.set_postfix_str(name)
            others = [folder / other for other in manifests if other != name] if reuse else []
            outcomes.append(_run_one(manifests[name], folder / name, others, retry_failed, device, data, progress))
    return outcomes


def _run_one(
    manifest: Any, path: Path, others: list[Path], retry_failed: bool, device: str, data: str | Path, progress: bool
) -> Outcome:
    files = RunFolder(path)
    try:
        state = files.status["state"]
        if state == "done" and files.config.get("fingerprint") == manifest.fingerprint():
            return Outcome(path.name, "skipped")
        if state in ("failed", "diverged") and not retry_failed:
            return Outcome(path.name, state, files.status["reason"])
        run(manifest, path, device=device, data=data, progress=progress, reuse=others)
    except Exception as error:  # the edge of a run: its folder has the traceback and the reason, the summary has both
        state = "diverged" if isinstance(error, Diverged) else "failed"
        return Outcome(path.name, state, f"{type(error).__name__}: {error}")
    return Outcome(path.name, "done")
