"""Jobs in processes of their own: one that hangs, crashes or is killed costs its own result and nothing else."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


def _call(work: Callable[..., None], arguments: tuple[Any, ...], complaint: str) -> None:
    """Run `work` in the child; what goes wrong is written to the file `complaint`."""
    try:
        work(*arguments)
    except Exception as error:
        Path(complaint).write_text(
            f"{type(error).__name__}: {error}\n{traceback.format_exc()}", encoding="utf-8"
        )
        raise SystemExit(1) from None


def _outcome(
    process: multiprocessing.process.BaseProcess, complaint: Path, late: bool, timeout_s: float
) -> str | None:
    """None where the job is done, else one line of why not."""
    if late:
        return f"did not end within {timeout_s:g} s"
    if complaint.exists():
        return complaint.read_text(encoding="utf-8").splitlines()[0]
    if process.exitcode:
        return f"its process ended with code {process.exitcode}"
    return None


def run(
    work: Callable[..., None],
    jobs: Sequence[tuple[Any, ...]],
    *,
    folder: Path,
    n_workers: int = 2,
    timeout_s: float = 60.0,
    preload: Sequence[str] = (),
) -> Iterator[tuple[int, str | None]]:
    """Call `work(*jobs[k])` for each k, at most `n_workers` at a time; yields (k, None or why it failed) as they end.

    `work` must be importable by name. A job is killed after `timeout_s` seconds. `folder` holds what failed jobs
    complain of. `preload` names modules that are imported once for all jobs, not once a job.
    """
    context = multiprocessing.get_context(
        "forkserver"
    )  # a fork of this process would copy torch's threads and locks
    context.set_forkserver_preload(list(preload))
    waiting = list(range(len(jobs)))[::-1]
    running: dict[
        int, tuple[int, multiprocessing.process.BaseProcess, float, Path]
    ] = {}  # by sentinel
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                k = waiting.pop()
                complaint = folder / f"failed-{k}.txt"
                started = context.Process(
                    target=_call, args=(work, jobs[k], str(complaint)), daemon=True
                )
                started.start()
                running[started.sentinel] = (k, started, time.monotonic() + timeout_s, complaint)
            soonest = min(deadline for _, _, deadline, _ in running.values())
            ended = set(
                multiprocessing.connection.wait(
                    list(running), timeout=max(0.0, soonest - time.monotonic())
                )
            )
            for sentinel, (k, process, deadline, complaint) in list(running.items()):
                late = sentinel not in ended and time.monotonic() >= deadline
                if late:
                    process.kill()
                if late or sentinel in ended:
                    process.join()
                    del running[sentinel]
                    yield k, _outcome(process, complaint, late, timeout_s)
    finally:
        for _, process, _, _ in running.values():
            process.kill()
            process.join()
