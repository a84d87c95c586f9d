"""Files are whole or not there, and reading a snapshot runs no code."""

import errno
import io
import json
import os
import pickle
import re
import resource
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from cplxnet import files


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    files.write(path, lambda file: file.write(b"old") and None)

    def fill(file):
        file.write(b"half of the new")
        raise error("disk full")

    with pytest.raises(error, match="disk full"):
        files.write(path, fill)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_an_error_in_a_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        files.write(tmp_path / "a.bin", lambda file: 1 / 0)
    assert os.listdir(tmp_path) == []


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "er" / "a.bin"

    def fill(file):
        file.write(b"12")
        file.flush()
        assert not path.exists()
        file.write(b"34")

    files.write(path, fill)
    assert path.read_bytes() == b"1234"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_text_is_utf8_and_json_ends_in_a_newline(tmp_path):
    files.write_text(tmp_path / "a.txt", "Für Elise")
    assert (tmp_path / "a.txt").read_bytes() == b"F\xc3\xbcr Elise"
    files.write_json(tmp_path / "a.json", {"a": [1, None]})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n") and json.loads(text) == {"a": [1, None]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_cannot_say(tmp_path, value):
    files.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": value})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_tensors_come_back_bit_for_bit(tmp_path):
    value = {
        "z": torch.randn(3, 2, dtype=torch.complex64),
        "mask": torch.tensor([True, False]),
        "n": 3,
        "s": "x",
    }
    files.write_tensors(tmp_path / "a.pt", value)
    for read in (
        files.read_tensors(tmp_path / "a.pt"),
        torch.load(tmp_path / "a.pt", weights_only=True),
    ):
        assert read.keys() == value.keys() and (read["n"], read["s"]) == (3, "x")
        assert torch.equal(read["z"], value["z"]) and torch.equal(read["mask"], value["mask"])


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_code_in_a_snapshot_is_refused_not_run(tmp_path, save):
    path, trace = tmp_path / "evil.pt", tmp_path / "executed"
    save({"model": Malicious(trace)}, path)
    with pytest.raises(
        ValueError, match=r"evil\.pt: expected a snapshot of tensors and plain values"
    ):
        files.read_tensors(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # so the file would have done it


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_snapshot_is_named(tmp_path, share):
    path = tmp_path / "0-dense.pt"
    files.write_tensors(path, {"a": torch.randn(1000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"0-dense\.pt: expected a snapshot"):
        files.read_tensors(path)


def test_no_snapshot_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        files.read_tensors(tmp_path / "none.pt")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "a.txt", "a")
        files.create(tmp_path / "b.txt", "b")
    finally:
        os.umask(before)
    for name in ("a.txt", "b.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_only_regular_files_are_replaced(tmp_path):
    for path in (Path("/dev/null"), tmp_path):
        with pytest.raises(OSError, match=f"{path}: expected a regular file or nothing there"):
            files.write_text(path, "a")
    assert not Path("/dev/null").is_file() and list(tmp_path.iterdir()) == []


def test_whoever_may_not_go_on_writes_nothing(tmp_path):
    def check():
        raise RuntimeError("taken over")

    files.write_text(tmp_path / "a.txt", "old")
    for write in (
        lambda: files.write_text(tmp_path / "a.txt", "new", check=check),
        lambda: files.share(tmp_path / "a.txt", tmp_path / "b.txt", check=check),
    ):
        with pytest.raises(RuntimeError, match="taken over"):
            write()
    assert os.listdir(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_of_two_that_create_a_file_one_succeeds(tmp_path):
    files.create(tmp_path / "claim.1", "first")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "claim.1", "second")
    assert (tmp_path / "claim.1").read_text() == "first" and os.listdir(tmp_path) == ["claim.1"]


def test_a_shared_file_is_one_file_and_sharing_it_twice_leaves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"1234")
    for _ in range(2):
        files.share(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a").samefile(tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_is_copied_where_there_are_no_hard_links(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_bytes(b"1234")
    files.share(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"1234"
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    files.create(tmp_path / "c", "5")
    assert (tmp_path / "c").read_text() == "5" and sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_what_killed_writers_have_left_is_swept(tmp_path):
    class Killed(BaseException):
        pass

    with pytest.raises(Killed), files.written(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        (tmp_path / ".b.bin.77-0123.part").write_bytes(b"half")
        (tmp_path / ".c.json.xyz.tmp").write_bytes(b"of an older version")
        (tmp_path / "kept.part").write_bytes(b"not hidden, not ours")
        raise Killed
    files.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["kept.part"]


# -- damage ----------------------------------------------------------------------------------------

SNAPSHOT = {
    "schema": 1,
    "key": "k",
    "model": {"w": torch.randn(5, generator=torch.Generator().manual_seed(0)), "mask": None},
    "optimizer": {"w": {"step": torch.tensor(3.0), "avg": torch.ones(2, 2).t()}},
    "history": '[{"loss": 0.1}]',
    "list": [1, (2.5, float("inf"))],
}


def same(a, b):
    """Equal in kind, dtype and every bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def test_a_flipped_bit_is_never_read_as_other_tensors(tmp_path):
    path = tmp_path / "0-dense.pt"
    files.write_snapshot(path, SNAPSHOT)
    assert same(files.read_tensors(path), SNAPSHOT)
    assert same(torch.load(path, weights_only=True), SNAPSHOT | {"crc32": files._crc32(SNAPSHOT)})

    whole = path.read_bytes()
    n_named = 0
    for number, at in enumerate(range(0, len(whole), 7)):
        flipped = whole[at] ^ (1 << number % 8)
        path.write_bytes(whole[:at] + bytes([flipped]) + whole[at + 1 :])
        try:
            assert same(files.read_tensors(path), SNAPSHOT)  # a bit that nothing depends on
        except ValueError as error:
            assert str(path) in str(error)
            n_named += 1
    assert n_named > len(whole) / 7 / 2


@pytest.mark.parametrize("write", [files.write_snapshot, files.write_tensors])
def test_a_tensor_marked_as_a_folder_is_named(tmp_path, write):
    """The one bit that zip's checksums do not see: torch would read uninitialised memory."""
    path = tmp_path / "0-dense.pt"
    write(path, SNAPSHOT)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"/data/0")
    start = content.rindex(b"PK\x01\x02", 0, entry)  # its entry in the zip's directory
    content[start + 38] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"0-dense\.pt: expected a snapshot .*, got"):
        files.read_tensors(path)


def test_values_other_than_those_written_are_named_though_the_zip_is_sound(tmp_path):
    path = tmp_path / "0-dense.pt"
    files.write_snapshot(path, SNAPSHOT)
    written = torch.load(path, weights_only=True)
    written["model"]["w"][2] += 1e-3
    torch.save(written, path)
    with pytest.raises(ValueError, match=r"0-dense\.pt: .* got other values than were written"):
        files.read_tensors(path)
    written["model"]["w"] = written["model"]["w"].reshape(5, 1)
    torch.save(written, path)
    with pytest.raises(ValueError, match=r"0-dense\.pt: .* got other values than were written"):
        files.read_tensors(path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ESTALE, "Stale"), OSError(errno.EMFILE, "Too many"), MemoryError()]
)
def test_an_error_of_the_system_is_no_damage(tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    path = tmp_path / "0-dense.pt"
    files.write_snapshot(path, SNAPSHOT)
    monkeypatch.setattr("zipfile.ZipFile", fail)
    with pytest.raises(type(error)) as raised:
        files.read_tensors(path)
    assert raised.value is error


def test_conjugate_and_negative_views_are_written_as_what_they_show(tmp_path):
    z = torch.tensor([1 + 2j, 3 - 4j])
    files.write_snapshot(tmp_path / "z.pt", {"conj": z.conj(), "imag": z.clone().conj().imag})
    read = files.read_tensors(tmp_path / "z.pt")
    assert read["conj"].tolist() == [1 - 2j, 3 + 4j] and read["imag"].tolist() == [-2, 4]


# -- left-overs ------------------------------------------------------------------------------------


def test_only_left_overs_of_the_named_files_are_swept(tmp_path):
    for name in (".claim.1.77-01.draft", ".claim.2.77-02.part", ".scores.json.7-1.part"):
        (tmp_path / name).write_text("half")
    files.sweep(tmp_path, "claim.")
    assert os.listdir(tmp_path) == [".scores.json.7-1.part"]


def test_the_next_writing_removes_what_a_killed_one_has_left(tmp_path):
    """Of the same file, and of a process that has ended; not what another one is writing."""
    path = tmp_path / "net.[1].pt"
    fork = """
import os, signal, sys
from cplxnet import files
with files.written(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", fork, str(path)])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()

    mine = left.with_name(re.sub(r"\d+-(?=\w{8}-)", f"{os.getpid()}-", left.name))
    elsewhere = left.with_name(re.sub(r"-\w{8}-", "-0a1b2c3d-", left.name))
    older_version = left.with_name(re.sub(r"-\w{8}-", "-", left.name))
    other_file = left.with_name(left.name.replace(".pt.", ".pt.csv."))
    others = (mine, elsewhere, older_version, other_file)
    for part in others:
        part.write_text("half")
    assert len({left, *others}) == 5

    files.write_text(path, "whole")
    assert set(tmp_path.iterdir()) == {path, *others}

    yesterday = time.time() - 90_000
    for part in others:
        os.utime(part, (yesterday, yesterday))
    files.write_text(path, "whole")
    assert set(tmp_path.iterdir()) == {path, other_file}


def test_a_draft_that_was_swept_is_a_file_lost_to_the_sweeper(tmp_path, monkeypatch):
    link = os.link

    def swept(source, target):
        files.sweep(tmp_path)
        link(source, target)

    monkeypatch.setattr("os.link", swept)
    with pytest.raises(FileExistsError, match=r"claim\.1: made by another process"):
        files.create(tmp_path / "claim.1", "late")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_no_empty_file_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "no links here")

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(path, mode):
        path.touch()
        return Full()

    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="No space left"):
        files._create_by_name(tmp_path / "claim.1", "ours")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [files.write_text, files.create])
def test_a_full_disk_names_the_file(tmp_path, write):
    path = tmp_path / "status.json"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            write(path, 5000 * "x")
        with pytest.raises(OSError, match=f"File too large: '{path}'"):
            files.write_tensors(path, {"w": torch.ones(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", [str, Path])
def test_an_error_of_the_temporary_file_names_the_one_that_is_written(tmp_path, monkeypatch, name):
    def refused(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", name(path))

    monkeypatch.setattr(Path, "open", refused)
    path = tmp_path / "page.md"
    for write in (files.write_text, files.create):
        with pytest.raises(PermissionError) as error:
            write(path, "text")
        assert error.value.filename == str(path)


def test_a_disk_that_fails_names_the_file_that_is_read(tmp_path, monkeypatch):
    def failing(archive):
        raise OSError(errno.EIO, "Input/output error")

    files.write_snapshot(tmp_path / "0-dense.pt", {"w": torch.ones(3)})
    monkeypatch.setattr(zipfile.ZipFile, "testzip", failing)
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path / '0-dense.pt'}'"):
        files.read_tensors(tmp_path / "0-dense.pt")
