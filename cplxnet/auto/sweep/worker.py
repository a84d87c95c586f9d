"""What happens on a Dask worker: one run at a time in its process, on a device that is free.

A device is free if one of its slots is: a slot is a lock file in a folder of this user's on the
host, so that at most `per_device` runs are on a device, whichever processes run them. The kernel
gives a slot back when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from distributed import Worker

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import run
from cplxnet.auto.runner.stop import Interrupted, Stop

from . import queue
from .queue import Outcome, Settings

LOOK_EVERY_S = 0.5  # for a free slot

_stops: dict[str, Stop] = {}  # by job
_closing = threading.Event()  # this worker is to end: its scheduler is gone, say
_one_at_a_time = threading.Lock()  # torch's random numbers belong to the process, not to a thread


@dataclass(frozen=True)
class Job:
    """One command's work, as sent to workers; told apart by its id from other commands'."""

    settings: Settings
    devices: tuple[str, ...]  # that each host has
    per_device: int  # runs at a time on each
    threads: int | None  # of torch in each run; None: as the worker was started with
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


def work(name: str, job: Job, manifest: Manifest) -> Outcome:
    """Do the run `name` of `job`, whose command has read `manifest`: the task of workers."""
    stop = _stop_of(job.id)
    try:
        with _one_at_a_time, _slot(job, stop) as device:
            if job.threads is not None:
                torch.set_num_threads(job.threads)
            outcome = queue.run_one(name, job.settings, device=device, read=manifest, stop=stop)
    except Interrupted as error:
        return Outcome(name, "interrupted", str(error))
    except OSError as error:  # this host has no slots: no fault of the run's
        return Outcome(name, "failed", f"{type(error).__name__}: {error}")

    if outcome.state == "failed" and not run.answers(device):
        # no later run of this process could use a GPU: Dask starts another one, and gives the run
        # out again
        os._exit(1)
    return outcome


def _stop_of(job_id: str) -> Stop:
    stop = _stops.setdefault(job_id, Stop())
    if _closing.is_set():
        stop.ask()
    return stop


@contextlib.contextmanager
def _slot(job: Job, stop: Stop) -> Iterator[str]:
    """Wait for a free slot, hold it in the block, and give its device.

    One run on each device comes before a second run on any. A device that does not answer is left
    out as long as another does.
    """
    folder = _private(_private(_slots_folder()) / job.id)
    devices = run.each_device(job.devices)  # "cuda" is every GPU of this host
    lost: set[str] = set()
    while True:
        for number in range(len(devices) * job.per_device):
            device = devices[number % len(devices)]
            if device in lost and len(lost) < len(devices):
                continue

            with open(folder / str(number), "w", opener=_opener) as file:  # closing it unlocks it
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue

                if device not in lost and not run.answers(device):
                    lost.add(device)
                    continue
                yield device
                return

        stop.heed()
        time.sleep(LOOK_EVERY_S)


def _slots_folder() -> Path:
    """Where all processes of this user on this host look for slots, unless their TMPDIR differ."""
    return Path(tempfile.gettempdir()) / f"cplxnet-slots-{os.getuid()}"


def _private(folder: Path) -> Path:
    """`folder`, made if need be, in which nobody else can put anything.

    Raises:
        PermissionError: it is another user's, others may write into it, or it is a link.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)

    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise PermissionError(
            f"{folder}: expected a folder that this user alone can write into, got "
            f"{stat.filemode(about.st_mode)} of user {about.st_uid}; try another TMPDIR"
        )
    return folder


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


async def stop(job_id: str, within_s: float = 0.0) -> None:
    """End the job's runs on this worker after their epoch, or at the latest within so many seconds.

    It is a coroutine, since Dask can send these without waiting for them.
    """
    _stop_of(job_id).ask(within_s)


def forget(job_id: str) -> None:
    """Remove what a job that has ended leaves on this host."""
    shutil.rmtree(_slots_folder() / job_id, ignore_errors=True)


def dask_setup(worker: Worker) -> None:
    """Leave signals that reach every process of a terminal or a batch job to the command.

    Called by Dask on a worker started with `--preload cplxnet.auto.sweep.worker`, which also has
    it import torch before it reports for work.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_DFL:  # else Dask ends the worker in order
            signal.signal(number, signal.SIG_IGN)


def dask_teardown(worker: Worker) -> None:
    """End the run of a closing worker at the next batch, its claim given back for another worker.

    Called by Dask, as `dask_setup`.
    """
    _closing.set()
    for stop in list(_stops.values()):
        stop.ask()
