"""Jobs of the builders, each in a process of its own: a job that hangs or dies costs its own result
and nothing else. And the folder that one build works in.
"""

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

_TICK_S = 0.5


def _end_with_parent() -> None:
    """End this process when the build does: a build that is killed cannot say so."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run(
    work: Callable[..., Any],
    jobs: Sequence[tuple[Any, ...]],
    *,
    n_workers: int = 2,
    timeout_s: float | None = None,
    preload: Sequence[str] = (),
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Future[Any]]]:
    """Call `work(*jobs[k])` for every k; yields `(k, future)` in the order in which the jobs end.

    `future.result()` is what the job returned, or raises what it raised, `TimeoutError`, or
    `pebble.ProcessExpired` where its process was killed.

    Args:
        work: a function that can be imported by name.
        n_workers: jobs at a time; 0: one after another in this process, without a timeout.
        timeout_s: seconds after which a job is killed; None: never.
        preload: modules to import once for all jobs, not once a job.
        tick: called about twice a second meanwhile.
    """
    if n_workers == 0:
        for k, job in enumerate(jobs):
            future: Future[Any] = Future()
            try:
                future.set_result(work(*job))
            except Exception as error:
                future.set_exception(error)
            yield k, future
        return

    # a fork of this process would copy torch's threads and locks
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))

    pool = ProcessPool(n_workers, max_tasks=1, initializer=_end_with_parent, context=context)
    try:
        waiting: dict[Future[Any], int] = {
            pool.schedule(work, args=job, timeout=timeout_s): k for k, job in enumerate(jobs)
        }
        while waiting:
            ended, _ = wait(waiting, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            tick()
            for future in ended:
                yield waiting.pop(future), future
    finally:
        pool.stop()
        pool.join()


def failure(future: Future[Any], timeout_s: float | None = None) -> str | None:
    """Why a job of `run` failed, in one line; None for one that did not."""
    error = future.exception()
    if error is None:
        return None

    if isinstance(error, TimeoutError):
        return f"did not end within {timeout_s:g} s" if timeout_s else f"{error}"
    if isinstance(error, ProcessExpired):
        return f"its process ended with code {error.exitcode}"
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this build alone; free when the process ends, however.

    What a killed build has left in it is there.

    Raises:
        RuntimeError: another build is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its owner may have removed the folder in between
            is_ours = folder.exists() and os.path.samestat(os.fstat(handle), folder.stat())
        except BlockingIOError:
            is_ours = False
        if not is_ours:
            raise RuntimeError(
                f"{folder}: expected no other build here, got one at work; wait for its end"
            )
        yield
    finally:
        os.close(handle)


def remove_left(folder: Path) -> None:
    """Remove what a build has left that was killed at its very end; one at work removes its own."""
    if folder.exists():
        with contextlib.suppress(RuntimeError), locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
