"""A run's folder: what its files hold, and what is said of damaged ones."""

import json
import math
import os
import socket

import pytest
import torch
from c_functions import plain as plain_formulas
from small import small

from cplxnet.auto.runner.folder import STATES, RunFolder, plain


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


def test_an_unknown_state_is_refused(tmp_path):
    files = RunFolder(tmp_path)
    files.start(small(), "cpu")
    with pytest.raises(
        ValueError, match=r"expected a state of queued, running, .*, got 'finished'"
    ):
        files.update(state="finished")
    assert files.status["state"] == "running"


def test_starting_again_removes_the_traceback_of_an_earlier_attempt(tmp_path):
    files = RunFolder(tmp_path)
    files.write_traceback("Traceback ...")
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
        ValueError, match=rf"{name}\.json: expected .*JSON.*delete the file to run again"
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
