"""legacy/: its manifests are what its README says, and its notebooks and the study run on a setting
of seconds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from small import differences, quick, read, small, timeless, timeless_snapshot
from test_notebooks import checkout_of, execute, images, texts

from cplxnet import auto, nn
from cplxnet.auto import __main__ as command
from cplxnet.auto.manifest import experiments, grid
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.report.threshold import remask
from cplxnet.auto.runner import stages
from cplxnet.musicnet import features
from cplxnet.musicnet.networks import build
from legacy import averaged_kl, equalise, reductions

FIELDS = ("real", "complex")
LEGACY = Path(__file__).parents[2] / "legacy"
C, REDUCTION = experiments.C, averaged_kl.REDUCTION
MOVING = {
    "stages.sparsify.optimizer": {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 2.0}
}  # some weights are irrelevant


# Manifests


def test_replication_is_every_kind_and_field_for_200_epochs_without_shift() -> None:
    manifests = averaged_kl.replication()
    names = {
        f"{kind}-{field}-{depth}"
        for kind in ("raw", "fft")
        for field in FIELDS
        for depth in ("shallow", "deep")
    }
    assert set(manifests) == {
        f"{name}-r0" for name in names | {"stft-real-dense", "stft-complex-dense"}
    }
    for name, manifest in manifests.items():
        kind, field, depth, _ = name.split("-")
        stage = manifest.stage("dense")
        assert manifest.stage_order == tuple(manifest.stages) == ("dense",)
        assert manifest.features.model_dump() == {
            "kind": kind,
            "cplx": field == "complex",
            "shift": False,
        }
        assert (stage.n_epochs, stage.early, stage.grad_clip) == (200, None, None)
        assert stage.lr_scheduler is not None and stage.lr_scheduler.name == "trabelsi2017"
        assert (stage.optimizer.lr, manifest.feeds["train"].n_batches) == (1e-3, 1000)
        assert stage.model.kwargs == (
            {"kernel_size": 3} if (field, depth) == ("complex", "deep") else {}
        )
        assert stage.model.name.startswith(
            f"{field}.{depth.capitalize()}" if depth != "dense" else f"{field}.TwoLayer"
        )


@pytest.mark.parametrize("name", list(averaged_kl.replication()))
def test_every_network_of_the_replication_takes_its_features(name: str) -> None:
    manifest = averaged_kl.replication()[name]
    x = features(
        torch.randn(1, manifest.datasets["train"].window), **manifest.features.model_dump()
    )
    model = manifest.stage("dense").model
    net = build(model.name, x, **model.kwargs).eval()
    with torch.no_grad():
        assert net(x).shape == (1, 84)
    if model.kwargs:
        assert net.conv1.weight.shape == (16, 1, 3)


@pytest.mark.parametrize(
    "network", ["complex.ShallowConvNet", "complex.DeepConvNet", "real.DeepConvNet"]
)
def test_short_time_spectra_are_too_short_for_the_convolutional_networks(network: str) -> None:
    with pytest.raises(ValueError, match="long enough for this network, got 70"):
        build(network, features(torch.randn(1, 4096), kind="stft", shift=False))


def test_compression_averages_the_kl_and_shares_the_dense_stage_of_the_replication() -> None:
    manifests, dense = averaged_kl.compression([1e4]), averaged_kl.replication()
    assert set(manifests) == {
        f"{field}-{form}-c1e+04-r0" for field in FIELDS for form in ("vd", "ard")
    }
    for name, manifest in manifests.items():
        field, form, *_ = name.split("-")
        assert manifest.objective_terms["kl_div"].reduction == "mean"
        models = [stage.model for stage in manifest.all_stages()]
        forms = ["", form.upper(), "Masked"]
        assert [model.name for model in models] == [f"{field}.DeepConvNet{form}" for form in forms]
        assert {model.kwargs.get("kernel_size") for model in models} == {
            3 if field == "complex" else None
        }
        assert key(manifest) == key(dense[f"fft-{field}-deep-r0"])


def key(manifest: Manifest) -> str:
    return stages.key_of(manifest, "dense", previous=None, data={}, device="cpu")


def test_the_study_varies_the_reduction_and_nothing_else() -> None:
    manifests = averaged_kl.study([0.1], [1e3], n_batches=3)
    assert list(grid.varied(manifests)) == [REDUCTION, C]
    assert {m.objective_terms["kl_div"].reduction for m in manifests.values()} == {"sum", "mean"}
    assert len({key(manifest) for manifest in manifests.values()}) == 1


@pytest.mark.parametrize("name", ["replication", "compression", "study"])
def test_committed_manifests_byte_for_byte(name: str) -> None:
    made = getattr(averaged_kl, name)()
    assert {path.stem for path in (LEGACY / name).glob("*.json")} == set(made)
    assert all(
        (LEGACY / name / f"{stem}.json").read_text() == manifest.to_json()
        for stem, manifest in made.items()
    )


# Another threshold


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


# The study


def test_spread_counts_every_layer_once_and_divides_by_their_number() -> None:
    rows = [("a", 0.2, 1000), ("b", 0.5, 10), ("c", 0.9, 10)]
    table = pd.DataFrame(
        {
            "run": "sum-x2.0",
            "pair": 2.0,
            "reduction": "sum",
            "C": 1.0,
            "layer": layer,
            "sparsity": sparsity,
            "n_par": n,
        }
        for layer, sparsity, n in rows
    )
    (row,) = reductions.spread(table).to_dict("records")
    assert row["std"] == pytest.approx(100 * np.std([0.2, 0.5, 0.9]))
    assert (row["low"], row["high"], row["ratio"]) == pytest.approx((20, 90, 8))


def test_a_folder_without_both_reductions_is_refused(at_default: Path, tmp_path: Path) -> None:
    grid.write(tmp_path, {"run": small(MOVING | {C: 1.0})})
    (tmp_path / "run").symlink_to(at_default)
    with pytest.raises(ValueError, match="expected runs under sum and under mean, got"):
        equalise.equalise(tmp_path, tmp_path / "equal")


@pytest.mark.filterwarnings(
    "ignore"
)  # what papermill and the Jupyter libraries warn of is not ours
def test_generator_writes_the_three_folders(tmp_path: Path) -> None:
    root = checkout_of("legacy", tmp_path / "checkout")
    ran = execute("legacy/legacy_generator.ipynb", tmp_path, root=root, study={"means": [7.0]})
    for name, count in {"replication": 10, "compression": 20, "study": 4}.items():
        assert f"{name}: {count} manifests, {count} of them new" in texts(ran)
        assert len(list((root / "legacy" / name).glob("*.json"))) == count


@pytest.mark.filterwarnings("ignore")
def test_study_is_brought_to_equal_compression_and_analysed(
    tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture
) -> None:
    root = checkout_of("legacy", tmp_path / "checkout")
    options = {
        "n_batches": 3,
        "n_epochs": (1, 2, 1),
        "lr_log_sigma2": 2.0,
        "batch_size": 16,
        "folder": tiny_corpus.name,
    }
    manifests = averaged_kl.study([1.0], [1e4], model="complex.TwoLayerDense", **options)
    windows = {f"datasets.{split}.window": 256 for split in ("train", "valid", "test")}
    study, equal = root / "legacy" / "study", root / "legacy" / "equal"
    grid.write(study, {name: grid.edit(manifest, windows) for name, manifest in manifests.items()})
    data = ["--data", str(tiny_corpus.parent)]
    for arguments in (["run", study], ["equalise", study, equal, "--at", "4"], ["run", equal]):
        assert command.main([*map(str, arguments), *data]) == 0, capsys.readouterr().err
    table = reductions.pairs(equal)
    assert list(table["reduction"]) == ["sum", "mean"] and list(table["pair"]) == [4, 4]
    assert (
        table["compression"].between(3.99, 4).all()
    )  # of 700 000 weights the next one is always near
    assert set(auto.report.status(equal)["state"]) == {"done"}

    analysed = execute("legacy/legacy_analysis.ipynb", tmp_path, root=root)
    assert images(analysed) == 2 and reductions.readings(table)[0] in texts(analysed)
    for name in ("layers", "scores"):
        assert (equal / f"{name}.png").stat().st_size > 10_000
        assert (equal / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert len(pd.read_csv(equal / f"{name}.csv")) == {"layers": 4, "scores": 2}[name]
