"""WAV files as blocks of samples at 44.1 kHz.

What can be converted safely is, with a notice; anything else is refused. The reader is that of
`cplxnet.musicnet.transcription.audio`. Only a block is in memory at a time, however long the
recording: a member of the packed archive is first copied to a temporary file, since libsndfile must
seek.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import numpy as np
import soundfile

from cplxnet.musicnet.resample import SOURCE_HZ, resample_blocks
from cplxnet.musicnet.transcription.audio import averaged, blocks_of, open_audio

from .errors import ArchiveError, unreadable_named

_USUAL = ("PCM_16", "FLOAT")
_READABLE = {"PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}  # bits
_LOWEST_HZ = 22_050  # below, the band that 11 kHz holds (5.5 kHz) is no longer safely whole
_HIGHEST_HZ = 192_000


def blocks(file: BinaryIO, where: str, tell: Callable[[str], None]) -> Iterator[np.ndarray]:
    """Mono samples at 44.1 kHz, float32, in blocks, of a WAV file.

    Args:
        file: at its beginning; it need not be seekable.
        where: its name, for errors.
        tell: hears what was converted.

    Raises:
        ArchiveError: no audio file, truncated, 8 bits or compressed, over two channels, a rate
            outside 22 050..192 000 Hz.
    """
    with (
        unreadable_named(where, "an audio file"),
        _seekable(file) as content,
        open_audio(content, where) as (sound, notices),
    ):
        _check(sound, where)
        for notice in (*notices, *_conversions(sound, where)):
            tell(notice)

        samples = _mono(sound, where)
        if sound.samplerate != SOURCE_HZ:
            samples = resample_blocks(samples, source_hz=sound.samplerate, target_hz=SOURCE_HZ)
        yield from samples


@contextmanager
def _seekable(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, or a copy of it where it can only be read forwards."""
    if hasattr(file, "seek"):
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        yield cast(BinaryIO, copy)


def _check(sound: soundfile.SoundFile, where: str) -> None:
    """Raise ArchiveError for samples that cannot become the recording's."""
    if sound.subtype not in _READABLE:
        raise ArchiveError(
            f"{where}: expected samples of 16, 24 or 32 bits or floats of 32 or 64, "
            f"got {sound.subtype_info}; convert the file from a better original"
        )
    if sound.channels not in (1, 2):
        raise ArchiveError(
            f"{where}: expected one channel, or two to average, got {sound.channels}"
        )
    if not _LOWEST_HZ <= sound.samplerate <= _HIGHEST_HZ:
        raise ArchiveError(
            f"{where}: expected a rate of {_LOWEST_HZ} to {_HIGHEST_HZ} Hz, "
            f"got {sound.samplerate} Hz"
        )
    if not sound.frames:
        raise ArchiveError(f"{where}: expected samples, got none")


def _conversions(sound: soundfile.SoundFile, where: str) -> Iterator[str]:
    """Notices of what is converted."""
    if sound.subtype not in _USUAL:
        yield f"{where}: samples of {_READABLE[sound.subtype]} bits converted to float32"
    if sound.channels == 2:
        yield f"{where}: stereo, its two channels averaged"
    if sound.samplerate != SOURCE_HZ:
        yield (
            f"{where}: {sound.samplerate} Hz resampled to {SOURCE_HZ} Hz; "
            f"label times taken as samples at {SOURCE_HZ} Hz"
        )


def _mono(sound: soundfile.SoundFile, where: str) -> Iterator[np.ndarray]:
    """The samples, channels averaged, a block at a time. Raises ArchiveError for too few."""
    n_frames = 0
    for block in blocks_of(sound):
        n_frames += len(block)
        yield averaged(block)

    if n_frames < sound.frames:
        raise ArchiveError(
            f"{where}: truncated, expected {sound.frames} samples, got {n_frames}; "
            "fetch the file again"
        )
