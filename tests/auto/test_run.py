"""Whole experiments of three stages on the corpus of seconds."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from small import C, Counting, quick, small, timeless

from cplxnet.auto import runner, session
from cplxnet.auto.epoch import Diverged
from cplxnet.auto.folder import RunFolder
from cplxnet.auto.runner import check_device
from cplxnet.musicnet import SAMPLERS, MusicNet, build, features

SNAPSHOTS = ("0-dense.pt", "1-sparsify.pt", "2-fine-tune.pt")
STAGES = ("dense", "sparsify", "fine-tune")


@pytest.fixture(scope="module")
def done(tiny_corpus, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("done") / "one"
    quick(small(), folder, tiny_corpus)
    return folder


@pytest.fixture
def epochs(monkeypatch):
    """Counts the epochs trained."""
    counting = Counting(session.train_epoch)
    monkeypatch.setattr(session, "train_epoch", counting)
    return counting


def read(folder, name="scores"):
    return json.loads((folder / f"{name}.json").read_text())


def snapshot(folder, name):
    return torch.load(folder / name, weights_only=True)


def equal(a, b):
    """Deep equality of what snapshots hold, tensors to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def assert_same_results(one, other):
    assert timeless(read(one)) == timeless(read(other))
    for name in SNAPSHOTS:
        assert equal(snapshot(one, name), snapshot(other, name)), name


# -- what a run leaves ----------------------------------------------------------------------------------------------------


def test_a_run_leaves_the_files_of_the_design_and_no_others(done):
    files = {"config.json", "status.json", "history.jsonl", "scores.json", *SNAPSHOTS}
    assert {path.name for path in done.iterdir()} == files


def test_status_is_done_and_names_the_finished_stages(done):
    status, scores = read(done, "status"), read(done)
    assert (status["state"], status["stage"], status["epoch"], status["n_epochs"]) == ("done", "fine-tune", 2, 2)
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
    stage_keys = {"epochs", "stopped_early", "seconds", "reused_from", "n_par", "n_zero", "compression", "layers", "scores"}
    score_keys = {"average_precision", "average_precision_trabelsi2018", "n_windows", "positive_share", "notes"}
    for stage in scores["stages"].values():
        assert stage.keys() == stage_keys | {"key"}
        assert (stage["epochs"], stage["stopped_early"], stage["reused_from"]) == (2, False, None)
        assert stage["scores"]["validation"]["end"].keys() == score_keys
        assert stage["scores"]["test"]["end"].keys() == score_keys | {"curve"}  # curves are asked for of test
        assert all(len(stage["scores"]["test"]["end"]["notes"][key]) == 84 for key in ("ap", "precision", "recall"))
    started = {name: stage["scores"]["test"]["start"] is not None for name, stage in scores["stages"].items()}
    assert started == {"dense": False, "sparsify": False, "fine-tune": True}


def test_no_nan_is_written(done):
    for name in ("scores.json", "history.jsonl", "status.json", "config.json"):
        assert "NaN" not in (done / name).read_text() and "Infinity" not in (done / name).read_text()


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


@pytest.mark.parametrize(("name", "kind"), [(SNAPSHOTS[0], ""), (SNAPSHOTS[1], "VD"), (SNAPSHOTS[2], "Masked")])
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
    assert [(line["stage"], line["epoch"]) for line in lines] == list(itertools.product(STAGES, range(2)))
    keys = {"stage", "epoch", "loss", "kl", "lr", "grad_norm", "validation", "seconds"}
    assert all(line.keys() == keys for line in lines)
    assert [line["kl"] is None for line in lines] == [True, True, False, False, True, True]
    assert [line["validation"] is None for line in lines] == [False, False, True, True, False, False]
    assert all(line["lr"] == 1e-3 and line["loss"] > 0 and line["grad_norm"] > 0 for line in lines)


def test_the_score_before_fine_tuning_is_that_of_the_masked_network(done):
    first = next(line for line in RunFolder(done).history if line["stage"] == "fine-tune")
    start = read(done)["stages"]["fine-tune"]["scores"]["validation"]["start"]["average_precision"]
    assert first["validation"] == start


def test_snapshots_hold_tensors_and_plain_values(done):
    for name in SNAPSHOTS:
        found = snapshot(done, name)
        assert found.keys() == {"schema", "key", "stage", "model", "optimizer"}
        assert found["key"] == read(done)["stages"][name[2:-3]]["key"]


def test_the_optimiser_goes_on_while_sparsifying_and_restarts_for_fine_tuning(done):
    steps = [{key: int(state["step"]) for key, state in snapshot(done, name)["optimizer"].items()} for name in SNAPSHOTS]
    assert set(steps[0].values()) == {6}  # 2 epochs of 3 batches
    assert {key: n for key, n in steps[1].items() if "log_sigma2" not in key} == dict.fromkeys(steps[0], 12)
    assert [n for key, n in steps[1].items() if "log_sigma2" in key] == [6, 6]
    assert steps[2] == steps[0]


# -- the same again -------------------------------------------------------------------------------------------------------


def test_the_same_manifest_gives_the_same_bits(done, tiny_corpus, tmp_path):
    torch.manual_seed(99)  # what was drawn before a run does not matter
    quick(small(), tmp_path / "two", tiny_corpus)
    assert_same_results(done, tmp_path / "two")


def test_another_seed_gives_other_scores(done, tiny_corpus, tmp_path):
    quick(small({"seed": 1}), tmp_path / "two", tiny_corpus)
    one, two = read(done)["stages"], read(tmp_path / "two")["stages"]
    for name in STAGES:
        ends = [stages[name]["scores"]["test"]["end"]["average_precision"] for stages in (one, two)]
        assert ends[0] != ends[1]


def test_a_finished_run_is_not_trained_again(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    scores = quick(small(), folder, tiny_corpus)
    assert epochs.n == 0
    assert json.loads(json.dumps(scores, default=float)).keys() == read(done).keys()
    assert read(folder) == read(done)
    assert (folder / "history.jsonl").read_bytes() == (done / "history.jsonl").read_bytes()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_going_on_from_a_stage_gives_the_same_bits(done, tiny_corpus, tmp_path, epochs, lost):
    folder = shutil.copytree(done, tmp_path / "two")
    for name in SNAPSHOTS[lost:]:
        (folder / name).unlink()
    quick(small(), folder, tiny_corpus)
    assert epochs.n == 2 * (3 - lost)
    assert_same_results(done, folder)
    assert [line["epoch"] for line in RunFolder(folder).history] == [0, 1] * 3


def test_a_changed_setting_trains_from_its_stage_on(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    quick(small({C: 0.7}), folder, tiny_corpus)
    assert epochs.n == 4  # sparsify and fine-tune
    assert equal(snapshot(done, "0-dense.pt"), snapshot(folder, "0-dense.pt"))
    assert not equal(snapshot(done, "1-sparsify.pt"), snapshot(folder, "1-sparsify.pt"))


def test_a_snapshot_of_another_experiment_is_not_taken(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    shutil.copy(folder / "1-sparsify.pt", folder / "0-dense.pt")
    quick(small(), folder, tiny_corpus)
    assert epochs.n == 2
    assert_same_results(done, folder)


def test_reuse_trains_a_shared_stage_once_and_changes_no_bit(done, tiny_corpus, tmp_path, epochs):
    other = small({C: 0.7, "name": "other"})
    quick(other, tmp_path / "alone", tiny_corpus)
    assert epochs.n == 6
    quick(other, tmp_path / "reusing", tiny_corpus, reuse=[tmp_path / "absent", done])
    assert epochs.n == 6 + 4
    assert_same_results(tmp_path / "alone", tmp_path / "reusing")
    reused = {name: stage["reused_from"] for name, stage in read(tmp_path / "reusing")["stages"].items()}
    assert reused == {"dense": "one", "sparsify": None, "fine-tune": None}
    assert len(RunFolder(tmp_path / "reusing").history) == 6


@pytest.mark.parametrize("damaged", ["scores.json", "history.jsonl", "0-dense.pt"])
def test_a_damaged_folder_to_reuse_from_is_passed_over(done, tiny_corpus, tmp_path, epochs, damaged):
    bad = shutil.copytree(done, tmp_path / "bad")
    (bad / damaged).write_bytes((bad / damaged).read_bytes()[:100])
    quick(small({f"stages.{name}.n_epochs": 1 for name in STAGES[1:]}), tmp_path / "two", tiny_corpus, reuse=[bad])
    assert epochs.n == 4 and read(tmp_path / "two", "status")["state"] == "done"


def test_a_damaged_snapshot_of_its_own_is_named(done, tiny_corpus, tmp_path):
    folder = shutil.copytree(done, tmp_path / "two")
    (folder / "0-dense.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"0-dense\.pt: expected a snapshot"):
        quick(small(), folder, tiny_corpus)
    assert read(folder, "status")["state"] == "failed"


# -- early stopping -------------------------------------------------------------------------------------------------------


def scripted(monkeypatch, scores):
    """Validation scores as given, in order; the network is not asked."""
    values = iter(scores)
    monkeypatch.setattr(session.Session, "average_precision", lambda self, scorer: next(values))


def test_a_stage_stops_early_with_its_last_weights(tiny_corpus, tmp_path, monkeypatch, epochs):
    scripted(monkeypatch, [0.5, 0.6, 0.5] + [0.1, 0.2])
    scores = quick(small({"stages.dense.n_epochs": 9}), tmp_path / "one", tiny_corpus)
    dense = scores["stages"]["dense"]
    assert (dense["epochs"], dense["stopped_early"]) == (2, True)  # before the third epoch
    assert epochs.n == 2 + 2 + 2
    assert int(snapshot(tmp_path / "one", "0-dense.pt")["optimizer"]["fc1.bias_ri"]["step"]) == 6


@pytest.mark.parametrize(
    ("validation", "best"),
    [
        ([0.5, 0.6, 0.5], 1),  # stopped before the third epoch, best after the first
        ([0.5, 0.6, 0.59, 0.58, 0.595], 1),  # all four epochs, best after the first
        ([0.5, 0.6, 0.59, 0.58, 0.61], 4),  # best after the last
    ],
)
def test_the_best_weights_come_back_where_asked_for(tiny_corpus, tmp_path, monkeypatch, validation, best):
    only_dense = {"stage_order": ["dense"], "stages": {"dense": small().to_dict()["stages"]["dense"]}}
    long = {**only_dense, "stages": {"dense": only_dense["stages"]["dense"] | {"n_epochs": 4}}}
    straight = {"dense": only_dense["stages"]["dense"] | {"n_epochs": best, "early": None}}
    quick(small(only_dense | {"stages": straight}), tmp_path / "straight", tiny_corpus)
    scripted(monkeypatch, validation)
    quick(small(long | {"stages": {"dense": long["stages"]["dense"] | {"early": RESTORE}}}), tmp_path / "one", tiny_corpus)
    models = [snapshot(tmp_path / name, "0-dense.pt")["model"] for name in ("straight", "one")]
    assert equal(*models)


RESTORE = {"scorer": "validation", "restore_best": True}


# -- faults ---------------------------------------------------------------------------------------------------------------


def test_nan_is_diverged_never_done(tiny_corpus, tmp_path):
    with pytest.raises(Diverged, match="try a lower learning rate"):
        quick(small({"stages.dense.optimizer.lr": 1e30}), tmp_path, tiny_corpus)
    status = read(tmp_path, "status")
    assert status["state"] == "diverged" and status["reason"].startswith("Diverged: ")
    assert "Diverged" in (tmp_path / "traceback.txt").read_text()
    assert not (tmp_path / "0-dense.pt").exists() and not (tmp_path / "scores.json").exists()


def test_an_output_that_is_not_finite_after_training_is_diverged(tiny_corpus, tmp_path):
    one_batch = {"feeds.train.n_batches": 1, "stages.dense.n_epochs": 1, "stages.dense.optimizer.lr": 1e30}
    with pytest.raises(Diverged, match="output is NaN or infinite"):
        quick(small(one_batch), tmp_path, tiny_corpus)
    assert read(tmp_path, "status")["state"] == "diverged"


def test_a_run_that_failed_can_be_run_again(tiny_corpus, tmp_path, done):
    with pytest.raises(Diverged):
        quick(small({"stages.dense.optimizer.lr": 1e30}), tmp_path, tiny_corpus)
    quick(small(), tmp_path, tiny_corpus)
    assert read(tmp_path, "status")["state"] == "done" and not (tmp_path / "traceback.txt").exists()
    assert_same_results(done, tmp_path)


def test_a_missing_data_file_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)musicnet_11khz_train\.h5.*(demo|get_datasets)"):
        quick(small(), tmp_path / "one", tmp_path / "no data")
    status = read(tmp_path / "one", "status")
    assert status["state"] == "failed" and "musicnet_11khz_train.h5" in status["reason"]


@pytest.mark.parametrize("device", ["cuda:7", "mps", "meta", "gpu"])
def test_a_device_that_is_not_there_is_named_before_anything_happens(tiny_corpus, tmp_path, device, epochs):
    if device == "cuda:7" and torch.cuda.device_count() > 7:
        pytest.skip("there is one")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=f"expected a device that torch has here .*cpu.*, got '{device}'"):
        quick(small(), tmp_path / "one", tiny_corpus, device=device)
    assert epochs.n == 0 and not (tmp_path / "one").exists()


def test_a_wrong_device_does_not_touch_a_finished_run(done, tiny_corpus):
    before = (done / "status.json").read_bytes()
    with pytest.raises(ValueError, match="expected a device"):
        quick(small(), done, tiny_corpus, device="no such device")
    assert (done / "status.json").read_bytes() == before


def test_the_cpu_is_there():
    assert check_device("cpu") == "cpu"


def test_an_interrupted_run_says_so_and_goes_on_to_the_same_bits(done, tiny_corpus, tmp_path, monkeypatch, epochs):
    drawing, passes = SAMPLERS["one-per-recording"], itertools.count()

    class Interrupted(drawing):
        def __iter__(self):
            if next(passes) == 3:  # in the second epoch of sparsify
                raise KeyboardInterrupt
            return super().__iter__()

    monkeypatch.setitem(SAMPLERS, "one-per-recording", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(small(), tmp_path, tiny_corpus)
    status = read(tmp_path, "status")
    assert (status["state"], status["stage"], status["epoch"]) == ("interrupted", "sparsify", 1)
    assert list(status["stages"]) == list(read(tmp_path)["stages"]) == ["dense"]

    monkeypatch.setitem(SAMPLERS, "one-per-recording", drawing)
    before = epochs.n
    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n - before == 4
    assert_same_results(done, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feeds.valid": {"dataset": "valid", "sampler": "in-order", "n_batches": 3}}, "feeds.valid: .* try batch_size"),
        (
            {"feeds.train": {"dataset": "train", "sampler": "one-per-recording", "batch_size": 3}},
            "feeds.train: .* try n_batches",
        ),
        ({"scorers.validation.feed": "train"}, "scorers.validation: expected a feed of every window once, got train"),
    ],
)
def test_a_feed_that_cannot_be_made_or_scored_is_named_before_training(tiny_corpus, tmp_path, epochs, changes, message):
    with pytest.raises(ValueError, match=message):
        quick(small(changes), tmp_path, tiny_corpus)
    assert epochs.n == 0


def test_any_other_exception_is_a_failed_run(tiny_corpus, tmp_path, monkeypatch):
    def broken(self, reuse):
        raise OSError("no space left")

    monkeypatch.setattr(runner.Session, "run", broken)
    with pytest.raises(OSError, match="no space left"):
        quick(small(), tmp_path, tiny_corpus)
    assert (read(tmp_path, "status")["state"], read(tmp_path, "status")["reason"]) == ("failed", "OSError: no space left")


# -- variants -------------------------------------------------------------------------------------------------------------


def test_training_on_all_windows_in_order(tiny_corpus, tmp_path):
    feed = {"dataset": "train", "sampler": "in-order", "batch_size": 8}
    scores = quick(small({"feeds.train": feed, "datasets.train.stride": 2048}), tmp_path, tiny_corpus)
    assert [stage["epochs"] for stage in scores["stages"].values()] == [2, 2, 2]


def test_real_networks_of_convolutions_run_too(tiny_corpus, tmp_path):
    manifest = small({"features.cplx": False, "stages.sparsify.optimizer": FAST}, model="real.ShallowConvNet", window=1024)
    scores = quick(manifest, tmp_path, tiny_corpus)
    assert scores["stages"]["fine-tune"]["compression"] == scores["stages"]["sparsify"]["compression"] > 1
    assert all(0 < stage["scores"]["test"]["end"]["average_precision"] < 1 for stage in scores["stages"].values())


FAST = {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 1.0}


def test_a_stronger_penalty_compresses_more(tiny_corpus, tmp_path, done):
    def compression(c):
        changes = {C: c, "stages.sparsify.n_epochs": 3, "stages.sparsify.optimizer": FAST}
        scores = quick(small(changes), tmp_path / str(c), tiny_corpus, reuse=[done])
        return scores["stages"]["sparsify"]["compression"]

    found = [compression(c) for c in (1e-4, 10.0)]
    assert found[0] < found[1] and math.isfinite(found[0])


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
