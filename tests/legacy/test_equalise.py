"""Runs masked again at another threshold, and brought to equal compression."""

import shutil
from pathlib import Path

import pytest
import torch
from small import C, differences, quick, read, small, timeless, timeless_snapshot

from cplxnet import files, nn
from cplxnet.auto.manifest import grid
from cplxnet.auto.report.threshold import remask
from legacy import equalise

# Some weights become irrelevant.
MOVING = {"stages.sparsify.optimizer": {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 2.0}}


@pytest.mark.parametrize("layer", [nn.CplxLinearVD(30, 20), nn.LinearARD(30, 20)])
@pytest.mark.parametrize("asked", [1.5, 4.0, 9.3])
def test_threshold_gives_the_compression_that_trying_all_finds(
    layer: torch.nn.Module, asked: float
) -> None:
    with torch.no_grad():
        layer.log_sigma2.normal_(-3, 2)
    model = torch.nn.Sequential(layer, torch.nn.BatchNorm1d(20))
    tried = {float(t): nn.compression(model, float(t)) for t in layer.log_alpha.detach().flatten()}
    best = max(found for found in tried.values() if found <= asked)
    assert nn.compression(model, equalise.threshold_for(model, asked)) == best
    assert best > 0.9 * asked


@pytest.mark.parametrize("asked", [0.5, 1.0, 1e6])
def test_a_compression_out_of_reach_is_refused(asked: float) -> None:
    with pytest.raises(ValueError, match=r"expected a compression between 1 and 29\.52, got"):
        equalise.threshold_for(nn.CplxLinearVD(30, 20), asked)  # (620)/(20 + 2/2)...


@pytest.fixture(scope="module")
def at_default(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("remask") / "run"
    quick(small(MOVING | {C: 1.0}), folder, tiny_corpus)
    return folder


def test_remasked_run_is_to_the_bit_the_run_with_that_threshold(
    at_default: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    manifest = small(MOVING | {C: 1.0, "threshold": 1.5, "name": "other"})
    scores = quick(manifest, tmp_path / "whole", tiny_corpus)
    assert remask(at_default, manifest, tmp_path / "again", data=tiny_corpus) == [
        "dense",
        "sparsify",
    ]
    again = quick(manifest, tmp_path / "again", tiny_corpus)
    assert (
        scores["stages"]["sparsify"]["compression"]
        != read(at_default)["stages"]["sparsify"]["compression"]
    )
    assert timeless(again) == timeless(scores)
    both = (timeless_snapshot(tmp_path / which, "2-fine-tune.pt") for which in ("whole", "again"))
    assert not differences(*both)
    assert [again["stages"][stage]["reused_from"] for stage in manifest.stage_order] == [
        "run",
        "run",
        None,
    ]


def test_remask_refuses_other_settings_and_other_data(
    at_default: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="differs in name and threshold only"):
        remask(at_default, small(MOVING | {C: 2.0}), tmp_path / "a", data=tiny_corpus)
    (tmp_path / "data").mkdir()
    for split, other in (("train", "valid"), ("valid", "test"), ("test", "train")):
        target = tmp_path / "data" / f"musicnet_11khz_{split}.h5"
        target.write_bytes((tiny_corpus / f"musicnet_11khz_{other}.h5").read_bytes())
    with pytest.raises(ValueError, match="expected stage dense trained on the data"):
        remask(at_default, small(MOVING | {C: 1.0}), tmp_path / "a", data=tmp_path / "data")
    assert not (tmp_path / "a").exists()


def test_remask_takes_no_snapshot_of_another_run(
    at_default: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """It was written under this run's key before it was refused."""
    source = shutil.copytree(at_default, tmp_path / "run")
    path = source / "0-dense.pt"
    files.write_snapshot(path, files.read_tensors(path) | {"key": "other"})
    manifest = small(MOVING | {C: 1.0, "threshold": 1.5, "name": "other"})
    with pytest.raises(ValueError, match="got a snapshot of another run"):
        remask(source, manifest, tmp_path / "again", data=tiny_corpus)
    assert not (tmp_path / "again").exists()


def test_a_folder_without_both_reductions_is_refused(at_default: Path, tmp_path: Path) -> None:
    grid.write(tmp_path, {"run": small(MOVING | {C: 1.0})})
    (tmp_path / "run").symlink_to(at_default)
    with pytest.raises(ValueError, match="expected runs under sum and under mean, got"):
        equalise.equalise(tmp_path, tmp_path / "equal")
