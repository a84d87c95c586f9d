"""A run's folder: configuration, status, history, scores and snapshots, each file whole.

config.json      the manifest as resolved, package versions, git commit, device
status.json      state, stage, epoch, owner, reason, times, notes
history.jsonl    a line per epoch
<k>-<stage>.pt   the snapshot of a stage's end (tensors, plain values): weights, and the optimiser's
                 state if the next stage goes on with it
epoch-NNNN.pt    checkpoints of the stage at hand (`checkpoint`), removed when it is done
claim.N          who runs it (`lock`), removed when it is done
*.corrupt        a damaged snapshot or checkpoint, set aside
scores.json      all that the analysis needs
traceback.txt    where a failed run failed

And whether the manifest is still the one that the run was started with.
"""

import contextlib
import functools
import importlib.metadata
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cplxnet import files
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.progress import show

from . import lock

STATES = ("queued", "running", "done", "failed", "diverged", "interrupted")
PACKAGES = ("cplxnet", "torch", "numpy", "scipy", "h5py")


class RunFolder:
    """Reads and writes the files of one run; nothing here knows how a run is run.

    Args:
        path: of the folder.
        check: asked before every write; raises where the folder is another process's by now.
    """

    def __init__(self, path: str | Path, *, check: files.Check | None = None) -> None:
        self.path = Path(path)
        self.check = check
        self._config: dict[str, Any] | None = None  # what was read or written last
        self._status: dict[str, Any] | None = None  # what this process wrote last

    def start(self, manifest: Manifest, device: str) -> None:
        """Take the folder: write config.json and a status of running."""
        import torch  # late: it takes seconds, and reading a status needs none of it

        before = self.status
        files.sweep(self.path)  # of an attempt that was killed
        (self.path / "traceback.txt").unlink(missing_ok=True)

        config = {
            "manifest": manifest.to_dict(),
            "fingerprint": manifest.fingerprint(),
            "device": device,
            "packages": {name: _version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),  # sums on a CPU differ in their last bits with it
            "commit": _git_commit(),
        }
        files.write_json(self.path / "config.json", config, check=self.check)
        self._config = config

        now = time.time()
        status = {
            "state": "running",
            "owner": {"pid": os.getpid(), "host": socket.gethostname()},
            "started": now,
            "updated": now,
            "reason": None,
        }
        kept = {key: before[key] for key in ("stages", "notes") if key in before}
        self._write_status(status | kept)

    # -- config.json -------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds, empty where there is none; read once.

        Raises:
            ValueError: the file is damaged.
        """
        if self._config is None:
            path = self.path / "config.json"
            config = _read(path) or {}
            if not isinstance(config.get("manifest", {}), dict):
                raise _damaged(path, "a manifest", config["manifest"])
            self._config = config
        return self._config

    # -- status.json -------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        """The status as last written; a folder that is not there is queued.

        Results that were kept without status.json, as in `runs/reference`, are done if every stage
        has its scores.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path / "status.json"
        status = _read(path) or {"state": "done" if self._whole() else "queued"}
        if status.get("state") not in STATES or not _all_dicts(status.get("stages", {})):
            raise _damaged(path, f"a state of {', '.join(STATES)} and its stages", status)
        return status

    def _whole(self) -> bool:
        """Whether config.json and scores.json say that every stage of the run was trained."""
        asked = self.config.get("manifest", {}).get("stage_order")
        return bool(asked) and list((self.scores or {}).get("stages", {})) == asked

    def update(self, **changes: Any) -> None:
        """Change keys of the status: state, stage, epoch, n_epochs, reason."""
        self._write_status(self._written_status() | changes | {"updated": time.time()})

    def _written_status(self) -> dict[str, Any]:
        """The status without reading it again: only the process with the claim writes it."""
        return self.status if self._status is None else self._status

    def _write_status(self, status: dict[str, Any]) -> None:
        if status["state"] not in STATES:
            raise ValueError(f"expected a state of {', '.join(STATES)}, got {status['state']!r}")
        files.write_json(self.path / "status.json", plain(status), check=self.check)
        self._status = status

    def note(self, text: str) -> None:
        """Say what had to be put right, on the terminal and in the status."""
        show(f"{self.path.name}: {text}", sys.stderr)
        self.update(notes=[*self._written_status().get("notes", []), text])

    def set_aside(self, path: Path, error: Exception) -> None:
        """Rename a damaged file to *.corrupt and note it."""
        path.replace(path.with_name(f"{path.name}.corrupt"))
        self.note(f"{path.name} is damaged and set aside as {path.name}.corrupt: {error}")

    def record(self, state: str, error: BaseException) -> None:
        """Write what ended the run, as far as possible: traceback.txt, the state and its reason."""
        # a full disk, a damaged status, a folder that is another's
        unwritable = (OSError, ValueError, lock.ClaimLost)
        with contextlib.suppress(*unwritable):
            self.write_traceback("".join(traceback.format_exception(error)))
        with contextlib.suppress(*unwritable):
            self.update(state=state, reason=f"{type(error).__name__}: {error}")

    def write_traceback(self, text: str) -> None:
        """Write traceback.txt."""
        files.write_text(self.path / "traceback.txt", text, check=self.check)

    # -- scores, history, snapshots ----------------------------------------------------------------

    @property
    def scores(self) -> dict[str, Any] | None:
        """What scores.json holds, None where there is none yet.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.path / "scores.json"
        scores = _read(path)
        if scores is not None and not _all_dicts(scores.get("stages", {})):
            raise _damaged(path, "scores of stages", scores)
        return scores

    def write_scores(self, scores: dict[str, Any]) -> None:
        """Write scores.json; NaN and infinity become null."""
        files.write_json(self.path / "scores.json", plain(scores), check=self.check)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch, in order. For readers: a run has its history from checkpoints."""
        path = self.path / "history.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]

    def write_history(self, lines: list[dict[str, Any]]) -> None:
        """Write history.jsonl; NaN and infinity become null."""
        text = "".join(json.dumps(plain(line), allow_nan=False) + "\n" for line in lines)
        files.write_text(self.path / "history.jsonl", text, check=self.check)

    def snapshot(self, number: int, stage: str) -> Path:
        """The path of a stage's snapshot; number: the stage's place in the manifest, from 0."""
        return self.path / f"{number}-{stage}.pt"


# -- has the manifest changed? ---------------------------------------------------------------------


class ManifestChanged(ValueError):
    """The manifest has changed since its run was started."""


def unchanged(folder: RunFolder, manifest: Manifest) -> bool:
    """Whether the folder's run, if it was started, was started with this manifest.

    Defaults are written out first, so that a default spelt out, or one that a newer version has
    added, is no change.
    """
    config = folder.config
    if not config or config.get("fingerprint") == manifest.fingerprint():
        return True
    return _manifest_of(config) == _flat(manifest)


def refuse_changes(folder: RunFolder, manifest: Manifest, read: Manifest | None = None) -> None:
    """Raise ManifestChanged if the run was started with another manifest; the text has both.

    Args:
        folder: of the run.
        manifest: as it is now.
        read: as the command read it, perhaps hours ago: what a run counts from that is not started
            yet.
    """
    if folder.config:
        if unchanged(folder, manifest):
            return
        before = _manifest_of(folder.config) or {}
        fingerprint = str(folder.config.get("fingerprint"))
        which, when = "this run was started with", "when it was started"
        advice = (
            "try the manifest as it was, another folder, or --accept-changes "
            "(accept_changes=True), which keeps the stages that the change does not touch"
        )
    else:
        if read is None or _flat(read) == _flat(manifest):
            return
        before = _flat(read)
        fingerprint = read.fingerprint()
        which, when = "this command has read", "when the command was started"
        advice = "try the same command again: it runs the manifest as it is now"

    now = _flat(manifest)
    versions = f"({fingerprint[:12]} {when}, {manifest.fingerprint()[:12]} now)"
    lines = [
        f"  {path}: {before.get(path)!r} {when}, {now.get(path)!r} now"
        for path in {**before, **now}
        if before.get(path) != now.get(path)
    ]
    first = f"{folder.path}: expected the manifest that {which}, got another {versions}:"
    raise ManifestChanged("\n".join([first, *lines, advice]))


def _manifest_of(config: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest in a config.json, flat; None where it cannot be read by this version."""
    try:
        return _flat(Manifest.model_validate(config["manifest"]))
    except (KeyError, ValidationError):
        return None


def _flat(manifest: Manifest) -> dict[str, Any]:
    """Dotted path -> value, with every default written out."""

    def leaves(raw: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in raw.items():
            if isinstance(value, dict):
                flat |= leaves(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value
        return flat

    return leaves(manifest.resolved().to_dict())


# -- JSON ------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """`value` with NaN and infinite numbers as None, which JSON can say."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read(path: Path) -> Any:
    try:
        return _parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def _parse(text: str | bytes, source: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or brackets without end
        raise _damaged(source, "JSON as this package writes it", error) from error
    if not isinstance(value, dict):
        raise _damaged(source, "a JSON object", value)
    return value


def _all_dicts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, dict) for value in values.values())


def _damaged(source: str | Path, wanted: str, found: object) -> ValueError:
    shown = str(found) if isinstance(found, Exception) else f"{found!r:.60}"
    return ValueError(f"{source}: expected {wanted}, got {shown}; delete the file to run again")


@functools.cache  # what this process has imported stays what it is
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _git_commit() -> str | None:
    """The commit of this package's checkout, with '+' for uncommitted changes; None outside one.

    As it was when this process began its first run: a grid of days goes on with the code that it
    imported then.
    """

    def git(*arguments: str) -> str:
        package = Path(__file__).parents[2]
        return subprocess.check_output(
            ["git", *arguments], cwd=package, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
