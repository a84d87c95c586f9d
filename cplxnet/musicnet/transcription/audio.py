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

from cplxnet.files import written
from cplxnet.musicnet.labels import LOWEST_NOTE, N_NOTES
from cplxnet.musicnet.resample import TARGET_HZ, resample

from .midi import NOTES, notes_of, write_midi
from .windows import frame_positions, transcribe

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")
SILENT = 1e-4  # a peak below -80 dB of full scale: less than the noise of 16 bits with dither
LOUD = 8.0  # a peak of floats so far above full scale, 1, is on the scale of whole numbers
LOWEST_HZ = 1000  # of a recording: below, nothing of any note but the lowest is left

# What programs write for a size that they do not know yet, give or take the header's bytes.
_STREAMED = (0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER_BYTES = 4096
_MOST_CHUNKS = 10_000
_CONTAINERS = {b"RIFF": ("<", b"data"), b"RF64": ("<", b"data"), b"FORM": (">", b"SSND")}


# ---- reading ------------------------------------------------------------------------------------


class Audio(NamedTuple):
    """An audio file as it is.

    Attributes:
        samples: float32 (frames, channels), full scale 1.
        rate_hz: frames per second.
        subtype: how a sample is stored, libsndfile's name: "PCM_16", "FLOAT", "VORBIS".
        notices: what was out of order, and how it was read.
    """

    samples: np.ndarray
    rate_hz: int
    subtype: str
    notices: tuple[str, ...]


@contextmanager
def open_audio(file: BinaryIO, where: str) -> Iterator[tuple[soundfile.SoundFile, list[str]]]:
    """Open an audio file, to be read in blocks; yields it and notices of what was out of order.

    A WAV header without a size, as streams have it, or with a wrong RIFF size is read to the file's
    end, with a notice.

    Args:
        file: opened for reading bytes, and seekable.
        where: its name, for notices and errors.

    Raises:
        ValueError: empty, not an audio file, or a believable size that is cut short.
    """
    n_bytes = file.seek(0, io.SEEK_END)
    if not n_bytes:
        raise ValueError(f"{where}: expected an audio file, got an empty one")
    sized, notices = _checked_size(file, n_bytes, where)

    sized.seek(0)
    try:
        with soundfile.SoundFile(sized) as sound:
            yield sound, notices
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise ValueError(
            f"{where}: expected an audio file (WAV, FLAC, OGG, MP3 or AIFF), got {reason!r}; "
            "try ffmpeg -i FILE out.wav"
        ) from error


def read_audio(file: BinaryIO, where: str) -> Audio:
    """Read the whole of an audio file.

    Args:
        file, where: as in `open_audio`.

    Raises:
        ValueError: as `open_audio`; no samples, or NaN or infinity among them.
    """
    with open_audio(file, where) as (sound, notices):
        samples = sound.read(dtype="float32", always_2d=True)
        stated, rate_hz, subtype = sound.frames, sound.samplerate, sound.subtype

    if not samples.size:
        raise ValueError(f"{where}: expected samples, got none at {rate_hz} Hz")
    if len(samples) < stated:
        notices.append(f"{where}: {len(samples)} of the {stated} samples that its header states")
    finite = np.isfinite(samples)
    if not finite.all():
        raise ValueError(
            f"{where}: expected finite samples, got {int((~finite).sum())} NaN or infinite ones"
        )
    return Audio(samples, rate_hz, subtype, tuple(notices))


class _Header(NamedTuple):
    """Sizes in the header of a chunked file. begin: where the samples' chunk has its content."""

    order: str
    container: int
    samples: int
    begin: int


def _checked_size(file: BinaryIO, n_bytes: int, where: str) -> tuple[BinaryIO, list[str]]:
    """The file, with sizes that libsndfile can read, and notices of what they were.

    Raises:
        ValueError: a believable size beyond the file's end.
    """
    header = _header(file, n_bytes)
    if header is None:
        return file, []
    left = n_bytes - header.begin

    if any(abs(header.samples - size) < _HEADER_BYTES for size in _STREAMED):
        return file, [f"{where}: a stream's header without its size; read to the file's end"]
    if not header.samples and left and not _is_chunk(file, header, n_bytes):
        return _patched(file, header, left), [
            f"{where}: a stream's header of size 0; read to the file's end"
        ]
    if header.samples > left:
        raise ValueError(
            f"{where}: expected {header.samples} bytes of samples, got {left}: it was cut short; "
            "fetch it again"
        )
    if abs(header.container - (n_bytes - 8)) > 1:  # some leave out the byte that pads the samples
        notice = f"{where}: its header states {header.container + 8} bytes, it has {n_bytes}"
        return file, [notice]
    return file, []


def _header(file: BinaryIO, n_bytes: int) -> _Header | None:
    """The sizes of a WAV, RF64 or AIFF file; None for other formats and without samples' chunk."""
    file.seek(0)
    kind = file.read(4)
    if kind not in _CONTAINERS:
        return None
    order, wanted = _CONTAINERS[kind]
    container = int.from_bytes(file.read(4), "little" if order == "<" else "big")
    large: dict[bytes, int] = {}  # RF64 states its 64-bit sizes in a chunk of their own

    begin = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(begin)
        head = file.read(8)
        if len(head) < 8:
            return None
        name, size = struct.unpack(f"{order}4sI", head)
        if name == b"ds64":
            container, large[b"data"] = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        if name == wanted:
            return _Header(order, container, large.get(name, size), begin + 8)
        begin += 8 + size + size % 2
    return None


def _is_chunk(file: BinaryIO, header: _Header, n_bytes: int) -> bool:
    """Whether another chunk follows the samples' chunk of size 0, which then is really empty."""
    file.seek(header.begin)
    head = file.read(8)
    if len(head) < 8:
        return False
    name, size = struct.unpack(f"{header.order}4sI", head)
    return name.isascii() and name.decode("ascii").isprintable() and size <= n_bytes


def _patched(file: BinaryIO, header: _Header, left: int) -> BinaryIO:
    """A copy in memory whose samples' chunk states `left` bytes."""
    file.seek(0)
    content = bytearray(file.read())
    content[header.begin - 4 : header.begin] = struct.pack(f"{header.order}I", left)
    return io.BytesIO(content)


class Sound(NamedTuple):
    """A recording as a network hears it.

    Attributes:
        samples: float32 (samples,), one channel, full scale 1, at the rate asked for.
        notices: what was converted.
        is_silent: whether no sample reaches `SILENT`.
    """

    samples: np.ndarray
    notices: tuple[str, ...]
    is_silent: bool


def load_audio(path: str | os.PathLike[str], *, rate_hz: int = TARGET_HZ) -> Sound:
    """The audio file at `path` in one channel, the average, resampled to `rate_hz`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: as `read_audio`; a rate below 1000 Hz; too few samples to resample.
    """
    with open(path, "rb") as file:
        audio = read_audio(file, os.fspath(path))
    if audio.rate_hz < LOWEST_HZ:
        raise ValueError(f"{path}: expected a rate of {LOWEST_HZ} Hz or more, got {audio.rate_hz}")
    notices = list(audio.notices)

    mono = audio.samples.mean(1, dtype=np.float32)
    peak = float(np.abs(audio.samples).max())
    if audio.samples.shape[1] > 1:
        notices.append(f"{path}: its {audio.samples.shape[1]} channels averaged")
        if np.abs(mono).max() < 0.05 * peak:
            notices.append(f"{path}: its channels cancel each other; try one of them")
    if peak > LOUD:
        notices.append(f"{path}: a peak of {peak:g}, full scale is 1; try samples / 32768")
    if audio.rate_hz < rate_hz:
        notices.append(
            f"{path}: {audio.rate_hz} Hz holds nothing above {audio.rate_hz / 2:.0f} Hz; "
            "high notes may be missed"
        )

    is_silent = bool(np.abs(mono).max() < SILENT)
    samples = mono
    if audio.rate_hz != rate_hz:
        samples = resample(mono, source_hz=audio.rate_hz, target_hz=rate_hz)
    if not len(samples):
        raise ValueError(
            f"{path}: expected samples, got {len(mono)} at {audio.rate_hz} Hz, too few to resample"
        )
    return Sound(samples, tuple(notices), is_silent)


# ---- transcribing -------------------------------------------------------------------------------


class Transcription(NamedTuple):
    """What a network heard in a recording.

    Attributes:
        times: float64 (frames,), seconds.
        probabilities: float32 (frames, 84).
        notes: `midi.NOTES` (notes,).
        notices: what the user should know.
        source: name of the recording's file.
    """

    times: np.ndarray
    probabilities: np.ndarray
    notes: np.ndarray
    notices: tuple[str, ...]
    source: str


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
    source = Path(path).name

    if sound.is_silent:
        times = frame_positions(len(sound.samples), hop) / rate_hz
        probabilities = np.zeros((len(times), N_NOTES), np.float32)
        notices = (*sound.notices, f"{path}: silent, so without notes")
        return Transcription(times, probabilities, np.empty(0, NOTES), notices, source)

    times, probabilities = transcribe(network, sound.samples, rate_hz=rate_hz, hop=hop, **heard)
    duration_s = len(sound.samples) / rate_hz
    notes = notes_of(probabilities >= threshold, times, duration_s=duration_s)
    return Transcription(times, probabilities, notes, sound.notices, source)


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
        transcription: what to write.
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
    source = transcription.source.encode(
        "ascii", "backslashreplace"
    ).decode()  # MIDI has no Unicode
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
