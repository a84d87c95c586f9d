"""Claims: one of many gets it, a live one is never taken, one whose owner is gone is."""

import errno
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cplxnet import files
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.lock import Owner

SHORT_S = 1.2  # a beat each 0.1 s

RACER = """
import sys, time
from cplxnet.auto.runner import lock
place, log, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[4])):
    try:
        with lock.hold(place, 60.0) as held:
            with open(log, "a") as file:
                file.write("in\\n")
            print("held", flush=True)
            time.sleep(seconds)
            with open(log, "a") as file:
                file.write("out\\n")
    except lock.Held:
        time.sleep(0.001)
"""


def racer(place, log, *, seconds=0.0, times=1):
    command = [sys.executable, "-c", RACER, str(place), str(log), str(seconds), str(times)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.fixture
def processes():
    """Processes to be ended with the test."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_of_several_at_a_time_one_is_in(tmp_path, processes):
    processes += [racer(tmp_path / "claim", tmp_path / "log", times=20) for _ in range(2)]
    go(*processes)
    assert [process.wait(120) for process in processes] == [0, 0]
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) >= 6 and lines == ["in", "out"] * (len(lines) // 2)


def test_a_live_one_is_never_taken(tmp_path):
    with lock.hold(tmp_path / "claim", SHORT_S):
        end = time.monotonic() + 2 * SHORT_S
        while time.monotonic() < end:
            with pytest.raises(lock.Held, match=f"held by process {os.getpid()} on "):
                lock.hold(tmp_path / "claim", SHORT_S)
            time.sleep(0.05)
    with lock.hold(tmp_path / "claim") as again:  # given up: free at once
        assert again.generation == 2


def test_one_whose_process_is_gone_is_taken_at_once(tmp_path, processes):
    processes.append(racer(tmp_path / "claim", tmp_path / "log", seconds=600))
    go(*processes)
    assert processes[0].stdout.readline() == "held\n"
    with pytest.raises(lock.Held, match=f"process {processes[0].pid} "):
        lock.hold(tmp_path / "claim")
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    with lock.hold(tmp_path / "claim") as held:
        held.check_now()


def stranger(place, timeout_s, generation=3):
    """A claim of a process on a machine of which nothing is known."""
    owner = Owner(1, "elsewhere", "another boot/1", 1)
    content = {"owner": owner._asdict(), "timeout_s": timeout_s, "released": False}
    files.write_json(place.with_name(f"{place.name}.{generation}"), content)


def test_one_on_another_machine_is_taken_after_silence_as_watched(tmp_path):
    stranger(tmp_path / "claim", SHORT_S)
    os.utime(tmp_path / "claim.3", (0, 0))  # long ago, or by a clock that is wrong: not compared
    began, looks = time.monotonic(), 0
    while True:
        try:
            held = lock.hold(tmp_path / "claim")
            break
        except lock.Held:
            looks += 1
            time.sleep(0.05)
    with held:
        assert held.generation == 4 and time.monotonic() - began >= SHORT_S and looks >= 5


def test_a_long_sleep_of_the_watcher_is_no_silence_of_the_owner(tmp_path, monkeypatch):
    stranger(tmp_path / "claim", SHORT_S)
    with pytest.raises(lock.Held):
        lock.hold(tmp_path / "claim")
    now = time.monotonic()
    monkeypatch.setattr(lock.time, "monotonic", lambda: now + 3600)
    with pytest.raises(lock.Held):
        lock.hold(tmp_path / "claim")


def test_an_owner_whose_claim_was_taken_notices_before_it_writes(tmp_path):
    with lock.hold(tmp_path / "claim") as held:
        held.check_now()
        stranger(tmp_path / "claim", 60.0, generation=2)
        with pytest.raises(lock.ClaimLost, match=r"claim\.1: taken over by another process"):
            held.check_now()
        with pytest.raises(lock.ClaimLost):
            held.check()
    assert (
        lock.newest(tmp_path / "claim").owner.host == "elsewhere"
    )  # not given up in the other's name


def test_an_owner_that_slept_takes_no_later_claim_of_its_number_for_its_own(tmp_path):
    """It was taken over, the taker finished, and a third process began at claim.1 again."""
    asleep = lock.hold(tmp_path / "claim")
    asleep.path.unlink()
    with lock.hold(tmp_path / "claim") as third:
        assert third.path == asleep.path
        with pytest.raises(lock.ClaimLost, match=r"claim\.1: taken over by another process"):
            asleep.check_now()

        with asleep:  # its end leaves the file as it is
            asleep.finish()
        third.check_now()
        assert not lock.newest(tmp_path / "claim").released


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_file_system_that_is_away_for_a_while_loses_no_claim_one_that_stays_away_does(
    tmp_path, monkeypatch, number
):
    def away(*args, **options):
        raise OSError(number, os.strerror(number))

    with lock.hold(tmp_path / "claim", SHORT_S) as held:
        for place, name in ((os, "utime"), (Path, "exists"), (Path, "read_bytes")):
            with monkeypatch.context() as patch:
                patch.setattr(place, name, away)
                time.sleep(SHORT_S / 3)
        held.check()
        time.sleep(SHORT_S / 3)
        before = held.path.stat().st_mtime_ns
        time.sleep(SHORT_S / 3)
        assert held.path.stat().st_mtime_ns > before  # it beats on

        monkeypatch.setattr(os, "utime", away)
        time.sleep(1.5 * SHORT_S)
        with pytest.raises(lock.ClaimLost):
            held.check()


@pytest.mark.parametrize("timeout_s", [0, -1, 0.5, math.nan, math.inf])
def test_a_timeout_is_a_finite_number_of_at_least_a_second(tmp_path, timeout_s):
    """With 0 two processes trained one run at once; with inf a dead one's was never taken."""
    with pytest.raises(ValueError, match="expected a timeout of at least a second, got"):
        lock.hold(tmp_path / "claim", timeout_s)
    assert not list(tmp_path.iterdir())


def test_a_finished_claim_leaves_nothing(tmp_path):
    with lock.hold(tmp_path / "claim") as held:
        held.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[" * 100_000, '{"released": 0, "owner": {"pid": "x"}}', "null"]
)
def test_a_damaged_claim_counts_as_held_until_it_was_silent(tmp_path, text):
    (tmp_path / "claim.1").write_text(text)
    with pytest.raises(lock.Held):
        lock.hold(tmp_path / "claim")


def test_a_process_number_used_again_is_another_process():
    me = Owner.me()
    assert not me.gone()
    assert me._replace(began=(me.began or 0) - 1).gone()
    assert not me._replace(machine="another", began=0).gone()


@pytest.mark.parametrize(("error", "gone"), [(PermissionError, False), (ProcessLookupError, True)])
def test_a_process_that_proc_hides_is_gone_only_if_the_system_says_so(monkeypatch, error, gone):
    """Another user's, with /proc mounted hidepid=2."""

    def kill(pid, number):
        raise error

    owner = Owner.me()
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(lock, "_began", lambda pid: None)
    assert owner.gone() == gone
