"""Grids: template x grid -> manifests, and back to the values that vary."""

import itertools
import math
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_cases import put, valid

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError, ManifestNotFoundError, load, parse

pytestmark = pytest.mark.usefixtures("small_vocabulary")

C = "stages.sparsify.objective.kl_div"


def expand(axes, **options):
    return grid.expand(valid(), axes, **options)


def test_expand_is_the_product_in_order():
    manifests = expand({C: [0.5, 0.25], "stages.dense.n_epochs": [3, 4]}, replicates=2)
    assert list(manifests) == [
        *("kl_div5e-01-n_epochs3-seed0", "kl_div5e-01-n_epochs3-seed1"),
        *("kl_div5e-01-n_epochs4-seed0", "kl_div5e-01-n_epochs4-seed1"),
        *("kl_div2.5e-01-n_epochs3-seed0", "kl_div2.5e-01-n_epochs3-seed1"),
        *("kl_div2.5e-01-n_epochs4-seed0", "kl_div2.5e-01-n_epochs4-seed1"),
    ]
    last = manifests["kl_div2.5e-01-n_epochs4-seed1"]
    expected = put(put(put(valid(), C, 0.25), "stages.dense.n_epochs", 4), "seed", 1)
    assert last.to_dict() == {
        **expected,
        "name": f"{valid()['name']} kl_div2.5e-01-n_epochs4-seed1",
    }


def test_labels_and_titles_from_the_caller():
    manifests = expand({C: [0.5]}, label=lambda v: f"c{v[C]}", title=lambda v: f"with {v[C]}")
    assert {name: m.name for name, m in manifests.items()} == {"c0.5": "with 0.5"}


def test_subtrees_can_vary():
    early = {"scorer": "test", "patience": 3}
    manifests = expand(
        {"stages.dense.early": [None, early]},
        label=lambda v: "no" if v["stages.dense.early"] is None else "yes",
    )
    assert manifests["no"].stage("dense").early is None
    assert manifests["yes"].stage("fine-tune").early.patience == 3
    table = grid.varied(manifests)
    assert table["stages.dense.early.scorer"].tolist() == [None, "test"]


@pytest.mark.parametrize(
    "path",
    [
        *("cuda_graph", "stages.fine-tune.shrink", "stages.sparsify.kl_scheduler"),
        *("stages.sparsify.log_sigma2", "stages.fine-tune.distill"),
    ],
)
def test_keys_that_came_later_vary_like_others(path):
    manifest = parse(valid())
    default = manifest.flatten()[path]
    (again,) = expand({path: [default]}, label=lambda _: "again").values()
    assert again.fingerprint() == grid.edit(manifest, {"name": again.name}).fingerprint()


def test_batches_of_a_feed_can_vary():
    paths = {"feeds.valid.batch_size": [None], "feeds.valid.n_batches": [3, 4]}
    n_batches = [m.feeds["valid"].n_batches for m in expand(paths).values()]
    assert n_batches == [3, 4]


def test_a_path_that_is_not_there_names_the_nearest():
    with pytest.raises(
        ManifestError,
        match=r"no such path in the template.*did you mean .*sparsify\.objective\.kl_div",
    ) as e:
        expand({"stages.sparsify.objective.kl_dv": [1.0], "sed": [1], C: [], "stages": [{}]})
    paths = [fault.path for fault in e.value.faults]
    kl_dv = "stages.sparsify.objective.kl_dv"
    assert paths == [kl_dv, kl_dv, "sed", C, C]  # two lie inside "stages" too, C has no values


def test_wrong_values_are_faults_once_each():
    with pytest.raises(ManifestError, match=r"grid: 2 faults") as caught:
        expand({C: [0.5, -1.0, float("nan")]}, replicates=3, label=lambda v: f"{v[C]}-{v['seed']}")
    assert {fault.path for fault in caught.value.faults} == {C}


def test_labels_must_differ_and_be_file_names():
    with pytest.raises(
        ValueError, match=r"a label of its own for .* got 'x' a second time; try another `label`"
    ):
        expand({"seed": [0, 1]}, label=lambda v: "x")
    for bad in ("../x", "a/b", "", ".x", "..", "a.json", "figures"):
        with pytest.raises(ValueError, match="no file name"):
            expand({"seed": [0]}, label=lambda v, bad=bad: bad)


def test_edit_changes_one_manifest():
    manifest = parse(valid())
    changes = {"seed": 7, "stages.dense.optimizer.lr_log_sigma2": 0.1}
    edited = grid.edit(manifest, changes)
    assert (edited.seed, edited.stage("dense").optimizer.lr_log_sigma2) == (7, 0.1)
    assert manifest.seed == 0
    with pytest.raises(ManifestError, match=r"stages\.dens\.n_epochs: no such path.*did you mean"):
        grid.edit(manifest, {"stages.dens.n_epochs": 3})
    with pytest.raises(ManifestError, match="2 faults"):
        grid.edit(manifest, {"seed": -1, "sed": 3})


# --- varied undoes expand

AXES = {
    C: st.floats(0, 1e6),
    "seed": st.integers(0, 2**40),
    "threshold": st.floats(-30, 30),
    "stages.dense.n_epochs": st.integers(0, 1000),
    "stages.fine-tune.restart": st.booleans(),
    "features.kind": st.sampled_from(["raw", "fft", "stft"]),
    "stages.dense.grad_clip": st.none() | st.floats(0.1, 1),
}


@st.composite
def grids(draw):
    paths = draw(st.lists(st.sampled_from(list(AXES)), min_size=1, max_size=3, unique=True))
    return {path: draw(st.lists(AXES[path], min_size=2, max_size=3, unique=True)) for path in paths}


@given(grids())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_varied_undoes_expand(axes):
    counter = iter(range(100))
    manifests = expand(axes, label=lambda values: f"m{next(counter)}")
    table = grid.varied(manifests)
    assert set(table.columns) == set(axes) and table.index.tolist() == list(manifests)
    assert len(table) == math.prod(map(len, axes.values()))
    rows = itertools.product(*axes.values())
    assert list(zip(*(table[path].tolist() for path in axes), strict=True)) == list(rows)


def test_varied_of_one_manifest_or_none_has_no_columns():
    assert grid.varied(expand({"seed": [3]})).shape == (1, 0)
    assert grid.varied({}).shape == (0, 0)


def test_varied_keeps_types():
    manifests = expand({"seed": [0, 1], C: [0.5, 1.0]})
    table = grid.varied(manifests)
    assert table.index.name == "name" and "name" not in table
    assert str(table["seed"].dtype) == "int64" and str(table[C].dtype) == "float64"


# --- numbers in names


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_short_reads_back_as_the_same_float(value):
    assert float(grid.short(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.5e-3, "2.5e-03"), (6.75e-3, "6.75e-03"), (1, "1e+00"), (10.0, "1e+01"), (-0.5, "-5e-01")],
)
def test_short(value, text):
    assert grid.short(value) == text


def test_short_refuses_nan():
    with pytest.raises(ValueError, match="expected a finite number, got nan"):
        grid.short(float("nan"))


# --- folders


def test_write_then_read(tmp_path):
    manifests = expand({C: [0.5, 0.25]})
    (tmp_path / "notes.txt").write_text("keep")
    assert {path.stem for path in grid.write(tmp_path, manifests)} == set(manifests)
    assert grid.read(tmp_path) == manifests
    assert grid.write(tmp_path, manifests) == []  # equal files are left alone
    assert (tmp_path / "notes.txt").read_text() == "keep"


def test_write_refuses_to_replace_a_different_manifest(tmp_path):
    grid.write(tmp_path, expand({"seed": [0]}))
    other = expand({"seed": [0]}, title=lambda v: "another") | expand({"seed": [1]})
    with pytest.raises(FileExistsError, match=r"got \['seed0\.json'\]; try overwrite=True"):
        grid.write(tmp_path, other)
    assert os.listdir(tmp_path) == ["seed0.json"]  # nothing was written
    grid.write(tmp_path, other, overwrite=True)
    assert load(tmp_path / "seed0.json").name == "another"
    assert sorted(os.listdir(tmp_path)) == ["seed0.json", "seed1.json"]


def test_read_reports_all_faults_of_all_files(tmp_path):
    grid.write(tmp_path, expand({"seed": [0]}))
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"schema": 2}')
    with pytest.raises(ManifestError, match=r"a\.json: not JSON at line 1 column 2") as caught:
        grid.read(tmp_path)
    text = str(caught.value)
    assert (
        "b.json: schema: unusable value, got 2; expected 1" in text
        and "b.json: model: missing key" in text
    )
    assert "seed0.json" not in text


@pytest.mark.parametrize(
    "name",
    [".json", "..json", "...json", ".a.json", "a.json.json", "figures.json", "a\x1b[2J.json"],
)
def test_a_file_name_that_no_run_can_have(tmp_path, name):
    grid.write(tmp_path, expand({"seed": [0]}))
    (tmp_path / "seed0.json").rename(tmp_path / name)
    pattern = r"a file name that no run can have, got .*; expected no leading dot"
    with pytest.raises(ManifestError, match=pattern) as caught:
        grid.read(tmp_path)
    assert len(caught.value.faults) == 1
    assert str(caught.value).replace("\n", "").isprintable()
    with pytest.raises(ManifestError, match=pattern):
        load(tmp_path / name)


def test_unusual_file_names_that_a_run_can_have(tmp_path):
    names = ["a b", "a.b", "Übung", "-x", "figures2", "json"]
    (manifest,) = expand({"seed": [0]}).values()
    grid.write(tmp_path, dict.fromkeys(names, manifest))
    assert list(grid.read(tmp_path)) == sorted(names)


def test_read_of_nothing_is_an_error(tmp_path):
    with pytest.raises(ManifestNotFoundError, match=r"no such folder.*experiment_generator"):
        grid.read(tmp_path / "x")
    with pytest.raises(
        ManifestError, match=r"no manifests in this folder; expected files named \*\.json"
    ):
        grid.read(tmp_path)


def test_paths_that_vary_together():
    lr, n_epochs = "stages.dense.optimizer.lr", "stages.dense.n_epochs"
    axes = {(lr, n_epochs): [(1e-3, 20), (3e-3, 10)], C: [0.5, 0.25]}
    made = expand(axes)
    assert list(made) == [
        f"lr{rate}-n_epochs{n}-kl_div{c}"
        for rate, n in (("1e-03", 20), ("3e-03", 10))
        for c in ("5e-01", "2.5e-01")
    ]
    assert [manifest.stage("dense").n_epochs for manifest in made.values()] == [20, 20, 10, 10]
    with pytest.raises(ManifestError, match="n_epoch: no such path"):
        expand({(lr, "stages.dense.n_epoch"): [(1e-3, 20)]})


def test_what_a_killed_call_left_is_removed_by_the_next(tmp_path):
    manifests = expand({"seed": [0]})
    grid.write(tmp_path, manifests)
    for name in ("seed0", "seed1"):  # of two days ago; seed1 is another call's
        left = tmp_path / f".{name}.json.7-0123abcd.part"
        left.write_text("{")
        os.utime(left, (time.time() - 2 * 86_400,) * 2)
    grid.write(tmp_path, manifests)
    assert sorted(os.listdir(tmp_path)) == [".seed1.json.7-0123abcd.part", "seed0.json"]
