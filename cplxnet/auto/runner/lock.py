"""A claim: one process, of any on any host that sees the folder, has a piece of work.

A claim on `place` is a file `place.N`; the highest N counts. Of several processes that make the
same file, one succeeds. Nobody removes the file of a live owner: taking over from one that is gone
means making `place.N+1`, so two takers cannot both succeed and a late one cannot take what a quick
one has just got. A claim given up stays as a file that says so; one that is finished for good is
removed (whoever claims again finds the work done).

The owner touches its file every `timeout_s`/12. It is gone if its process is known to have ended,
or if nobody has seen the file touched for `timeout_s`. That time is counted by the watcher while it
watches itself, at most a quarter of it between two looks: clocks of different hosts are never
compared, and a machine that slept takes nothing over on waking.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from cplxnet import files

TIMEOUT_S = 60.0


class Held(RuntimeError):
    """Another live process has the claim."""


class ClaimLost(RuntimeError):
    """The claim was taken over, since its owner was silent for too long."""


def check_timeout(timeout_s: float) -> float:
    """`timeout_s` if a claim can have it.

    Raises:
        ValueError: it is below a second, so that two processes would do one piece of work; or it
            is not finite, so that a dead process would keep its claim for ever.
    """
    if not 1 <= timeout_s < math.inf:
        raise ValueError(f"expected a timeout of at least a second, got {timeout_s:g}; try 60")
    return timeout_s


class Owner(NamedTuple):
    """A process, told apart from all others."""

    pid: int
    host: str  # its machine's name, for people
    machine: str  # the scope of `pid`; empty: unknown, then only heartbeats count
    began: int | None  # when it started, in clock ticks; None: unknown

    @classmethod
    def me(cls) -> Owner:
        """The calling process."""
        return cls(os.getpid(), socket.gethostname(), files.machine(), _began(os.getpid()))

    def gone(self) -> bool:
        """True if the process is known to have ended; False of one on another machine."""
        if not self.machine or self.machine != files.machine():
            return False

        if files.ended(self.pid):
            return True

        began = _began(self.pid)  # where /proc hides other users' processes, only the number tells
        return began is not None and began != self.began

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _began(pid: int) -> int | None:
    """When a process of this machine began, -1 if it only waits to be reaped; None if hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])  # fields 3 and 22 of proc(5)


# -- the claim of this process ---------------------------------------------------------------------


@dataclass(eq=False)
class Claim:
    """A claim that this process has, from `hold` to the end of the `with` block.

    Whether it still has it is asked in two ways: `check` before every batch, which costs nothing,
    and `check_now` before every write, which looks at the files.
    """

    place: Path
    generation: int
    timeout_s: float
    content: bytes  # of its file, which no other claim's has

    def __post_init__(self) -> None:
        self.path = _file(self.place, self.generation)
        self._lost = False
        self._finished = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        touched = time.monotonic()
        while not self._ended.wait(self.timeout_s / 12):
            now = time.time_ns()
            try:
                os.utime(self.path, ns=(now, now))
                self._lost = self._lost or self._taken()
                touched = time.monotonic()
            except FileNotFoundError:
                self._lost = True
            except OSError:  # the file system is away: for so long that others may have the claim?
                self._lost = self._lost or time.monotonic() - touched >= self.timeout_s

    def _taken(self) -> bool:
        """Whether the files say that another process has the claim, or has had it since."""
        if _file(self.place, self.generation + 1).exists():
            return True
        try:
            # the taker may have finished, and someone else begun at this number again
            return self.path.read_bytes() != self.content
        except FileNotFoundError:
            return True

    def check(self) -> None:
        """Raise ClaimLost if a heartbeat has found that another process has the claim."""
        if self._lost:
            raise ClaimLost(
                f"{self.path}: taken over by another process; this one leaves the work to it"
            )

    def check_now(self) -> None:
        """Raise ClaimLost if the files say that another process has the claim."""
        self._lost = self._lost or self._taken()
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
            self.check_now()
            if self._finished:
                self.path.unlink()
                return

            # given up, said in place: a full disk has no room for another file
            with self.path.open("r+b") as file:
                file.write(self.content.replace(b'"released": false', b'"released": true '))


def hold(place: str | Path, timeout_s: float = TIMEOUT_S) -> Claim:
    """Claim `place`; use it in a `with` statement.

    Args:
        place: a path, whose folder is made if need be.
        timeout_s: the silence, in seconds, after which others may take this claim over; 1 at least.

    Raises:
        ValueError: timeout_s is no such number.
        Held: a live process has it; the text names it.
        OSError: the folder cannot be written.
    """
    check_timeout(timeout_s)
    place = Path(place)
    before = refuse_held(place)
    generation = 1 if before is None else before.generation + 1
    content = {
        "owner": Owner.me()._asdict(),
        "timeout_s": timeout_s,
        "token": uuid.uuid4().hex,
        "released": False,
    }
    text = json.dumps(content)

    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        files.create(_file(place, generation), text)
    except FileExistsError:
        raise Held(f"{place.parent}: just claimed by another process") from None

    generations = _generations(place)
    if generation != max(generations, default=generation):
        _file(place, generation).unlink(missing_ok=True)
        raise Held(f"{place.parent}: just claimed by another process")

    for older in generations:
        if older < generation:
            _file(place, older).unlink(missing_ok=True)
    return Claim(place, generation, timeout_s, text.encode())


def refuse_held(place: Path) -> Found | None:
    """The claim on `place` that may be taken over, None if there is none.

    Raises:
        Held: a live process has it.
    """
    claim = newest(place)
    if claim is not None and not claim.free():
        raise Held(f"{place.parent}: held by {claim.owner or 'an unknown process'}")
    return claim


def clear(place: Path) -> None:
    """Remove a claim on finished work, left by a process that has ended."""
    stale_claim = newest(place)
    if stale_claim is not None and stale_claim.free():
        with contextlib.suppress(Held, OSError), hold(place) as claim:
            files.sweep(place.parent, place.name)
            claim.finish()


# -- claims on disk --------------------------------------------------------------------------------


class Found(NamedTuple):
    """A claim as found on disk."""

    path: Path
    generation: int
    owner: Owner | None = None
    timeout_s: float = TIMEOUT_S
    released: bool = False

    @property
    def abandoned(self) -> bool:
        """Whether it was given up, or its owner is known to have ended."""
        return self.released or (self.owner is not None and self.owner.gone())

    def free(self) -> bool:
        """Whether it may be taken: it is abandoned, or was silent for too long."""
        return self.abandoned or _silence(self) >= self.timeout_s


def newest(place: Path) -> Found | None:
    """The claim on `place` that counts; None if there is none."""
    for generation in sorted(_generations(place), reverse=True):
        path = _file(place, generation)
        with contextlib.suppress(FileNotFoundError):
            return _read(path, generation)
    return None


def _read(path: Path, generation: int) -> Found:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        # versions before 2026-11-27 wrote no more than `released` when they gave one up
        owner = Owner(**content["owner"]) if "owner" in content else None
        if owner is not None and not 0 < owner.pid < 2**31:
            raise ValueError(owner.pid)
        timeout_s = check_timeout(content.get("timeout_s", TIMEOUT_S))
        return Found(path, generation, owner, timeout_s, bool(content["released"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # not written by us, or damaged: only silence tells
        return Found(path, generation)


# claim -> when it was touched last, when this process looked (monotonic), its silence until then
_seen: dict[Path, tuple[int, float, float]] = {}


def _silence(claim: Found) -> float:
    """Seconds for which this process has watched the claim without seeing it touched."""
    now = time.monotonic()
    touched = claim.path.stat().st_mtime_ns if claim.path.exists() else 0
    touched_before, looked, silence = _seen.get(claim.path, (None, now, 0.0))

    if touched == touched_before:
        silence += min(now - looked, claim.timeout_s / 4)
    else:
        silence = 0.0
    _seen[claim.path] = (touched, now, silence)
    return silence


def _file(place: Path, generation: int) -> Path:
    return place.with_name(f"{place.name}.{generation}")


def _generations(place: Path) -> list[int]:
    prefix = f"{place.name}."
    endings = [path.name.removeprefix(prefix) for path in place.parent.glob(f"{prefix}*")]
    return [int(ending) for ending in endings if ending.isdecimal()]
