"""Faults between the parts of a manifest, with the real task's components."""

import dataclasses
import hashlib
import json
import re

import pytest
from manifest_cases import VOCABULARY, drop, only, put, valid

from cplxnet.auto.manifest import schema
from cplxnet.auto.manifest.read import ManifestError, parse

FINE_TUNE = "stages.fine-tune.model.name"
SPARSIFY = "stages.sparsify.model.name"
FACTOR = 3.4e38  # the largest float32 is 3.4028e38


def faults_of(raw):
    with pytest.raises(ManifestError) as caught:
        parse(raw)
    return {fault.path: str(fault) for fault in caught.value.faults}


def adam(**options):
    return {"name": "adam", "lr": 1e-3, **options}


@pytest.mark.parametrize(
    ("path", "value", "where", "text"),
    [
        ("optimizer", adam(weight_decy=0.1), "optimizer.weight_decy", 'mean "weight_decay"'),
        ("optimizer", adam(lrr=0.1), "optimizer.lrr", 'mean "lr"'),
        ("optimizer", adam(params=[1]), "optimizer.params", "unknown key.*one of .*betas"),
        ("optimizer", adam(fused=False), "optimizer.fused", "unknown key, got false"),
        ("optimizer", adam(momentum=0.9), "optimizer.momentum", "unknown key, got 0.9"),
        ("optimizer", adam(betas=[0.9]), "optimizer.betas.1", "missing"),
        ("optimizer", adam(betas=[0.9, "x"]), "optimizer.betas.1", 'got "x"; expected a number'),
        ("optimizer", adam(betas=0.9), "optimizer.betas", "got 0.9; expected a list"),
        (
            "optimizer",
            adam(betas=[1.5, 0.9], weight_decay=0.1),
            "optimizer.betas",
            r"got \[1.5, 0.9\]; expected what adam can be built with \(Invalid beta .* 1.5\)",
        ),
        ("optimizer", adam(eps=None), "optimizer.eps", "got null; expected a number"),
        ("optimizer", adam(eps=-1.0), "optimizer.eps", "got -1.0; .*Invalid epsilon"),
        ("optimizer", adam(amsgrad=1), "optimizer.amsgrad", "got 1; expected true or false"),
        (
            "lr_scheduler",
            {"name": "step", "at": "x"},
            "lr_scheduler.at",
            'got "x"; expected a number',
        ),
        (
            "lr_scheduler",
            {"name": "step", "factor": -0.5},
            "lr_scheduler.factor",
            "got -0.5; .*multiplied by -0.5 in epoch",
        ),
        (
            "lr_scheduler",
            {"name": "cosine", "final": 1e308},
            "lr_scheduler.final",
            "multiplied by inf|multiplied by -inf|multiplied by nan",
        ),
        (
            "lr_scheduler",
            {"name": "cosine", "fin": 0.1},
            "lr_scheduler.fin",
            'unknown key, got 0.1.*did you mean "final"',
        ),
        ("model", {"kernel_size": "3"}, "model.kernel_size", 'got "3"; expected an integer'),
        ("model", {"kernel_size": 3.0}, "model.kernel_size", "got 3.0; expected an integer"),
        ("model", {"kernel_size": 10**30}, "model.kernel_size", "a whole number of at most"),
    ],
)
@pytest.mark.parametrize("stage", ["dense", "fine-tune"])
def test_a_component_that_cannot_be_built(stage, path, value, where, text):
    if stage == "fine-tune" and path == "model":
        value = {"name": "complex.DeepConvNetMasked", **value}
    faults = faults_of(put(valid(), f"stages.{stage}.{path}", value))
    assert list(faults) == [f"stages.{stage}.{where}"]  # in one stage, although others inherit it
    assert re.search(text, faults[f"stages.{stage}.{where}"]), faults


def test_options_that_are_taken():
    raw = put(valid(), "stages.dense.optimizer", adam(betas=[0.8, 0.9], weight_decay=0, eps=1e-6))
    raw = put(raw, "stages.fine-tune.lr_scheduler", {"name": "step", "at": 1, "factor": 0})
    manifest = parse(put(raw, "model.kernel_size", 3))
    assert manifest.stage("fine-tune").optimizer.kwargs["betas"] == (0.8, 0.9)
    assert manifest.stage("sparsify").model.kwargs == {"kernel_size": 3}


def test_no_optimiser_is_built_where_all_is_at_its_default():
    """Building the first one in a process loads torch's compiler, which takes seconds."""

    def trial(**options):
        raise AssertionError("called")

    vocabulary = dataclasses.replace(VOCABULARY, trials={"adam": trial, "cosine": trial})
    raw = put(valid(), "stages.dense.lr_scheduler", {"name": "cosine"})
    with only(vocabulary):
        parse(raw)
        with pytest.raises(AssertionError, match="called"):
            parse(put(raw, "stages.dense.optimizer", adam(eps=1e-6)))


def test_a_fault_of_the_manifests_model_is_named_once():
    assert list(faults_of(put(valid(), "model.kernel_size", "3"))) == ["model.kernel_size"]


def test_nothing_further_is_said_of_a_name_that_is_unknown():
    raw = put(valid(), "stages.dense.optimizer", {"name": "adm", "weight_decy": 1})
    raw = put(raw, "stages.sparsify.model.name", "complex.X")
    raw = put(raw, "datasets.train.window", "long")
    assert sorted(faults_of(raw)) == [
        "datasets.train.window",
        "stages.dense.optimizer.name",
        "stages.sparsify.model.name",
    ]


def test_an_unknown_stage_is_one_fault():
    raw = valid()
    raw["stages"] = {"dense": raw["stages"]["dense"]}
    raw["stage_order"] = ["dens"]
    assert list(faults_of(raw)) == ["stage_order.0", "stages.dense"]
    raw = put(valid(), "stages.dense.objective", {"los": 1.0})
    assert list(faults_of(raw)) == ["stages.dense.objective.los"]


def test_types_and_references_are_named_together():
    raw = put(valid(), "stages.sparsify.n_epochs", -1)
    raw = put(drop(raw, "stages.sparsify.model"), "stages.dense.early.patience", "x")
    assert sorted(faults_of(raw)) == [
        "stages.dense.early.patience",
        "stages.fine-tune.model.name",
        "stages.sparsify.n_epochs",
        "stages.sparsify.objective.kl_div",
    ]


# --- networks


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({FINE_TUNE: "complex.TwoLayerDenseMasked"}, "stages.fine-tune.model", r"\(conv1\.weight"),
        ({FINE_TUNE: "real.DeepConvNetMasked"}, "stages.fine-tune.model", "same architecture"),
        ({SPARSIFY: "complex.ShallowConvNetVD"}, "stages.sparsify.model", '"reset": true'),
        (
            {"stages.fine-tune.model.kernel_size": 3},
            "stages.fine-tune.model",
            r"stage before.*\(conv1\.weight\w* differs\)",
        ),
        ({"model.kernel_size": 9000}, "stages.dense.model", "windows long enough"),
        ({"model.kernel_size": -3}, "stages.dense.model", "negative dimension -3"),
        ({"model.kernel_size": 2**50}, "stages.dense.model", "cannot be built"),
        ({"features.kind": "stft"}, "stages.dense.model", "windows long enough.* got 70 samples"),
        (
            {f"datasets.{name}.window": 300 for name in ("train", "valid", "test")},
            "stages.dense.model",
            "windows long enough for this network, got 300 samples",
        ),
    ],
)
def test_a_network_that_no_stage_can_train(changes, path, text):
    raw = valid()
    for where, value in changes.items():
        put(raw, where, value)
    faults = faults_of(raw)
    assert path in faults and all(where.endswith(".model") for where in faults)
    assert re.search(text, faults[path]), faults


def test_a_network_that_starts_afresh_may_be_another():
    raw = put(valid(), FINE_TUNE, "complex.ShallowConvNet")
    assert "stages.fine-tune.model" in faults_of(raw)
    parse(put(raw, "stages.fine-tune.reset", True))


def test_a_masked_network_takes_its_masks_from_the_stage_just_before_or_a_pruner():
    """Without either it would be dense, and nothing would say so."""
    raw = put(valid(), "stages.fine-tune.reset", True)
    faults = faults_of(raw)
    assert list(faults) == ["stages.fine-tune.reset"]
    assert (
        "without masks, got true; expected false, or a pruner" in faults["stages.fine-tune.reset"]
    )
    pruner = {"name": "random", "like": "sparsify"}
    parse(put(raw, "stages.fine-tune.pruner", pruner))

    raw = valid()
    raw["stages"]["again"] = {"n_epochs": 1, "objective": {"loss": 1.0}}
    raw["stage_order"] = ["dense", "sparsify", "again", "fine-tune"]
    assert list(faults_of(raw)) == [FINE_TUNE]
    parse(put(raw, "stages.fine-tune.pruner", pruner))
    for before in ("complex.DeepConvNetARD", "complex.DeepConvNetMasked"):
        raw["stages"]["again"]["model"] = {"name": before}
        parse(put(raw, "stages.fine-tune.pruner", None))


def test_networks_are_built_without_memory():
    raw = valid()
    for name in raw["datasets"]:  # 2**40 samples, 4 TiB of weights in the second layer
        put(raw, f"datasets.{name}.window", 2**40)
    put(raw, "model.name", "complex.TwoLayerDense")
    put(raw, SPARSIFY, "complex.TwoLayerDenseVD")
    parse(put(raw, FINE_TUNE, "complex.TwoLayerDenseMasked"))


# --- numbers that training cannot hold


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("objective_terms.kl_div.coef", 1e39, "expected at most 3.40"),
        ("stages.sparsify.objective.kl_div", 1e39, "expected at most 3.40"),
        ("feeds.train.n_batches", 2**63, "expected at most 9007199254740992"),
        ("stages.dense.n_epochs", 10**30, "expected at most 9007199254740992"),
        ("seed", 2**63, "expected less than 9223372036854775808"),
        ("stages.dense.optimizer.lr", 10**400, "expected a number"),
    ],
)
def test_a_number_beyond_its_type(path, value, text):
    faults = faults_of(put(valid(), path, value))
    assert list(faults) == [path]
    assert text in faults[path]


def test_coefficient_times_weight_stays_within_float32():
    raw = put(valid(), "objective_terms.kl_div.coef", 2.0)
    faults = faults_of(put(raw, "stages.sparsify.objective.kl_div", FACTOR))
    assert list(faults) == ["stages.sparsify.objective.kl_div"]
    assert re.search(r"coef, 2.0, got 3.4e\+38; expected at most 1.7e\+38", *faults.values())
    parse(put(raw, "stages.sparsify.objective.kl_div", FACTOR / 2))


# --- names of stages are part of file names


def test_a_stages_name_has_at_most_100_characters():
    for length, is_fault in ((100, False), (101, True)):
        name = "s" * length
        raw = valid()
        raw["stages"] = {name: raw["stages"]["dense"]}
        raw["stage_order"] = [name]
        if is_fault:
            faults = faults_of(raw)
            assert "unusable key" in faults[f"stages.{name}"]
            assert "at most 100 letters, digits and _ or -" in faults[f"stages.{name}"]
        else:
            parse(raw)


# -- a gentler way down ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "where", "text"),
    [
        ("cuda_graph", "yes", "", 'got "yes"; expected true or false'),
        ("stages.sparsify.kl_scheduler", {"name": "cubicc"}, ".name", 'did you mean "cubic"'),
        ("stages.sparsify.kl_scheduler", {"name": "cubic", "begn": 0}, ".begn", 'mean "begin"'),
        (
            "stages.sparsify.kl_scheduler",
            {"name": "linear", "begin": 0.5, "end": 0.25},
            "",
            "0 <= begin < end <= 1",
        ),
        ("stages.sparsify.kl_scheduler", {"name": "linear", "end": "x"}, ".end", "a number"),
        ("stages.sparsify.distill", {"teacher": "dens"}, ".teacher", 'did you mean "dense"'),
        ("stages.sparsify.distill", {"teacher": "fine-tune"}, ".teacher", "not before this one"),
        ("stages.dense.distill", {"teacher": "dense"}, ".teacher", "not before this one"),
        ("stages.sparsify.distill", {"weight": 1.0}, ".teacher", "missing key"),
        (
            "stages.sparsify.distill",
            {"teacher": "dense", "temperature": 0},
            ".temperature",
            "got 0; expected more than 0",
        ),
        ("stages.sparsify.distill", {"teacher": "dense", "weight": -1}, ".weight", "at least 0"),
        ("stages.sparsify.distill", {"teacher": "dense", "T": 2}, ".T", "unknown key"),
        ("objective_terms.loss.name", "mse", "stages.sparsify.distill", 'loss "bce_with_logits"'),
        ("stages.sparsify.log_sigma2", -100, "", "at least -60"),
        ("stages.sparsify.log_sigma2", "low", "", "expected a number"),
        ("stages.dense.log_sigma2", -8, "", "has no variational layers"),
        ("stages.sparsify.kl_channels", 3.0, "", "has no KL of channels"),
        ("stages.dense.kl_channels", 0, "", "has no KL of channels"),
        ("stages.sparsify.kl_channels", -1.0, "", "at least 0"),
        ("stages.sparsify.shrink", True, "", "has no masks"),
        ("stages.sparsify.shrink", "yes", "", "expected true or false"),
        ("stages.dense.optimizer", {"name": "sgd", "betas": [0.9, 0.9]}, ".betas", "unknown key"),
        ("stages.dense.optimizer", {"name": "sgd", "momentum": -1.0}, ".momentum", "Invalid mom"),
        ("stages.dense.optimizer", {"name": "adamw", "weight_decay": -1.0}, ".weight_decay", "Inv"),
    ],
)
def test_faults_of_the_way_down(path, value, where, text):
    raw = valid()
    if where.startswith("stages"):
        raw["stages"]["sparsify"]["distill"] = {"teacher": "dense"}
        expected = where
    else:
        expected = path + where
    faults = faults_of(put(raw, path, value))
    assert expected in faults, faults
    assert re.search(text, faults[expected]), faults


def test_what_old_manifests_do_not_have_is_not_in_their_fingerprints():
    """As of 2026-11-26, before there were these keys; null is as if they were left out."""
    manifest = parse(valid())
    assert manifest.fingerprint()[:16] == "7e7aa7778f2eec75"
    raw = put(valid(), "cuda_graph", None)
    raw["stages"]["sparsify"] |= {"kl_scheduler": None, "distill": None, "log_sigma2": None}
    raw["stages"]["sparsify"]["kl_channels"] = 1
    raw["stages"]["fine-tune"]["shrink"] = False
    assert parse(raw).fingerprint() == manifest.fingerprint()
    for stage, key, value in (("sparsify", "log_sigma2", -8.0), ("fine-tune", "shrink", True)):
        assert (
            parse(put(raw, f"stages.{stage}.{key}", value)).fingerprint() != manifest.fingerprint()
        )


@pytest.mark.parametrize(
    ("path", "default", "place", "value"),
    [
        ("threshold", -0.5, "threshold", 0.0),
        ("features.shift", True, "features.shift", False),
        ("datasets.*.stride", 128, "datasets.test.stride", 64),
        ("scorers.*.curves", False, "scorers.validation.curves", True),
        ("objective_terms.*.coef", 1.0, "objective_terms.new.coef", 0.5),
        ("stages.*.restart", True, "stages.sparsify.restart", False),
        ("stages.*.optimizer.lr_log_sigma2", None, "stages.dense.optimizer.lr_log_sigma2", 0.1),
        ("stages.*.early.cooldown", 0, "stages.dense.early.cooldown", 2),
        ("stages.*.distill.temperature", 1.0, "stages.sparsify.distill.temperature", 2.0),
        ("stages.*.pruner.every", 10, "stages.fine-tune.pruner.every", 20),
    ],
)
def test_a_key_added_at_any_depth_leaves_old_fingerprints(path, default, place, value, monkeypatch):
    """As if `path` was added now: before, it stood in no resolved manifest."""
    raw = put(valid(), "stages.sparsify.distill", {"teacher": "dense"})
    put(raw, "stages.sparsify.restart", True)
    put(raw, "objective_terms.new", {"name": "bce_with_logits"})
    put(raw, "stages.fine-tune.pruner", {"name": "one-shot", "sparsity": 0.5})
    before = parse(raw).resolved().to_dict()
    parts = [before]
    *parents, key = path.split(".")
    for parent in parents:
        keys = [(part, name) for part in parts for name in (part if parent == "*" else [parent])]
        parts = [part[name] for part, name in keys if part.get(name) is not None]
    at_default = [part for part in parts if part[key] == default]
    assert at_default
    for part in at_default:
        del part[key]
    text = json.dumps(before, sort_keys=True, separators=(",", ":"))

    monkeypatch.setitem(schema.LATER, path, default)
    fingerprint = parse(raw).fingerprint()
    assert fingerprint == hashlib.sha256(text.encode()).hexdigest()
    assert parse(put(raw, place, default)).fingerprint() == fingerprint
    assert parse(put(raw, place, value)).fingerprint() != fingerprint


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [({}, True, True), ({"amsgrad": True}, True, False), ({"amsgrad": True}, False, False)],
)
def test_amsgrad_cannot_begin_with_a_state_that_lacks_it(before, after, fails):
    raw = put(valid(), "stages.dense.optimizer", adam(**before))
    raw = put(raw, "stages.sparsify.optimizer", adam(amsgrad=after))
    parse(put(raw, "stages.sparsify.restart", True))
    put(raw, "stages.sparsify.restart", False)
    if fails:
        assert list(faults_of(raw)) == ["stages.sparsify.restart"]
    else:
        parse(raw)


def test_an_unusable_amsgrad_is_one_fault():
    raw = put(valid(), "stages.dense.optimizer", adam(amsgrad=1))
    raw = put(raw, "stages.sparsify.optimizer", adam(amsgrad=True))
    raw["stages"]["sparsify"]["restart"] = False
    assert list(faults_of(raw)) == ["stages.dense.optimizer.amsgrad"]


def test_a_schedule_of_the_kl_needs_a_kl():
    raw = put(valid(), "stages.dense.kl_scheduler", {"name": "cubic"})
    text = faults_of(raw)["stages.dense.kl_scheduler"]
    assert "a stage that has none" in text and "expected null, or a" in text
    parse(put(raw, "stages.dense.kl_scheduler", None))
    raw = put(valid(), "stages.sparsify.kl_scheduler", {"name": "cubic"})
    parse(put(raw, "stages.sparsify.objective.kl_div", 0.0))  # the dense end of a grid


def pruned(**pruner) -> dict:
    """A manifest without a variational stage: its sparsify prunes a masked network."""
    raw = valid()
    raw["stages"]["sparsify"]["model"] = {"name": "complex.DeepConvNetMasked"}
    raw["stages"]["sparsify"]["objective"] = {"loss": 1.0}
    raw["stages"]["sparsify"]["pruner"] = {"name": "gradual", "sparsity": 0.9, **pruner}
    return raw


def test_a_pruner_is_in_the_fingerprint_and_null_is_not():
    parse(pruned())
    raw = valid()
    fingerprint = parse(raw).fingerprint()
    raw["stages"]["fine-tune"]["pruner"] = None
    assert parse(raw).fingerprint() == fingerprint
    raw["stages"]["fine-tune"]["pruner"] = {"name": "random", "like": "sparsify"}
    assert parse(raw).fingerprint() != fingerprint


@pytest.mark.parametrize(
    ("pruner", "where", "text"),
    [
        ({"name": "gradul"}, ".pruner.name", '"gradual"'),
        ({"sparsity": 1.0}, ".pruner.sparsity", "less than 1"),
        ({"sparsity": None}, ".pruner", "either sparsity or like, not both"),
        ({"like": "dense"}, ".pruner", "either sparsity or like, not both"),
        ({"sparsity": None, "like": "dens"}, ".pruner.like", 'did you mean "dense"'),
        ({"sparsity": None, "like": "fine-tune"}, ".pruner.like", "not before this one"),
        ({"begin": 0.8, "end": 0.8}, ".pruner", "begin before end"),
        ({"initial": 0.95}, ".pruner", "initial at most sparsity"),
        ({"every": 0}, ".pruner.every", "at least 1"),
        ({"evry": 5}, ".pruner.evry", 'did you mean "every"'),
    ],
)
def test_faults_of_a_pruner(pruner, where, text):
    faults = faults_of(pruned(**pruner))
    assert list(faults) == [f"stages.sparsify{where}"]
    assert text in faults[f"stages.sparsify{where}"], faults


@pytest.mark.parametrize(
    ("path", "value", "where", "text"),
    [
        ("model.name", "complex.DeepConvNet", "pruner", "DeepConvNet has no masks"),
        ("early", {"scorer": "test"}, "early", "early stopping while weights are pruned"),
        ("shrink", True, "shrink", "a shape that changes"),
        ("n_epochs", 0, "n_epochs", "no epoch to prune in"),
    ],
)
def test_a_pruner_needs_masks_that_it_may_change(path, value, where, text):
    faults = faults_of(put(pruned(), f"stages.sparsify.{path}", value))
    assert text in faults[f"stages.sparsify.{where}"], faults
    if where != "pruner":
        parse(put(pruned(name="one-shot"), f"stages.sparsify.{path}", value))


def test_a_pruner_like_a_stage_of_another_architecture_is_named_before_anything_is_trained():
    raw = pruned(name="random", sparsity=None, like="dense")
    parse(raw)
    raw["stages"]["dense"]["model"] = {"name": "complex.TwoLayerDense"}
    raw["stages"]["sparsify"]["reset"] = True
    faults = faults_of(raw)
    assert list(faults) == ["stages.sparsify.pruner.like"]
    assert 'lacks the layer "conv1"' in faults["stages.sparsify.pruner.like"], faults
