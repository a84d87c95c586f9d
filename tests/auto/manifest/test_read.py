"""Manifests: what is written is what is read, and every fault is named, all of them at once."""

import json
import os
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_cases import drop, put, valid

from cplxnet.auto.manifest import read as m
from cplxnet.auto.manifest.errors import Fault

pytestmark = pytest.mark.usefixtures("small_vocabulary")


def parse(raw):
    return m.parse(raw)


def faults_of(raw):
    with pytest.raises(m.ManifestError) as caught:
        parse(raw)
    return {fault.path: str(fault) for fault in caught.value.faults}


def load_text(folder, text):
    path = folder / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return m.load(path)


def test_save_and_load_give_the_same_manifest_and_bytes(tmp_path):
    manifest = parse(put(valid(), "stages.dense.lr_scheduler", {"name": "cosine", "final": 0.01}))
    manifest.save(tmp_path / "a.json")
    again = m.load(tmp_path / "a.json")
    again.save(tmp_path / "b.json")
    assert again == manifest and hash(again) == hash(manifest)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_text().endswith("  ]\n}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.json",
        "b.json",
    ]  # no temporary file is left
    assert list(json.loads((tmp_path / "a.json").read_text())) == list(
        valid()
    )  # the order of the schema
    assert json.loads(manifest.to_json()) == put(
        valid(), "stages.dense.lr_scheduler", {"name": "cosine", "final": 0.01}
    )


# --- one fault at a time: path -> text

CASES = [
    ("schema", 2, "schema", "got 2; expected 1"),
    ("schema", True, "schema", "got true; expected an integer"),
    ("task", "musicnt", "task", 'unknown task, got "musicnt"; .*did you mean "musicnet"'),
    ("sed", 1, "sed", 'unknown key, got 1; expected one of "schema".*did you mean "seed"'),
    ("name", "", "name", "expected at least one"),
    ("name", "a\nb", "name", "expected text that matches"),
    ("seed", "0", "seed", 'got "0"; expected an integer'),
    ("seed", 1.0, "seed", "got 1.0; expected an integer"),
    ("seed", True, "seed", "got true; expected an integer"),
    ("seed", -1, "seed", "got -1; expected at least 0"),
    ("threshold", float("nan"), "threshold", "got NaN; expected a finite number"),
    ("threshold", "x", "threshold", "expected a number"),
    ("samples", "float8", "samples", 'expected "float32"'),
    ("datasets", [], "datasets", r"got \[\]; expected an object"),
    (
        "datasets.train.file",
        "/data/x.h5",
        "datasets.train.file",
        "relative to the data folder, without '..'",
    ),
    ("datasets.train.file", "../x.h5", "datasets.train.file", "relative to the data folder"),
    ("datasets.train.file", "C:\\x.h5", "datasets.train.file", "relative to the data folder"),
    ("datasets.train.file", "", "datasets.train.file", "relative to the data folder"),
    ("datasets.train.stride", 0, "datasets.train.stride", "got 0; expected at least 1"),
    ("datasets.valid.window", 2048, "datasets.valid.window", "expected 4096, as in datasets.train"),
    ("datasets.train.windw", 1, "datasets.train.windw", 'did you mean "window"'),
    ("datasets.a b", {"file": "x.h5"}, "datasets.a b", "unusable key.*letters, digits and _ or -"),
    (
        "features.kind",
        "ftt",
        "features.kind",
        'unknown feature kind, got "ftt".*did you mean "fft"',
    ),
    ("features.cplx", 1, "features.cplx", "expected true or false"),
    (
        "feeds.train.dataset",
        "trian",
        "feeds.train.dataset",
        'unknown dataset.*did you mean "train"',
    ),
    (
        "feeds.train.sampler",
        "in_order",
        "feeds.train.sampler",
        'unknown sampler.*did you mean "in-order"',
    ),
    ("feeds.train.batch_size", 8, "feeds.train", "either n_batches or batch_size, not both"),
    ("scorers.test.feed", "tset", "scorers.test.feed", 'unknown feed.*did you mean "test"'),
    (
        "objective_terms.loss.name",
        "bce",
        "objective_terms.loss.name",
        'unknown loss.*"bce_with_logits", "kl"',
    ),
    (
        "objective_terms.kl_div.reduction",
        "men",
        "objective_terms.kl_div.reduction",
        'expected "sum" or "mean"',
    ),
    ("objective_terms.kl_div.coef", -1.0, "objective_terms.kl_div.coef", "expected at least 0"),
    (
        "model.name",
        "complex.DeepConvNt",
        "model.name",
        'unknown model.*did you mean "complex.DeepConvNet"',
    ),
    ("model.kernel_sze", 3, "model.kernel_sze", 'unknown key.*did you mean "kernel_size"'),
    ("stages.dense.optimizer.a-b", 3, "stages.dense.optimizer.a-b", "unusable key"),
    (
        "stages.dense.optimizer.b",
        float("inf"),
        "stages.dense.optimizer.b",
        "got Infinity; expected null, true, false, a finite number",
    ),
    (
        "stages.dense.optimizer.b",
        {"a": 1},
        "stages.dense.optimizer.b",
        "expected null, true, false, a finite number",
    ),
    ("stages.dense.n_epochs", -5, "stages.dense.n_epochs", "got -5; expected at least 0"),
    ("stages.dense.feed", "trian", "stages.dense.feed", 'unknown feed.*did you mean "train"'),
    ("stages.dense.feed", None, "stages.dense.feed", "got null; expected a string"),
    ("stages.dense.model.name", "complex.X", "stages.dense.model.name", "unknown model"),
    ("stages.dense.grad_clip", 0, "stages.dense.grad_clip", "expected more than 0"),
    ("stages.dense.restart", "no", "stages.dense.restart", "expected true or false"),
    (
        "stages.dense.optimizer.name",
        "adm",
        "stages.dense.optimizer.name",
        'unknown optimizer.*did you mean "adam"',
    ),
    ("stages.dense.optimizer.lr", 0.0, "stages.dense.optimizer.lr", "expected more than 0"),
    (
        "stages.dense.lr_scheduler.name",
        "cosin",
        "stages.dense.lr_scheduler.name",
        'did you mean "cosine"',
    ),
    (
        "stages.dense.lr_scheduler",
        {"name": "cosine", "finl": 0.1},
        "stages.dense.lr_scheduler.finl",
        'unknown key.*did you mean "final"',
    ),
    (
        "stages.dense.early.scorer",
        "valdation",
        "stages.dense.early.scorer",
        'unknown scorer.*mean "validation"',
    ),
    (
        "stages.dense.early.patiens",
        3,
        "stages.dense.early.patiens",
        'unknown key.*did you mean "patience"',
    ),
    ("stages.dense.objective", {}, "stages.dense.objective", "at least one"),
    (
        "stages.sparsify.objective.kl_dv",
        1.0,
        "stages.sparsify.objective.kl_dv",
        'unknown objective term, got "kl_dv".*did you mean "kl_div"',
    ),
    (
        "stages.sparsify.objective",
        {"loss": 1.0, "kl_div": float("nan")},
        "stages.sparsify.objective.kl_div",
        "got NaN; expected at least 0|got NaN; expected a finite number",
    ),
    (
        "stages.dense.objective.kl_div",
        0.5,
        "stages.dense.objective.kl_div",
        "KL term weighs on complex.DeepConvNet, which has no variational layers"
        '.*mean "complex.DeepConvNetVD"',
    ),
    (
        "stages.sparsify.optimizer",
        {"name": "sgd", "lr": 0.1},
        "stages.sparsify.restart",
        '"adam" cannot go on in "sgd"',
    ),
    ("stage_order", ["dense", "sparsify"], "stages.fine-tune", "stage_order leaves out"),
    (
        "stage_order",
        ["dense", "sparsfy", "sparsify", "fine-tune"],
        "stage_order.1",
        'unknown stage.*mean "sparsify"',
    ),
    (
        "stage_order",
        ["dense", "dense", "sparsify", "fine-tune"],
        "stage_order.1",
        "for the second time",
    ),
    ("stage_order", "dense", "stage_order", "expected a list"),
    (
        "stage_order",
        ["dense", "fine-tune", "sparsify"],
        "stages.fine-tune.model.name",
        "masked model with no variational stage before",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "where", "text"), CASES, ids=[f"{c[0]}={c[1]!r}" for c in CASES]
)
def test_fault(path, value, where, text):
    faults = faults_of(put(valid(), path, value))
    assert list(faults) == [where]  # this one and no other
    assert re.search(text, faults[where]), faults[where]
    assert faults[where].startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("schema", "expected 1"),
        ("name", "expected a name for people"),
        ("datasets", "expected an object of datasets"),
        ("features.kind", "expected the name of a feature kind"),
        ("feeds.valid.sampler", "expected the name of a sampler"),
        ("stages.dense.feed", "expected the name of a feed"),
        ("stages.fine-tune.n_epochs", "expected epochs"),
        ("stages.fine-tune.objective", "expected an object of objective terms"),
        ("stages.dense.early.scorer", "expected the name of a scorer"),
        ("stage_order", "expected a list of the stages' names"),
    ],
)
def test_missing_key(path, text):
    faults = faults_of(drop(valid(), path))
    assert list(faults) == [path]
    assert faults[path].startswith(f"{path}: missing key; ") and text in faults[path]


def test_a_sparsify_stage_without_variational_layers():
    faults = faults_of(drop(valid(), "stages.sparsify.model"))
    assert "which has no variational layers" in faults.pop("stages.sparsify.objective.kl_div")
    assert list(faults) == ["stages.fine-tune.model.name"]  # nothing makes masks for it now


def test_kl_of_weight_zero_needs_no_variational_layers():
    assert (
        parse(put(valid(), "stages.dense.objective.kl_div", 0.0)).stage("dense").objective["kl_div"]
        == 0.0
    )


def test_eight_faults_are_eight_lines():
    raw = put(put(valid(), "sed", 1), "stages.dense.n_epochs", -1)
    raw = put(put(raw, "feeds.train.dataset", "x"), "scorers.test.feed", "y")
    raw = put(put(raw, "stages.dense.early.scorer", "z"), "stages.sparsify.objective.kl_dv", 1.0)
    raw = put(drop(raw, "name"), "threshold", None)
    with pytest.raises(m.ManifestError, match=r"^manifest: 8 faults\n") as caught:
        parse(raw)
    assert len(caught.value.faults) == 8 and len(str(caught.value).splitlines()) == 9
    assert {fault.path for fault in caught.value.faults} == {
        *(
            "sed",
            "stages.dense.n_epochs",
            "feeds.train.dataset",
            "scorers.test.feed",
            "stages.dense.early.scorer",
        ),
        *("stages.sparsify.objective.kl_dv", "name", "threshold"),
    }
    assert pickle.loads(pickle.dumps(caught.value)).faults == caught.value.faults


# --- the file


def test_not_json_names_line_and_column(tmp_path):
    with pytest.raises(m.ManifestError, match=r"x\.json: 1 fault\n.*not JSON at line 3 column 1"):
        load_text(tmp_path, '{\n  "schema": 1,\n}')


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"\xff\xfe", "not UTF-8 text at byte 0"),
        (b"", "not JSON at line 1 column 1"),
        (b"[1]", r"not an object, got \[1\]"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "not a usable number"),
    ],
)
def test_unusable_file(tmp_path, text, match):
    with pytest.raises(m.ManifestError, match=match):
        load_text(tmp_path, text)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "odd.json")
    with pytest.raises(m.ManifestError, match=r"odd\.json: 1 fault\n.*cannot be read \(no regular"):
        m.load(tmp_path / "odd.json")


def test_duplicate_keys_are_faults_with_their_path(tmp_path):
    text = json.dumps(valid()).replace('"n_epochs": 75', '"n_epochs": 75, "n_epochs": 76')
    with pytest.raises(
        m.ManifestError, match=r"1 fault\n.*stages\.sparsify\.n_epochs: key given twice"
    ):
        load_text(tmp_path, text)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(tmp_path, literal):
    text = json.dumps(valid()).replace('"threshold": -0.5', f'"threshold": {literal}')
    with pytest.raises(m.ManifestError, match=r"threshold: .*expected a finite number"):
        load_text(tmp_path, text)


def test_half_a_surrogate_pair_is_a_fault_beside_the_others(tmp_path):
    raw = put(put(valid(), "name", "\ud800"), "sed", 1)
    with pytest.raises(m.ManifestError, match="name: not Unicode text") as caught:
        load_text(tmp_path, json.dumps(raw))
    assert len(caught.value.faults) == 2


def test_missing_file_says_what_is_there(tmp_path):
    with pytest.raises(
        m.ManifestNotFoundError, match="no such file; expected a file: experiment_generator"
    ):
        m.load(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no such file; expected one of y\.json"):
        m.load(tmp_path / "x.json")
    with pytest.raises(m.ManifestError, match="cannot be read"):
        m.load(tmp_path)


def test_the_tasks_own_vocabulary_is_the_default(tmp_path):
    parse(valid()).save(tmp_path / "x.json")
    assert m.load(tmp_path / "x.json").stage("dense").model.name == "complex.DeepConvNet"
    with pytest.raises(m.ManifestError, match=r'unknown task, got "x"; .*register\("x", package\)'):
        m.parse(put(valid(), "task", "x"))


def test_a_file_that_is_no_manifest_by_its_size(tmp_path):
    (tmp_path / "x.json").write_bytes(b" " * (2**24 + 1))
    with pytest.raises(
        m.ManifestError, match="too large for a manifest; expected at most 16777216"
    ):
        m.load(tmp_path / "x.json")


def test_control_characters_do_not_reach_the_terminal():
    faults = faults_of(put(put(valid(), "\x1b[2J", 1), "name", "a\x9b2J"))
    assert sorted(faults) == ["\x1b[2J", "name"]
    assert faults["\x1b[2J"].startswith(r"\u001b[2J: unknown key")
    assert all(text.isprintable() for text in faults.values())


def test_long_values_are_cut_in_the_text():
    assert len(str(Fault("a", "unusable value", "x" * 1000))) < 100


# --- anything else: a Manifest or a ManifestError, nothing else

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["train", "kl", "dense", "", "a.b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "feed", "lr", "kl_div", "dense", "x y", "\ud800"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def places(raw, prefix=()):
    for key, value in (
        raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    ):
        yield (*prefix, key)
        yield from places(value, (*prefix, key))


@st.composite
def mutated(draw):
    raw = valid()
    for _ in range(draw(st.integers(1, 4))):
        options = list(places(raw))
        if not options:
            break
        *parents, last = draw(st.sampled_from(options))
        part = raw
        for key in parents:
            part = part[key]
        action = draw(st.sampled_from(["delete", "replace", "add"]))
        if action == "delete":
            del part[last]
        elif action == "replace" or isinstance(part, list):
            part[last] = draw(JSON)
        else:
            part[draw(st.text(max_size=5))] = draw(JSON)
    return raw


def manifest_or_error(read):
    try:
        manifest = read()
    except m.ManifestError as error:
        assert error.faults and str(error)
        return
    assert parse(json.loads(manifest.to_json())) == manifest
    assert manifest.resolved().fingerprint() == manifest.fingerprint()


@given(mutated())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_mutations_give_a_manifest_or_its_faults(raw):
    manifest_or_error(lambda: parse(raw))


@given(JSON)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_any_json_gives_a_manifest_or_its_faults(raw):
    manifest_or_error(lambda: parse(raw))


TEXT = json.dumps(valid()).encode()


@given(st.binary(max_size=40), st.integers(0, len(TEXT)), st.integers(0, 40), mutated())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_give_a_manifest_or_its_faults(tmp_path_factory, noise, start, length, raw):
    folder = tmp_path_factory.getbasetemp()
    manifest_or_error(lambda: load_text(folder, noise))
    manifest_or_error(lambda: load_text(folder, TEXT[:start] + noise + TEXT[start + length :]))
    manifest_or_error(lambda: load_text(folder, json.dumps(raw)))
