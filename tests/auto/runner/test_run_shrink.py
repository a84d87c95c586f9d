"""Runs that fine-tune the shrunk network, against runs that fine-tune the masked one."""

import shutil

import pytest
import torch
from small import SNAPSHOTS, assert_same_results, cut_off, quick, read, small, snapshot

from cplxnet.auto import models

MASKING = {"threshold": -9.4, "stages.sparsify.optimizer": {"name": "adam", "lr_log_sigma2": 0.1}}
SHRINKING = MASKING | {"stages.fine-tune.shrink": True}


@pytest.fixture(scope="module")
def shrunk(tiny_corpus, tmp_path_factory):
    """The folder of a run whose fine-tuning shrinks."""
    folder = tmp_path_factory.mktemp("shrunk") / "one"
    quick(small(SHRINKING), folder, tiny_corpus)
    return folder


def test_the_same_run_but_for_rounding(shrunk, tiny_corpus, tmp_path):
    quick(small(MASKING), tmp_path, tiny_corpus)
    scores, expected = (read(folder)["stages"]["fine-tune"] for folder in (shrunk, tmp_path))
    assert 100 < expected["compression"] < 1000
    assert scores["layers"] == expected["layers"] and scores["key"] != expected["key"]
    for name, score in expected["scores"].items():
        for when in ("start", "end"):
            value = scores["scores"][name][when]["average_precision"]
            assert value == pytest.approx(score[when]["average_precision"], abs=1e-4)

    weights, others = (snapshot(folder, SNAPSHOTS[2])["model"] for folder in (shrunk, tmp_path))
    before = snapshot(tmp_path, SNAPSHOTS[1])["model"]
    for name, value in others.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5, msg=name)
    assert not torch.equal(weights["fc1.weight_ri"], before["fc1.weight_ri"])
    for number in (0, 1):
        assert (
            snapshot(shrunk, SNAPSHOTS[number])["key"]
            == snapshot(tmp_path, SNAPSHOTS[number])["key"]
        )
    network, _ = models.load_model(shrunk)
    assert torch.equal(network.state_dict()["fc2.weight_ri"], weights["fc2.weight_ri"])


@pytest.mark.parametrize("after", [4, 5])
def test_a_run_cut_off_goes_on_to_the_same_bits(shrunk, tiny_corpus, tmp_path, monkeypatch, after):
    cut_off(tmp_path, tiny_corpus, monkeypatch, after, small(SHRINKING))
    torch.manual_seed(99)
    quick(small(SHRINKING), tmp_path, tiny_corpus)
    assert_same_results(shrunk, tmp_path)


def test_lost_scores_are_those_of_the_shrunk_network_again(shrunk, tiny_corpus, tmp_path, epochs):
    shutil.copytree(shrunk, tmp_path / "copy")
    (tmp_path / "copy" / "scores.json").unlink()
    quick(small(SHRINKING), tmp_path / "copy", tiny_corpus)
    assert epochs.n == 0
    assert_same_results(shrunk, tmp_path / "copy")


def test_back_to_the_best_weights(tiny_corpus, tmp_path):
    early = {"scorer": "validation", "atol": 1.0, "restore_best": True}
    changes = SHRINKING | {
        "stages.fine-tune.early": early,
        "stages.fine-tune.optimizer": {"name": "sgd", "lr": 1e6, "momentum": 0.0},
    }
    quick(small(changes), tmp_path, tiny_corpus)
    result = read(tmp_path)["stages"]["fine-tune"]
    start, end = (result["scores"]["validation"][when] for when in ("start", "end"))
    assert result["validation_after"] < start["average_precision"] == end["average_precision"]
    masked, tuned = (snapshot(tmp_path, name)["model"]["fc1.weight_ri"] for name in SNAPSHOTS[1:])
    mask = snapshot(tmp_path, SNAPSHOTS[2])["model"]["fc1.mask"].unsqueeze(-1)
    assert torch.equal(tuned, masked * mask)
