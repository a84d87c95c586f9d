"""A worker's slots: so many runs on a device, in a folder that is this user's alone."""

import os
import stat

import pytest
from small import small

from cplxnet.auto.runner import run
from cplxnet.auto.runner.stop import Interrupted, Stop
from cplxnet.auto.sweep import queue, worker
from cplxnet.auto.sweep.queue import Outcome, Settings
from cplxnet.auto.sweep.worker import Job


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job of two devices, whose slots are in tmp_path."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(run, "answers", lambda device: True)
    return Job(Settings(tmp_path, tmp_path), ("cuda:0", "cuda:1"), per_device=2, threads=None)


def slots(tmp_path):
    return tmp_path / f"cplxnet-slots-{os.getuid()}"


def test_each_device_has_a_run_before_one_has_two_and_no_more_than_asked_for(job):
    stop = Stop()
    taken = [worker._slot(job, stop) for _ in range(4)]
    devices = [slot.__enter__() for slot in taken]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]

    stop.ask()
    with pytest.raises(Interrupted), worker._slot(job, stop):
        pass  # all are taken, and the job was asked to stop
    taken[1].__exit__(None, None, None)
    with worker._slot(job, Stop()) as device:
        assert device == "cuda:1"
    for slot in (taken[0], *taken[2:]):
        slot.__exit__(None, None, None)


def test_a_device_that_does_not_answer_is_left_out_while_another_does(job, monkeypatch):
    monkeypatch.setattr(run, "answers", lambda device: device != "cuda:0")
    with worker._slot(job, Stop()) as one, worker._slot(job, Stop()) as two:
        assert (one, two) == ("cuda:1", "cuda:1")
    monkeypatch.setattr(run, "answers", lambda device: False)
    with worker._slot(job, Stop()) as device:
        assert device in job.devices  # so that its run names it


def test_the_folder_is_private_and_left_empty(job, tmp_path):
    before = os.umask(0)
    try:
        with worker._slot(job, Stop()):
            pass
    finally:
        os.umask(before)
    for path in (slots(tmp_path), slots(tmp_path) / job.id):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((slots(tmp_path) / job.id / "0").stat().st_mode) == 0o600

    worker.forget(job.id)
    assert not list(slots(tmp_path).iterdir())


def test_a_link_in_place_of_the_folder_or_of_a_slot_is_not_followed(job, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "text").write_text("kept")
    slots(tmp_path).symlink_to(victim)
    with pytest.raises(PermissionError, match="expected a folder that this user alone can write"):
        worker._slot(job, Stop()).__enter__()

    slots(tmp_path).unlink()
    (slots(tmp_path) / job.id).mkdir(parents=True)
    (slots(tmp_path) / job.id / "0").symlink_to(victim / "text")
    with pytest.raises(OSError, match="symbolic links"):
        worker._slot(job, Stop()).__enter__()
    assert [path.name for path in victim.iterdir()] == ["text"]
    assert (victim / "text").read_text() == "kept"


def test_a_folder_of_another_user_or_one_that_others_may_write_into(job, tmp_path, monkeypatch):
    slots(tmp_path).mkdir()
    slots(tmp_path).chmod(0o777)
    outcome = worker.work("one", job, small())
    assert outcome.state == "failed" and "drwxrwxrwx" in outcome.reason
    assert not (tmp_path / "one").exists()  # it is no fault of the run's

    slots(tmp_path).chmod(0o700)
    mine = os.getuid()
    monkeypatch.setattr(worker.os, "getuid", lambda: mine + 1)
    slots(tmp_path).mkdir()
    with pytest.raises(PermissionError, match=f"drwx.* of user {mine}"):
        worker._slot(job, Stop()).__enter__()


def test_a_process_that_has_lost_its_device_ends_and_the_run_goes_to_another(job, monkeypatch):
    states = iter([True, False])
    monkeypatch.setattr(run, "answers", lambda device: next(states))
    monkeypatch.setattr(queue, "run_one", lambda name, *_, **__: Outcome(name, "failed", "lost"))

    def ended(code):
        raise SystemExit(code)

    monkeypatch.setattr(worker.os, "_exit", ended)
    with pytest.raises(SystemExit, match="1"):
        worker.work("one", job, small())


def test_a_job_may_be_asked_to_stop_before_its_first_run_begins(job):
    with pytest.raises(StopIteration):
        worker.stop(job.id, 5.0).send(None)
    assert worker._stop_of(job.id).asked and worker._stop_of(job.id).left_s > 0
    assert not worker._stop_of("another").asked
