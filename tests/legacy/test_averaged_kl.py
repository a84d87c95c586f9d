"""The manifests of the first grid are what legacy/README.md says, and the notebook writes them."""

from pathlib import Path

import pytest
import torch
from test_notebooks import checkout_of, execute, texts

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import stages
from cplxnet.musicnet import features
from cplxnet.musicnet.networks import build
from legacy import averaged_kl

FIELDS = ("real", "complex")
LEGACY = Path(__file__).parents[2] / "legacy"
C, REDUCTION = grid.C, averaged_kl.REDUCTION


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


@pytest.mark.filterwarnings(
    "ignore"
)  # what papermill and the Jupyter libraries warn of is not ours
def test_generator_writes_the_three_folders(tmp_path: Path) -> None:
    root = checkout_of("legacy", tmp_path / "checkout")
    ran = execute("legacy/legacy_generator.ipynb", tmp_path, root=root, study={"means": [7.0]})
    for name, count in {"replication": 10, "compression": 20, "study": 4}.items():
        assert f"{name}: {count} manifests, {count} of them new" in texts(ran)
        assert len(list((root / "legacy" / name).glob("*.json"))) == count
