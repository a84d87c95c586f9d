"""A grid before it is written: names, tables, and what is written in the end."""

import math
import shutil

import pytest
import torch
from small import C, quick, small

from cplxnet.auto import experiments, generate, tasks
from cplxnet.auto.__main__ import main
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError
from cplxnet.musicnet import MusicNet

EPOCHS = "stages.dense.n_epochs"
LR = "stages.fine-tune.optimizer.lr"


# --- which manifests


@pytest.mark.parametrize("name", tasks.vocabulary().presets)
def test_a_preset_is_the_experiment_of_its_name(name):
    made = generate.manifests(name)
    if name == "tiny":
        assert made == {"tiny": experiments.tiny()}
    else:
        assert made == getattr(experiments, name.replace("-", "_"))()


def test_values_in_place_of_a_presets_own_keep_its_names():
    made = generate.manifests("demo", {C: [0.5, 0.25]}, replicates=2)
    assert list(made) == ["c5e-01-r0", "c5e-01-r1", "c2.5e-01-r0", "c2.5e-01-r1"]
    assert made == experiments.demo((0.5, 0.25), replicates=2)
    assert list(generate.manifests("demo", {C: [0.5], "seed": [7]})) == ["c5e-01-r7"]


def test_what_a_preset_does_not_vary_is_in_all_names():
    made = generate.manifests("demo", {EPOCHS: [3, 4], C: [0.5]})
    assert list(made) == ["kl_div5e-01-n_epochs3-seed0", "kl_div5e-01-n_epochs4-seed0"]
    last = made["kl_div5e-01-n_epochs4-seed0"]
    assert last.name == "demo kl_div5e-01-n_epochs4-seed0"
    assert (last.stage("dense").n_epochs, last.stage("sparsify").objective["kl_div"]) == (4, 0.5)


def test_a_manifest_is_a_template(tmp_path):
    small({"seed": 5}).save(tmp_path / "one.json")
    made = generate.manifests(tmp_path / "one.json", {LR: [0.5, 0.25]})  # not written there
    assert list(made) == ["lr5e-01", "lr2.5e-01"]
    assert [one.stage("fine-tune").optimizer.lr for one in made.values()] == [0.5, 0.25]
    assert {(one.seed, one.stage("dense").optimizer.lr) for one in made.values()} == {(5, 1e-3)}


def test_faults_of_what_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"a preset \(experiment-1, .*demo.*\) or a manifest's f"):
        generate.manifests("dem")
    with pytest.raises(ManifestError, match=r"n_epoch: no such path.* mean .*\.dense\.n_epochs"):
        generate.manifests("demo", {"stages.dense.n_epoch": [3]})
    for replicates in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 replicate, got {replicates}"):
            generate.manifests("demo", replicates=replicates)


def test_a_file_where_the_folder_of_manifests_goes(tmp_path, capsys):
    """It was found after the table, and told by the system's number."""
    (tmp_path / "file").write_text("")
    assert main(["generate", "demo", "--into", str(tmp_path / "file")]) == 2
    said = capsys.readouterr()
    assert said.err == f"error: {tmp_path}/file: expected a folder or nothing there, got a file\n"
    assert not said.out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=0,1", ("seed", [0, 1])),
        ("a.b=0.5", ("a.b", [0.5])),
        ("a=x.VD,x.ARD", ("a", ["x.VD", "x.ARD"])),
        ("a=[0.8,0.9],[0.9,0.99]", ("a", [[0.8, 0.9], [0.9, 0.99]])),
        ('a=null,{"scorer":"test"}', ("a", [None, {"scorer": "test"}])),
        ("a=fft,3", ("a", ["fft", "3"])),
        ("a=" + "[" * 99999, ("a", ["[" * 99999])),
    ],
)
def test_an_axis_in_words(text, expected):
    assert generate.axis(text) == expected


@pytest.mark.parametrize("text", ["seed", "=1", "seed="])
def test_no_axis(text):
    with pytest.raises(ValueError, match=r"expected PATH=V1,V2, got .*; try seed=0,1"):
        generate.axis(text)


def test_a_path_is_set_once(capsys):
    assert main(["generate", "demo", "--set", "seed=0", "seed=1", "--dry-run"]) == 2
    assert "expected each path of --set once, got seed=0 seed=1" in capsys.readouterr().err


# --- what would be written


@pytest.fixture
def folder(tmp_path, done):
    """A grid of two runs, one of them done."""
    folder = tmp_path / "grid"
    grid.write(folder, {f"r{seed}": small({"seed": seed}) for seed in range(2)})
    shutil.copytree(done, folder / "r0")
    return folder


def test_files_are_new_changed_unchanged_or_left_over(folder):
    made = {"r0": small({C: 0.5}), "r1": small({"seed": 1}), "r2": small({"seed": 2})}
    small().save(folder / "old.json")
    preview = generate.Preview(folder, made)
    assert preview.files().to_dict("index") == {
        "r0": {"file": "changed", "run": "done, of an earlier version"},
        "r1": {"file": "unchanged", "run": ""},
        "r2": {"file": "new", "run": ""},
        "old": {"file": "left over", "run": ""},
    }
    said = "\n".join(preview.sentences())
    assert "1 changed" in said and "left over from another grid: old" in said
    assert "run as they were before: r0 (done, of an earlier version)" in said

    before = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    with pytest.raises(FileExistsError, match=r"got \['r0\.json'\]"):
        preview.write(remove=True)
    assert before == {path.name: path.read_bytes() for path in folder.glob("*.json")}

    written = preview.write(overwrite=True)
    assert {path.name for path in written} == {"r0.json", "r2.json"}
    assert grid.read(folder).keys() == {*made, "old"}
    assert preview.write(remove=True) == []
    assert grid.read(folder) == made and (folder / "r0" / "scores.json").exists()


def test_what_varies(folder):
    table = generate.Preview(folder, grid.read(folder)).varied()
    assert table.to_dict("index") == {"seed": {"n": 2, "values": "0, 1"}}


# --- what it takes


def test_a_grid_that_shares_stages_takes_what_its_runs_take(tmp_path, tiny_corpus):
    made = {f"c{c}": small({C: c}) for c in (0.1, 0.2)}
    preview = generate.Preview(tmp_path, made, data=tiny_corpus)
    cost = preview.cost(measure=False)
    assert cost["stages"].to_dict() == {
        "complex.TwoLayerDense": 1,
        "complex.TwoLayerDenseVD": 2,
        "complex.TwoLayerDenseMasked": 2,
        "all": 5,
    }
    assert (cost["epochs"] == 2 * cost["stages"]).all()
    assert (cost["steps"] == 3 * cost["epochs"]).all()  # n_batches is 3
    assert "hours" not in cost and cost["gpu_hours"].isna().all()
    assert "trained once: 10 epochs in place of 12" in "\n".join(preview.sentences())

    for name, manifest in made.items():
        others = [tmp_path / other for other in made if other != name]
        quick(manifest, tmp_path / name, tiny_corpus, reuse=others)
    sizes = {path.stat().st_ino: path.stat().st_size for path in tmp_path.glob("*/*.pt")}
    assert sum(sizes.values()) / 1e6 == pytest.approx(cost["disk_mb"]["all"], rel=0.02)


def test_hours_by_a_measured_step_and_by_the_tasks_table(tmp_path, tiny_corpus, monkeypatch):
    monkeypatch.setitem(
        tasks.TASKS["musicnet"].GPU_STEP_MS, "complex.TwoLayerDense", ((1, 7.0), (5, 11.0))
    )
    before = torch.get_rng_state()
    preview = generate.Preview(tmp_path, {"one": small()}, data=tiny_corpus)
    cost = preview.cost()
    assert (cost["ms"].drop("all") > 0).all()
    assert cost["hours"]["all"] == pytest.approx((cost["steps"] * cost["ms"]).sum() / 3.6e6)
    dense = cost.loc["complex.TwoLayerDense"]
    assert dense["gpu_ms"] == 9.0  # three recordings, so batches of three
    assert dense["gpu_hours"] == pytest.approx(6 * 9.0 / 3.6e6)
    assert math.isnan(cost["gpu_hours"]["all"])
    assert torch.equal(before, torch.get_rng_state())


def test_a_feed_in_order_has_as_many_batches_as_the_data_give(tmp_path, tiny_corpus):
    manifest = small({"stages.dense.feed": "valid"})
    n_windows = len(MusicNet(tiny_corpus / "musicnet_11khz_valid.h5", window=256, stride=4096))
    preview = generate.Preview(tmp_path, {"one": manifest}, data=tiny_corpus)
    assert preview.cost(measure=False)["steps"]["all"] == 6 * math.ceil(n_windows / 16)


def test_of_data_that_are_not_here_nothing_is_assumed(tmp_path):
    drawn, in_order = small(), small({"stages.dense.feed": "valid"})
    preview = generate.Preview(tmp_path, {"one": drawn}, data=tmp_path / "nodata")
    said = preview.sentences()[-1]
    assert "musicnet_11khz_train.h5" in said and "steps or hours are not known" in said
    cost = preview.cost()
    assert cost["steps"]["all"] == 18  # of three batches an epoch, of nobody knows how many windows
    assert cost[["ms", "hours", "gpu_hours"]].isna().all(axis=None)

    cost = generate.Preview(tmp_path, {"one": in_order}, data=tmp_path / "nodata").cost()
    assert cost["epochs"]["all"] == 6 and cost["steps"].isna().all()
    assert (cost["ms"].drop("all").isna()).all() and cost["hours"].isna().all()


def test_a_presets_folder_holds_the_preset():
    assert str(generate.folder_of("demo")) == "runs/demo"
    assert str(generate.folder_of("demo", {C: [0.5]})) == "runs/demo-varied"
    assert str(generate.folder_of("demo", replicates=1)) == "runs/demo-varied"


# --- the command


def test_the_command_shows_and_writes(tmp_path, tiny_corpus, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small().save("one.json")
    words = ["generate", "one.json", "--set", f"{C}=0.5,0.25", f"{EPOCHS}=4", "--replicates", "2"]
    assert main([*words, "--dry-run", "--data", str(tiny_corpus)]) == 0
    shown = capsys.readouterr().out
    assert "kl_div5e-01-n_epochs4-seed1" in shown and "0.5, 0.25" in shown and "ms" in shown
    assert not (tmp_path / "runs").exists()

    assert main(words) == 0
    assert (
        "4 manifests written; next: python -m cplxnet.auto run runs/one-varied"
        in capsys.readouterr().out
    )
    written = grid.read("runs/one-varied")
    assert len(written) == 4 and {one.stage("dense").n_epochs for one in written.values()} == {4}

    assert main(["generate", "one.json", "--into", "runs/one-varied", "--remove"]) == 0
    assert list(grid.read("runs/one-varied")) == ["only"]
    assert "Empty" not in capsys.readouterr().out  # nothing varies
    assert main(["generate", "nothing"]) == 2
    assert main(["generate", "one.json", "--set", "seed"]) == 2
    assert "expected PATH=V1,V2" in capsys.readouterr().err


def test_a_days_grid_is_told_in_plain_numbers(tmp_path, capsys):
    words = ["generate", "experiment-1", "--dry-run", "--into", str(tmp_path / "grid")]
    assert main([*words, "--data", str(tmp_path)]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "Masked" in line]
    # 85 snapshots of 7.87 million complex numbers and as many mask bytes less biases and norms
    assert 5900 < int(row[-1]) < 6100
