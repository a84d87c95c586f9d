"""WAV files of anybody's: every width, rate and number of channels, and what is refused."""

import wave
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from cplxnet.musicnet.transcription.audio import load_wav

SIGNAL = (0.5 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 11_025)).astype(
    np.float64
)  # 2 s at 11 025 Hz


def write24(path: Path, signal: np.ndarray, rate_hz: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(3), file.setframerate(rate_hz)
        values = np.round(signal * (2**23 - 1)).astype("<i4")
        file.writeframes(values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())


@pytest.mark.parametrize(
    ("dtype", "full", "error"),
    [
        ("uint8", 127, 1 / 120),
        ("int16", 2**15 - 1, 1e-4),
        ("int32", 2**31 - 1, 1e-6),
        ("float32", 1, 1e-6),
        ("float64", 1, 1e-6),
    ],
)
def test_every_width_is_the_same_signal(
    tmp_path: Path, dtype: str, full: float, error: float
) -> None:
    values = SIGNAL * full + (128 if dtype == "uint8" else 0)
    wavfile.write(
        tmp_path / "a.wav",
        11_000,
        (values if dtype.startswith("f") else np.round(values)).astype(dtype),
    )
    made = load_wav(tmp_path / "a.wav")
    assert made.samples.dtype == np.float32 and made.notices == () and not made.is_silent
    np.testing.assert_allclose(made.samples, SIGNAL, atol=error)


def test_24_bits(tmp_path: Path) -> None:
    write24(tmp_path / "a.wav", SIGNAL, 11_000)
    np.testing.assert_allclose(load_wav(tmp_path / "a.wav").samples, SIGNAL, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_the_same_tone(tmp_path: Path, rate_hz: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate_hz) / rate_hz)
    wavfile.write(tmp_path / "a.wav", rate_hz, tone.astype(np.float32))
    made = load_wav(tmp_path / "a.wav")
    assert len(made.samples) == pytest.approx(22_000, abs=2) and bool(made.notices) == (
        rate_hz < 11_000
    )
    want = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22_000) / 11_000)
    np.testing.assert_allclose(
        made.samples[500:21_500], want[500:21_500], atol=2e-4
    )  # the filter's ends apart


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = SIGNAL.astype(np.float32), -0.5 * SIGNAL.astype(np.float32)
    wavfile.write(tmp_path / "a.wav", 11_000, np.stack((left, right), 1))
    made = load_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(made.samples, 0.25 * SIGNAL, atol=1e-6)
    assert "its 2 channels averaged" in made.notices[0]


def test_silence_is_told_from_a_quiet_recording(tmp_path: Path) -> None:
    for name, scale, silent in (("zero", 0, True), ("dither", 1e-4, True), ("quiet", 1e-3, False)):
        wavfile.write(tmp_path / f"{name}.wav", 11_000, (scale * SIGNAL).astype(np.float32))
        assert load_wav(tmp_path / f"{name}.wav").is_silent is silent


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    def refused(content: bytes, match: str) -> None:
        (tmp_path / "bad.wav").write_bytes(content)
        with pytest.raises(ValueError, match=rf"bad\.wav: expected .*{match}"):
            load_wav(tmp_path / "bad.wav")

    wavfile.write(tmp_path / "good.wav", 11_000, SIGNAL.astype(np.float32))
    good = (tmp_path / "good.wav").read_bytes()
    refused(b"", "an empty one")
    refused(
        b"ID3 an MP3 file is no WAV file, whatever its name", "uncompressed samples.* try ffmpeg"
    )
    refused(good[:20], "uncompressed samples")
    refused(good[: len(good) // 2], "uncompressed samples")
    wavfile.write(tmp_path / "none.wav", 11_000, np.zeros(0, np.int16))
    refused((tmp_path / "none.wav").read_bytes(), "samples, got")
    for value in (np.nan, np.inf):
        spoilt = SIGNAL.astype(np.float32)
        spoilt[100] = value
        wavfile.write(tmp_path / "spoilt.wav", 11_000, spoilt)
        refused((tmp_path / "spoilt.wav").read_bytes(), "finite samples, got 1 NaN or infinite")
    with pytest.raises(FileNotFoundError):
        load_wav(tmp_path / "missing.wav")
