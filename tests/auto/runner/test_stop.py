"""Signals of a batch system.

The run ends after its epoch or in time, and goes on to the same bits.
"""

import math
import os
import signal
import sys
import time

import pytest
from processes import WITHIN_S, kill, long, under_way
from small import Epochs, assert_same_results, quick, read, small

from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.checkpoint import Checkpoints
from cplxnet.auto.runner.stop import Interrupted, Stop, on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    handlers = {each: signal.getsignal(each) for each in (number, signal.SIGALRM)}
    with on_signals(grace_s=60.0) as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked and 45 < stop.left_s <= 50
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), number)
            time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert {each: signal.getsignal(each) for each in handlers} == handlers


def test_the_deadline_interrupts_whatever_is_done():
    with pytest.raises(Interrupted), on_signals(grace_s=0.3):
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
    assert 0.1 < time.monotonic() - began < 5


def test_of_several_deadlines_the_earliest_counts():
    stop = Stop()
    stop.ask(60.0)
    stop.ask(600.0)
    assert 50 < stop.left_s <= 60
    stop.ask(0.0)
    assert stop.left_s == 0
    with pytest.raises(Interrupted, match="asked to stop"):
        stop.heed()


@pytest.mark.parametrize("grace_s", [math.nan, math.inf, -5.0])
def test_a_grace_is_a_number_of_seconds(grace_s):
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(ValueError, match=r"expected a grace of 0 or more seconds, got .*; try 30"),
        on_signals(grace_s),
    ):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stop_asked_while_an_epoch_is_saved_loses_none(done, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("cplxnet.auto.runner.checkpoint.checkpoint_every_s", lambda device: 3600.0)
    stop, save = Stop(), Checkpoints.save
    epochs = Epochs().watch(monkeypatch)

    def asking(self, epoch, state, *, last=False):
        save(self, epoch, state, last=last)
        if epoch == 3:  # of sparsify's two, after which no checkpoint is due
            stop.ask(within_s=600.0)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Checkpoints, "save", asking)
        quick(small(), tmp_path, tiny_corpus, stop=stop)
    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n == 6  # none is trained twice
    assert_same_results(done, tmp_path)


@pytest.mark.parametrize("every_s", [0.0, 3600.0], ids=["each epoch", "seldom, as on a GPU"])
def test_a_run_ends_after_its_epoch_which_is_saved(
    done, tiny_corpus, tmp_path, monkeypatch, every_s
):
    monkeypatch.setattr("cplxnet.auto.runner.checkpoint.checkpoint_every_s", lambda device: every_s)
    stop = Stop()
    epochs = Epochs(lambda n: n == 3 and stop.ask(within_s=600.0)).watch(monkeypatch)
    with pytest.raises(Interrupted):
        quick(small(), tmp_path, tiny_corpus, stop=stop)
    status = read(tmp_path, "status")
    assert (status["state"], status["stage"], status["epoch"]) == ("interrupted", "sparsify", 2)
    assert epochs.n == 4

    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n == 6  # none is trained twice
    assert_same_results(done, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("at_a_time", [1, 2], ids=["in this process", "on workers"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_grid_ends_with_an_exit_code_of_its_own(
    tiny_corpus, tmp_path, started, at_a_time, number
):
    folder = tmp_path / "grid"
    names = [f"r{seed}" for seed in range(at_a_time)]
    grid.write(folder, {name: long(seed) for seed, name in enumerate(names)})
    options = ["--per-device", at_a_time, "--grace", 200]
    command = started.command(folder, tiny_corpus, *options)
    for name in names:
        under_way(folder / name, command=command)
    if at_a_time == 1:
        os.kill(command.pid, number)
    else:  # as a batch system does: every process gets it
        kill(command, number)
    assert command.wait(WITHIN_S) == 75, started.logs()

    shown = command.log.read_text(errors="replace")
    assert f"{number.name}: ends after this epoch, or in 190 s" in shown
    assert "stopped as asked; the same command goes on from here" in shown
    assert "Traceback" not in shown
    for name in names:
        status = read(folder / name, "status")
        assert status["state"] == "interrupted" and status["epoch"] < 150
        history = (folder / name / "history.jsonl").read_text().splitlines()
        assert (folder / name / f"epoch-{len(history):04}.pt").exists()


@pytest.mark.slow
def test_one_manifest_ends_with_that_exit_code(tiny_corpus, tmp_path, started):
    long().save(tmp_path / "one.json")
    command = started(
        sys.executable, "-m", "cplxnet.auto", "run", tmp_path / "one.json",
        "--data", tiny_corpus, "--grace", "200", name="command",
    )  # fmt: skip
    under_way(tmp_path / "one", command=command)
    os.kill(command.pid, signal.SIGTERM)
    assert command.wait(WITHIN_S) == 75, started.logs()
    assert read(tmp_path / "one", "status")["state"] == "interrupted"
