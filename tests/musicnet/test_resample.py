import numpy as np
import pytest
import soxr

from cplxnet.musicnet import recordings
from cplxnet.musicnet.resample import (
    SOURCE_HZ,
    TARGET_HZ,
    resample,
    resample_blocks,
)
from extra.corpora import downsample, rescale


def tone(hz, seconds, rate_hz):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)


def test_a_tone_below_the_new_nyquist_stays_the_same_tone():
    got, want = resample(tone(997.0, 1.0, SOURCE_HZ)), tone(997.0, 1.0, TARGET_HZ)
    assert got.dtype == np.float32 and len(got) == TARGET_HZ
    inside = slice(500, -500)  # the filter rings at the two ends
    np.testing.assert_allclose(got[inside], want[inside], atol=1e-4)


def test_a_tone_above_the_new_nyquist_is_gone():
    assert np.abs(resample(tone(7000.0, 1.0, SOURCE_HZ))[500:-500]).max() < 1e-4


def test_a_click_stays_where_its_label_is():
    signal = np.zeros(SOURCE_HZ, np.float32)
    signal[30_001] = 1.0
    assert abs(int(np.argmax(np.abs(resample(signal)))) - int(rescale(np.array([30_001]))[0])) <= 1


def test_label_times_are_floored():
    times = np.array([0, 1, 4, 5, 44_099, 44_100, 10**12 + 7])
    assert rescale(times).tolist() == [int(t) * 110 // 441 for t in times]
    small = np.random.default_rng(0).integers(0, 2 * 10**7, 1000)
    assert rescale(small).tolist() == [
        int(t * (11000 / 44100) + 1e-9) for t in small
    ]  # the formula, less its rounding


def test_downsample_moves_samples_and_labels_and_leaves_its_input():
    labels = np.zeros(1, recordings.LABELS)
    labels["start_time"], labels["end_time"], labels["note"] = 4410, 44_100, 60
    full = recordings.Recording("id_1001", tone(440.0, 1.0, SOURCE_HZ), labels, composer="Haydn")
    low = downsample(full)
    assert (low.labels["start_time"][0], low.labels["end_time"][0]) == (1100, 11_000)
    assert (full.labels["start_time"][0], low.key, low.composer) == (4410, "id_1001", "Haydn")


@pytest.mark.parametrize("rates", [(44_100, 11_000), (48_000, 44_100)])
@pytest.mark.parametrize("size", [1, 7777, 1 << 18])
def test_blocks_give_the_same_bits_as_one_call(rates, size):
    samples = 40 if size == 1 else 300_017
    signal = np.random.default_rng(0).standard_normal(samples, dtype=np.float32)
    blocks = (signal[begin : begin + size] for begin in range(0, samples, size))
    got = np.concatenate(list(resample_blocks(blocks, source_hz=rates[0], target_hz=rates[1])))
    want = soxr.resample(signal, *rates, quality="VHQ")
    assert got.dtype == np.float32 and np.array_equal(got, want)
