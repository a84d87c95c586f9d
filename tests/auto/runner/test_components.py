"""What a manifest names, as objects: feeds of the network's input, and what they draw."""

import dataclasses
import shutil

import h5py
import pytest
import torch
from small import quick, small

from cplxnet.auto.runner.components import Components
from cplxnet.musicnet import MusicNet, features, recordings
from extra.corpora import hdf5


@pytest.fixture
def components(tiny_corpus):
    return Components(small(), device="cpu", data=tiny_corpus)


def test_a_feed_yields_what_the_network_takes_and_the_notes(components, tiny_corpus):
    data = MusicNet(tiny_corpus / "musicnet_11khz_valid.h5", window=256, stride=4096)
    signal, notes = data.windows(torch.arange(len(data)))
    feed = components.feed("valid")
    batches = list(feed)
    assert len(feed) == len(batches)
    expected = features(signal, "fft", cplx=True, shift=True)
    assert torch.equal(torch.cat([x for x, _ in batches]), expected)
    assert torch.equal(torch.cat([y for _, y in batches]), notes)


def test_single_batches_are_those_of_an_epoch_from_the_same_random_numbers(components):
    def feed():
        return components.feed("train", torch.Generator().manual_seed(5))

    whole = list(feed())
    one_by_one = feed()
    assert len(whole) == 3
    for x, notes in whole:
        drawn, drawn_notes = one_by_one.draw()
        assert torch.equal(drawn, x) and torch.equal(drawn_notes, notes)


def test_a_gpu_scores_many_windows_at_once_and_trains_on_as_many_as_the_manifest_says(
    components, monkeypatch
):
    monkeypatch.setattr(components, "device", "cuda:0")
    training = components.feed("valid", torch.Generator())
    assert len(components.feed("valid")) < len(training)
    x, _ = next(iter(training))
    assert len(x) == components.manifest.feeds["valid"].batch_size
    # a CUDA graph draws its batches: not of a feed in order
    assert components.feed("train", torch.Generator()).draws and not training.draws


def test_int16_trains_to_nearly_the_same_scores(tiny_corpus, tmp_path):
    """The manifest's key `samples`: how recordings are held in memory."""
    scores = {
        samples: quick(small({"samples": samples}), tmp_path / samples, tiny_corpus)
        for samples in ("float32", "int16")
    }
    end = [
        s["stages"]["dense"]["scores"]["test"]["end"]["average_precision"] for s in scores.values()
    ]
    keys = {s["stages"]["dense"]["key"] for s in scores.values()}
    assert len(keys) == 2 and end[0] == pytest.approx(end[1], abs=0.02)


def test_files_of_different_sampling_rates_are_refused_before_training(tiny_corpus, tmp_path):
    for path in tiny_corpus.glob("*.h5"):
        shutil.copy(path, tmp_path / path.name)
    with h5py.File(tmp_path / "musicnet_11khz_valid.h5", "r+") as file:
        file.attrs["rate_hz"] = 22_050

    with pytest.raises(ValueError, match=r"one sampling rate, got .*valid\.h5\) at 22050 Hz"):
        Components(small(), device="cpu", data=tmp_path)


def test_a_scored_file_without_labels_is_named_before_anything_is_trained(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "data")
    file = tmp_path / "data" / "musicnet_11khz_test.h5"
    silent = [
        dataclasses.replace(recording, labels=recording.labels[:0])
        for recording in recordings.recordings(file)
    ]
    hdf5.write(file, silent, rate_hz=recordings.rate_hz(file))

    with pytest.raises(
        ValueError, match=r"scorers\.test: expected labels in .*musicnet_11khz_test"
    ):
        quick(small(), tmp_path / "run", tmp_path / "data")
    assert not (tmp_path / "run" / "status.json").exists()


def test_targets_are_those_of_the_windows(components):
    data = components.datasets["valid"]
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    assert torch.equal(data.targets(index), data.windows(index)[1])
