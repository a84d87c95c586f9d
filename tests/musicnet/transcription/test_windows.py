"""Frames are the windows around them, labels those of the file; batches do not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cplxnet.musicnet import MusicNet, features, recordings
from cplxnet.musicnet.transcription.windows import frame_positions, transcribe
from extra.metrics import transcribe_file, true_roll


def first_84(x: torch.Tensor) -> torch.Tensor:
    """A network that says what it hears: 84 of its input's numbers."""
    return x.real[:, 0, :84]


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(float)))


def test_every_frame_is_the_window_around_it(rng_signal: np.ndarray) -> None:
    times, found = transcribe(
        first_84, rng_signal, rate_hz=1000, window=100, hop=7, kind="raw", progress=False
    )
    assert len(times) == len(found) == -(-len(rng_signal) // 7)
    np.testing.assert_allclose(times, np.arange(len(times)) * 7 / 1000)
    for k in range(len(times)):
        span = np.arange(7 * k - 50, 7 * k + 50)
        inside = (span >= 0) & (span < len(rng_signal))
        window = np.where(inside, rng_signal[np.clip(span, 0, len(rng_signal) - 1)], 0)
        np.testing.assert_allclose(found[k], expit(window[:84]), atol=1e-6)


@pytest.fixture
def rng_signal() -> np.ndarray:
    return np.random.default_rng(5).standard_normal(500).astype(np.float32)


def test_inner_frames_are_the_dataset_s_windows_with_its_labels(tiny_corpus: Path) -> None:
    path = tiny_corpus / "musicnet_11khz_test.h5"
    data = MusicNet(path, window=4096, stride=512)
    item = next(recordings.recordings(path))
    signal, notes = data.windows(torch.arange(20))
    expected = features(signal, "fft", cplx=True, shift=True)[:, 0, 2000:2084].real.sigmoid()
    _, found = transcribe(
        lambda x: x[:, 0, 2000:2084].real, item.data, hop=512, batch_size=6, progress=False
    )
    # window 0 of the dataset begins at sample 0: its middle, 2048, is frame 4
    np.testing.assert_allclose(found[4:24], expected.numpy(), atol=2e-5)
    assert (true_roll(item, 512)[4:24] == notes.numpy().astype(bool)).all() and notes.sum() > 20


def test_true_roll_is_what_the_labels_say(tiny_corpus: Path) -> None:
    item = next(recordings.recordings(tiny_corpus / "musicnet_11khz_valid.h5"))
    roll = true_roll(item, 999)
    expected = np.zeros_like(roll)
    for k, position in enumerate(frame_positions(len(item.data), 999)):
        for label in item.labels:
            expected[k, label["note"] - 21] |= label["start_time"] <= position < label["end_time"]
    assert (roll == expected).all() and 0.01 < roll.mean() < 0.1


def test_batches_and_training_mode_change_nothing(rng_signal: np.ndarray) -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 84)
    ).train()
    options = {"window": 64, "hop": 10, "kind": "raw", "cplx": False, "progress": False}
    _, one = transcribe(net, rng_signal, batch_size=1, **options)
    _, other = transcribe(net, torch.from_numpy(rng_signal), batch_size=33, **options)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert not net.training and one.dtype == np.float32 and one.std() > 0.05


@pytest.mark.parametrize(("how", "shown"), [("text", True), ("off", False)])
def test_its_bar_is_the_kind_that_is_asked_for(rng_signal, monkeypatch, capsys, how, shown) -> None:
    monkeypatch.setenv("CPLXNET_PROGRESS", how)
    transcribe(first_84, rng_signal, rate_hz=1000, window=100, hop=7, kind="raw")
    assert ("frames" in capsys.readouterr().err) is shown


def test_a_file_is_its_recordings_one_after_another(tiny_corpus: Path) -> None:
    path = tiny_corpus / "musicnet_11khz_valid.h5"
    rolls, found = transcribe_file(first_84, path, hop=1000, progress=False, window=256, kind="raw")
    items = list(recordings.recordings(path))
    single = [
        transcribe(first_84, item.data, hop=1000, window=256, kind="raw", progress=False)[1]
        for item in items
    ]
    assert (found == np.concatenate(single)).all()
    assert (rolls == np.concatenate([true_roll(item, 1000) for item in items])).all()


@pytest.mark.parametrize(
    ("samples", "options", "text"),
    [
        (
            np.zeros(10, np.int16),
            {},
            "expected float samples of full scale 1, got torch.int16; try samples / 32768",
        ),
        (
            np.zeros((2, 10), np.float32),
            {},
            r"expected samples of one channel.*got \(2, 10\); try the mean",
        ),
        (np.zeros(0, np.float32), {}, r"expected samples of one channel.*got \(0,\)"),
        (
            np.array([0.0, np.nan, np.inf]),
            {},
            "expected finite samples, got 2 that are NaN or infinite",
        ),
        (np.zeros(10, np.float32), {"hop": 0}, "expected hop >= 1, got 0"),
        (
            np.zeros(10, np.float32),
            {"kind": "mel"},
            "expected a feature kind of fft, fft-random-phase, raw, stft, got 'mel'",
        ),
    ],
)
def test_what_cannot_be_transcribed_is_refused(
    samples: np.ndarray, options: dict, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        transcribe(first_84, samples, progress=False, **options)


def test_a_network_without_logits_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"expected real logits of shape \(1, notes\).*complex64 \(1, 1, 4096\)"
    ):
        transcribe(lambda x: x, np.zeros(10, np.float32), progress=False)
