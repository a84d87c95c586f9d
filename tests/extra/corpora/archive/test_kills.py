"""Killed before changes of the disk of every kind, at random moments, with two processes: the same
bytes in the end.
"""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extra.corpora import archive

RECORD = "musicnet.build.json"


def check_finals(data, expected):
    """Whatever has a final name is whole; the record is only there with all that it promises."""
    there = {path.name for path in data.glob("*") if not path.name.startswith(".")}
    assert there <= {*expected, RECORD}
    for name in there - {RECORD}:
        assert (data / name).read_bytes() == expected[name]
    if RECORD in there:
        assert (
            {one["name"] for one in json.loads((data / RECORD).read_text())["files"]}
            == set(expected)
            <= there
        )


def staged(data):
    return {
        path.name: path.stat().st_mtime_ns for path in (data / ".musicnet-build").glob("id_*.json")
    }


def test_killed_before_changes_of_the_disk(forked, expected, tmp_path):
    """Each build goes on from what the one before has left, and is killed some steps later than
    that.
    """
    step, before, steps = 0, {}, random.Random(2)
    while True:
        step += steps.randint(1, 3)
        told = forked(tmp_path, step=step)
        assert told["error"] == "" and told["ended"] in (-9, 0)
        check_finals(tmp_path, expected)
        if told["ended"] == 0:
            break
        now = staged(tmp_path)
        if not (tmp_path / RECORD).exists():
            assert before.items() <= now.items()  # what was done is not done again
            before = now
    assert step > 40 and len(before) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*expected, RECORD])


def test_killed_while_it_cleans_up_it_cleans_up_the_next_time(forked, expected, tmp_path):
    assert forked(tmp_path)["ended"] == 0
    (tmp_path / ".musicnet-build").mkdir()
    (tmp_path / ".musicnet-build" / "id_1727.audio.0.full").write_bytes(b"left")
    assert forked(tmp_path)["ended"] == 0 and not (tmp_path / ".musicnet-build").exists()
    check_finals(tmp_path, expected)


def test_killed_at_random_moments(forked, expected, tmp_path):
    moments = random.Random(3)
    for _ in range(8):
        told = forked(tmp_path, seconds=moments.uniform(0.001, 0.25))
        assert told["error"] == "" and told["ended"] in (-9, 0)
        check_finals(tmp_path, expected)
    assert forked(tmp_path)["ended"] == 0
    assert {name: (tmp_path / name).read_bytes() for name in expected} == expected


@pytest.mark.faults
def test_two_processes_killed_and_run_again_at_once(unpacked, metadata_csv, expected, tmp_path):
    options = [
        "--data",
        str(tmp_path),
        "--metadata",
        str(metadata_csv),
        "--no-check",
        "--workers",
        "2",
    ]
    command = [sys.executable, "-m", "extra.corpora.archive", str(unpacked), *options]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[4], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not staged(tmp_path):
        time.sleep(0.01)
    process.kill()
    process.wait()
    check_finals(tmp_path, expected)
    archive.build(unpacked, tmp_path, metadata_csv=metadata_csv, n_workers=0)
    assert {name: (tmp_path / name).read_bytes() for name in expected} == expected
