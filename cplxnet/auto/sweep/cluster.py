"""Many runs on Dask workers: processes of this machine, or those of a scheduler that is there already."""

import contextlib
import dataclasses
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

import torch
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.client import ClosedClientError

from cplxnet.auto.progress import say
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder

from .progress import Board
from .queue import Agenda
from .run_one import Outcome, Settings
from .worker import Job, stop, work

RETRIES = 3  # of a run whose worker died; an existing scheduler has its own distributed.scheduler.allowed-failures
LOOK_EVERY_S = 0.2
STOP_WITHIN_S = 10.0
CONNECT_S = 10.0
AWAY_S = 600.0  # a scheduler may be away so long before the command gives up


def run(
    agenda: Agenda,
    settings: Settings,
    *,
    devices: Sequence[str],
    per_device: int,
    address: str | None,
) -> None:
    """Do all of the agenda: on `per_device` workers for each device here, or on the scheduler's workers.

    Raises ConnectionError if there is no scheduler at `address`, or it stays away; KeyboardInterrupt.
    """
    n_slots = len(devices) * per_device
    threads = max(1, torch.get_num_threads() // n_slots) if address is None else None
    job = Job(dataclasses.replace(settings, progress=False), tuple(devices), per_device, threads)
    with Board(agenda) as board:
        if address is None:
            with _local(min(n_slots, len(agenda.names)), settings) as client:
                _drive(client, agenda, job, board)
        else:
            _until_done(address, agenda, job, board)


@contextlib.contextmanager
def _local(n_workers: int, settings: Settings) -> Iterator[Client]:
    """Workers that are processes of this machine, restarted when they die or hang."""
    cluster = LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # a network cannot be spilled to disk, and a paused worker would only hang
        silence_logs=logging.CRITICAL,
        preload=["cplxnet.auto.sweep.worker"],
        scheduler_kwargs={"worker_ttl": f"{settings.timeout_s} s", "allowed_failures": RETRIES},
    )
    with cluster, Client(cluster) as client:
        if settings.progress:
            say(_dashboard(client))
        yield client


def _dashboard(client: Client) -> str:
    """Where Dask's dashboard is; empty where it is off, which its server tells by having no such page."""
    try:
        with urllib.request.urlopen(client.dashboard_link, timeout=CONNECT_S):
            pass
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError):  # not to be reached from here, but perhaps by who reads this
        pass
    return f"Dask dashboard: {client.dashboard_link}"


def _until_done(address: str, agenda: Agenda, job: Job, board: Board) -> None:
    """Go on with a scheduler that goes away and comes back; what it was doing is given out again."""
    met, lost = False, None  # whether it was ever there; since when it is away (monotonic)
    while agenda.open:
        try:
            with Client(address, timeout=f"{CONNECT_S} s", set_as_default=False) as client:
                if lost is not None:
                    say(f"the scheduler at {address} is back")
                elif (
                    agenda.settings.progress
                    and "dashboard" in client.scheduler_info(n_workers=0)["services"]
                ):
                    say(_dashboard(client))
                met, lost = True, None
                _drive(client, agenda, job, board)
        except (
            OSError,
            TimeoutError,
            ClosedClientError,
            ValueError,
        ) as error:  # distributed's own are OSErrors
            if not met:
                raise ConnectionError(
                    f"expected a Dask scheduler at {address}, got {error}; try `dask scheduler`"
                ) from error
            if isinstance(
                error, ValueError
            ):  # of an address that is none; later it is a fault of ours
                raise
            if lost is None:
                lost = time.monotonic()
                say(f"the scheduler at {address} is away; trying for {AWAY_S:.0f} s")
            if time.monotonic() - lost > AWAY_S:
                raise ConnectionError(
                    f"the scheduler at {address} has been away for {AWAY_S:.0f} s"
                ) from error
            time.sleep(5 * LOOK_EVERY_S)


def _drive(client: Client, agenda: Agenda, job: Job, board: Board) -> None:
    """Give out runs, as many as there are workers, until none is left. Raises OSError if the scheduler goes."""
    running: dict[Future, str] = {}
    scheduler = client.scheduler_info(n_workers=0)["id"]
    try:
        while agenda.open:
            n_workers = _n_workers(client, scheduler)
            while len(running) < n_workers and (name := agenda.take()) is not None:
                running[client.submit(work, name, job, agenda.manifests[name], pure=False)] = name
            for future in [future for future in running if future.status != "pending"]:
                _take_in(future, running[future], agenda)
                del running[future]
            board.show("no workers yet" if not n_workers else "")
            time.sleep(LOOK_EVERY_S)
    except KeyboardInterrupt:
        _stop(client, job, list(running))
        raise
    finally:
        for name in running.values():
            agenda.put_back(name)


def _n_workers(client: Client, scheduler: str) -> int:
    """Workers of the scheduler with this id. Raises OSError if it is gone, another one in its place included: that one
    knows nothing of our runs, and the client would wait for them for ever."""
    about = client.sync(client.scheduler.identity, n_workers=0, callback_timeout=AWAY_S)
    if client.status != "running" or about["id"] != scheduler:
        raise ConnectionError("the client has lost its scheduler")
    return about["n_workers"]


def _take_in(future: Future, name: str, agenda: Agenda) -> None:
    """Settle a run whose task has ended, or put it back where that is not its own end: a closing worker interrupts its
    runs, and a lost scheduler cancels its tasks."""
    if future.status == "error":
        agenda.settle(_failure(name, future.exception(), agenda.settings))
    elif future.status == "finished" and (outcome := future.result()).state != "interrupted":
        agenda.settle(outcome)
    else:
        agenda.put_back(name)


def _failure(name: str, error: BaseException, settings: Settings) -> Outcome:
    """A run whose workers died, or that could not be sent: marked in its folder by this process."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        reason = (
            f"its worker died {RETRIES + 1} times, each time another; out of memory? ({reason})"
        )
    files = RunFolder(settings.folder / name)
    with (
        contextlib.suppress(OSError, ValueError, lock.Held, lock.ClaimLost),
        lock.hold(files.path / "claim"),
    ):
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
