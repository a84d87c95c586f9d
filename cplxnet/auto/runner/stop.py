"""A request to stop by a deadline: from a batch system before it kills, or from a command.

Training heeds it after its epoch, whose checkpoint is then written whether or not one is due. Once
the deadline has come it ends before its next batch, with what is saved.
"""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
GRACE_S = 30.0  # from SIGTERM to SIGKILL, as SLURM and Kubernetes have it by default
MARGIN_S = 10.0  # of it, a third at most, for the last writes


class Interrupted(KeyboardInterrupt):
    """The work was asked to stop; it goes on from what is saved."""


class Stop:
    """Whether the work was asked to stop, and by when."""

    def __init__(self) -> None:
        self._deadline = math.inf  # of time.monotonic()

    def ask(self, within_s: float = 0.0) -> None:
        """Ask for an end within so many seconds. Of several deadlines the earliest counts."""
        self._deadline = min(self._deadline, time.monotonic() + within_s)

    @property
    def asked(self) -> bool:
        """Whether an end was asked for."""
        return self.left_s < math.inf

    @property
    def left_s(self) -> float:
        """Seconds to the deadline, infinite where none was set."""
        return max(0.0, self._deadline - time.monotonic())

    def heed(self) -> None:
        """Raise Interrupted if an end was asked for: here is a good place."""
        if self.asked:
            raise Interrupted("asked to stop")


@contextlib.contextmanager
def on_signals(grace_s: float) -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGUSR1 ask for in the block; their kill follows `grace_s` later.

    Near the end of that time, and at a second signal, the main thread is interrupted wherever it
    is. Where Python is not in its main thread, which alone gets signals, nothing asks.

    Raises:
        ValueError: `grace_s` is no time of 0 or more seconds.
    """
    if not 0 <= grace_s < 1e8:
        raise ValueError(f"expected a grace of 0 or more seconds, got {grace_s:g}; try 30")
    stop = Stop()

    def ask(number: int, _: FrameType | None) -> None:
        if stop.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted("asked to stop")

        left_s = grace_s - min(MARGIN_S, grace_s / 3)
        stop.ask(left_s)
        signal.setitimer(signal.ITIMER_REAL, left_s)
        name = signal.Signals(number).name
        # not print: the signal may have come while the stream was being written to
        os.write(2, f"\n{name}: ends after this epoch, or in {left_s:.0f} s\n".encode())

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    before = {number: signal.signal(number, ask) for number in (*SIGNALS, signal.SIGALRM)}
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
