"""What a valid manifest means: its stages and defaults, and what tells two manifests apart."""

import copy
import pickle
import re

import pydantic
import pytest
from manifest_cases import drop, put, valid

from cplxnet.auto.manifest.read import parse

pytestmark = pytest.mark.usefixtures("small_vocabulary")


def test_stages_fill_what_they_leave_out_from_the_first():
    manifest = parse(valid())
    dense, sparsify, tune = manifest.all_stages()
    assert [stage.name for stage in (dense, sparsify, tune)] == ["dense", "sparsify", "fine-tune"]
    assert [stage.n_epochs for stage in (dense, sparsify, tune)] == [50, 75, 50]
    assert [stage.restart for stage in (dense, sparsify, tune)] == [True, False, True]
    assert [stage.reset for stage in (dense, sparsify, tune)] == [False] * 3
    assert [stage.feed for stage in (dense, sparsify, tune)] == ["train"] * 3
    assert [stage.grad_clip for stage in (dense, sparsify, tune)] == [0.05] * 3
    assert {stage.optimizer.lr for stage in (dense, sparsify, tune)} == {1e-3}
    assert {stage.lr_scheduler.name for stage in (dense, sparsify, tune)} == {"trabelsi2017"}
    assert (
        dense.model.name == "complex.DeepConvNet" and tune.model.name == "complex.DeepConvNetMasked"
    )
    assert dict(sparsify.objective) == {"loss": 1.0, "kl_div": 2.5e-3}
    assert sparsify.early is None
    assert (tune.early.scorer, tune.early.patience, tune.early.atol) == (
        "validation",
        20,
        0.02,
    )  # on again: the first stage's
    assert not tune.early.restore_best


def test_model_of_a_stage_lies_over_the_manifests():
    raw = put(valid(), "model.kernel_size", 3)
    manifest = parse(put(raw, "stages.sparsify.model.width", [2, 0.5]))
    assert manifest.stage("dense").model.kwargs == {"kernel_size": 3}
    assert manifest.stage("sparsify").model.name == "complex.DeepConvNetVD"
    assert manifest.stage("sparsify").model.kwargs == {"kernel_size": 3, "width": (2, 0.5)}


def test_optimizer_of_a_stage_replaces_the_first_whole():
    raw = put(valid(), "stages.dense.optimizer", {"name": "adam", "lr": 0.5, "eps": 1e-6})
    raw = put(raw, "stages.sparsify.optimizer", {"name": "adam", "lr": 0.1, "lr_log_sigma2": 0.2})
    sparsify, tune = parse(raw).stage("sparsify").optimizer, parse(raw).stage("fine-tune").optimizer
    assert (sparsify.lr, sparsify.lr_log_sigma2, sparsify.kwargs) == (0.1, 0.2, {})
    assert (tune.lr, tune.lr_log_sigma2, tune.kwargs) == (0.5, None, {"eps": 1e-6})


def test_defaults_of_a_short_manifest():
    raw = valid()
    for path in (
        "seed",
        "threshold",
        "stages.dense.early",
        "stages.dense.grad_clip",
        "stages.dense.optimizer",
    ):
        drop(raw, path)
    raw = drop(drop(raw, "stages.dense.lr_scheduler"), "stages.dense.model")
    manifest = parse(raw)
    dense = manifest.stage("dense")
    assert (manifest.seed, manifest.threshold, manifest.task, manifest.samples) == (
        0,
        -0.5,
        "musicnet",
        "float32",
    )
    assert (dense.early, dense.grad_clip, dense.lr_scheduler) == (None, None, None)
    assert (dense.optimizer.name, dense.optimizer.lr) == ("adam", 1e-3)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    manifest = parse(valid())
    (tmp_path / "a.json").write_text("old")
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        manifest.save(tmp_path / "a.json")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and (
        tmp_path / "a.json"
    ).read_text() == "old"


def test_resolved_says_the_same_with_nothing_left_out():
    manifest = parse(valid())
    resolved = manifest.resolved()
    assert resolved != manifest and resolved.resolved() == resolved
    assert parse(resolved.to_dict()) == resolved
    assert resolved.all_stages() == manifest.all_stages()
    assert resolved.to_dict()["stages"]["fine-tune"]["early"]["patience"] == 20
    assert resolved.to_dict()["stages"]["sparsify"]["early"] is None


def test_fingerprint_depends_on_meaning_not_on_spelling():
    manifest, raw = parse(valid()), valid()
    assert re.fullmatch("[0-9a-f]{64}", manifest.fingerprint())
    assert parse(dict(reversed(raw.items()))).fingerprint() == manifest.fingerprint()
    assert parse(put(valid(), "task", "musicnet")).fingerprint() == manifest.fingerprint()
    assert (
        parse(put(valid(), "stages.fine-tune.grad_clip", 0.05)).fingerprint()
        == manifest.fingerprint()
    )
    assert (
        parse(put(valid(), "stages.fine-tune.early", None)).fingerprint() != manifest.fingerprint()
    )
    assert parse(put(valid(), "seed", 1)).fingerprint() != manifest.fingerprint()


def test_leaving_early_out_differs_from_null():
    assert parse(drop(valid(), "stages.sparsify.early")).stage("sparsify").early is not None
    assert parse(drop(valid(), "stages.sparsify.early")) != parse(valid())


def test_frozen_to_the_bottom():
    manifest = parse(valid())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        manifest.seed = 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        manifest.stages["dense"].n_epochs = 3
    with pytest.raises(TypeError, match=r"frozen; try .*edit"):
        manifest.stages["dense"] = None
    with pytest.raises(TypeError, match="frozen"):
        manifest.stages["dense"].objective.update(loss=2.0)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        manifest.stage("dense").n_epochs = 3
    manifest.to_dict()["stages"]["dense"]["n_epochs"] = 3
    assert manifest == parse(valid())
    assert pickle.loads(pickle.dumps(manifest)) == manifest == copy.deepcopy(manifest)


def test_unknown_stage_names_the_nearest():
    with pytest.raises(KeyError, match=r"did you mean .*fine-tune"):
        parse(valid()).stage("finetune")
