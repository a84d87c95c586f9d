"""A run's network, loaded from its folder or from a file, is the one that was scored."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small import SNAPSHOTS, STAGES, read, small, snapshot

from cplxnet import auto, nn
from cplxnet.auto import models
from cplxnet.auto.runner.components import Components
from cplxnet.auto.train.loop import predict
from cplxnet.musicnet import pooled_average_precision


@pytest.mark.parametrize("stage", STAGES)
def test_a_loaded_network_scores_what_scores_json_says(
    done: Path, tiny_corpus: Path, stage: str
) -> None:
    model, manifest = auto.load_model(done, stage)
    materials = Components(manifest, device="cpu", data=tiny_corpus)
    found = pooled_average_precision(*predict(model, materials.feed("test")))
    said = read(done)["stages"][stage]
    assert found == pytest.approx(said["scores"]["test"]["end"]["average_precision"], abs=1e-6)
    assert nn.compression(model, manifest.threshold) == said["compression"]
    assert not model.training and manifest.fingerprint() == small().fingerprint()


def test_without_a_stage_it_is_the_last_and_holds_its_snapshot_to_the_bit(done: Path) -> None:
    model, _ = auto.load_model(str(done))
    saved = snapshot(done, SNAPSHOTS[-1])["model"]
    assert {"fc1.mask", "fc2.weight_ri"} <= saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())


def test_random_numbers_go_on_as_if_nothing_had_been_loaded(done: Path) -> None:
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    auto.load_model(done)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_heard_is_what_the_manifest_says() -> None:
    manifest = small({"features.kind": "stft", "features.shift": False}, window=512)
    assert auto.heard(manifest) == {"window": 512, "kind": "stft", "cplx": True, "shift": False}
    model = models.build(manifest, manifest.stage("sparsify"))
    assert model.fc1.log_sigma2.shape == (2048, 61 * 10)  # 61 frequencies, ceil(512/60) + 1 frames


def test_what_is_not_there_is_named(done: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="expected a stage of dense, sparsify, fine-tune, got 'tuned'"
    ):
        auto.load_model(done, "tuned")
    with pytest.raises(
        FileNotFoundError, match=r"expected a run's folder with config\.json at .*got none; try"
    ):
        auto.load_model(tmp_path)
    half = shutil.copytree(done, tmp_path / "half")
    (half / "2-fine-tune.pt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2-fine-tune\.pt.*\(snapshots: 0-dense\.pt, 1-sparsify\.pt\); try"
    ):
        auto.load_model(half)


def test_a_snapshot_that_does_not_fit_is_refused(done: Path, tmp_path: Path) -> None:
    other = shutil.copytree(done, tmp_path / "other")
    shutil.copy(done / "0-dense.pt", other / "2-fine-tune.pt")
    (other / "scores.json").unlink()  # which would name it as another stage's
    with pytest.raises(
        ValueError,
        match=r"(?s)expected the weights of complex\.TwoLayerDenseMasked, got others.*fc1\.mask",
    ):
        auto.load_model(other)
    (other / "2-fine-tune.pt").write_bytes((done / "2-fine-tune.pt").read_bytes()[:5000])
    with pytest.raises(
        ValueError, match=r"2-fine-tune\.pt: expected a snapshot of .*; try .*other\.json --again"
    ):
        auto.load_model(other)


def test_a_snapshot_of_another_run_is_refused(done: Path, sparse: Path, tmp_path: Path) -> None:
    other = shutil.copytree(done, tmp_path / "other")
    shutil.copy(sparse / "2-fine-tune.pt", other)  # of the same network
    with pytest.raises(ValueError, match=r"2-fine-tune\.pt: expected what scores\.json .* --again"):
        auto.load_model(other)
    auto.load_model(other, "dense")


def test_a_stage_can_be_chosen(sparse: Path) -> None:
    x = torch.randn(2, 1, 256, dtype=torch.complex64)
    with torch.no_grad():
        dense, tuned = (
            models.load_deployed(sparse, stage=stage).network(x) for stage in ("dense", None)
        )
        snapshot = models.load_deployed(sparse / "0-dense.pt").network(x)
    torch.testing.assert_close(snapshot, dense)
    assert (dense - tuned).abs().max() > 1e-3


def test_a_stage_of_a_file_with_one_network_is_refused(sparse: Path, tmp_path: Path) -> None:
    """It was passed over in silence: another network than the one asked for transcribed."""
    file = models.export(sparse, tmp_path / "net", kind="compact")
    for path, stage in ((file, "fine-tune"), (sparse / "2-fine-tune.pt", "dense")):
        with pytest.raises(ValueError, match=rf"expected a run's folder, of which '{stage}' is"):
            models.load_deployed(path, stage=stage)
    models.load_deployed(sparse / "2-fine-tune.pt", stage="fine-tune")


def test_the_posterior_is_read_only_where_it_is_asked_for(sparse: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sparse, tmp_path / "copy")
    (copy / "1-sparsify.pt").unlink()
    assert models.export(copy, tmp_path / "net", kind="compact", bits=6).is_file()
    with pytest.raises(FileNotFoundError, match=r"expected a snapshot at .*1-sparsify\.pt"):
        models.export(copy, tmp_path / "net", kind="compact", bits="auto")


def test_fresh_weights_have_no_posterior(sparse: Path, tmp_path: Path) -> None:
    """Those under random masks, of a stage that starts afresh."""
    copy = shutil.copytree(sparse, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    fresh = {"reset": True, "pruner": {"name": "random", "like": "sparsify"}}
    config["manifest"]["stages"]["fine-tune"] |= fresh
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected a variational stage for bits auto, got none"):
        models.export(copy, tmp_path / "net", kind="compact", bits="auto")
