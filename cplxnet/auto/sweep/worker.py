"""What happens on a Dask worker: one run at a time in its process, on a device that is free.

A device is free if one of its slots is: a slot is a lock file in the host's temporary folder, so
that at most `per_device` runs are on a device, whichever processes run them. The kernel gives a
slot back when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import signal
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
from cplxnet.auto.runner.lock import Interrupted
from cplxnet.auto.runner.run import each_device

from .run_one import Outcome, Settings, run_one

LOOK_EVERY_S = 0.5  # for a free slot

_stopped: set[str] = set()  # jobs that were asked to stop
_closing = threading.Event()  # this worker is to end: its scheduler is gone, say
_one_at_a_time = threading.Lock()  # torch's random numbers belong to the process, not to a thread


@dataclass(frozen=True)
class Job:
    """One command's work, as sent to workers.

    Args:
        settings: of the command.
        devices: that each host has.
        per_device: runs at a time on each device.
        threads: of torch in each run; None: as the worker was started with.
        id: told apart by it from other commands' work.
    """

    settings: Settings
    devices: tuple[str, ...]
    per_device: int
    threads: int | None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def is_stopped(self) -> bool:
        """Whether its runs on this worker are to end."""
        return _closing.is_set() or self.id in _stopped


def work(name: str, job: Job, manifest: Manifest) -> Outcome:
    """Do the run `name`: the task that workers are given.

    Args:
        name: of the run.
        job: the command's work that it belongs to.
        manifest: as it was when the command read it.
    """
    try:
        with _one_at_a_time, _slot(job) as device:
            if job.threads is not None:
                torch.set_num_threads(job.threads)
            return run_one(name, job.settings, device=device, read=manifest, stopped=job.is_stopped)
    except Interrupted as error:
        return Outcome(name, "interrupted", str(error))


@contextlib.contextmanager
def _slot(job: Job) -> Iterator[str]:
    """Wait for a free slot, hold it in the block, and give its device.

    One run on each device comes before a second run on any.
    """
    folder = Path(tempfile.gettempdir()) / f"cplxnet-slots-{os.getuid()}" / job.id
    folder.mkdir(parents=True, exist_ok=True)
    devices = each_device(job.devices)  # "cuda" is every GPU of this host
    while not job.is_stopped():
        for number in range(len(devices) * job.per_device):
            with (folder / str(number)).open("w") as file:  # closing it unlocks it
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield devices[number % len(devices)]
                return
        time.sleep(LOOK_EVERY_S)
    raise Interrupted("asked to stop")


async def stop(job_id: str) -> None:
    """End the job's runs on this worker at their next batch.

    It is a coroutine, since Dask can send these without waiting for them.
    """
    _stopped.add(job_id)


def dask_setup(worker: Worker) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the command that has the workers.

    Called by Dask on a worker started with `--preload cplxnet.auto.sweep.worker`, which also has
    it import torch before it reports for work.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def dask_teardown(worker: Worker) -> None:
    """End the run of a closing worker at the next batch, its claim given back for another worker.

    Called by Dask, as `dask_setup`.
    """
    _closing.set()
