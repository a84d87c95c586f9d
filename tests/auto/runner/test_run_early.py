"""Early stopping within a run, on validation scores written by hand."""

import pytest
from small import Counting, equal, quick, small, snapshot

from cplxnet import files, musicnet
from cplxnet.auto.runner.folder import RunFolder


def scripted(monkeypatch, scores):
    """Validation scores as given, in order; the network is not asked."""
    values = iter(scores)
    monkeypatch.setattr(musicnet, "pooled_average_precision", lambda target, logit: next(values))


def test_a_stage_stops_early_with_its_last_weights(tiny_corpus, tmp_path, monkeypatch, epochs):
    scripted(monkeypatch, [0.5, 0.6, 0.5, 0.3, 0.4, 0.1, 0.2])
    writing = Counting(files.write_tensors)
    monkeypatch.setattr(files, "write_tensors", writing)
    scores = quick(
        small({"stages.dense.n_epochs": 9, "stages.dense.early.atol": 0.02}),
        tmp_path / "one",
        tiny_corpus,
    )
    dense = scores["stages"]["dense"]
    assert (dense["epochs"], dense["stopped_early"]) == (2, True)  # before the third epoch
    assert dense["stopped_at"] == 0.5
    assert "stopped_at" not in scores["stages"]["fine-tune"]
    lines = RunFolder(tmp_path / "one").history
    assert [line["validation"] for line in lines] == [0.5, 0.6, 0.3, 0.4, 0.1, 0.2]
    assert lines[1]["validation_after"] == 0.5
    assert epochs.n == writing.n == 2 + 2 + 2  # the last checkpoint is the snapshot
    assert int(snapshot(tmp_path / "one", "0-dense.pt")["optimizer"]["fc1.bias_ri"]["step"]) == 6


@pytest.mark.parametrize(
    ("validation", "best"),
    [
        ([0.5, 0.6, 0.5], 1),  # stopped before the third epoch, best after the first
        ([0.5, 0.6, 0.59, 0.585, 0.595], 1),  # all four epochs, best after the first
        ([0.5, 0.6, 0.59, 0.585, 0.61], 4),  # best after the last
    ],
)
def test_the_best_weights_come_back_where_asked_for(
    tiny_corpus, tmp_path, monkeypatch, validation, best
):
    dense = small().to_dict()["stages"]["dense"]

    def train(folder, **changes):
        quick(
            small({"stage_order": ["dense"], "stages": {"dense": dense | changes}}),
            folder,
            tiny_corpus,
        )
        return snapshot(folder, "0-dense.pt")["model"]

    straight = train(tmp_path / "straight", n_epochs=best, early=None)
    scripted(monkeypatch, validation)
    early = {"scorer": "validation", "restore_best": True}
    assert equal(train(tmp_path / "one", n_epochs=4, early=early), straight)
    if best < 4:  # the score of the last weights, not of those that came back
        assert RunFolder(tmp_path / "one").history[-1]["validation_after"] == validation[-1]
