"""Device slots of a host: at most so many runs at a time on each device, whichever processes run them.

A slot is a lock file in the host's temporary folder. The kernel gives it back when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LOOK_EVERY_S = 0.5


@contextlib.contextmanager
def slot(
    devices: Sequence[str], per_device: int, *, group: str, check: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Wait for a free slot and give its device; one on each device is taken before the second on any.

    group: a name that all who share the devices use; check: called while waiting, may raise.
    """
    folder = Path(tempfile.gettempdir()) / f"cplxnet-slots-{os.getuid()}" / group
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(len(devices) * per_device):
            file = (folder / str(number)).open("w")
            with file:  # closing it unlocks it
                if _locked(file.fileno()):
                    yield devices[number % len(devices)]
                    return
        check()
        time.sleep(LOOK_EVERY_S)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
