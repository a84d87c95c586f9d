"""A disk that is really full: a clear error, what was done is kept, and it goes on once there is
room.
"""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from cplxnet.files import written
from extra.corpora import archive
from extra.corpora.archive import download
from extra.corpora.hdf5 import Hdf5


@pytest.fixture
def disk(tmp_path) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A small file system of its own, and a function that sets its size in KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int, *options: str) -> int:
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join([*options, f"size={size}k"]),
            "tmpfs",
            str(folder),
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode

    if shutil.which("mount") is None or os.geteuid() != 0 or mount(300) != 0:
        pytest.skip("needs root and the right to mount a tmpfs")

    def resize(size: int) -> None:
        assert mount(size, "remount") == 0

    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.faults
def test_it_grows_until_the_build_fits(disk, forked, expected):
    """From no room for one recording to just enough: at each size another write is the one that
    fails.
    """
    folder, resize = disk
    size, before, failures = 300, set(), 0
    while (told := forked(folder / "data"))["ended"] != 0:
        failures += 1
        assert told["ended"] == 1 and "DiskFullError" in told["error"], told
        assert (
            "no space left; the recordings done so far are kept there, make room and run again"
            in told["error"]
        )
        staging = folder / "data" / ".musicnet-build"
        staged = {path.name for path in staging.glob("id_*.json")}
        assert before <= staged and not list(staging.glob("*.part"))
        assert not list((folder / "data").glob("*.h5")) or len(staged) == 8
        for path in (folder / "data").glob("*.h5"):
            assert path.read_bytes() == expected[path.name]
        before, size = staged, size + 188
        resize(size)
    assert failures > 15 and len(before) == 8
    assert {name: (folder / "data" / name).read_bytes() for name in expected} == expected


def test_a_download_keeps_what_came(disk, monkeypatch):
    folder, resize = disk
    content = np.random.default_rng(0).bytes(1 << 20)

    class Response:
        status_code, headers = 200, {}

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def iter_content(self, size):
            yield from (content[k : k + 65536] for k in range(0, len(content), 65536))

    monkeypatch.setattr(download.requests.Session, "get", lambda *_, **__: Response())
    with pytest.raises(
        archive.DiskFullError,
        match=r"no space left; what came is kept in .*\.a\.part: make room and",
    ):
        download.fetch("http://127.0.0.1/a", folder / "a")
    kept = (folder / ".a.part").read_bytes()
    assert 0 < len(kept) <= 300 << 10 and content.startswith(kept) and not (folder / "a").exists()
    resize(4096)
    assert download.fetch("http://127.0.0.1/a", folder / "a").read_bytes() == content


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("samples", [10, 1 << 21])
def test_hdf5_on_a_full_disk_ends_in_the_systems_error(samples):
    """Refused while it writes, or first when it closes; h5py alone dies of a segmentation fault
    there.
    """
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        Hdf5(Path("/dev/full")) as file,
    ):
        file.append(
            file.root.create_dataset("data", (samples,), "<f4"), 0, np.zeros(samples, np.float32)
        )
    assert caught.value.errno == errno.ENOSPC


def test_what_was_refused_is_read_back_until_the_error_is_told(tmp_path, monkeypatch):
    """HDF5 reads its own tables again while it writes; they must be there although the disk took
    none of them.
    """
    groups = 300
    with pytest.raises(OSError, match="No space left"), Hdf5(Path("/dev/full")) as file:
        for k in range(groups):
            file.root.create_group(f"id_{k:04d}").attrs["number"] = k
        file.root.flush()
        assert [file.root[name].attrs["number"] for name in file.root] == list(range(groups))
    with written(tmp_path / "a.h5") as path, Hdf5(path) as file:
        file.append(
            file.root.create_dataset("data", (9,), "<f4"), 0, np.arange(9, dtype=np.float32)
        )
    with h5py.File(tmp_path / "a.h5") as plain:
        assert plain["data"][()].tolist() == list(range(9))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
