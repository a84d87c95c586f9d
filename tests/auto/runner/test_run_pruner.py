"""Runs with a pruner: what their masks are, and that a run cut off goes on to the same bits."""

import pytest
import torch
from small import SNAPSHOTS, assert_same_results, cut_off, quick, read, small, snapshot

from cplxnet import nn as cplx
from cplxnet.auto import models
from cplxnet.auto.manifest.read import parse

MASKED = "complex.TwoLayerDenseMasked"
LAYERS = {"fc1": 2048 * 256, "fc2": 84 * 2048}  # complex weights


def pruned(stage="sparsify", **pruner):
    """Masked and pruned while the others sparsify; or fine-tuning alone is."""
    changes = {f"stages.{stage}.pruner": pruner}
    if stage == "sparsify":
        changes |= {
            "stages.sparsify.model.name": MASKED,
            "stages.sparsify.objective": {"loss": 1.0},
        }
    return small(changes)


GRADUAL = {"name": "gradual", "sparsity": 0.95, "every": 1, "end": 0.9}


@pytest.fixture(scope="module")
def gradual(tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradual") / "one"
    quick(pruned(**GRADUAL), folder, tiny_corpus)
    return folder


def test_gradual_pruning_ends_at_its_sparsity_and_hands_its_masks_over(gradual, tmp_path):
    n_masked = round(0.95 * sum(LAYERS.values()))
    stages = read(gradual)["stages"]
    n_par = 2 * (sum(LAYERS.values()) + 2048 + 84)
    for name in ("sparsify", "fine-tune"):
        assert stages[name]["n_zero"] == 2 * n_masked
        assert stages[name]["compression"] == n_par / (n_par - 2 * n_masked)
        counts = stages[name]["layers"]
        assert sum(layer["n_zero"] for layer in counts.values()) == 2 * n_masked
    assert stages["fine-tune"]["scores"]["test"]["start"] is not None
    before, after = (snapshot(gradual, name)["model"] for name in SNAPSHOTS[1:])
    assert torch.equal(before["fc1.mask"], after["fc1.mask"])

    network, _ = models.load_model(gradual)
    x = torch.randn(3, 1, 256, dtype=torch.complex64)
    torch.testing.assert_close(cplx.compact(network)(x), network(x), rtol=1e-4, atol=1e-5)
    models.export(gradual, tmp_path / "net.safetensors", kind="compact")


@pytest.mark.parametrize("after", [2, 3])
def test_a_run_cut_off_goes_on_to_the_same_bits(gradual, tiny_corpus, tmp_path, monkeypatch, after):
    cut_off(tmp_path, tiny_corpus, monkeypatch, after, pruned(**GRADUAL))
    torch.manual_seed(99)
    quick(pruned(**GRADUAL), tmp_path, tiny_corpus)
    assert_same_results(gradual, tmp_path)


def test_one_shot_masks_the_smallest_weights_of_the_stage_before(tiny_corpus, tmp_path):
    quick(pruned(name="one-shot", sparsity=0.9, by_layer=True), tmp_path, tiny_corpus)
    dense, masked = (snapshot(tmp_path, name)["model"] for name in SNAPSHOTS[:2])
    for layer, n in LAYERS.items():
        moduli = torch.view_as_complex(dense[f"{layer}.weight_ri"]).abs().flatten()
        limit = moduli.sort().values[round(0.9 * n)]
        assert torch.equal(masked[f"{layer}.mask"].flatten(), moduli >= limit)
    assert read(tmp_path)["stages"]["sparsify"]["scores"]["test"]["start"] is not None


def test_random_masks_have_the_sparsity_of_each_layer_of_an_earlier_stage(
    tiny_corpus, tmp_path, monkeypatch
):
    manifest = pruned(stage="fine-tune", name="random", like="sparsify")
    changes = {
        "threshold": -3.0,
        "stages.sparsify.optimizer": {"name": "adam", "lr_log_sigma2": 0.1},
        "stages.fine-tune.pruner": manifest.stages["fine-tune"].pruner.model_dump(),
        "stages.fine-tune.reset": True,
    }
    cut_off(tmp_path, tiny_corpus, monkeypatch, 5, small(changes))
    torch.manual_seed(99)
    quick(small(changes), tmp_path, tiny_corpus)
    stages = read(tmp_path)["stages"]
    assert stages["fine-tune"]["layers"] == stages["sparsify"]["layers"]
    assert 1.2 < stages["fine-tune"]["compression"] < 1e4

    network, manifest = models.load_model(tmp_path, "sparsify")
    kept = snapshot(tmp_path, SNAPSHOTS[2])["model"]["fc2.mask"]
    relevant = network.get_submodule("fc2").relevance(manifest.threshold)
    assert 0 < kept.sum() == relevant.sum() and not torch.equal(kept, relevant)


def test_sparsifying_goes_on_from_a_pruned_network_and_again_from_wider_posteriors(
    tiny_corpus, tmp_path
):
    raw = pruned(**GRADUAL).to_dict()
    posterior = {"model": {"name": "complex.TwoLayerDenseVD"}, "n_epochs": 0}
    raw["stages"]["fine-tune"] |= posterior | {"early": None}
    raw["stages"]["again"] = raw["stages"]["fine-tune"] | {"log_sigma2": -4.0}
    raw["stage_order"].append("again")
    quick(parse(raw), tmp_path, tiny_corpus)

    stages = read(tmp_path)["stages"]
    pruned_score = stages["sparsify"]["scores"]["test"]["end"]["average_precision"]
    score = stages["fine-tune"]["scores"]["test"]["end"]["average_precision"]
    assert score == pytest.approx(pruned_score, abs=1e-6)
    mask = snapshot(tmp_path, SNAPSHOTS[1])["model"]["fc2.mask"]
    for name, log_sigma2 in ((SNAPSHOTS[2], -10.0), ("3-again.pt", -4.0)):
        model = snapshot(tmp_path, name)["model"]
        assert torch.equal(model["fc2.weight_ri"].any(-1), mask)
        assert (model["fc2.log_sigma2"] == log_sigma2).all()
