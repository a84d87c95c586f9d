"""A run's folder: what its files hold, and what is said of damaged ones."""

import errno
import json
import math
import os
import socket
import subprocess
import zipfile

import pytest
import torch
from c_functions import plain as plain_formulas
from small import small

from cplxnet import files
from cplxnet.auto.runner.folder import STATES, RunFolder, _git_commit, plain


def test_the_states_are_those_of_the_design():
    assert set(STATES) == {"queued", "running", "done", "failed", "diverged", "interrupted"}


def test_a_folder_that_is_not_there_is_queued_and_empty(tmp_path):
    files = RunFolder(tmp_path / "none")
    assert files.status == {"state": "queued"}
    assert (files.scores, files.history, files.config) == (None, [], {})
    assert not files.path.exists()


def test_results_kept_without_status_are_done_once_every_stage_has_scores(tmp_path):
    manifest, files = small().resolved(), RunFolder(tmp_path)
    files.start(manifest, "cpu")
    (tmp_path / "status.json").unlink()
    assert files.status == {"state": "queued"}
    *first, last = manifest.stage_order
    files.write_scores({"stages": {name: {} for name in first}})
    assert files.status == {"state": "queued"}
    files.write_scores({"stages": {name: {} for name in (*first, last)}})
    assert files.status == {"state": "done"}
    files.start(manifest, "cpu")
    assert files.status["state"] == "running"


def test_config_says_what_was_run_and_with_what(tmp_path):
    manifest, files = small().resolved(), RunFolder(tmp_path)
    files.start(manifest, "cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["manifest"] == manifest.to_dict()
    assert config["manifest"]["stages"]["fine-tune"]["optimizer"] == {
        "name": "adam",
        "lr": 1e-3,
        "lr_log_sigma2": None,
    }
    assert (config["device"], config["fingerprint"]) == ("cpu", manifest.fingerprint())
    assert config["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert config["packages"].keys() >= {"numpy", "h5py", "scipy"}
    assert config["commit"] is None or len(config["commit"].rstrip("+")) == 40


def test_the_commit_is_read_without_a_lock_on_the_checkout(tmp_path):
    """A run killed while git holds index.lock would leave a checkout that cannot be pulled."""

    def git(*arguments):
        named = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        return subprocess.check_output(["git", *named, *arguments], cwd=tmp_path, text=True).strip()

    git("init", "-q")
    code = tmp_path / "code.py"
    code.write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    os.utime(code, (0, 0))  # git status, by itself, notes this in the index
    index = (tmp_path / ".git/index").read_bytes()

    assert _git_commit.__wrapped__(tmp_path) == commit
    assert (tmp_path / ".git/index").read_bytes() == index

    (tmp_path / ".git/index.lock").touch()  # another git's
    code.write_text("a = 2\n")
    assert _git_commit.__wrapped__(tmp_path) == commit + "+"
    assert _git_commit.__wrapped__(tmp_path / "code.py") is None


def test_status_says_who_has_the_folder_and_changes_key_by_key(tmp_path):
    files = RunFolder(tmp_path)
    files.start(small(), "cpu")
    began = files.status
    assert (began["state"], began["reason"]) == ("running", None)
    assert began["owner"] == {"pid": os.getpid(), "host": socket.gethostname()}
    files.update(stage="dense", epoch=3, n_epochs=50)
    after = files.status
    assert after == began | {
        "stage": "dense",
        "epoch": 3,
        "n_epochs": 50,
        "updated": after["updated"],
    }
    assert after["updated"] >= began["updated"] == began["started"]


def test_starting_again_removes_the_traceback_of_an_earlier_attempt(tmp_path):
    files = RunFolder(tmp_path)
    files.start(small(), "cpu")
    files.record("failed", "why", trace="Traceback ...")
    assert (tmp_path / "traceback.txt").read_text() == "Traceback ..."
    files.start(small(), "cpu")
    assert not (tmp_path / "traceback.txt").exists()


def test_nan_and_infinity_are_written_as_null(tmp_path):
    files = RunFolder(tmp_path)
    files.write_scores({"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (2, None)})
    assert files.scores == {"a": None, "b": [1.5, None, {"c": None}], "d": [2, None]}
    files.write_history([{"epoch": 0, "kl": math.nan}, {"epoch": 1, "kl": 2.0}])
    assert files.history == [{"epoch": 0, "kl": None}, {"epoch": 1, "kl": 2.0}]
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2


def test_plain_leaves_its_argument_alone():
    value = {"a": [math.nan]}
    assert plain(value) == {"a": [None]} and math.isnan(value["a"][0])


@pytest.mark.parametrize("text", [b'{"state": "runn', b"", b"\xff\xfe", b"[1, 2]"])
@pytest.mark.parametrize("name", ["status", "scores", "config"])
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / f"{name}.json").write_bytes(text)
    with pytest.raises(
        ValueError, match=rf"{name}\.json: expected .*JSON.*; .*the next run (takes|sets it aside)"
    ):
        getattr(RunFolder(tmp_path), name)


def test_a_damaged_line_of_history_is_named(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"epoch": 0}\n{"epo')
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2: expected JSON"):
        _ = RunFolder(tmp_path).history


def test_snapshots_are_numbered_by_stage(tmp_path):
    assert RunFolder(tmp_path).snapshot(1, "sparsify") == tmp_path / "1-sparsify.pt"


def test_config_says_which_kernels_and_a_resume_with_others_says_so(tmp_path, capsys):
    manifest = small().resolved()
    first = RunFolder(tmp_path)
    first.start(manifest, "cpu")
    first.start(manifest, "cpu")
    assert "notes" not in first.status

    with plain_formulas():
        again = RunFolder(tmp_path)
        again.start(manifest, "cpu")
    assert again.config["kernels"] == "plain formulas"
    said = "begun with C functions, goes on with plain formulas: the last bits may differ"
    if first.config["kernels"] == "C functions":  # there is a compiler
        assert said in again.status["notes"][0] and said in capsys.readouterr().err


# -- a run that was done and is not whole any more -------------------------------------------------

SNAPSHOTS = ("0-dense.pt", "1-sparsify.pt")


@pytest.fixture
def finished(tmp_path):
    """The folder of a run that is done: two snapshots, scores, a line of history."""
    folder = RunFolder(tmp_path / "one")
    folder.start(small().resolved(), "cpu")
    for name in SNAPSHOTS:
        files.write_snapshot(folder.path / name, {"key": name, "model": {"w": torch.ones(50)}})
    folder.write_history([{"stage": "dense", "epoch": 0}])
    scores = {name[2:-3]: {"key": name, "score": 0.512} for name in SNAPSHOTS}
    folder.write_scores({"stages": scores})
    folder.finish()
    assert (folder.status["state"], folder.verify()) == ("done", [])
    return folder


def damage_to(path, how):
    content = path.read_bytes()
    if how == "lost":
        path.unlink()
    elif how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: {"empty": 0, "cut": len(content) // 2}[how]])


@pytest.mark.parametrize("how", ["lost", "empty", "cut", "flipped"])
@pytest.mark.parametrize("name", ["scores.json", *SNAPSHOTS])
def test_a_run_that_has_lost_a_file_is_not_done_any_more(finished, name, how):
    damage_to(finished.path / name, how)
    status = RunFolder(finished.path).status
    seen = how != "flipped" or name == "scores.json"  # inside a snapshot it is seen when it is read
    assert status["state"] == ("interrupted" if seen else "done")
    if seen:
        assert name in status["reason"] and "the next run makes it again" in status["reason"]
    assert any(name in fault for fault in RunFolder(finished.path).verify())


def test_scores_with_another_digit_are_damaged(finished):
    path = finished.path / "scores.json"
    path.write_text(path.read_text().replace("0.512", "0.513"))
    with pytest.raises(ValueError, match=r"scores\.json: expected .*crc32.*; the next run sets it"):
        _ = RunFolder(finished.path).scores


def test_a_snapshot_of_another_run_is_named(finished):
    path = finished.path / "1-sparsify.pt"
    other = files.read_tensors(path) | {"key": "1-Sparsify.pt"}  # as long: sizes do not tell
    n_bytes = path.stat().st_size
    files.write_snapshot(path, other)
    assert path.stat().st_size == n_bytes and finished.status["state"] == "done"
    expected = "expected what scores.json has the scores of, got a snapshot of another run"
    assert [expected in fault for fault in finished.verify()] == [True]


def test_a_snapshot_left_by_another_order_of_stages_is_no_fault(finished):
    """It was named as damage that `--again` mends, which never looks at it."""
    left = finished.snapshot(0, "sparsify")  # the second stage now
    files.write_snapshot(left, {"key": "of before"})
    assert finished.verify() == []
    assert finished.read_snapshot(left)["key"] == "of before"


def test_a_file_that_a_failing_disk_does_not_give_is_named_and_the_others_are_read(
    finished, monkeypatch
):
    damage_to(finished.path / "1-sparsify.pt", "flipped")
    read = zipfile.ZipFile.testzip

    def failing(archive):
        if archive.filename.endswith("0-dense.pt"):
            raise OSError(errno.EIO, "Input/output error")
        return read(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", failing)
    first, second = finished.verify()
    assert "Input/output error" in first and "0-dense.pt" in first
    assert "1-sparsify.pt: expected a snapshot" in second


def test_history_with_another_digit_is_damaged(finished):
    path = finished.path / "history.jsonl"
    path.write_text(path.read_text().replace("0", "1"))
    assert finished.status["state"] == "done"  # snapshots hold it too
    with pytest.raises(
        ValueError, match=r"history\.jsonl: expected .*crc32.*; `run --again` writes"
    ):
        _ = RunFolder(finished.path).history


@pytest.mark.parametrize("name", ["config.json", "history.jsonl"])
def test_a_lost_file_that_leaves_the_run_done_is_named_all_the_same(finished, name):
    (finished.path / name).unlink()
    folder = RunFolder(finished.path)
    assert (folder.status["state"], folder.verify()) == ("done", [f"{name} is lost"])


def test_a_run_whose_snapshots_are_kept_elsewhere_is_done(finished):
    for name in SNAPSHOTS:
        (finished.path / name).unlink()
    folder = RunFolder(finished.path)
    assert (folder.status["state"], folder.snapshots(), folder.verify()) == ("done", [], [])


def test_a_run_of_an_earlier_version_is_done_if_all_its_stages_have_scores(tmp_path):
    """As versions before 2026-12 left it, without sizes in its status."""
    manifest = small().resolved()
    folder = RunFolder(tmp_path)
    folder.start(manifest, "cpu")
    folder.write_scores({"stages": {name: {} for name in manifest.stage_order}})
    folder.update(state="done")
    assert folder.status["state"] == "done"
    (tmp_path / "scores.json").write_text("{")
    assert folder.status["reason"] == "scores.json is damaged; the next run makes it again"
    (tmp_path / "scores.json").unlink()
    assert folder.status["reason"] == "scores.json is lost; the next run makes it again"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: expected JSON"):
        _ = RunFolder(tmp_path).status


def test_a_run_that_starts_sets_damaged_files_aside(finished):
    for name in ("status.json", "scores.json"):
        damage_to(finished.path / name, "cut")
    folder = RunFolder(finished.path)
    folder.start(small().resolved(), "cpu")
    notes = folder.status["notes"]
    assert [note.partition(" ")[0] for note in notes] == ["status.json", "scores.json"]
    assert (folder.status["state"], folder.scores) == ("running", None)
    assert sorted(path.name for path in finished.path.glob("*.corrupt")) == [
        "scores.json.corrupt",
        "status.json.corrupt",
    ]
