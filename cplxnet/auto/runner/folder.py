"""A run's folder: configuration, status, history, scores and snapshots, each file whole.

`extra/design.md` says what is in each.

A run is done if its status says so, scores.json is as it was written, and the snapshots have the
sizes that they had. If there is no snapshot at all they are kept elsewhere, and the run is done all
the same, as in the repository's `runs/reference`. If only some are there, others are lost: the run
counts as interrupted, and the next one makes them again. What is inside a snapshot is compared with
its checksum when it is read (`cplxnet.files`).

And whether the manifest, the data, the kind of device and torch are still those that the run was
started with.
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
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ValidationError

from cplxnet import files
from cplxnet.auto.manifest.read import Manifest
from cplxnet.progress import show

from . import lock

State = Literal["queued", "running", "done", "failed", "diverged", "interrupted"]
STATES: tuple[State, ...] = get_args(State)
PACKAGES = ("cplxnet", "torch", "numpy", "scipy", "h5py")
ADVICE = {  # on a damaged file
    "config.json": "delete it, and the next run takes the manifest as it is now",
    "status.json": "the next run sets it aside",
    "scores.json": "the next run sets it aside and scores the snapshots again (or trains, if they "
    "are not here)",
    "history.jsonl": "`run --again` writes it anew from the snapshots",
}


class RunFolder:
    """Reads and writes the files of one run; nothing here knows how a run is run.

    Whatever is read raises ValueError where its file is damaged; the text names the file.

    Args:
        path: of the folder.
        check: asked before every write; raises where the folder is another process's by now.
    """

    def __init__(self, path: str | Path, *, check: files.Check | None = None) -> None:
        self.path = Path(path)
        self.check = check
        self._status: dict[str, Any] | None = None  # what this process wrote last

    def start(
        self, manifest: Manifest, device: str, trained_on: Mapping[str, str] | None = None
    ) -> None:
        """Take the folder: write config.json and a status of running.

        trained_on: as of `Components`.
        """
        import torch  # late: it takes seconds, and reading a status needs none of it

        aside = []
        reads = {"status.json": self.written_status, "scores.json": lambda: self.scores}
        for name, read in reads.items():
            try:
                read()
            except ValueError as error:
                aside.append(_put_aside(self.path / name, error))

        before = self.status
        kernels_before = self.config.get("kernels")
        files.sweep(self.path)  # of an attempt that was killed
        (self.path / "traceback.txt").unlink(missing_ok=True)

        config = {
            "manifest": manifest.to_dict(),
            "fingerprint": manifest.fingerprint(),
            "device": device,
            "trained_on": dict(trained_on or {}),
            "packages": {name: _version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),  # sums on a CPU differ in their last bits with it
            "kernels": _kernels(device),  # and with these
            "commit": _git_commit(Path(__file__).parents[2]),
        }
        files.write_json(self.path / "config.json", config, check=self.check)
        self.config = config

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
        for text in aside:
            self.note(text)
        if kernels_before not in (None, config["kernels"]):
            self.note(
                f"begun with {kernels_before}, goes on with {config['kernels']}: "
                "the last bits may differ from those of an undisturbed run"
            )

    # -- config.json -------------------------------------------------------------------------------

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """What config.json holds, empty where there is none; read once."""
        path = self.path / "config.json"
        config = _object(path)
        kinds = {"manifest": dict, "trained_on": dict, "threads": int}
        for key, kind in kinds.items():
            if key in config and not isinstance(config[key], kind):
                raise _damaged(path, f"{key} as {kind.__name__}", config[key])
        return config

    # -- status.json -------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        """The status as last written; a folder that is not there is queued.

        Results that were kept without status.json are done if every stage has its scores. A run
        that was done and has lost a file since is interrupted.
        """
        status = self.written_status()
        if not status:
            return {"state": "done" if self._has_scores() else "queued"}

        lost = self._lost(status)
        if lost:
            status |= {"state": "interrupted", "reason": f"{lost}; the next run makes it again"}
        return status

    def written_status(self) -> dict[str, Any]:
        """What status.json says, empty where there is none; other files are not looked at."""
        path = self.path / "status.json"
        status = _object(path)
        dicts = (status.get("stages", {}), status.get("files", {}))
        if status and (status.get("state") not in STATES or not all(map(_all_dicts, dicts))):
            raise _damaged(path, f"a state of {', '.join(STATES)}, its stages and files", status)
        return status

    def _lost(self, status: dict[str, Any]) -> str:
        """Which file a finished run has lost since, or has damaged, in words; empty if none."""
        if status["state"] != "done":
            return ""

        if "files" not in status:  # of before 2026-12
            _ = self.config  # or a damaged one would count as damage to scores.json
            with contextlib.suppress(ValueError):
                return "" if self._has_scores() else "scores.json is lost"
            return "scores.json is damaged"

        snapshots = [name for name in status["files"] if name.endswith(".pt")]
        for name in ("scores.json", *(snapshots if self.snapshots() else ())):
            path = self.path / name
            if not path.exists():
                return f"{name} is lost"
            if _size(path) != status["files"].get(name):
                return f"{name} is damaged"
        return ""

    def _has_scores(self) -> bool:
        """Whether every stage of the manifest in config.json has its scores."""
        asked = self.config.get("manifest", {}).get("stage_order")
        return bool(asked) and list((self.scores or {}).get("stages", {})) == asked

    def verify(self) -> list[str]:
        """Read every file of the run: a sentence on each that is damaged, or on one that is lost.

        What is lost is looked for only where nothing is damaged.
        """
        texts = ("config", "status", "scores", "history")
        reads = [functools.partial(getattr, self, name) for name in texts]
        reads += [functools.partial(self.read_snapshot, path) for path in self.snapshots()]
        faults = []
        for read in reads:
            try:
                read()
            except (OSError, ValueError) as error:  # a disk that fails, too
                faults.append(str(error))

        if faults:
            return faults
        status = {"state": "", "files": {}, **self.written_status()}
        if status["state"] == "done":
            wanted = ["config.json", *({"history.jsonl"} & status["files"].keys())]
            faults += [f"{name} is lost" for name in wanted if not (self.path / name).exists()]
        if lost := self._lost(status):
            faults.append(lost)
        return faults

    def finish(self) -> None:
        """Mark the run as done, with the sizes of its files."""
        texts = (self.path / "scores.json", self.path / "history.jsonl")
        sizes = {path.name: _size(path) for path in (*texts, *self.snapshots())}
        self.update(state="done", reason=None, files=sizes)

    def update(self, **changes: Any) -> None:
        """Change keys of the status: state, stage, epoch, n_epochs, reason."""
        self._write_status(self._current() | changes | {"updated": time.time()})

    def _current(self) -> dict[str, Any]:
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
        self.update(notes=[*self._current().get("notes", []), text])

    def set_aside(self, path: Path, error: Exception) -> None:
        """Rename a damaged file to *.corrupt and note it."""
        self.note(_put_aside(path, error))

    def record(self, state: State, reason: str, trace: str) -> None:
        """Write what ended the run, as far as possible: traceback.txt, the state and its reason."""
        # a full disk, a damaged status, a folder that is another's
        unwritable = (OSError, ValueError, lock.ClaimLost)
        with contextlib.suppress(*unwritable):
            files.write_text(self.path / "traceback.txt", trace, check=self.check)
        with contextlib.suppress(*unwritable):
            self.update(state=state, reason=reason)

    # -- scores, history, snapshots ----------------------------------------------------------------

    @property
    def scores(self) -> dict[str, Any] | None:
        """What scores.json holds, None where there is none yet."""
        path = self.path / "scores.json"
        content = self._content(path)
        if content is None:
            return None

        scores = _parse(content, path)
        if not _all_dicts(scores.get("stages", {})):
            raise _damaged(path, "scores of stages", scores)
        return scores

    def write_scores(self, scores: dict[str, Any]) -> None:
        """Write scores.json; NaN and infinity become null."""
        files.write_json(self.path / "scores.json", plain(scores), check=self.check)

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict per epoch, in order. For readers: a run has its history from checkpoints."""
        path = self.path / "history.jsonl"
        lines = (self._content(path) or b"").splitlines()
        return [_parse(line, path, f", line {number}") for number, line in enumerate(lines, 1)]

    def _content(self, path: Path) -> bytes | None:
        """A file's bytes, None if there is none; ValueError: not those of when the run was done."""
        if not path.exists():
            return None

        status: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # damaged: it does not say
            status = self.written_status()
        recorded = status.get("files", {}).get(path.name)
        content = path.read_bytes()
        size = _text_size(content)
        if status.get("state") == "done" and recorded not in (None, size):
            raise _damaged(path, f"{recorded}, as when the run was done", size)
        return content

    def write_history(self, lines: list[dict[str, Any]]) -> None:
        """Write history.jsonl; NaN and infinity become null."""
        text = "".join(json.dumps(plain(line), allow_nan=False) + "\n" for line in lines)
        files.write_text(self.path / "history.jsonl", text, check=self.check)

    def snapshot(self, number: int, stage: str) -> Path:
        """The path of a stage's snapshot; number: the stage's place in the manifest, from 0."""
        return self.path / f"{number}-{stage}.pt"

    def snapshots(self) -> list[Path]:
        """The snapshots that are here, in order."""
        return sorted(self.path.glob("[0-9]*-*.pt"))

    def read_snapshot(self, path: Path) -> dict[str, Any]:
        """What one of the snapshots holds.

        Raises:
            ValueError: it is damaged, or is not what scores.json has the scores of.
        """
        snapshot = files.read_tensors(path)
        stages: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # damaged: it does not say
            stages = (self.scores or {}).get("stages") or {}

        # one in another place is of an order of stages that has changed since
        own = {
            self.snapshot(k, name).name: stages[name].get("key") for k, name in enumerate(stages)
        }
        if own.get(path.name) not in (None, snapshot.get("key")):
            raise ValueError(
                f"{path}: expected what scores.json has the scores of, got a snapshot of another "
                "run or of other settings"
            )
        return snapshot


# -- may the run go on here? -----------------------------------------------------------------------


class ManifestChanged(ValueError):
    """The manifest, or what it is trained on, has changed since its run was started."""


def unchanged(folder: RunFolder, manifest: Manifest) -> bool:
    """Whether the folder's run, if it was started, was started with this manifest.

    Defaults are written out first, so that a default spelt out, or one that a newer version has
    added, is no change.
    """
    config = folder.config
    if not config or config.get("fingerprint") == manifest.fingerprint():
        return True
    return _values(config) == manifest.flatten()


def refuse_changes(folder: RunFolder, manifest: Manifest, read: Manifest | None = None) -> None:
    """Raise ManifestChanged if the run was started with another manifest; the text has both.

    What a run counts from that is not started yet is the manifest as the command has `read` it,
    perhaps hours ago.
    """
    if folder.config:
        if unchanged(folder, manifest):
            return
        before = _values(folder.config)
        fingerprint = str(folder.config.get("fingerprint"))
        started_phrase = "this run was started with"
        when_phrase = "when it was started"
        advice = (
            "try the manifest as it was, another folder, or --accept-changes "
            "(accept_changes=True), which keeps the stages that the change does not touch"
        )
    else:
        if read is None or read.flatten() == manifest.flatten():
            return
        before = read.flatten()
        fingerprint = read.fingerprint()
        started_phrase = "this command has read"
        when_phrase = "when the command was started"
        advice = "try the same command again: it runs the manifest as it is now"

    now = manifest.flatten()
    versions = f"({fingerprint[:12]} {when_phrase}, {manifest.fingerprint()[:12]} now)"
    lines = _differences(before, now, when_phrase)
    first = f"{folder.path}: expected the manifest that {started_phrase}, got another {versions}:"
    raise ManifestChanged("\n".join([first, *lines, advice]))


def refuse_retraining(folder: RunFolder, trained_on: Mapping[str, str]) -> None:
    """Raise ManifestChanged if networks in the folder were trained on something else: all of them
    would be trained again, and replaced.

    Args:
        folder: of the run; what an older config.json does not say is not compared.
        trained_on: as of `Components`, now.
    """
    if not any(folder.path.glob("*.pt")):
        return

    before = folder.config.get("trained_on", {})
    now = {what: trained_on.get(what) for what in before}
    lines = _differences(before, now, "when it was started")
    if lines:
        first = (
            f"{folder.path}: expected the data, kind of device and torch that this run was started "
            "with, got others:"
        )
        advice = (
            "try those as they were (--data, --devices), or --accept-changes "
            "(accept_changes=True), which trains again what it has trained so far"
        )
        raise ManifestChanged("\n".join([first, *lines, advice]))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], when: str) -> list[str]:
    """A line for each entry that is not as it was; when: in words, "when it was started"."""
    return [
        f"  {path}: {before.get(path)!r} {when}, {now.get(path)!r} now"
        for path in {**before, **now}
        if before.get(path) != now.get(path)
    ]


def refuse_grid(folder: RunFolder) -> None:
    """Check that a run does not begin in a folder of manifests, which its files would make a run's.

    Raises:
        ValueError: there are manifests.
    """
    names = {path.name for path in folder.path.glob("*.json")}
    if names and names.isdisjoint(ADVICE):  # or it is a run's already
        raise ValueError(
            f"{folder.path}: expected a folder of the run's own, got a folder of manifests; try "
            f"{folder.path / 'NAME'}, beside NAME.json"
        )


def _values(config: dict[str, Any]) -> dict[str, Any]:
    """The manifest in a config.json, flat; empty where this version cannot read it."""
    try:
        return Manifest.model_validate(config["manifest"]).flatten()
    except (KeyError, ValidationError):
        return {}


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


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file."""
    try:
        return _parse(path.read_bytes(), path)
    except FileNotFoundError:
        return {}


def _parse(text: bytes, path: Path, where: str = "") -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or brackets without end
        raise _damaged(path, "JSON as this package writes it", error, where) from error
    if not isinstance(value, dict):
        raise _damaged(path, "a JSON object", value, where)
    return value


def _all_dicts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, dict) for value in values.values())


def _damaged(path: Path, expected: str, got: object, where: str = "") -> ValueError:
    shown = str(got) if isinstance(got, Exception) else f"{got!r:.60}"
    return ValueError(f"{path}{where}: expected {expected}, got {shown}; {ADVICE[path.name]}")


def _put_aside(path: Path, error: Exception) -> str:
    path.replace(path.with_name(f"{path.name}.corrupt"))
    return f"{path.name} is damaged and set aside as {path.name}.corrupt: {error}"


def _size(path: Path) -> dict[str, int]:
    """A file's size in bytes; of text the CRC-32 too: snapshots have their own inside."""
    return {"bytes": path.stat().st_size} if path.suffix == ".pt" else _text_size(path.read_bytes())


def _text_size(content: bytes) -> dict[str, int]:
    return {"bytes": len(content), "crc32": zlib.crc32(content)}


@functools.cache  # an upgrade on disk does not change what this process has imported
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _kernels(device: str) -> str:
    """What computes the formulas that have a fast form on this device."""
    import torch

    from cplxnet.nn.fast import dispatch, gpu

    number = torch.ones(1, device=device)
    if dispatch.native_usable(number):
        return "C functions"
    return "Triton kernels" if gpu.usable(number) else "plain formulas"


@functools.cache
def _git_commit(folder: Path) -> str | None:
    """The commit of a folder's checkout, with '+' for uncommitted changes in it; None outside one.

    As it was when this process began its first run: a grid of days goes on with the code that it
    imported then.
    """

    def git(*arguments: str) -> str:
        # without its lock: killed while it holds that, git would refuse to pull or commit
        command = ["git", "--no-optional-locks", *arguments]
        return subprocess.check_output(
            command, cwd=folder, stderr=subprocess.DEVNULL, text=True, timeout=10
        ).strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None
