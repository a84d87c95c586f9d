"""Statistics of a corpus against brute force over every sample."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cplxnet.musicnet import recordings
from extra import musicnet_visualizer


def test_statistics_against_a_piano_roll(tiny_corpus):
    path = tiny_corpus / "musicnet_11khz_valid.h5"
    counts, sounding = np.zeros(84, int), []
    for item in recordings.recordings(path):
        roll = np.zeros((84, len(item.data)), bool)
        for label in item.labels:
            roll[label["note"] - 21, label["start_time"] : label["end_time"]] = True
            counts[label["note"] - 21] += 1
        sounding.append(roll.sum(0))
    want = np.bincount(np.concatenate(sounding)) / sum(map(len, sounding))
    np.testing.assert_allclose(musicnet_visualizer.polyphony(path), want)
    assert musicnet_visualizer.notes_per_class(path).tolist() == counts.tolist()


def test_summary_and_picture(tiny_corpus):
    table = musicnet_visualizer.summary(
        {split: tiny_corpus / f"musicnet_11khz_{split}.h5" for split in ("train", "valid")}
    )
    assert table["split"].tolist() == ["train"] * 3 + ["valid"] * 2
    assert table["seconds"].tolist() == pytest.approx([3, 4, 5, 3, 4])
    item = next(recordings.recordings(tiny_corpus / "musicnet_11khz_train.h5"))
    figure, axes = plt.subplots()
    musicnet_visualizer.spectrogram(axes, item, rate_hz=11000, begin_s=1.0, seconds=1.5)
    overlapping = [
        label for label in item.labels if label["start_time"] < 27500 and label["end_time"] > 11000
    ]
    assert len(axes.lines) == len(overlapping) > 0
    assert axes.lines[0].get_ydata()[0] == pytest.approx(
        440 * 2 ** ((overlapping[0]["note"] - 69) / 12)
    )
    plt.close(figure)
