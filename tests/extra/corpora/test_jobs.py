"""Jobs in processes of their own: what comes back of those that end, fail, hang or are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pebble import ProcessExpired

from extra.corpora import jobs


def act(what):
    """Do what the test asks of a job."""
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise ValueError("no such instrument\nsecond line")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_every_job_is_told_and_none_harms_another():
    orders = ["end", "raise", "die", "hang", "end"]
    futures = dict(jobs.run(act, [(what,) for what in orders], n_workers=2, timeout_s=5.0))

    assert sorted(futures) == list(range(5))
    assert futures[0].result() != futures[4].result()  # a process each
    with pytest.raises(ProcessExpired):
        futures[2].result()
    reasons = [jobs.failure(futures[k], 5.0) for k in range(5)]
    assert reasons == [
        None,
        "ValueError: no such instrument",
        "its process ended with code -9",
        "did not end within 5 s",
        None,
    ]


def test_the_caller_can_look_on_meanwhile():
    looks = []
    list(jobs.run(time.sleep, [(1.2,)], tick=lambda: looks.append(time.monotonic())))

    assert len(looks) >= 2


def test_who_stops_listening_ends_the_jobs_at_work():
    start = time.monotonic()
    for _ in jobs.run(act, [("end",), ("hang",), ("hang",)], n_workers=3):
        break

    assert time.monotonic() - start < 30


def test_workers_end_when_the_build_is_killed(tmp_path):
    script = """
import os, sys, time
from extra.corpora import jobs
sys.path.insert(0, FOLDER)
import sleeper
list(jobs.run(sleeper.sleep, [()], n_workers=1))
""".replace("FOLDER", repr(str(tmp_path)))
    (tmp_path / "sleeper.py").write_text(
        "import os, time\ndef sleep():\n    print(os.getpid(), flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while (
        Path(f"/proc/{worker}").exists() and _state(worker) != "Z" and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}").exists() or _state(worker) == "Z"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"
