"""Recordings of anybody's: every format, width and rate, headers that lie, and what is refused."""

import io
import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
import torch
from scipy.io import wavfile

from cplxnet.musicnet.transcription import audio, midi
from cplxnet.musicnet.transcription.audio import (
    Transcription,
    default_stem,
    load_audio,
    transcribe_audio,
    write_transcription,
)

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
    made = load_audio(tmp_path / "a.wav")
    assert made.samples.dtype == np.float32 and made.notices == () and not made.is_silent
    np.testing.assert_allclose(made.samples, SIGNAL, atol=error)


def test_24_bits(tmp_path: Path) -> None:
    write24(tmp_path / "a.wav", SIGNAL, 11_000)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav").samples, SIGNAL, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_the_same_tone(tmp_path: Path, rate_hz: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate_hz) / rate_hz)
    wavfile.write(tmp_path / "a.wav", rate_hz, tone.astype(np.float32))
    made = load_audio(tmp_path / "a.wav")
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
    made = load_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(made.samples, 0.25 * SIGNAL, atol=1e-6)
    assert "its 2 channels averaged" in made.notices[0]


def test_silence_is_told_from_a_quiet_recording(tmp_path: Path) -> None:
    for name, scale, silent in (("zero", 0, True), ("dither", 1e-4, True), ("quiet", 1e-3, False)):
        wavfile.write(tmp_path / f"{name}.wav", 11_000, (scale * SIGNAL).astype(np.float32))
        assert load_audio(tmp_path / f"{name}.wav").is_silent is silent


@pytest.mark.parametrize(
    ("format", "error"), [("FLAC", 1e-4), ("AIFF", 1e-4), ("OGG", 0.02), ("MP3", 0.05)]
)
def test_other_formats_are_the_same_signal(tmp_path: Path, format: str, error: float) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)
    soundfile.write(tmp_path / "a", tone, 44_100, format=format)
    soundfile.write(tmp_path / "a.wav", tone, 44_100)
    made, want = (load_audio(tmp_path / name) for name in ("a", "a.wav"))
    assert made.notices == () and len(made.samples) == pytest.approx(11_000, abs=2)
    np.testing.assert_allclose(made.samples[500:10_500], want.samples[500:10_500], atol=error)


@pytest.mark.parametrize("format", ["AIFF", "RF64", "FLAC", "OGG"])
def test_other_formats_cut_short_are_refused(tmp_path: Path, format: str) -> None:
    content = io.BytesIO()
    soundfile.write(content, SIGNAL, 11_000, format=format)
    (tmp_path / "cut").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    with pytest.raises(ValueError, match="cut: expected"):
        load_audio(tmp_path / "cut")


def test_a_cut_mp3_is_told_and_a_strange_rate_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    soundfile.write(content, np.tile(SIGNAL, 5), 44_100, format="MP3")
    (tmp_path / "cut.mp3").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])
    assert "samples that its header states" in load_audio(tmp_path / "cut.mp3").notices[0]
    wavfile.write(tmp_path / "slow.wav", 1, SIGNAL.astype(np.float32))
    with pytest.raises(
        ValueError, match=r"slow\.wav: expected a rate of 1000 to 768000 Hz, got 1$"
    ):
        load_audio(tmp_path / "slow.wav")


def header_of(tmp_path: Path, **sizes: int) -> Path:
    """A 16-bit WAV file whose header states other sizes than it has; `riff` is relative."""
    wavfile.write(tmp_path / "a.wav", 11_000, np.round(SIGNAL * 32_767).astype(np.int16))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    for name, at in (("riff", 4), ("byte_rate", 28), ("data", 40)):
        if name in sizes:
            content[at : at + 4] = struct.pack("<I", sizes[name])
    (tmp_path / "a.wav").write_bytes(content)
    return tmp_path / "a.wav"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFFFDB, 0])
@pytest.mark.parametrize("fields", [("riff",), ("data",), ("riff", "data")])
def test_a_streams_header_is_read_to_the_end(
    tmp_path: Path, size: int, fields: tuple[str, ...]
) -> None:
    """Programs that write into a pipe do not know how long the recording will be."""
    made = load_audio(header_of(tmp_path, **dict.fromkeys(fields, size)))
    np.testing.assert_allclose(made.samples, SIGNAL, atol=1e-4)
    assert len(made.notices) == 1 and "a.wav" in made.notices[0]


@pytest.mark.parametrize("sizes", [{"riff": 44_139}, {"riff": 44_130}, {"byte_rate": 7}])
def test_a_header_off_by_a_little_is_read(tmp_path: Path, sizes: dict[str, int]) -> None:
    made = load_audio(header_of(tmp_path, **sizes))
    np.testing.assert_allclose(made.samples, SIGNAL, atol=1e-4)
    assert len(made.notices) == 1 and "its header states" in made.notices[0]


def test_an_empty_recording_with_a_chunk_after_it_is_no_stream(tmp_path: Path) -> None:
    path = header_of(tmp_path)
    chunk = b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(path.read_bytes()[:40] + bytes(4) + chunk)
    with pytest.raises(ValueError, match="expected samples, got none"):
        load_audio(path)


def test_strange_scales_and_channels_are_told(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "loud.wav", 11_000, (20_000 * SIGNAL).astype(np.float32))
    assert "full scale is 1; try samples / 32768" in load_audio(tmp_path / "loud.wav").notices[0]
    opposed = np.stack((SIGNAL, -SIGNAL), 1).astype(np.float32)
    wavfile.write(tmp_path / "opposed.wav", 11_000, opposed)
    made = load_audio(tmp_path / "opposed.wav")
    assert made.is_silent and "its channels cancel each other" in made.notices[1]


@pytest.mark.parametrize("n_samples", [1, 300, 1024, 1025, 5000])
def test_notes_end_after_they_start_within_the_recording(tmp_path: Path, n_samples: int) -> None:
    def everything_sounds(x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 84)

    wavfile.write(tmp_path / "a.wav", 11_000, np.full(n_samples, 0.5, np.float32))
    made = transcribe_audio(
        everything_sounds, tmp_path / "a.wav", rate_hz=11_000, window=256, progress=False
    )
    assert len(made.notes) == 84 and (made.notes["start_s"] == 0).all()
    frames_end_s = (-(-n_samples // 1024) - 0.5) * 1024 / 11_000
    end_s = min(n_samples / 11_000, frames_end_s) if n_samples > 1024 else n_samples / 11_000
    np.testing.assert_allclose(made.notes["end_s"], end_s)
    _, score = write_transcription(made, tmp_path / "a")
    (track,) = pretty_midi.PrettyMIDI(str(score)).instruments
    assert len(track.notes) == 84 and all(note.end > note.start for note in track.notes)


def test_default_names_never_meet() -> None:
    names = ["take.1", "take.2", "take.wav", "TAKE.FLAC", "a.b.mp3"]
    assert [default_stem(f"x/{name}").as_posix() for name in names] == [
        "x/take.1.transcribed",
        "x/take.2.transcribed",
        "x/take.transcribed",
        "x/TAKE.transcribed",
        "x/a.b.transcribed",
    ]


def test_only_transcriptions_of_the_same_recording_are_replaced(tmp_path: Path) -> None:
    silence = (np.zeros(1), np.zeros((1, 84), np.float32), np.empty(0, midi.NOTES), ())
    wav, flac = (Transcription(*silence, source) for source in ("Où ça 音.wav", "Où ça 音.flac"))
    stem = tmp_path / "Où ça 音.transcribed"
    for _ in range(2):
        write_transcription(wav, stem)
    with pytest.raises(FileExistsError, match=r"\.mid: expected no file.*try --overwrite"):
        write_transcription(flac, stem)
    write_transcription(flac, stem, overwrite=True)
    with pytest.raises(FileExistsError):
        write_transcription(wav, stem)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    def refused(content: bytes, match: str) -> None:
        (tmp_path / "bad.wav").write_bytes(content)
        with pytest.raises(ValueError, match=rf"bad\.wav: expected .*{match}"):
            load_audio(tmp_path / "bad.wav")

    wavfile.write(tmp_path / "good.wav", 11_000, SIGNAL.astype(np.float32))
    good = (tmp_path / "good.wav").read_bytes()
    refused(b"", "an empty one")
    refused(b"whatever its name, this is text and no recording at all", "MP3.* try ffmpeg")
    refused(good[:20], "an audio file")
    refused(good[: len(good) // 2], "bytes of samples, got .*cut short")
    refused(good[:-1], "bytes of samples, got .*cut short")
    wavfile.write(tmp_path / "none.wav", 11_000, np.zeros(0, np.int16))
    refused((tmp_path / "none.wav").read_bytes(), "samples, got")
    for value in (np.nan, np.inf):
        spoilt = SIGNAL.astype(np.float32)
        spoilt[100] = value
        wavfile.write(tmp_path / "spoilt.wav", 11_000, spoilt)
        refused((tmp_path / "spoilt.wav").read_bytes(), "finite samples, got 1 NaN or infinite")
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "missing.wav")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd.wav")
    with pytest.raises(OSError, match=r"odd\.wav: expected a regular file or nothing there"):
        load_audio(tmp_path / "odd.wav")


def test_a_claim_of_many_samples_and_an_endless_recording_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", SIGNAL, 11_000, format="FLAC")
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21:26] = bytes([content[21] | 0x0F, 255, 255, 255, 255])  # STREAMINFO: 2^36 - 1 samples
    (tmp_path / "claims.flac").write_bytes(content)
    with pytest.raises(ValueError, match=r"claims\.flac: expected"):
        load_audio(tmp_path / "claims.flac")

    monkeypatch.setattr(audio, "LONGEST_S", 1)
    with pytest.raises(ValueError, match=r"a\.flac: expected at most .* try its parts"):
        load_audio(tmp_path / "a.flac")


@pytest.mark.parametrize("format", ["FLAC", "AIFF", "WAV"])
@pytest.mark.parametrize("rate_hz", [11_000, 44_100])
def test_blocks_give_the_whole_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, rate_hz: int
) -> None:
    soundfile.write(tmp_path / "a", np.stack((SIGNAL, SIGNAL**2), 1), rate_hz, format=format)
    want = load_audio(tmp_path / "a").samples
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    assert np.array_equal(load_audio(tmp_path / "a").samples, want)


def test_a_header_of_size_0_is_not_held_in_memory_whatever_follows(tmp_path: Path) -> None:
    path = header_of(tmp_path, data=0)
    with path.open("r+b") as file:
        file.truncate((1 << 28) + 1000)
    with pytest.raises(ValueError, match=r"a\.wav: expected a header with its size, got one of 0"):
        load_audio(path)
