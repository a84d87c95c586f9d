"""A run cut off after any epoch goes on to the same bits; of damaged checkpoints the one before is
used.
"""

import shutil
import threading

import pytest
import torch
from small import (
    SNAPSHOTS,
    Cut,
    Epochs,
    assert_same_results,
    cut_off,
    equal,
    quick,
    read,
    small,
    snapshot,
    timeless,
)

from cplxnet import files, musicnet
from cplxnet.auto.runner.checkpoint import Checkpoints
from cplxnet.auto.runner.folder import RunFolder


@pytest.mark.parametrize("after", range(1, 6))
def test_a_run_cut_off_goes_on_from_its_last_epoch_to_the_same_bits(
    done, tiny_corpus, tmp_path, monkeypatch, epochs, after
):
    cut_off(tmp_path, tiny_corpus, monkeypatch, after)
    torch.manual_seed(99)  # what was drawn in between does not matter
    before = epochs.n
    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n - before == 6 - after
    assert_same_results(done, tmp_path)
    histories = [
        [{**line, "seconds": 0} for line in RunFolder(path).history] for path in (done, tmp_path)
    ]
    assert histories[0] == histories[1]
    assert not list(tmp_path.glob("epoch-*")) and not list(tmp_path.glob("claim*"))


def cut_off_before_scores(folder, data, monkeypatch, n_stages, epochs):
    """A run that ends after the last epoch of so many stages, before the last is scored."""
    score = musicnet.score_dataset

    def cut(*args, **options):
        if epochs.n == 2 * n_stages:
            raise Cut
        return score(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(musicnet, "score_dataset", cut)
        with pytest.raises(Cut):
            quick(small(), folder, data)


@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_a_run_cut_off_before_the_scores_of_a_stage_goes_on_to_the_same_bits(
    done, tiny_corpus, tmp_path, monkeypatch, epochs, n_stages
):
    cut_off_before_scores(tmp_path, tiny_corpus, monkeypatch, n_stages, epochs)
    assert epochs.n == 2 * n_stages and len(list(tmp_path.glob("epoch-*"))) == 2
    quick(small(), tmp_path, tiny_corpus)
    assert epochs.n == 6
    assert_same_results(done, tmp_path)


def test_a_last_checkpoint_without_the_state_that_a_stage_goes_on_with_is_not_taken(
    tiny_corpus, tmp_path, monkeypatch, epochs
):
    cut_off_before_scores(tmp_path / "one", tiny_corpus, monkeypatch, 2, epochs)
    on = small({"stages.fine-tune.restart": False})
    quick(on, tmp_path / "one", tiny_corpus, accept_changes=True)
    assert (
        epochs.n == 4 + 3
    )  # sparsify's last epoch again, from the checkpoint before, and fine-tuning
    quick(on, tmp_path / "whole", tiny_corpus)
    assert_same_results(tmp_path / "whole", tmp_path / "one")


def test_a_run_goes_on_with_the_threads_it_began_with(tiny_corpus, tmp_path, monkeypatch):
    used, before = [], torch.get_num_threads()
    Epochs(lambda n: used.append(torch.get_num_threads())).watch(monkeypatch)
    try:
        torch.set_num_threads(2)
        cut_off(tmp_path, tiny_corpus, monkeypatch, 2)
        torch.set_num_threads(1)
        quick(small(), tmp_path, tiny_corpus)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert used == [2] * 6


def test_best_weights_and_early_stopping_go_on_too(tiny_corpus, tmp_path, monkeypatch):
    early = {
        "scorer": "validation",
        "restore_best": True,
        "patience": 3,
        "cooldown": 1,
        "atol": 1.0,
    }
    changes = {"stages.dense.early": early, "stages.dense.n_epochs": 7, "feeds.train.n_batches": 2}
    quick(small(changes), tmp_path / "whole", tiny_corpus)
    for after in (2, 5):
        cut_off(tmp_path / str(after), tiny_corpus, monkeypatch, after, small(changes))
        quick(small(changes), tmp_path / str(after), tiny_corpus)
        assert_same_results(tmp_path / "whole", tmp_path / str(after))


def test_scores_before_the_first_epoch_are_kept(done, tiny_corpus, tmp_path, monkeypatch):
    cut_off(tmp_path, tiny_corpus, monkeypatch, 5)
    score = musicnet.score_dataset
    monkeypatch.setattr(
        musicnet,
        "score_dataset",
        lambda *args, **options: score(*args, **options) | {"again": True},
    )
    quick(small(), tmp_path, tiny_corpus)
    found = read(tmp_path)["stages"]["fine-tune"]["scores"]["test"]
    assert "again" in found["end"] and "again" not in found["start"]
    assert found["start"] == read(done)["stages"]["fine-tune"]["scores"]["test"]["start"]


@pytest.fixture
def four_epochs(tiny_corpus, tmp_path_factory, monkeypatch):
    """The folder of a run of longer stages, cut off in its second one, with two checkpoints."""
    folder = tmp_path_factory.mktemp("four") / "one"
    cut_off(folder, tiny_corpus, monkeypatch, 5, LONGER)
    assert sorted(path.name for path in folder.glob("epoch-*")) == [
        "epoch-0004.pt",
        "epoch-0005.pt",
    ]
    return folder


LONGER = small({"stages.sparsify.n_epochs": 4})


@pytest.fixture(scope="module")
def longer(tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer") / "one"
    quick(LONGER, folder, tiny_corpus)
    return folder


def flip(whole):
    """One bit in the middle of the tensors, which torch.load does not notice."""
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", flip]
)
@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_is_used(
    longer, four_epochs, tiny_corpus, epochs, capsys, damage, both
):
    bad = ["epoch-0005.pt", "epoch-0004.pt"][: 1 + both]
    for name in bad:
        (four_epochs / name).write_bytes(damage((four_epochs / name).read_bytes()))
    quick(LONGER, four_epochs, tiny_corpus)
    assert epochs.n == 8 - (2 if both else 4)  # of the 8, dense's two are in its snapshot
    assert_same_results(longer, four_epochs)
    notes, shown = read(four_epochs, "status")["notes"], capsys.readouterr().err
    for name, note in zip(bad, notes, strict=True):
        assert f"{name} is damaged and set aside as {name}.corrupt" in note and note in shown
        assert (four_epochs / f"{name}.corrupt").exists()


def test_a_checkpoint_of_other_settings_is_not_taken(four_epochs, tiny_corpus, tmp_path, epochs):
    other = small(
        {"stages.sparsify.n_epochs": 4, "stages.sparsify.optimizer": {"name": "adam", "lr": 1e-2}}
    )
    quick(other, shutil.copytree(four_epochs, tmp_path / "two"), tiny_corpus, accept_changes=True)
    assert epochs.n == 4 + 2


def test_checkpoints_of_other_settings_are_not_taken_for_newer_ones(
    four_epochs, tiny_corpus, tmp_path, monkeypatch
):
    """The fourth and fifth lie in the folder; the first stage, with other settings, is cut off
    after its first.
    """
    other, folder = (
        small({"stages.dense.optimizer.lr": 1e-2}),
        shutil.copytree(four_epochs, tmp_path / "two"),
    )
    cut_off(folder, tiny_corpus, monkeypatch, 1, other, accept_changes=True)
    assert [path.name for path in folder.glob("epoch-*")] == ["epoch-0001.pt"]


# -- the files -------------------------------------------------------------------------------------


def test_checkpoints_hold_the_state_at_the_time_of_saving_and_two_are_kept(tmp_path):
    checkpoints, weight = Checkpoints(RunFolder(tmp_path)), torch.zeros(3)
    for epoch in range(1, 5):
        weight += 1
        checkpoints.save(
            epoch, {"key": "k", "model": {"w": weight}, "best": None, "list": [weight, 2.5]}
        )
        weight *= 1  # in place, perhaps while the file is being written
    weight.zero_()
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0003.pt", "epoch-0004.pt"]
    found = checkpoints.latest("k")
    assert (
        found["epoch"] == 4
        and equal(found["model"], {"w": torch.full((3,), 4.0)})
        and found["list"][1] == 2.5
    )
    checkpoints.end(tmp_path / "kept.pt", 4, {}, changed=False)
    checkpoints.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.pt"]
    assert equal(files.read_tensors(tmp_path / "kept.pt")["model"], found["model"])


def test_ctrl_c_while_the_writer_starts_leaves_a_whole_file_and_no_thread(tmp_path, monkeypatch):
    """A pool's worker was left, for which the process waited for ever."""
    checkpoints = Checkpoints(RunFolder(tmp_path))
    start = threading.Thread.start

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    n_threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt), checkpoints.writing():
        checkpoints.save(1, {"key": "a", "optimizer": None, "model": torch.arange(5)})
    assert threading.active_count() == n_threads
    assert torch.equal(checkpoints.latest("a")["model"], torch.arange(5))


def test_what_went_wrong_in_writing_is_raised(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_tensors", full)
    checkpoints = Checkpoints(RunFolder(tmp_path))
    checkpoints.save(1, {"key": "k"})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {"key": "k"})


def test_a_last_checkpoint_that_cannot_be_written_is_no_snapshot(
    tiny_corpus, tmp_path, monkeypatch
):
    """The one before must not be taken for the stage's end: the run fails, and goes on to the same
    bits.
    """
    write = files.write_tensors

    def full(path, value, *, check):
        if path.name == "epoch-0002.pt":  # the last of the first stage
            raise OSError(28, "No space left on device")
        write(path, value, check=check)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_tensors", full)
        with pytest.raises(OSError, match="No space left"):
            quick(small(), tmp_path / "one", tiny_corpus)
    assert (
        not (tmp_path / "one" / "0-dense.pt").exists()
        and read(tmp_path / "one", "status")["state"] == "interrupted"
    )
    quick(small(), tmp_path / "one", tiny_corpus)
    quick(small(), tmp_path / "whole", tiny_corpus)
    assert_same_results(tmp_path / "whole", tmp_path / "one")


def test_a_snapshot_is_the_last_checkpoint_under_another_name(tiny_corpus, tmp_path, monkeypatch):
    """Until the scores are written both names are there; nothing of the size of a network is
    written twice.
    """
    written, write = [], files.write_tensors

    def noting(path, value, *, check):
        written.append(path.name)
        write(path, value, check=check)

    monkeypatch.setattr(files, "write_tensors", noting)
    monkeypatch.setattr(Checkpoints, "clear", lambda self: None)
    quick(small(), tmp_path, tiny_corpus)
    assert written == [f"epoch-{number:04}.pt" for number in range(1, 7)]
    assert (tmp_path / "2-fine-tune.pt").samefile(tmp_path / "epoch-0006.pt")


def test_stages_are_shared_as_one_file_where_that_can_be(done, tiny_corpus, tmp_path):
    assert (done / "0-dense.pt").stat().st_nlink == 1
    first = shutil.copytree(done, tmp_path / "first")
    quick(
        small({"name": "other", "stages.sparsify.n_epochs": 1}),
        tmp_path / "second",
        tiny_corpus,
        reuse=[first],
    )
    assert (tmp_path / "second" / "0-dense.pt").samefile(first / "0-dense.pt")


# -- the history -----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [None, b"", b'{"epoch": 0}\n{"epo'])
def test_a_run_whose_history_is_lost_goes_on_and_has_it_again(
    longer, four_epochs, tiny_corpus, epochs, damage
):
    path = four_epochs / "history.jsonl"
    path.unlink() if damage is None else path.write_bytes(damage)
    quick(LONGER, four_epochs, tiny_corpus)
    assert epochs.n == 8 - 5
    assert_same_results(longer, four_epochs)
    histories = [
        [{**line, "seconds": 0} for line in RunFolder(path).history]
        for path in (longer, four_epochs)
    ]
    assert histories[0] == histories[1] and len(histories[0]) == 8


GENTLE = {
    "stages.dense.optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.8},
    "stages.sparsify.kl_scheduler": {"name": "cubic"},
    "stages.sparsify.distill": {"teacher": "dense", "weight": 0.5, "temperature": 2.0},
    "stages.sparsify.log_sigma2": -6.0,
    "stages.fine-tune.distill": {"teacher": "dense"},
    "stages.fine-tune.optimizer": {"name": "adamw", "lr": 1e-3},
}


@pytest.fixture(scope="module")
def gentle(tiny_corpus, tmp_path_factory):
    """A finished run with every key of the gentler way down."""
    folder = tmp_path_factory.mktemp("gentle")
    quick(small(GENTLE), folder, tiny_corpus)
    return folder


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_gentler_way_down_goes_on_to_the_same_bits(
    gentle, done, tiny_corpus, tmp_path, monkeypatch, after
):
    cut_off(tmp_path, tiny_corpus, monkeypatch, after, small(GENTLE))
    torch.manual_seed(99)
    quick(small(GENTLE), tmp_path, tiny_corpus)
    assert_same_results(gentle, tmp_path)
    for name in SNAPSHOTS:  # each stage had something of its own
        assert not equal(snapshot(gentle, name)["model"], snapshot(done, name)["model"])


# -- how often -------------------------------------------------------------------------------------


def test_checkpoints_are_written_when_they_are_due_and_at_the_end_of_a_stage(tmp_path):
    checkpoints = Checkpoints(RunFolder(tmp_path), every_s=3600.0)
    for epoch in range(1, 5):
        checkpoints.save(epoch, {"key": "k", "optimizer": {}}, last=epoch == 4)
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0001.pt", "epoch-0004.pt"]


def test_a_stage_that_stops_between_two_checkpoints_has_its_last_weights(
    tiny_corpus, tmp_path, monkeypatch
):
    """With an hour between checkpoints the third epoch, after which dense stops, has none."""
    stops = small({"stages.dense.n_epochs": 9, "stages.dense.early.patience": 1})

    def run(folder):
        values = iter([0.5, 0.6, 0.7, 0.65, 0.2, 0.3, 0.5, 0.6])
        monkeypatch.setattr(
            musicnet, "pooled_average_precision", lambda target, logit: next(values)
        )
        quick(stops, folder, tiny_corpus)

    run(tmp_path / "often")
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, *a, **o: setattr(self, "every_s", 3600) or save(self, *a, **o),
    )
    run(tmp_path / "seldom")
    assert timeless(read(tmp_path / "often")) == timeless(read(tmp_path / "seldom"))
    often, seldom = (snapshot(tmp_path / name, "0-dense.pt") for name in ("often", "seldom"))
    assert all(equal(often[key], seldom[key]) for key in ("model", "optimizer", "noise"))
    assert int(seldom["optimizer"]["fc1.bias_ri"]["step"]) == 9


def test_from_a_gpu_the_file_is_written_once_its_copies_are_whole(tmp_path):
    """The host goes on meanwhile: here the copies are made when they are waited for."""
    made = []

    class Later:
        def to_host(self, tensors):
            copies = [torch.zeros_like(tensor) for tensor in tensors]

            def wait():
                for copy, tensor in zip(copies, tensors, strict=True):
                    copy.copy_(tensor)
                made.append(len(copies))

            return copies, wait

    checkpoints = Checkpoints(RunFolder(tmp_path), cuda=Later())
    state = {"model": {"w": torch.ones(2)}, "noise": {"cpu": torch.arange(3)}, "key": "k"}
    checkpoints.save(1, state)
    checkpoints.wait()
    found = snapshot(tmp_path, "epoch-0001.pt")
    assert made == [2]
    assert equal({key: found[key] for key in state}, state)
