"""A run's folder: configuration, status, history, scores and snapshots, each file written whole or not at all.

config.json      the manifest as resolved, package versions, git commit, device
status.json      state, stage, epoch, owner, reason, times, notes
history.jsonl    a line per epoch
<k>-<stage>.pt   a stage's end (tensors, plain values): weights, and the optimiser's state if the next goes on with it
epoch-NNNN.pt    checkpoints of the stage at hand (`checkpoint`), removed when it is done
claim.N          who runs it (`claim`), removed when it is done
*.corrupt        a damaged snapshot or checkpoint, set aside
scores.json      all that the analysis needs
traceback.txt    where a failed run failed
"""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cplxnet import files
from cplxnet.auto.manifest.read import Manifest

STATES = ("queued", "running", "done", "failed", "diverged", "interrupted")
PACKAGES = ("cplxnet", "torch", "numpy", "scipy", "h5py")


class RunFolder:
    """Reads and writes the files of one run; nothing here knows how a run is run.

    check: called before every write; raises where the folder is another process's by now.
    """

    def __init__(self, path: str | Path, *, check: Callable[[], None] | None = None) -> None:
        self.path, self.check = Path(path), check

    def start(self, manifest: Manifest, device: str) -> None:
        """Take the folder: write config.json and a status of running."""
        import torch  # late: it takes seconds, and reading a status needs none of it

        config = {
            "manifest": manifest.to_dict(),
            "fingerprint": manifest.fingerprint(),
            "device": device,
            "packages": {name: _version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),  # sums on a CPU differ in their last bits with it
            "commit": _git_commit(),
        }
        before = self.status
        files.sweep(self.path)  # of an attempt that was killed
        (self.path / "traceback.txt").unlink(missing_ok=True)
        files.write_json(self.path / "config.json", config, check=self.check)
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        now = time.time()
        status = {
            "state": "running",
            "owner": owner,
            "started": now,
            "updated": now,
            "reason": None,
        }
        self._write_status(
            status | {key: before[key] for key in ("stages", "notes") if key in before}
        )

    @property
    def config(self) -> dict[str, Any]:
        """What config.json holds, empty where there is none. Raises ValueError where it is damaged."""
        path = self.path / "config.json"
        config = _read(path) or {}
        if not isinstance(config.get("manifest", {}), dict):
            raise _damaged(path, "a manifest", config["manifest"])
        return config

    @property
    def status(self) -> dict[str, Any]:
        """The status as last written; a folder that is not there is queued.

        Results that were kept without status.json, as in `runs/reference`, are done if every stage has its scores.

        Raises ValueError where the file is damaged.
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
        self._write_status(self.status | changes | {"updated": time.time()})

    def note(self, text: str) -> None:
        """Say what had to be put right, on the terminal and in the status."""
        print(f"{self.path.name}: {text}", file=sys.stderr)
        self.update(notes=[*self.status.get("notes", []), text])

    def set_aside(self, path: Path, error: Exception) -> None:
        """Rename a damaged file to *.corrupt and note it."""
        path.replace(path.with_name(f"{path.name}.corrupt"))
        self.note(f"{path.name} is damaged and set aside as {path.name}.corrupt: {error}")

    def _write_status(self, status: dict[str, Any]) -> None:
        if status["state"] not in STATES:
            raise ValueError(f"expected a state of {', '.join(STATES)}, got {status['state']!r}")
        files.write_json(self.path / "status.json", plain(status), check=self.check)

    @property
    def scores(self) -> dict[str, Any] | None:
        """What scores.json holds, None where there is none yet. Raises ValueError where it is damaged."""
        path = self.path / "scores.json"
        scores = _read(path)
        if scores is not None and not _all_dicts(scores.get("stages", {})):
            raise _damaged(path, "scores of stages", scores)
        return scores

    def write_scores(self, scores: dict[str, Any]) -> None:
        files.write_json(self.path / "scores.json", plain(scores), check=self.check)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch, in the order they were trained."""
        path = self.path / "history.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]

    def write_history(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(plain(line), allow_nan=False) + "\n" for line in lines)
        files.write_text(self.path / "history.jsonl", text, check=self.check)

    def snapshot(self, number: int, stage: str) -> Path:
        """The path of a stage's snapshot."""
        return self.path / f"{number}-{stage}.pt"

    def write_traceback(self, text: str) -> None:
        files.write_text(self.path / "traceback.txt", text, check=self.check)


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
    """The commit of the checkout this package lies in, with '+' for uncommitted changes; None outside one.

    As it was when this process began its first run: a grid of days goes on with the code that it imported then.
    """
    here = Path(__file__).parents[1]  # cplxnet/auto
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "."],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
