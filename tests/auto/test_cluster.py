"""Runs on Dask workers: the same bits, and workers that die or hang."""

import os
import signal
import threading
import time

import pytest
from small import C, quick, read, small, timeless

from cplxnet.auto import grid, report, run_many
from cplxnet.auto.folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of workers killed on purpose
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MANY = {"stages.dense.n_epochs": 60, "stages.dense.early": None}


def owner(folder, seconds=60.0):
    """The process that trains the run, once it has trained two epochs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = RunFolder(folder).status
        if status["state"] == "running" and status.get("epoch", 0) >= 2:
            return status["owner"]["pid"]
        time.sleep(0.02)
    raise TimeoutError(f"{folder}: expected a run under way, got {RunFolder(folder).status}")


def send(folder, number, times=1):
    """Send the signal to the process that trains the run, and to the next one, from a thread; the processes it hit."""
    hit = []

    def sending():
        for _ in range(times):
            process = owner(folder)
            while process in hit:
                time.sleep(0.02)
                process = owner(folder)
            hit.append(process)
            os.kill(process, number)

    thread = threading.Thread(target=sending, daemon=True)
    thread.start()
    return thread, hit


def test_two_workers_give_the_scores_of_a_run_alone_with_shared_stages_trained_once(tiny_corpus, tmp_path):
    grid.write(tmp_path, {f"c{c}-r{s}": small({C: c, "seed": s}) for c in (0.1, 0.2) for s in (0, 1)})
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False)
    assert {outcome.state for outcome in outcomes} == {"done"} and len(outcomes) == 4
    alone = quick(small({C: 0.2, "seed": 1}), tmp_path / "alone" / "one", tiny_corpus)
    assert alone and timeless(read(tmp_path / "alone" / "one")) == timeless(read(tmp_path / "c0.2-r1"))
    reused = [read(tmp_path / name)["stages"]["dense"]["reused_from"] for name in report.status(tmp_path).index]
    assert sum(value is None for value in reused) == 2  # one for each seed
    owners = {RunFolder(tmp_path / name).status["owner"]["pid"] for name in report.status(tmp_path).index}
    assert len(owners) == 2 and os.getpid() not in owners


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_run_of_a_worker_that_dies_or_hangs_goes_to_another(tiny_corpus, tmp_path, number):
    grid.write(tmp_path, {"one": small(MANY), "two": small({"seed": 1})})
    thread, hit = send(tmp_path / "one", number)
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False, timeout_s=20.0)
    thread.join(60)
    assert [outcome.state for outcome in outcomes] == ["done", "done"] and len(hit) == 1
    assert RunFolder(tmp_path / "one").status["owner"]["pid"] != hit[0]
    quick(small(MANY), tmp_path / "alone" / "one", tiny_corpus)
    assert timeless(read(tmp_path / "alone" / "one")) == timeless(read(tmp_path / "one"))


def test_a_run_whose_workers_die_four_times_has_failed_and_the_other_is_done(tiny_corpus, tmp_path):
    grid.write(tmp_path, {"one": small(MANY | {"stages.dense.n_epochs": 4000}), "two": small({"seed": 1})})
    thread, hit = send(tmp_path / "one", signal.SIGKILL, times=4)
    outcomes = run_many(tmp_path, devices=["cpu"], per_device=2, data=tiny_corpus, progress=False)
    thread.join(60)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"] and len(hit) == 4
    assert "its worker died 4 times" in outcomes[0].reason
    status = RunFolder(tmp_path / "one").status
    assert status["state"] == "failed" and "its worker died 4 times" in status["reason"]
