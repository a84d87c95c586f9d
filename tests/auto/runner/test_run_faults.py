"""Whatever ends a run early is named, is in its folder, and loses nothing."""

import itertools

import pytest
import torch
from small import assert_same_results, quick, read, small

from cplxnet.auto.runner import run
from cplxnet.auto.runner.run import check_device
from cplxnet.auto.train.loop import Diverged
from cplxnet.musicnet import SAMPLERS


def test_nan_is_diverged_never_done(tiny_corpus, tmp_path):
    with pytest.raises(Diverged, match="try a lower learning rate"):
        quick(small({"stages.dense.optimizer.lr": 1e30}), tmp_path, tiny_corpus)
    status = read(tmp_path, "status")
    assert status["state"] == "diverged" and status["reason"].startswith("Diverged: ")
    assert "Diverged" in (tmp_path / "traceback.txt").read_text()
    assert not (tmp_path / "0-dense.pt").exists() and not (tmp_path / "scores.json").exists()


def test_an_output_that_is_not_finite_after_training_is_diverged(tiny_corpus, tmp_path):
    one_batch = {
        "feeds.train.n_batches": 1,
        "stages.dense.n_epochs": 1,
        "stages.dense.optimizer.lr": 1e30,
    }
    with pytest.raises(Diverged, match="output is NaN or infinite"):
        quick(small(one_batch), tmp_path, tiny_corpus)
    assert read(tmp_path, "status")["state"] == "diverged"


def test_a_run_that_failed_can_be_run_again(tiny_corpus, tmp_path, done):
    with pytest.raises(Diverged):
        quick(small({"stages.dense.optimizer.lr": 1e30}), tmp_path, tiny_corpus)
    quick(small(), tmp_path, tiny_corpus, accept_changes=True)
    assert read(tmp_path, "status")["state"] == "done" and not (tmp_path / "traceback.txt").exists()
    assert_same_results(done, tmp_path)


def test_a_missing_data_file_says_how_to_build_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"(?s)musicnet_11khz_train\.h5.*(demo|get_datasets)"
    ):
        quick(small(), tmp_path / "one", tmp_path / "no data")
    status = read(tmp_path / "one", "status")
    assert status["state"] == "failed" and "musicnet_11khz_train.h5" in status["reason"]


@pytest.mark.parametrize("device", ["cuda:7", "mps", "meta", "gpu"])
def test_a_device_that_is_not_there_is_named_before_anything_happens(
    tiny_corpus, tmp_path, device, epochs
):
    if device == "cuda:7" and torch.cuda.device_count() > 7:
        pytest.skip("there is one")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(
        ValueError, match=f"expected a device that torch has here .*cpu.*, got '{device}'"
    ):
        quick(small(), tmp_path / "one", tiny_corpus, device=device)
    assert epochs.n == 0 and not (tmp_path / "one").exists()


def test_a_wrong_device_does_not_touch_a_finished_run(done, tiny_corpus):
    before = (done / "status.json").read_bytes()
    with pytest.raises(ValueError, match="expected a device"):
        quick(small(), done, tiny_corpus, device="no such device")
    assert (done / "status.json").read_bytes() == before


def test_the_cpu_is_there():
    assert check_device("cpu") == "cpu"


def test_an_interrupted_run_says_so_and_goes_on_to_the_same_bits(
    done, tiny_corpus, tmp_path, monkeypatch, epochs
):
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
    assert epochs.n - before == 3  # from the second epoch of sparsify on
    assert_same_results(done, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feeds.valid": {"dataset": "valid", "sampler": "in-order", "n_batches": 3}},
            "feeds.valid: .* try batch_size",
        ),
        (
            {"feeds.train": {"dataset": "train", "sampler": "one-per-recording", "batch_size": 3}},
            "feeds.train: .* try n_batches",
        ),
        (
            {"scorers.validation.feed": "train"},
            "scorers.validation: expected a feed of every window once, got train",
        ),
    ],
)
def test_a_feed_that_cannot_be_made_or_scored_is_named_before_training(
    tiny_corpus, tmp_path, epochs, changes, message
):
    with pytest.raises(ValueError, match=message):
        quick(small(changes), tmp_path, tiny_corpus)
    assert epochs.n == 0


def test_any_other_exception_is_a_failed_run(tiny_corpus, tmp_path, monkeypatch):
    def broken(self, reuse):
        raise OSError("no space left")

    monkeypatch.setattr(run.Session, "run", broken)
    with pytest.raises(OSError, match="no space left"):
        quick(small(), tmp_path, tiny_corpus)
    assert (read(tmp_path, "status")["state"], read(tmp_path, "status")["reason"]) == (
        "failed",
        "OSError: no space left",
    )
