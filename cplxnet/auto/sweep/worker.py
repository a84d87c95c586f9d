"""What happens on a Dask worker: one run at a time in its process, on a device that is free on its host."""

import signal
import threading
import uuid
from dataclasses import dataclass, field

import torch
from distributed import Worker

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner.lock import Interrupted

from .run_one import Outcome, Settings, run_one
from .slots import slot

_stopped: set[str] = set()  # jobs that were asked to stop
_closing = (
    threading.Event()
)  # this worker is to end: its scheduler is gone, say, or its time in a batch system is up
_one_at_a_time = (
    threading.Lock()
)  # torch's random numbers belong to the process, however many threads a worker has


@dataclass(frozen=True)
class Job:
    """One command's work, as sent to workers. threads: of torch in each run; None: as the worker was started with."""

    settings: Settings
    devices: tuple[str, ...]
    per_device: int
    threads: int | None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


def work(name: str, job: Job, manifest: Manifest) -> Outcome:
    """Do the run `name`: the task that workers are given. manifest: as it was when the command read it."""

    def stopped() -> bool:
        return _closing.is_set() or job.id in _stopped

    def check() -> None:
        if stopped():
            raise Interrupted("asked to stop")

    try:
        with _one_at_a_time, slot(job.devices, job.per_device, group=job.id, check=check) as device:
            if job.threads is not None:
                torch.set_num_threads(job.threads)
            return run_one(name, job.settings, device=device, read=manifest, stopped=stopped)
    except Interrupted as error:
        return Outcome(name, "interrupted", str(error))


async def stop(job_id: str) -> None:
    """Have the job's runs on this worker end at their next batch; a coroutine, since Dask can send these unawaited."""
    _stopped.add(job_id)


def dask_setup(worker: Worker) -> None:
    """Ctrl-C on a terminal reaches every process: the command handles it and tells its workers.

    Called by Dask on a worker started with `--preload cplxnet.auto.sweep.worker`, which also has it import torch
    before it reports for work.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def dask_teardown(worker: Worker) -> None:
    """A closing worker ends its run at the next batch, marked and with its claim given back, so that another worker can
    go on with it now. Called by Dask, as `dask_setup`."""
    _closing.set()
