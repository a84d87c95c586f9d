"""A claim: one process, of any on any host that sees the folder, has a piece of work.

A claim on `place` is a file `place.N`; the highest N counts. Each is made under another name and hard-linked, which one
of several processes can do. Nobody removes the file of a live owner: taking over from one that is gone means linking
`place.N+1`, so two takers cannot both succeed and a late one cannot take what a quick one has just got. A claim given
up stays as a file that says so; one that is finished for good is removed (whoever claims again finds the work done).

The owner touches its file every `timeout_s`/12. It is gone if its process is known to have ended, or if nobody has seen
the file touched for `timeout_s`. That time is counted by the watcher while it watches itself, at most a quarter of it
between two looks: clocks of different hosts are never compared, and a machine that slept takes nothing over on waking.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Self

from .owner import Owner

TIMEOUT_S = 60.0


class Held(RuntimeError):
    """Another live process has the claim."""


class ClaimLost(RuntimeError):
    """The claim was taken over, since its owner was silent for too long."""


class Claim:
    """A claim that this process has, from `hold` to the end of the `with` block."""

    def __init__(self, place: Path, generation: int, timeout_s: float) -> None:
        self.place, self.generation, self.timeout_s = place, generation, timeout_s
        self.path = _file(place, generation)
        self._ended, self._lost, self._finished = threading.Event(), False, False
        self._thread = threading.Thread(target=self._beat, args=(timeout_s / 12,), daemon=True)
        self._thread.start()

    def _beat(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            now = time.time_ns()
            try:
                os.utime(self.path, ns=(now, now))
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:  # a file system that is away for a while: the watchers decide
                continue
            self._lost = self._lost or _file(self.place, self.generation + 1).exists()

    def check(self) -> None:
        """Raise ClaimLost if a heartbeat has found that the claim is another's by now; costs nothing."""
        if self._lost:
            raise ClaimLost(
                f"{self.path}: taken over by another process; this one leaves the work to it"
            )

    def verify(self) -> None:
        """The same, looking at the files now: before every write."""
        self._lost = (
            self._lost or not self.path.exists() or _file(self.place, self.generation + 1).exists()
        )
        self.check()

    def finish(self) -> None:
        """The work is done for good: the end of the block removes the file."""
        self._finished = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError, ClaimLost):
            self.verify()
            if self._finished:
                self.path.unlink()
            else:
                _publish(self.path, {"released": True}, replace=True)


def hold(place: str | Path, timeout_s: float = TIMEOUT_S) -> Claim:
    """Claim `place`, a path whose folder is made if need be; use it in a `with` statement.

    timeout_s: the silence, in seconds, after which others may take this claim over.

    Raises Held, naming the owner, if a live process has it; OSError if the folder cannot be written.
    """
    place = Path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    there = newest(place)
    if there is not None and not there.free():
        raise Held(f"{place.parent}: held by {there.owner}")
    generation = 1 if there is None else there.generation + 1
    about = {
        "owner": Owner.me()._asdict(),
        "timeout_s": timeout_s,
        "token": uuid.uuid4().hex,
        "released": False,
    }
    try:
        _publish(_file(place, generation), about)
    except FileExistsError:
        raise Held(f"{place.parent}: just claimed by another process") from None
    after = newest(place)
    if after is not None and after.generation != generation:
        _file(place, generation).unlink(missing_ok=True)
        raise Held(f"{place.parent}: just claimed by another process")
    for older in _generations(place):
        if older < generation:
            _file(place, older).unlink(missing_ok=True)
    return Claim(place, generation, timeout_s)


class Found(NamedTuple):
    """A claim as found on disk."""

    path: Path
    generation: int
    owner: Owner | None
    timeout_s: float
    released: bool

    def free(self) -> bool:
        """Whether it may be taken: given up, or its owner is gone."""
        if self.released or (self.owner is not None and self.owner.gone()):
            return True
        return _watched.silence(self.path) >= self.timeout_s


def newest(place: str | Path) -> Found | None:
    """The claim on `place` that counts; None if there is none."""
    for generation in sorted(_generations(Path(place)), reverse=True):
        path = _file(Path(place), generation)
        with contextlib.suppress(FileNotFoundError):
            return _read(path, generation)
    return None


def _read(path: Path, generation: int) -> Found:
    try:
        about = json.loads(path.read_bytes())
        owner = Owner(**about["owner"]) if "owner" in about else None
        return Found(
            path,
            generation,
            owner,
            float(about.get("timeout_s", TIMEOUT_S)),
            bool(about["released"]),
        )
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # not written by us, or damaged: only silence tells
        return Found(path, generation, None, TIMEOUT_S, False)


class _Watched:
    """How long this process has watched each claim without seeing it touched."""

    def __init__(self) -> None:
        self._seen: dict[
            Path, tuple[int, float, float]
        ] = {}  # touched, looked (monotonic), silence

    def silence(self, path: Path) -> float:
        """Seconds of silence of a claim, counted over the calls of this method."""
        now, touched = time.monotonic(), path.stat().st_mtime_ns if path.exists() else 0
        before = self._seen.get(path)
        if before is None or before[0] != touched:
            self._seen[path] = (touched, now, 0.0)
            return 0.0
        step = min(now - before[1], _read(path, 0).timeout_s / 4)
        self._seen[path] = (touched, now, before[2] + step)
        return before[2] + step


_watched = _Watched()


def _file(place: Path, generation: int) -> Path:
    return place.with_name(f"{place.name}.{generation}")


def _generations(place: Path) -> list[int]:
    endings = (
        name.name.removeprefix(f"{place.name}.") for name in place.parent.glob(f"{place.name}.*")
    )
    return [int(ending) for ending in endings if ending.isdecimal()]


def _publish(path: Path, about: dict[str, Any], *, replace: bool = False) -> None:
    """Make the file at once and whole; FileExistsError if it is there, unless `replace`."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.draft")
    try:
        draft.write_text(json.dumps(about))
        if replace:
            os.replace(draft, path)
        else:
            _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        if (
            draft.stat().st_nlink < 2
        ):  # NFS may have done it and lost the answer (link(2), open(2) on O_EXCL)
            raise
    except (
        PermissionError
    ):  # a file system without hard links (FAT, some FUSE): made empty at once, filled next
        with path.open("xb") as file:
            file.write(draft.read_bytes())
