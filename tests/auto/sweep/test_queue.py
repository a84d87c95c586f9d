"""Which run is next: runs that share a stage wait for it, and a look reads each run once."""

import sys

import pytest
from small import C, small

from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep import queue
from cplxnet.auto.sweep.queue import Outcome, Queue, Settings

OPENED: list[str] | None = None


def _note(event, arguments):
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(_note)  # it cannot be removed, but notes nothing outside `opened`


@pytest.fixture
def opened(monkeypatch):
    """The files opened during the test."""
    files: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "OPENED", files)
    return files


@pytest.fixture
def patience(monkeypatch):
    """Sets the seconds between two looks at other processes' runs and at stages waited for."""
    return lambda seconds: monkeypatch.setattr(queue, "LOOK_EVERY_S", seconds)


def sharing(folder, n):
    """A queue of runs that share their first stage."""
    manifests = {f"r{number}": small({C: 0.1 + number}) for number in range(n)}
    return Queue(manifests, Settings(folder, folder / "data"))


def train(folder, name, stage):
    files = RunFolder(folder / name)
    files.start(small(), "cpu")
    files.update(state="running", stages={stage: {"key": "k"}})


def test_runs_wait_for_the_first_stage_that_one_of_them_trains(tmp_path, patience):
    patience(0.0)
    waiting = sharing(tmp_path, 3)
    assert waiting.take() == "r0" and waiting.take() is None and waiting.open
    train(tmp_path, "r0", "sparsify")
    assert waiting.take() is None
    train(tmp_path, "r0", "dense")
    assert (waiting.take(), waiting.take(), waiting.take()) == ("r1", "r2", None)


def test_what_is_with_another_process_is_taken_last_and_not_at_once(tmp_path, patience):
    waiting = sharing(tmp_path, 2)
    assert waiting.take() == "r0"
    waiting.settle(Outcome("r0", "elsewhere", "held"))
    assert waiting.take() is None and not waiting.waiting  # r1 waits for its stage
    patience(0.0)
    assert waiting.take() == "r0"  # it may have come free
    waiting.settle(Outcome("r0", "skipped"))
    assert waiting.take() == "r1"
    waiting.settle(Outcome("r1", "failed", "why"))
    states = [outcome.state for outcome in waiting.all_outcomes()]
    assert states == ["done", "failed"] and not waiting.open


def test_a_look_at_many_runs_that_wait_reads_each_once_and_not_again_at_once(tmp_path, opened):
    n = 60
    waiting = sharing(tmp_path, n)
    for number in range(n):
        RunFolder(tmp_path / f"r{number}").start(small(), "cpu")
    assert waiting.take() == "r0"
    opened.clear()
    assert waiting.take() is None
    assert sum(path.endswith("status.json") for path in opened) == n
    opened.clear()
    assert waiting.take() is None
    assert not opened


def test_progress_is_epochs_trained_since_the_run_was_given_out(tmp_path):
    waiting = sharing(tmp_path, 1)
    files = RunFolder(tmp_path / "r0")
    files.write_history([{"epoch": 0}])
    assert waiting.take() == "r0" and not waiting.has_progressed("r0")
    files.write_history([{"epoch": 0}, {"epoch": 1}])
    assert waiting.has_progressed("r0")
    waiting.put_back("r0")
    assert waiting.take() == "r0" and not waiting.has_progressed("r0")
    (tmp_path / "r0" / "history.jsonl").write_text("{")  # damaged: no progress that is known
    assert not waiting.has_progressed("r0")
