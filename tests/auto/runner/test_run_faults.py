"""Whatever ends a run early is named, is in its folder, and loses nothing."""

import itertools

import pytest
import torch
from small import Epochs, assert_same_results, cut_off, quick, read, small

from cplxnet.auto import run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.run import DeviceLost
from cplxnet.auto.runner.stop import Interrupted, Stop
from cplxnet.auto.runner.trainer import Trainer
from cplxnet.auto.train.loop import Diverged
from cplxnet.musicnet import SAMPLERS
from cplxnet.nn.fast import gpu, native


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
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("size", ["demo", "reference"])
def test_missing_data_of_a_rendered_corpus_name_its_size(tmp_path, size):
    changes = {
        f"datasets.{split}.file": f"{size}/musicnet_11khz_{split}.h5"
        for split in ("train", "valid", "test")
    }
    command = f"python -m extra.corpora.demo --size {size} --data {tmp_path}"
    with pytest.raises(FileNotFoundError, match=f"build it by `{command}`"):
        quick(small(changes), tmp_path / "one", tmp_path)


@pytest.mark.parametrize("options", [{"data": "no data"}, {"device": "no such device"}])
def test_missing_data_or_device_leave_no_trace_in_a_run_under_way(
    tiny_corpus, tmp_path, monkeypatch, epochs, options
):
    folder = tmp_path / "one"
    cut_off(folder, tiny_corpus, monkeypatch, 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises((FileNotFoundError, ValueError)):
        quick(small(), folder, **({"data": tiny_corpus} | options))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    quick(small(), folder, tiny_corpus)
    assert epochs.n == 6


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


def test_an_interrupted_run_says_so_and_goes_on_to_the_same_bits(
    done, tiny_corpus, tmp_path, monkeypatch, epochs
):
    drawing, passes = SAMPLERS["one-per-recording"], itertools.count()

    class Stopped(drawing):
        def __iter__(self):
            if next(passes) == 3:  # in the second epoch of sparsify
                raise KeyboardInterrupt
            return super().__iter__()

    monkeypatch.setitem(SAMPLERS, "one-per-recording", Stopped)
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


def test_a_run_asked_to_stop_ends_at_its_next_batch_and_goes_on_later(
    done, tiny_corpus, tmp_path, monkeypatch
):
    stop = Stop()
    epochs = Epochs(lambda n: n == 2 and stop.ask()).watch(monkeypatch)
    with (
        pytest.raises(Interrupted, match="asked to stop"),
        lock.hold(tmp_path / "claim") as claim,
    ):
        quick(small(), tmp_path, tiny_corpus, claim=claim, stop=stop)
    status = read(tmp_path, "status")
    assert (status["state"], status["stage"], status["epoch"]) == ("interrupted", "dense", 2)
    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n == 3 + 4
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


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(28, "No space left on device"), "interrupted"),
        (RuntimeError("odd"), "failed"),
    ],
)
def test_a_full_disk_is_tried_again_and_any_other_exception_is_a_failed_run(
    tiny_corpus, tmp_path, monkeypatch, error, state
):
    def broken(self, others):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", broken)
        outcome = run_alone(tmp_path, tiny_corpus)
    assert outcome.state == "failed" and outcome.reason == f"{type(error).__name__}: {error}"
    status = read(tmp_path / "one", "status")
    assert (status["state"], status["reason"]) == (state, outcome.reason)
    assert run_alone(tmp_path, tiny_corpus).state == ("done" if state == "interrupted" else state)


def run_alone(folder, data):
    """The outcome of a folder's only run."""
    grid.write(folder, {"one": small()}, overwrite=True)
    return run_many(folder, data=data, progress=False)[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9 GiB for an array"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_a_run_without_memory_is_tried_again(tiny_corpus, tmp_path, monkeypatch, error):
    """Others may have had it: another time may do."""

    def broken(self, others):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", broken)
        outcome = run_alone(tmp_path, tiny_corpus)
    assert (
        outcome.state == "failed" and "cpu has too little memory for this run: " in outcome.reason
    )
    assert read(tmp_path / "one", "status")["state"] == "interrupted"
    trace = (tmp_path / "one" / "traceback.txt").read_text()
    assert "in broken" in trace and trace.rstrip().splitlines()[-1].endswith(outcome.reason)
    assert run_alone(tmp_path, tiny_corpus).state == "done"


def test_a_gpu_kernel_that_fails_on_the_way_is_left_for_the_plain_formulas(
    tiny_corpus, tmp_path, monkeypatch, done
):
    """At a size that nobody has tried: the run goes on from its checkpoint."""
    epochs = Epochs(lambda n: n == 3 and native.enabled() and fail())
    epochs.watch(monkeypatch)

    def fail():
        raise gpu.KernelError("out of resource: shared memory in the GPU kernel _conv_kernel")

    quick(small(), tmp_path / "one", tiny_corpus)
    assert native.enabled()  # again: the next run of this process may have another size
    assert epochs.n == 6 and read(tmp_path / "one", "status")["state"] == "done"
    (note,) = read(tmp_path / "one", "status")["notes"]
    assert note.startswith("out of resource: shared memory in the GPU kernel _conv_kernel; goes on")


def test_a_gpu_kernel_that_fails_as_its_device_is_lost_ends_the_run(
    tiny_corpus, tmp_path, monkeypatch
):
    def broken(self, others):
        raise gpu.KernelError("an illegal memory access was encountered in the GPU kernel _a")

    monkeypatch.setattr(Trainer, "run", broken)
    monkeypatch.setattr("cplxnet.auto.runner.run.answers", lambda device: False)
    with pytest.raises(DeviceLost):
        quick(small(), tmp_path / "one", tiny_corpus)
    assert native.enabled()
