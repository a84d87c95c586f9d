"""Full disks and folders that cannot be written: one run's trouble, told, gone on with later."""

import subprocess

import pytest
from small import quick, read, small, timeless

from cplxnet.auto import run_many
from cplxnet.auto.manifest import grid


def mounted(folder, *options):
    """Mount a file system for the test; skips where that is not allowed."""
    result = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"mounting is not allowed here: {result.stderr.strip()}")


@pytest.fixture
def unmount():
    """Folders to be unmounted after the test."""
    folders = []
    yield folders
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


@pytest.mark.slow
def test_a_disk_that_fills_up(tiny_corpus, tmp_path, unmount):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted(
        disk, "-t", "tmpfs", "-o", "size=20m", "tmpfs"
    )  # not enough for three stages of a network of 8 MB
    unmount.append(disk)
    grid.write(disk, {"one": small()})
    outcome = run_many(disk, data=tiny_corpus, progress=False)[0]
    assert outcome.state == "failed" and "No space left" in outcome.reason
    assert not list((disk / "one").glob(".*.part"))  # what was being written is given back
    subprocess.run(["mount", "-o", "remount,size=400m", str(disk)], check=True)
    outcome = run_many(disk, data=tiny_corpus, progress=False, retry_failed=True)[0]
    assert outcome.state == "done"
    quick(small(), tmp_path / "alone" / "one", tiny_corpus)
    assert timeless(read(disk / "one")) == timeless(read(tmp_path / "alone" / "one"))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(tiny_corpus, tmp_path, unmount):
    grid.write(tmp_path, {"one": small(), "two": small({"seed": 1})})
    (tmp_path / "one").mkdir()
    mounted(tmp_path / "one", "--bind", str(tmp_path / "one"))
    unmount.append(tmp_path / "one")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path / "one")], check=True)
    outcomes = run_many(tmp_path, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "Read-only file system" in outcomes[0].reason
    subprocess.run(["mount", "-o", "remount,bind,rw", str(tmp_path / "one")], check=True)
    assert [o.state for o in run_many(tmp_path, data=tiny_corpus, progress=False)] == [
        "done",
        "skipped",
    ]
