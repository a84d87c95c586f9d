"""Work in a few processes at once, which end with the one that started them, however it ends."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

_PRELOAD = ["extra.corpora.archive.files"]  # imported once, not once a process


def _end_with_parent() -> None:
    """Without this the processes of a killed build would wait for work for ever."""
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
    n_workers: int,
    tick: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Call `work(*jobs[k])` for each k in `n_workers` processes, or in this one if 0; yields (k, result) as they end.

    `tick` is called twice a second meanwhile. The first exception ends the rest and is raised.

    Raises
    ------
    RuntimeError: a process was killed; whatever `work` raises.
    """
    if n_workers == 0:
        for k, job in enumerate(jobs):
            yield k, work(*job)
        return
    context = multiprocessing.get_context(
        "forkserver"
    )  # a fork of this process would copy torch's threads and locks
    context.set_forkserver_preload(_PRELOAD)
    with ProcessPoolExecutor(n_workers, context, initializer=_end_with_parent) as pool:
        waiting: dict[Future[Any], int] = {pool.submit(work, *job): k for k, job in enumerate(jobs)}
        try:
            while waiting:
                ended, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                if tick is not None:
                    tick()
                for future in ended:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a process of the build was killed, by hand or for want of memory; what is done is kept: run it again"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
