"""Whole experiments of three stages on the corpus of seconds: what they leave in their folder."""

import collections
import gc
import itertools
import math
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from small import SNAPSHOTS, STAGES, C, quick, read, small, snapshot

import cplxnet
from cplxnet.auto import load
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.run import each_device
from cplxnet.auto.runner.trainer import Trainer
from cplxnet.auto.train.state import Training
from cplxnet.musicnet import MusicNet, build, features


def test_a_run_leaves_the_files_of_the_design_and_no_others(done):
    files = {"config.json", "status.json", "history.jsonl", "scores.json", *SNAPSHOTS}
    assert {path.name for path in done.iterdir()} == files


def test_status_is_done_and_names_the_finished_stages(done):
    status, scores = read(done, "status"), read(done)
    assert (status["state"], status["stage"], status["epoch"], status["n_epochs"]) == (
        "done",
        "fine-tune",
        2,
        2,
    )
    assert status["reason"] is None
    assert {name: stage["key"] for name, stage in status["stages"].items()} == {
        name: stage["key"] for name, stage in scores["stages"].items()
    }


def test_scores_have_the_keys_that_the_analysis_reads(done):
    scores = read(done)
    assert scores.keys() == {"schema", "name", "seed", "manifest", "stages"}
    assert (scores["schema"], scores["name"], scores["seed"]) == (1, "tiny", 0)
    assert scores["manifest"] == small().resolved().to_dict()
    assert list(scores["stages"]) == list(STAGES)
    stage_keys = {
        "epochs",
        "stopped_early",
        "seconds",
        "reused_from",
        "n_par",
        "n_zero",
        "compression",
        "layers",
        "scores",
        "validation_after",
    }
    score_keys = {
        "average_precision",
        "average_precision_trabelsi2018",
        "n_windows",
        "positive_share",
        "notes",
    }
    for stage in scores["stages"].values():
        assert stage.keys() == stage_keys | {"key"}
        assert (stage["epochs"], stage["stopped_early"], stage["reused_from"]) == (2, False, None)
        assert stage["scores"]["validation"]["end"].keys() == score_keys
        assert stage["scores"]["test"]["end"].keys() == score_keys | {
            "curve"
        }  # curves are asked for of test
        assert all(
            len(stage["scores"]["test"]["end"]["notes"][key]) == 84
            for key in ("ap", "precision", "recall")
        )
    started = {
        name: stage["scores"]["test"]["start"] is not None
        for name, stage in scores["stages"].items()
    }
    assert started == {"dense": False, "sparsify": False, "fine-tune": True}


def test_no_nan_is_written(done):
    for name in ("scores.json", "history.jsonl", "status.json", "config.json"):
        assert (
            "NaN" not in (done / name).read_text() and "Infinity" not in (done / name).read_text()
        )


def test_compression_is_that_of_the_masks(done):
    stages, model = read(done)["stages"], snapshot(done, "2-fine-tune.pt")["model"]
    n_zero = 2 * sum(int((~value).sum()) for key, value in model.items() if key.endswith("mask"))
    n_par = sum(value.numel() for key, value in model.items() if not key.endswith("mask"))
    assert 0 < n_zero < n_par
    for name in ("sparsify", "fine-tune"):
        assert (stages[name]["n_par"], stages[name]["n_zero"]) == (n_par, n_zero)
        assert stages[name]["compression"] == pytest.approx(n_par / (n_par - n_zero))
    assert stages["dense"]["compression"] == 1.0
    assert sum(layer["n_zero"] for layer in stages["fine-tune"]["layers"].values()) == n_zero


def test_masked_weights_are_zero_after_fine_tuning(done):
    model = snapshot(done, "2-fine-tune.pt")["model"]
    for name in ("fc1", "fc2"):
        assert not model[f"{name}.weight_ri"][~model[f"{name}.mask"]].any()
        assert model[f"{name}.weight_ri"][model[f"{name}.mask"]].any()


@pytest.mark.parametrize(
    ("name", "kind"), [(SNAPSHOTS[0], ""), (SNAPSHOTS[1], "VD"), (SNAPSHOTS[2], "Masked")]
)
def test_scores_are_those_of_the_snapshot_by_scikit_learn(done, tiny_corpus, name, kind):
    data = MusicNet(tiny_corpus / "musicnet_11khz_test.h5", window=256, stride=4096)
    signal, target = data.windows(torch.arange(len(data)))
    x = features(signal, "fft", cplx=True, shift=True)
    net = build(f"complex.TwoLayerDense{kind}", x)
    net.load_state_dict(snapshot(done, name)["model"])
    with torch.no_grad():
        logit = net.eval()(x)
    expected = average_precision_score(target.flatten().numpy(), logit.flatten().numpy())
    found = read(done)["stages"][name[2:-3]]["scores"]["test"]["end"]
    assert found["average_precision"] == pytest.approx(expected, rel=1e-4)
    assert found["n_windows"] == len(data)
    assert found["positive_share"] == pytest.approx(target.mean().item())


def test_history_has_a_line_an_epoch(done):
    lines = RunFolder(done).history
    assert [(line["stage"], line["epoch"]) for line in lines] == list(
        itertools.product(STAGES, range(2))
    )
    keys = {"stage", "epoch", "loss", "kl", "lr", "grad_norm", "validation", "seconds"}
    keys |= {"compression"}
    assert all(line.keys() - {"validation_after"} == keys for line in lines)
    assert [line["kl"] is None for line in lines] == [True, True, False, False, True, True]
    assert all(0 < line["validation"] < 1 for line in lines)
    assert all(line["lr"] == 1e-3 and line["loss"] > 0 and line["grad_norm"] > 0 for line in lines)


def test_the_last_line_of_a_stage_has_the_score_after_it(done):
    stages, lines = read(done)["stages"], RunFolder(done).history
    ends = [stages[name]["scores"]["validation"]["end"]["average_precision"] for name in STAGES]
    assert [line["validation_after"] for line in lines[1::2]] == ends
    assert not any("validation_after" in line for line in lines[::2])
    assert lines[2]["validation"] == ends[0]  # sparsify starts from dense's weights


def test_history_follows_the_compression(done):
    """That of each stage's last epoch is the stage's; dense networks have 1."""
    stages, lines = read(done)["stages"], RunFolder(done).history
    assert [line["compression"] for line in lines[1::2]] == [
        stages[name]["compression"] for name in STAGES
    ]
    assert lines[0]["compression"] == 1.0 < lines[2]["compression"]


def test_the_score_before_fine_tuning_is_that_of_the_masked_network(done):
    first = next(line for line in RunFolder(done).history if line["stage"] == "fine-tune")
    start = read(done)["stages"]["fine-tune"]["scores"]["validation"]["start"]["average_precision"]
    assert first["validation"] == start


def test_snapshots_hold_tensors_and_plain_values(done):
    for name in SNAPSHOTS:
        found = snapshot(done, name)
        assert found.keys() >= {"schema", "key", "stage", "model", "optimizer"}
        assert found["key"] == read(done)["stages"][name[2:-3]]["key"]


def test_a_snapshot_has_the_state_of_the_optimiser_where_the_next_stage_goes_on_with_it(done):
    assert [snapshot(done, name)["optimizer"] is None for name in SNAPSHOTS] == [False, True, True]
    sizes = [(done / name).stat().st_size for name in SNAPSHOTS]
    assert sizes[2] < 0.5 * sizes[0]  # a third, and the masks


def test_the_optimiser_goes_on_while_sparsifying_and_restarts_for_fine_tuning(
    tiny_corpus, tmp_path, monkeypatch
):
    found, state_of = {}, Training.optimizer_state

    def noted(training):
        found[training.stage.name] = state_of(training)
        return found[training.stage.name]

    monkeypatch.setattr(Training, "optimizer_state", noted)
    quick(small(), tmp_path, tiny_corpus)
    steps = [{key: int(state["step"]) for key, state in found[stage].items()} for stage in STAGES]
    assert set(steps[0].values()) == {6}  # 2 epochs of 3 batches
    assert {key: n for key, n in steps[1].items() if "log_sigma2" not in key} == dict.fromkeys(
        steps[0], 12
    )
    assert [n for key, n in steps[1].items() if "log_sigma2" in key] == [6, 6]
    assert steps[2] == steps[0]


def test_a_manifest_passes_few_modules_on_its_way_to_scores(tiny_corpus, tmp_path):
    """Counted by a profiler: those in which a function is called, from `load` to scores.json."""
    small().save(tmp_path / "one.json")
    files = set()

    def note_file(frame, event, argument):
        files.add(frame.f_code.co_filename)

    profiler = sys.getprofile()
    threading.setprofile(note_file)  # of the thread that writes checkpoints
    sys.setprofile(note_file)
    try:
        quick(load(tmp_path / "one.json"), tmp_path / "one", tiny_corpus)
    finally:
        sys.setprofile(profiler)
        threading.setprofile(None)
    assert (tmp_path / "one" / "scores.json").exists()

    root = f"{Path(cplxnet.__file__).parent}/"
    passed = {file.removeprefix(root) for file in files if file.startswith(root)}
    rooms = collections.Counter(path.rpartition("/")[0] for path in passed)
    assert rooms["auto/runner"] <= 8, passed
    assert len(passed) <= 47, sorted(passed)


def test_after_a_run_its_data_and_networks_are_let_go(tiny_corpus, tmp_path):
    """At once: a grid in one process would have the next run's 5 GB beside them."""

    def alive():
        return {id(thing) for thing in gc.get_objects() if type(thing) in (MusicNet, Trainer)}

    gc.collect()
    gc.disable()  # which would find circles sooner or later
    try:
        before = alive()
        quick(small(), tmp_path, tiny_corpus)
        assert alive() <= before
    finally:
        gc.enable()


# -- variants --------------------------------------------------------------------------------------


def test_training_on_all_windows_in_order(tiny_corpus, tmp_path):
    feed = {"dataset": "train", "sampler": "in-order", "batch_size": 8}
    scores = quick(
        small({"feeds.train": feed, "datasets.train.stride": 2048}), tmp_path, tiny_corpus
    )
    assert [stage["epochs"] for stage in scores["stages"].values()] == [2, 2, 2]
    n_windows = sum((int(seconds * 11000) - 256) // 2048 + 1 for seconds in (3, 4, 5))
    n_steps = snapshot(tmp_path, "0-dense.pt")["optimizer"]["fc1.bias_ri"]["step"]
    assert n_steps == 2 * math.ceil(n_windows / 8)


def test_real_networks_of_convolutions_run_too(tiny_corpus, tmp_path):
    manifest = small(
        {"features.cplx": False, "stages.sparsify.optimizer": FAST},
        model="real.ShallowConvNet",
        window=1024,
    )
    scores = quick(manifest, tmp_path, tiny_corpus)
    assert (
        scores["stages"]["fine-tune"]["compression"]
        == scores["stages"]["sparsify"]["compression"]
        > 1
    )
    assert all(
        0 < stage["scores"]["test"]["end"]["average_precision"] < 1
        for stage in scores["stages"].values()
    )


FAST = {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 1.0}


def test_a_stronger_penalty_compresses_more(tiny_corpus, tmp_path, done):
    def compression(c):
        changes = {C: c, "stages.sparsify.n_epochs": 3, "stages.sparsify.optimizer": FAST}
        scores = quick(small(changes), tmp_path / str(c), tiny_corpus, reuse=[done])
        return scores["stages"]["sparsify"]["compression"]

    found = [compression(c) for c in (1e-4, 10.0)]
    assert found[0] < found[1] and math.isfinite(found[0])


def test_the_learning_rate_follows_the_schedule_of_each_stage(tiny_corpus, tmp_path):
    step = {"name": "step", "at": 0.5, "factor": 0.25}
    quick(
        small({"stages.dense.lr_scheduler": step, "stages.sparsify.lr_scheduler": None}),
        tmp_path,
        tiny_corpus,
    )
    rates = [line["lr"] for line in RunFolder(tmp_path).history]
    assert rates == [
        1e-3,
        2.5e-4,
        1e-3,
        1e-3,
        1e-3,
        2.5e-4,
    ]  # fine-tune has dense's, sparsify its own


def test_gradients_are_clipped_as_the_stage_says(done):
    adam = snapshot(done, "0-dense.pt")["optimizer"].values()
    moment = sum(state["exp_avg"].square().sum() for state in adam).sqrt().item()
    norms = [line["grad_norm"] for line in RunFolder(done).history if line["stage"] == "dense"]
    assert min(norms) > 0.05  # before clipping
    assert (
        moment <= 0.05 * (1 - 0.9**6) * 1.0001
    )  # the mean of six gradients no longer than 0.05, and of zeros before


def test_training_lowers_the_loss(tiny_corpus, tmp_path):
    changes = {"stages.dense.n_epochs": 6, "feeds.train.n_batches": 6, "stages.dense.early": None}
    changes |= {"stages.dense.grad_clip": None, "stages.dense.lr_scheduler": None}
    quick(small(changes), tmp_path, tiny_corpus)
    losses = [line["loss"] for line in RunFolder(tmp_path).history if line["stage"] == "dense"]
    assert np.mean(losses[-2:]) < 0.5 * losses[0]


@pytest.mark.slow
def test_the_deep_network_goes_through_all_three_stages(tiny_corpus, tmp_path):
    changes = {f"stages.{name}.n_epochs": 1 for name in STAGES} | {"feeds.train.n_batches": 1}
    scores = quick(small(changes, model="complex.DeepConvNet", window=4096), tmp_path, tiny_corpus)
    assert [stage["n_par"] for stage in scores["stages"].values()] == [15_742_344] * 3
    assert scores["stages"]["fine-tune"]["n_zero"] == scores["stages"]["sparsify"]["n_zero"] > 0
    assert sorted(scores["stages"]["dense"]["layers"])[:2] == ["conv1", "conv2"]


def test_cuda_is_every_gpu_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert each_device(["cuda"]) == ("cuda:0", "cuda:1", "cuda:2")
    assert each_device(["cuda:1", "cuda", "cpu"]) == ("cuda:1", "cuda:0", "cuda:2", "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert each_device(["cuda"]) == ("cuda",)  # and is refused by `check_device`


def test_a_run_wants_a_manifest_and_a_folder_of_its_own(tiny_corpus, tmp_path):
    path = tmp_path / "grid" / "tiny.json"
    small().save(path)
    with pytest.raises(ValueError, match=r"grid: .* own, got a folder of manifests; try .*grid/NA"):
        quick(load(path), path.parent, tiny_corpus)
    assert [file.name for file in path.parent.iterdir()] == ["tiny.json"]

    with pytest.raises(TypeError, match=r"expected a Manifest, got PosixPath; try auto\.load"):
        quick(path, path.with_suffix(""), tiny_corpus)
