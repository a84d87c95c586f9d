"""Runs whose sparsify stage has gates: what they hand over; they go on to the same bits."""

import pytest
import torch
from small import SNAPSHOTS, C, assert_same_results, cut_off, quick, read, small, snapshot

from cplxnet.auto import models

CHANGES = {
    "stages.sparsify.model.name": "complex.TwoLayerDenseL0",
    "stages.sparsify.optimizer": {"name": "adam", "lr_log_sigma2": 1.5},
    C: 100.0,
}


@pytest.fixture(scope="module")
def gated(tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gated") / "one"
    quick(small(CHANGES), folder, tiny_corpus)
    return folder


def test_the_masked_network_begins_as_the_one_with_gates_ends(gated):
    stages = read(gated)["stages"]
    assert stages["sparsify"]["n_zero"] == stages["fine-tune"]["n_zero"] > 0
    assert 1.01 < stages["fine-tune"]["compression"] < 1e4
    before, after = (stages[name]["scores"]["test"] for name in ("sparsify", "fine-tune"))
    score = before["end"]["average_precision"]
    assert after["start"]["average_precision"] == pytest.approx(score, abs=1e-6)

    network, _ = models.load_model(gated, "sparsify")
    mask = snapshot(gated, SNAPSHOTS[2])["model"]["fc1.mask"]
    assert torch.equal(mask, network.get_submodule("fc1").gate > 0)


@pytest.mark.parametrize("after", [2, 3])
def test_a_run_cut_off_goes_on_to_the_same_bits(gated, tiny_corpus, tmp_path, monkeypatch, after):
    cut_off(tmp_path, tiny_corpus, monkeypatch, after, small(CHANGES))
    torch.manual_seed(99)
    quick(small(CHANGES), tmp_path, tiny_corpus)
    assert_same_results(gated, tmp_path)
