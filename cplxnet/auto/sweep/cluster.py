"""Many runs on Dask workers: processes of this machine, or those of a scheduler that is there.

Whoever reaches a Dask scheduler or worker can have it run code. Those of this machine talk by TLS
with a certificate made for them, so that no other user's process is let in. With a scheduler at
tls://HOST:PORT, who has its certificate is let in: Dask is told where that is by its own
configuration (`distributed.comm.tls`), as `run --help` says.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any, Self

import cryptography  # noqa: F401  # by Security.temporary, which names no extra where it is missing
import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.client import ClosedClientError
from distributed.deploy.spec import close_clusters
from distributed.security import Security

from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.stop import Stop
from cplxnet.progress import bar, duration, printable, say

from . import worker
from .queue import Outcome, Queue, Settings
from .worker import Job

RETRIES = 3  # of a run whose worker died; a scheduler of one's own has its allowed-failures
STARTS = 3  # of the workers of this machine, should one die before all are there
LOOK_EVERY_S = 0.2
SHOWN_EVERY_S = 1.0
STOP_WITHIN_S = 10.0
CLOSE_WITHIN_S = 30.0
CONNECT_S = 10.0
AWAY_S = 600.0  # a scheduler or a worker may be away so long before it is given up


def run(
    queue: Queue,
    stop: Stop,
    *,
    devices: Sequence[str],
    per_device: int,
    address: str | None,
) -> None:
    """Do all that is in the queue.

    Args:
        queue: of the runs.
        stop: a request to stop, which the workers are told of.
        devices, per_device, address: as of `run_many`; None: processes of this machine.

    Raises:
        ConnectionError: no scheduler at `address`, or it stays away; or no workers start here.
        KeyboardInterrupt: with the runs stopped in order.
    """
    settings = queue.settings
    n_slots = len(devices) * per_device
    threads = max(1, torch.get_num_threads() // n_slots) if address is None else None
    job = Job(dataclasses.replace(settings, progress=False), tuple(devices), per_device, threads)

    with Board(queue) as board:
        if address is not None:
            _on_scheduler(address, queue, job, board, stop)
            return
        try:
            with _local_workers(min(n_slots, len(queue.names)), settings, stop) as client:
                _drive(client, queue, job, board, stop)
        finally:
            worker.forget(job.id)  # however the workers have ended


@contextlib.contextmanager
def _local_workers(n_workers: int, settings: Settings, stop: Stop) -> Iterator[Client]:
    """Workers that are processes of this machine, restarted when they die or hang."""
    # by default Dask gives up a worker whose process takes 15 s to start again
    patience = dask.config.set({"distributed.deploy.lost-worker-timeout": f"{AWAY_S} s"})
    with patience:
        cluster = _started(n_workers, settings, stop)
        try:
            with Client(cluster) as client:
                if settings.progress:
                    say(_dashboard(client))
                yield client
        finally:
            # a worker that has just died may be starting again, which Dask may wait for for ever
            with contextlib.suppress(TimeoutError):
                cluster.close(timeout=CLOSE_WITHIN_S)


def _started(n_workers: int, settings: Settings, stop: Stop) -> LocalCluster:
    # Python's process that tracks semaphores ignores SIGINT and SIGTERM, but would end by SIGUSR1
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    for _ in range(STARTS):
        stop.heed()
        try:
            return LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls",
                security=Security.temporary(),
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # a network cannot be spilled to disk; paused workers only hang
                silence_logs=logging.CRITICAL,
                preload=["cplxnet.auto.sweep.worker"],
                scheduler_kwargs={
                    "worker_ttl": f"{settings.timeout_s} s",
                    "allowed_failures": RETRIES,
                },
            )
        except KeyboardInterrupt:
            # half a cluster cannot be closed; its workers end with this process
            atexit.unregister(close_clusters)
            raise
        except RuntimeError as error:
            reason = error.__cause__ or error
            say(f"a worker died as it started ({reason}); starting again")
    raise ConnectionError(
        f"expected {n_workers} workers on this machine, got one that died at each of {STARTS} "
        f"starts ({reason}); out of memory? try a smaller --per-device"
    )


def _dashboard(client: Client) -> str:
    """Where Dask's dashboard is; empty if its server has no such page, since it is off."""
    try:
        with urllib.request.urlopen(client.dashboard_link, timeout=CONNECT_S):
            pass
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError):  # not to be reached from here, but perhaps by who reads this
        pass
    return f"Dask dashboard: {client.dashboard_link}"


def _on_scheduler(address: str, queue: Queue, job: Job, board: Board, stop: Stop) -> None:
    """Go on with a scheduler that goes and comes back; what it was doing is given out again."""
    was_there = False
    away_since: float | None = None
    while queue.open:
        stop.heed()
        try:
            with Client(address, timeout=f"{CONNECT_S} s", set_as_default=False) as client:
                if away_since is not None:
                    say(f"the scheduler at {address} is back")
                elif queue.settings.progress:
                    services = client.scheduler_info(n_workers=0)["services"]
                    say(_dashboard(client) if "dashboard" in services else "")
                was_there = True
                away_since = None
                _drive(client, queue, job, board, stop)
        except (OSError, ClosedClientError, ValueError, TypeError) as error:
            # Dask's own are OSErrors; TypeError: tls:// without certificates
            if not was_there:
                raise ConnectionError(
                    f"expected a Dask scheduler at {address}, got {error}; try `dask scheduler`"
                ) from error
            if isinstance(error, (ValueError, TypeError)):  # the address is sound: a fault of ours
                raise

            if away_since is None:
                away_since = time.monotonic()
                say(f"the scheduler at {address} is away; trying for {AWAY_S:.0f} s")
            if time.monotonic() - away_since > AWAY_S:
                raise ConnectionError(
                    f"the scheduler at {address} has been away for {AWAY_S:.0f} s"
                ) from error
            time.sleep(5 * LOOK_EVERY_S)


def _drive(client: Client, queue: Queue, job: Job, board: Board, stop: Stop) -> None:
    """Give out runs, as many as there are workers, until none is left.

    Raises:
        OSError: the scheduler goes.
        Interrupted: an end was asked for, and all workers have stopped.
    """
    running: dict[Future, str] = {}
    scheduler = client.scheduler_info(n_workers=0)["id"]
    stop_sent = False
    try:
        while queue.open:
            n_workers = _n_workers(client, scheduler)
            while (
                not stop.asked and len(running) < n_workers and (name := queue.take()) is not None
            ):
                future = client.submit(worker.work, name, job, queue.manifests[name], pure=False)
                running[future] = name

            for future in [future for future in running if future.status != "pending"]:
                _settle(future, running[future], queue)
                del running[future]

            if stop.asked and not stop_sent:
                client.run(worker.stop, job.id, stop.left_s, wait=False)
                stop_sent = True
            if stop.asked and not running:
                stop.heed()
            board.show("" if n_workers else "no workers yet")
            time.sleep(LOOK_EVERY_S)
        client.run(worker.forget, job.id)
    except KeyboardInterrupt:
        _stop(client, job, list(running))
        raise
    finally:
        for name in running.values():
            queue.put_back(name)


def _n_workers(client: Client, scheduler: str) -> int:
    """Workers of the scheduler with this id.

    Raises:
        ConnectionError: it is gone. Another one in its place knows nothing of our runs, and the
            client would wait for them for ever.
    """
    scheduler_info = client.sync(client.scheduler.identity, n_workers=0, callback_timeout=AWAY_S)
    if client.status != "running" or scheduler_info["id"] != scheduler:
        raise ConnectionError("the client has lost its scheduler")
    return scheduler_info["n_workers"]


def _settle(future: Future, name: str, queue: Queue) -> None:
    """Settle a run whose task has ended, or put the run back in the queue.

    It is put back if a worker that closes has interrupted it, if a lost scheduler has cancelled its
    task, or if its worker has died and it has trained an epoch since it was given out.
    """
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker) and queue.has_progressed(name):
            queue.put_back(name)
        else:
            queue.settle(_failure(name, error, queue.settings))
    elif future.status == "finished" and (outcome := future.result()).state != "interrupted":
        queue.settle(outcome)
    else:
        queue.put_back(name)


def _failure(name: str, error: BaseException, settings: Settings) -> Outcome:
    """A run whose workers died, or that could not be sent: marked in its folder by this process."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        reason = (
            f"its worker died {RETRIES + 1} times without an epoch between, each time another; "
            f"out of memory? ({reason})"
        )

    folder = settings.folder / name
    with contextlib.suppress(OSError, lock.Held), lock.hold(folder / "claim"):
        RunFolder(folder).record("failed", reason, f"{reason}\n")
    return Outcome(name, "failed", reason)


def _stop(client: Client, job: Job, running: list[Future]) -> None:
    """Ask all workers to stop, and wait a little until they have marked their runs."""
    with contextlib.suppress(Exception):  # the scheduler may be what is gone
        client.run(worker.stop, job.id, wait=False)
        end = time.monotonic() + STOP_WITHIN_S
        while any(future.status == "pending" for future in running):
            if time.monotonic() > end:
                return
            time.sleep(LOOK_EVERY_S)
        client.run(worker.forget, job.id)


# -- what is shown ---------------------------------------------------------------------------------


class Board:
    """Bars drawn from the runs' status files, so that they look the same wherever the runs are."""

    def __init__(self, queue: Queue) -> None:
        settings = queue.settings
        self.queue = queue
        self._drawn_at = 0.0
        self._lines: list[Any] = []
        off = not settings.progress
        self._grid = bar(total=len(queue.names), desc=settings.folder.name, unit="run", disable=off)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.update(len(self.queue.outcomes) - self._grid.n)
        for shown in (*self._lines, self._grid):
            shown.close()

    def show(self, remark: str = "") -> None:
        """Draw anew, at most once a second. remark: stands beside the grid's bar."""
        now = time.monotonic()
        if self._grid.disable or now - self._drawn_at < SHOWN_EVERY_S:
            return
        self._drawn_at = now

        with_others = f"{len(self.queue.pending)} with others" if self.queue.waiting else ""
        self._grid.update(len(self.queue.outcomes) - self._grid.n)
        self._grid.set_postfix_str(remark or with_others)

        names = sorted(self.queue.running)
        while len(self._lines) < len(names):
            position = len(self._lines) + 1
            self._lines.append(bar(total=0, position=position, bar_format="{desc}", leave=False))
        for number, shown in enumerate(self._lines):
            line = self._line(names[number]) if number < len(names) else ""
            shown.set_description_str(printable(line))

    def _line(self, name: str) -> str:
        """c1e-03-r0: sparsify 3/75, AP 0.712, 2 h 05 min left"""
        status = self.queue.status(name)
        if not status:
            return name
        if "epoch" not in status:
            return f"{name}: {status['state']}"

        parts = [f"{status['stage']} {status['epoch']}/{status['n_epochs']}"]
        if status.get("validation") is not None:
            parts.append(f"AP {status['validation']:.3f}")
        if status.get("left_s") is not None:
            parts.append(f"{duration(status['left_s'])} left")
        return f"{name}: {', '.join(parts)}"
