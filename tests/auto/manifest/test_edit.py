"""Edits of a manifest's file: where they go, what they are called, what they change."""

import os

import pytest
from small import C, small

from cplxnet import auto
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError, ManifestNotFoundError

BETAS = "stages.dense.optimizer.betas"
C2 = C.replace("sparsify", "dense")
METHOD = auto.experiments.METHOD
LR = "stages.dense.optimizer.lr"


@pytest.fixture
def original(tmp_path):
    """A manifest of a grid of two."""
    grid.write(tmp_path / "demo", {f"r{seed}": small({C: 0.1, "seed": seed}) for seed in range(2)})
    return tmp_path / "demo" / "r0.json"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 7}, "r0-seed7"),
        ({C: 0.25}, "r0-kl_div2.5e-01"),
        ({"stages.dense.n_epochs": 20}, "r0-dense.n_epochs20"),
        ({"threshold": 0.5, "features.shift": False}, "r0-shiftFalse-threshold5e-01"),
        ({"features.shift": False, "threshold": 0.5}, "r0-shiftFalse-threshold5e-01"),
        ({LR: 2e-3}, "r0-lr2e-03"),  # which the other stages inherit
        ({"stages.fine-tune.optimizer.lr": 2e-3}, "r0-fine-tune.lr2e-03"),
        ({METHOD: "complex.TwoLayerDenseARD"}, "r0-sparsify.model.namecomplex.TwoLayerDenseARD"),
    ],
)
def test_the_file_is_named_by_what_changed(original, changes, name):
    before = original.read_bytes()
    path = auto.edit(original, changes)
    assert path == original.parent.parent / "demo-edited" / f"{name}.json"
    assert auto.edit(original, changes) == path
    assert os.listdir(path.parent) == [path.name]
    assert original.read_bytes() == before and len(os.listdir(original.parent)) == 2

    edited = auto.load(path)
    assert edited.parent == "demo/r0"
    assert edited.flatten().items() >= changes.items()
    differing = dict(edited.flatten().items() - auto.load(original).flatten().items())
    del differing["name"], differing["parent"]
    keys = {path.rpartition(".")[2] for path in changes}
    assert {path.rpartition(".")[2] for path in differing} == keys


def test_values_that_no_file_name_can_hold_are_told_apart(original):
    paths = {auto.edit(original, {BETAS: betas}) for betas in ([0.8, 0.9], [0.8, 0.99])}
    assert len(paths) == 2
    many = {f"stages.{stage}.n_epochs": 10**9 for stage in ("dense", "sparsify")} | {
        f"feeds.{feed}.batch_size": 10**9 for feed in ("valid", "test")
    }
    one, other = (auto.edit(original, {**many, "seed": seed}) for seed in (1, 2))
    assert one != other and len(one.name) < 100


def test_an_edited_manifest_is_edited_again_from_its_original(original):
    first = auto.edit(original, {"stages.dense.n_epochs": 20})
    both = auto.edit(first, {"seed": 7})
    assert both.name == "r0-dense.n_epochs20-seed7.json"
    assert both.parent == first.parent
    assert auto.load(both).parent == "demo/r0"
    assert auto.edit(original, {"seed": 7, "stages.dense.n_epochs": 20}) == both
    assert auto.edit(both, {"stages.dense.n_epochs": 2}).name == "r0-seed7.json"  # as it was
    assert auto.edit(first, {"stages.dense.n_epochs": 2}) == original
    assert auto.edit(original, {}) == original

    original.unlink()
    with pytest.raises(ManifestNotFoundError, match=r"demo/r0\.json"):
        auto.edit(first, {"seed": 8})


def test_paths_are_relative_where_the_original_is(original, monkeypatch):
    monkeypatch.chdir(original.parent.parent)
    assert str(auto.edit("demo/r0.json", {"seed": 7})) == "demo-edited/r0-seed7.json"
    monkeypatch.chdir(original.parent)
    assert auto.edit("r0.json", {"seed": 7}).samefile("../demo-edited/r0-seed7.json")


def test_an_unknown_path_names_the_nearest(original):
    unknown = r"stages\.dens\.n_epochs: no such path, .* did you mean \"stages\.dense\.n_epochs\""
    with pytest.raises(ManifestError, match=unknown):
        auto.edit(original, {"stages.dens.n_epochs": 3})
    with pytest.raises(ManifestError, match=r"treshold: unknown key.* did you mean \"threshold\""):
        auto.edit(original, {"treshold": 3.0})
    assert not (original.parent.parent / "demo-edited").exists()


def test_flatten_has_every_path_that_can_be_changed(original):
    manifest = auto.load(original)
    flat = manifest.flatten()
    assert flat["stages.fine-tune.optimizer.lr"] == flat[LR] == 1e-3
    assert flat["stages.sparsify.early"] is None
    assert flat["stage_order"] == ("dense", "sparsify", "fine-tune")
    for path, value in flat.items():
        same = grid.edit(manifest, {path: value})
        assert same.fingerprint() == manifest.fingerprint(), path


def test_two_stages_that_get_the_same_teacher_are_two_files(original):
    teacher = {"teacher": "dense"}
    paths = {
        auto.edit(original, {f"stages.{stage}.distill": teacher})
        for stage in ("sparsify", "fine-tune")
    }
    assert {path.stem.partition("dense-")[0] for path in paths} == {
        *("r0-sparsify.teacher", "r0-fine-tune.teacher")
    }
    weights = {auto.edit(original, {C: 0.0}), auto.edit(original, {C: 0.0, C2: 0.0})}
    assert len(weights) == 2


def test_another_manifest_that_has_been_run_is_not_written_over(original):
    path = auto.edit(original, {"seed": 7})
    other = grid.edit(auto.load(path), {"seed": 8})
    path.write_text(other.to_json())
    path.with_suffix("").mkdir()
    with pytest.raises(FileExistsError, match="another one that has been run; try to move it"):
        auto.edit(original, {"seed": 7})
    assert auto.load(path) == other

    path.with_suffix("").rmdir()
    assert auto.load(auto.edit(original, {"seed": 7})).seed == 7
