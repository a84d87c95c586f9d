"""Many runs on Dask workers: processes of this machine, or those of a scheduler that is there already."""

import contextlib
import dataclasses
import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence

import torch
from distributed import Client, Future, KilledWorker, LocalCluster

from . import claim
from .agenda import Agenda
from .board import Board
from .folder import RunFolder
from .one import Outcome, Settings
from .progress import say
from .worker import Job, stop, work

RETRIES = 3  # of a run whose worker died; an existing scheduler has its own distributed.scheduler.allowed-failures
LOOK_EVERY_S = 0.2
STOP_WITHIN_S = 10.0
AWAY_S = 600.0  # a scheduler may be away so long before the command gives up


def run(agenda: Agenda, settings: Settings, *, devices: Sequence[str], per_device: int, address: str | None) -> None:
    """Do all of the agenda: on `per_device` workers for each device here, or on the scheduler's workers.

    Raises ConnectionError if there is no scheduler at `address`, or it stays away; KeyboardInterrupt.
    """
    n_slots = len(devices) * per_device
    threads = max(1, torch.get_num_threads() // n_slots) if address is None else None
    job = Job(dataclasses.replace(settings, progress=False), tuple(devices), per_device, threads)
    with Board(agenda) as board:
        if address is None:
            with _local(min(n_slots, len(agenda.names)), settings.timeout_s) as client:
                _drive(client, agenda, job, board)
        else:
            _until_done(address, agenda, job, board)


@contextlib.contextmanager
def _local(n_workers: int, timeout_s: float) -> Iterator[Client]:
    """Workers that are processes of this machine, restarted when they die or hang."""
    dashboard = importlib.util.find_spec("bokeh") is not None
    cluster = LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0" if dashboard else None,
        memory_limit=0,  # a network cannot be spilled to disk, and a paused worker would only hang
        silence_logs=logging.CRITICAL,
        preload=["cplxnet.auto.worker"],
        scheduler_kwargs={"worker_ttl": f"{timeout_s} s", "allowed_failures": RETRIES},
    )
    with cluster, Client(cluster) as client:
        if dashboard:
            say(f"Dask dashboard: {client.dashboard_link}")
        yield client


def _until_done(address: str, agenda: Agenda, job: Job, board: Board) -> None:
    """Go on with a scheduler that goes away and comes back; what it was doing is given out again."""
    seen = None
    while agenda.open:
        try:
            with Client(address, timeout="10s") as client:
                if seen is None and "dashboard" in client.scheduler_info()["services"]:
                    say(f"Dask dashboard: {client.dashboard_link}")
                seen = time.monotonic()
                _drive(client, agenda, job, board)
        except (OSError, TimeoutError, ValueError) as error:  # OSError: distributed's own are kinds of it
            if seen is None:
                raise ConnectionError(
                    f"expected a Dask scheduler at {address}, got {error}; try `dask scheduler`"
                ) from error
            if time.monotonic() - seen > AWAY_S:
                raise ConnectionError(f"the scheduler at {address} has been away for {AWAY_S:.0f} s") from error
            say(f"the scheduler at {address} is away; trying again")
            time.sleep(5 * LOOK_EVERY_S)


def _drive(client: Client, agenda: Agenda, job: Job, board: Board) -> None:
    """Give out runs, as many as there are workers, until none is left. Raises ConnectionError if the scheduler goes."""
    running: dict[Future, str] = {}
    try:
        while agenda.open:
            n_workers = len(client.nthreads())
            while len(running) < n_workers and (name := agenda.take()) is not None:
                running[client.submit(work, name, job, pure=False)] = name
            for future in [future for future in running if future.status != "pending"]:
                _take_in(future, running.pop(future), agenda)
            board.show("no workers yet" if not n_workers else "")
            if client.status != "running":
                raise ConnectionError("the client has lost its scheduler")
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        _stop(client, job, list(running))
        raise
    finally:
        for name in running.values():
            agenda.put_back(name)


def _take_in(future: Future, name: str, agenda: Agenda) -> None:
    if future.status == "finished":
        agenda.settle(future.result())
    elif future.status == "error":
        agenda.settle(_failure(name, future.exception(), agenda.settings))
    else:  # cancelled or lost with the scheduler
        agenda.put_back(name)


def _failure(name: str, error: BaseException, settings: Settings) -> Outcome:
    """A run whose workers died, or that could not be sent: marked in its folder by this process."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        reason = f"its worker died {RETRIES + 1} times, each time another; out of memory? ({reason})"
    files = RunFolder(settings.folder / name)
    with contextlib.suppress(OSError, ValueError, claim.Held, claim.ClaimLost), claim.hold(files.path / "claim"):
        files.write_traceback(reason + "\n")
        files.update(state="failed", reason=reason)
    return Outcome(name, "failed", reason)


def _stop(client: Client, job: Job, running: list[Future]) -> None:
    """Ask all workers to stop, and wait a little until they have marked their runs."""
    with contextlib.suppress(Exception):  # the scheduler may be what is gone
        client.run(stop, job.id, wait=False)
        end = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < end and any(future.status == "pending" for future in running):
            time.sleep(LOOK_EVERY_S)
