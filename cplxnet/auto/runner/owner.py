"""Who runs a run: a process on a machine, told apart from all others, and whether it is known to be gone."""

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A process. machine: kernel's boot and process namespace, the scope of `pid`; began: its start, in clock ticks."""

    pid: int
    host: str
    machine: str
    began: int | None

    @classmethod
    def me(cls) -> "Owner":
        """The calling process."""
        return cls(os.getpid(), socket.gethostname(), _machine(), _began(os.getpid()))

    def gone(self) -> bool:
        """True if the process is known to have ended. Of one on another machine nothing is known: False."""
        if not self.machine or self.machine != _machine():
            return False
        return _began(self.pid) != self.began  # no such process, or the number has gone to another

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    """Empty where it cannot be told (not Linux); then only heartbeats count."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _began(pid: int) -> int | None:
    """When a process of this machine began; None if there is none or it only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # fields 3 and 22 of proc(5)
