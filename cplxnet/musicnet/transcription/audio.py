"""A recording of anybody's transcribed: an audio file in, a piano roll and a list of notes out.

Reading is by libsndfile: WAV, FLAC, OGG, MP3, AIFF and more. It says nothing of a file that was cut
short, so the size that a WAV or AIFF header states is checked here.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from torch import Tensor

from cplxnet.files import check_regular, written
from cplxnet.musicnet.labels import LOWEST_NOTE, N_NOTES
from cplxnet.musicnet.recordings import RecordingError
from cplxnet.musicnet.resample import TARGET_HZ, resample_blocks

from .midi import notes_of, write_midi
from .windows import frame_positions, transcribe

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")
SILENT = 1e-4  # a peak below -80 dB of full scale: less than the noise of 16 bits with dither
LOUD = 8.0  # a peak of floats so far above full scale, 1, is on the scale of whole numbers
RATES_HZ = (1000, 768_000)  # of a recording: below, nothing of any note but the lowest is left
LONGEST_S = 4 * 3600  # of a recording: 0.6 GB at 11 kHz

# What programs write for a size that they do not know yet, give or take the header's bytes.
_STREAMED = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 4096
_MOST_UNSIZED = 1 << 28  # bytes of a file whose header says 0, which is held in memory
_MOST_CHUNKS = 10_000
_CONTAINERS = {b"RIFF": ("<", b"data"), b"RF64": ("<", b"data"), b"FORM": (">", b"SSND")}
_UNCOMPRESSED = (1, 3, 0xFFFE)  # WAV's formats: whole numbers, floats, either by its long name
_BLOCK = 1 << 18  # numbers in memory at once


# ---- reading ------------------------------------------------------------------------------------


@contextmanager
def open_audio(file: BinaryIO, where: str) -> Iterator[tuple[soundfile.SoundFile, list[str]]]:
    """Open an audio file, to be read in blocks; yields it and notices of what was out of order.

    A WAV header without a size, as streams have it, or with a wrong RIFF size or byte rate is read
    to the file's end, with a notice.

    Args:
        file: opened for reading bytes, and seekable.
        where: its name, for notices and errors.

    Raises:
        RecordingError: empty, not an audio file, or a believable size that is cut short.
    """
    n_bytes = file.seek(0, io.SEEK_END)
    if not n_bytes:
        raise RecordingError(f"{where}: expected an audio file, got an empty one")
    sized, notices = _checked_header(file, n_bytes, where)

    sized.seek(0)
    try:
        with soundfile.SoundFile(sized) as sound:
            yield sound, notices
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise RecordingError(
            f"{where}: expected an audio file (WAV, FLAC, OGG, MP3 or AIFF), got {reason!r}; "
            "try ffmpeg -i FILE out.wav"
        ) from error


def blocks_of(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """All samples of an audio file in turn, float32 (frames, channels), a block at a time."""
    n_frames = max(1, _BLOCK // sound.channels)
    # not `sound.blocks`: where a file ends early, that gives whatever was in memory
    while len(block := sound.read(n_frames, dtype="float32", always_2d=True)):
        yield block


def averaged(block: np.ndarray) -> np.ndarray:
    """The channels of a block (frames, channels) averaged: float32 (frames,)."""
    return block.mean(1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]


def _checked_header(file: BinaryIO, n_bytes: int, where: str) -> tuple[BinaryIO, list[str]]:
    """The file, with sizes that libsndfile can read, and notices of what its header said.

    Only WAV, RF64 and AIFF are looked into. Raises RecordingError for a believable size beyond the
    file's end.
    """
    file.seek(0)
    kind, container = struct.unpack("4s4s", file.read(8).ljust(8, b"\0"))
    if kind not in _CONTAINERS:
        return file, []
    order, wanted = _CONTAINERS[kind]
    (stated,) = struct.unpack(f"{order}I", container)

    notices = []
    large = None  # RF64 states its 64-bit sizes in a chunk of their own
    for name, chunk_size, begin in _chunks(file, order):
        if name == b"ds64":
            stated, large = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        if name == b"fmt ":
            notices += _byte_rate_notices(file.read(16).ljust(16, b"\0"), where)
        if name == wanted:
            size = chunk_size if large is None else large
            left = n_bytes - begin
            break
    else:
        return file, notices

    if any(abs(size - streamed) < _HEADER_BYTES for streamed in _STREAMED):
        notices.append(f"{where}: a stream's header without its size; read to the file's end")
        return file, notices
    if not size and left and not _is_chunk(file, order, begin, n_bytes):
        if n_bytes > _MOST_UNSIZED:
            raise RecordingError(
                f"{where}: expected a header with its size, got one of 0 in {n_bytes} bytes; "
                "try ffmpeg -i FILE out.wav"
            )
        file.seek(0)
        content = io.BytesIO(file.read())
        content.seek(begin - 4)
        content.write(struct.pack(f"{order}I", left))
        notices.append(f"{where}: a stream's header of size 0; read to the file's end")
        return content, notices
    if size > left:
        raise RecordingError(
            f"{where}: expected {size} bytes of samples, got {left}: it was cut short; "
            "fetch it again"
        )
    if abs(stated - (n_bytes - 8)) > 1:  # some leave out the byte that pads the samples
        notices.append(f"{where}: its header states {stated + 8} bytes, it has {n_bytes}")
    return file, notices


def _chunks(file: BinaryIO, order: str, begin: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and beginning of the content of each chunk, where the file is left."""
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack(f"{order}4sI", head)
        yield name, size, begin + 8
        begin += 8 + size + size % 2


def _byte_rate_notices(content: bytes, where: str) -> list[str]:
    """A notice where the chunk "fmt " of a WAV file states another byte rate than it has."""
    kind, _, rate_hz, byte_rate, frame_bytes, _ = struct.unpack("<HHIIHH", content)
    if kind not in _UNCOMPRESSED or byte_rate == rate_hz * frame_bytes:
        return []
    return [
        f"{where}: its header states {byte_rate} bytes a second, it has {rate_hz * frame_bytes}; "
        f"read at {rate_hz} Hz"
    ]


def _is_chunk(file: BinaryIO, order: str, begin: int, n_bytes: int) -> bool:
    """Whether another chunk follows the samples' chunk of size 0, which then is really empty."""
    name, size, _ = next(_chunks(file, order, begin), (b"", n_bytes + 1, 0))
    return name.isascii() and name.decode("ascii").isprintable() and size <= n_bytes


class Sound(NamedTuple):
    """A recording as a network hears it."""

    samples: np.ndarray  # float32 (samples,), one channel, full scale 1, at the rate asked for
    notices: tuple[str, ...]  # what was converted
    is_silent: bool  # no sample reaches `SILENT`


def load_audio(path: str | os.PathLike[str], *, rate_hz: int = TARGET_HZ) -> Sound:
    """The audio file at `path` in one channel, the average, resampled to `rate_hz`.

    It is read, averaged and resampled block by block: only the result is ever in memory.

    Raises:
        OSError: no such file, or a folder, a device, a pipe.
        RecordingError: as `open_audio`; no samples, too few to resample, or NaN or infinity among
            them; over four hours; a rate outside 1000..768 000 Hz.
    """
    n_frames = 0
    peak = mono_peak = 0.0

    def mono(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
        nonlocal n_frames, peak, mono_peak
        for block in blocks_of(sound):
            finite = np.isfinite(block)
            if not finite.all():
                raise RecordingError(
                    f"{path}: expected finite samples, got {int((~finite).sum())} NaN or "
                    f"infinite ones from sample {n_frames} on"
                )
            n_frames += len(block)
            if n_frames > LONGEST_S * sound.samplerate:
                raise RecordingError(
                    f"{path}: expected at most {LONGEST_S // 3600} hours, got more; try its parts"
                )

            samples = averaged(block)
            peak = max(peak, float(np.abs(block).max()))
            mono_peak = max(mono_peak, float(np.abs(samples).max()))
            yield samples

    check_regular(path)
    with open(path, "rb") as file, open_audio(file, os.fspath(path)) as (sound, notices):
        source_hz = sound.samplerate
        if not RATES_HZ[0] <= source_hz <= RATES_HZ[1]:
            raise RecordingError(
                f"{path}: expected a rate of {RATES_HZ[0]} to {RATES_HZ[1]} Hz, got {source_hz}"
            )
        blocks = mono(sound)
        if source_hz != rate_hz:
            blocks = resample_blocks(blocks, source_hz=source_hz, target_hz=rate_hz)
        samples = np.concatenate([*blocks, np.empty(0, np.float32)])

    if not len(samples):
        raise RecordingError(
            f"{path}: expected samples, got {n_frames or 'none'} at {source_hz} Hz"
        )
    if n_frames < sound.frames:
        notices.append(f"{path}: {n_frames} of the {sound.frames} samples that its header states")
    if sound.channels > 1:
        notices.append(f"{path}: its {sound.channels} channels averaged")
        if mono_peak < 0.05 * peak:
            notices.append(f"{path}: its channels cancel each other; try one of them")
    if peak > LOUD:
        notices.append(f"{path}: a peak of {peak:g}, full scale is 1; try samples / 32768")
    if source_hz < rate_hz:
        notices.append(
            f"{path}: {source_hz} Hz holds nothing above {source_hz / 2:.0f} Hz; "
            "high notes may be missed"
        )
    return Sound(samples, tuple(notices), mono_peak < SILENT)


# ---- transcribing -------------------------------------------------------------------------------


class Transcription(NamedTuple):
    """What a network heard in a recording."""

    times: np.ndarray  # float64 (frames,), seconds
    probabilities: np.ndarray  # float32 (frames, 84)
    notes: np.ndarray  # `midi.NOTES` (notes,)
    notices: tuple[str, ...]  # what the user should know
    source: str  # name of the recording's file


def transcribe_audio(
    network: Callable[[Tensor], Tensor],
    path: str | os.PathLike[str],
    *,
    rate_hz: int,
    hop: int = 1024,
    threshold: float = 0.5,
    **heard: Any,
) -> Transcription:
    """The notes of the audio file at `path`.

    Silence is not given to the network: nothing sounds, and a notice says so.

    Args:
        network: as `transcribe` takes it.
        path: a file that `load_audio` reads.
        rate_hz: samples per second that the network hears.
        hop: samples at `rate_hz` from frame to frame.
        threshold: a note sounds where its probability reaches it, in (0, 1].
        heard: `window`, `kind`, `cplx`, `shift`, `batch_size`, `device` and `progress` of
            `transcribe`.

    Raises:
        ValueError: as `load_audio` and `transcribe`; a threshold or hop out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold of probability in (0, 1], got {threshold}; try 0.5")
    if hop < 1:
        raise ValueError(f"expected hop >= 1, got {hop}; try 1024")
    sound = load_audio(path, rate_hz=rate_hz)
    notices = sound.notices
    if sound.is_silent:
        times = frame_positions(len(sound.samples), hop) / rate_hz
        probabilities = np.zeros((len(times), N_NOTES), np.float32)
        notices += (f"{path}: silent, so without notes",)
    else:
        times, probabilities = transcribe(network, sound.samples, rate_hz=rate_hz, hop=hop, **heard)

    duration_s = len(sound.samples) / rate_hz
    notes = notes_of(probabilities >= threshold, times, duration_s=duration_s)
    return Transcription(times, probabilities, notes, notices, Path(path).name)


# ---- writing ------------------------------------------------------------------------------------

_TABLE_HEADER = ",".join(["time_s", *(str(LOWEST_NOTE + k) for k in range(N_NOTES))])


def default_stem(path: str | os.PathLike[str]) -> Path:
    """`X.transcribed` beside the recording `X.wav`: data sets keep their references in `X.mid`."""
    path = Path(path)
    name = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return path.with_name(f"{name}.transcribed")


def write_transcription(
    transcription: Transcription, stem: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write `stem`.csv and `stem`.mid.

    The table has a row a frame: its time in seconds, then the probability of each MIDI note. The
    MIDI file's track is named after the recording, which is how the next call knows its own files.

    Args:
        stem: the files' path without .csv and .mid.
        overwrite: also replace files that are not an earlier transcription of the same recording.

    Returns:
        The paths of the table and of the MIDI file.

    Raises:
        FileExistsError: one of the files is there and something else; neither is written.
    """
    stem = Path(stem)
    table = stem.with_name(f"{stem.name}.csv")
    score = stem.with_name(f"{stem.name}.mid")
    # MIDI has no Unicode
    source = transcription.source.encode("ascii", "backslashreplace").decode()
    track = f"cplxnet: {source}"

    marks = {table: _TABLE_HEADER.encode(), score: track.encode()}
    for path, mark in marks.items():
        foreign = path.exists() and (mark not in path.read_bytes() or not score.exists())
        if not overwrite and foreign:
            raise FileExistsError(
                f"{path}: expected no file, or an earlier transcription of {transcription.source}, "
                "got another; try --overwrite or another name by --out"
            )

    rows = np.column_stack((transcription.times, transcription.probabilities))
    with written(table) as path:
        np.savetxt(path, rows, fmt="%.4f", delimiter=",", header=_TABLE_HEADER, comments="")
    return table, write_midi(score, transcription.notes, track=track)
