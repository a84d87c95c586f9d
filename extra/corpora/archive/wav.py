"""WAV files as blocks of samples at 44.1 kHz.

What can be converted safely is, with a notice; anything else is refused.

A file is read forwards once, a block at a time: its length does not matter, and a member of the
packed archive need not be unpacked. (libsndfile must seek, so `soundfile` cannot read those.)

Reference: Multimedia Programming Interface and Data Specifications 1.0 (RIFF);
WAVEFORMATEXTENSIBLE.
"""

import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from cplxnet.musicnet.resample import SOURCE_HZ, resample_blocks

from .errors import ArchiveError

_INTEGER = 1
_FLOAT = 3
_EXTENSIBLE = 0xFFFE
_USUAL = {(_INTEGER, 16), (_FLOAT, 32)}
_READABLE = _USUAL | {(_INTEGER, 24), (_INTEGER, 32), (_FLOAT, 64)}
_LOWEST_HZ = 22_050  # below, the band that 11 kHz holds (5.5 kHz) is no longer safely whole
_HIGHEST_HZ = 192_000
_BLOCK = 1 << 18  # frames in memory at once


@dataclasses.dataclass(frozen=True)
class _Format:
    """How the samples are stored: `kind` of numbers, channels, rate, bits a sample."""

    kind: int
    channels: int
    rate_hz: int
    bits: int

    @property
    def frame(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * self.bits // 8


def blocks(
    file: BinaryIO, size: int, where: str, tell: Callable[[str], None]
) -> Iterator[np.ndarray]:
    """Mono samples at 44.1 kHz, float32, in blocks, of a WAV file.

    Args:
        file: at its beginning; it is read forwards only.
        size: its bytes.
        where: its name, for errors.
        tell: hears what was converted.

    Raises:
        ArchiveError: not WAV, truncated, 8 bits or compressed, over two channels, a rate outside
            22 050..192 000 Hz.
    """
    form, n_bytes = _header(file, size, where)
    if n_bytes % form.frame:
        raise ArchiveError(
            f"{where}: truncated, expected frames of {form.frame} bytes, "
            f"got {n_bytes} bytes of samples"
        )
    if not n_bytes:
        raise ArchiveError(f"{where}: expected samples, got none")

    if (form.kind, form.bits) not in _USUAL:
        tell(f"{where}: samples of {form.bits} bits converted to float32")
    if form.channels == 2:
        tell(f"{where}: stereo, its two channels averaged")

    samples = _read(file, n_bytes, form, where)
    if form.rate_hz == SOURCE_HZ:
        yield from samples
        return
    tell(
        f"{where}: {form.rate_hz} Hz resampled to {SOURCE_HZ} Hz; "
        f"label times taken as samples at {SOURCE_HZ} Hz"
    )
    yield from resample_blocks(samples, source_hz=form.rate_hz, target_hz=SOURCE_HZ)


def _header(file: BinaryIO, size: int, where: str) -> tuple[_Format, int]:
    """Read on to the first sample: the format, and the bytes of samples that follow."""
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise ArchiveError(f"{where}: expected a WAV file (RIFF....WAVE), got {head!r}")

    form = None
    left = size - 12
    while True:
        name, length = _chunk(file, left, where)
        if name == b"data":
            break

        padded = length + (length & 1)
        if name == b"fmt " and form is None:
            content = file.read(min(length, 64))
            form = _format(content, where)
            _skip(file, padded - len(content))
        else:
            _skip(file, padded)
        left -= 8 + padded

    if form is None:
        raise ArchiveError(f"{where}: expected a chunk 'fmt ' before 'data', got none")
    return form, length


def _chunk(file: BinaryIO, left: int, where: str) -> tuple[bytes, int]:
    """Name and size of the chunk that begins here, `left` bytes before the file's end."""
    if left < 8:
        raise ArchiveError(
            f"{where}: truncated, expected chunks 'fmt ' and 'data', got the end of the file"
        )

    name, size = struct.unpack("<4sI", file.read(8))
    if size > left - 8:
        raise ArchiveError(
            f"{where}: truncated, chunk {name.decode('latin1')!r} expects {size} bytes, "
            f"got {left - 8}; fetch the file again"
        )
    return name, size


def _skip(file: BinaryIO, size: int) -> None:
    while size > 0 and (skipped := len(file.read(min(size, 1 << 20)))):
        size -= skipped


def _format(chunk: bytes, where: str) -> _Format:
    """The format that a chunk 'fmt ' states. Raises ArchiveError for one that cannot be used."""
    if len(chunk) < 16:
        raise ArchiveError(
            f"{where}: expected a 'fmt ' chunk of 16 bytes or more, got {len(chunk)}"
        )

    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)  # the first field of the sub-format's GUID

    if (kind, bits) not in _READABLE:
        raise ArchiveError(
            f"{where}: expected samples of 16, 24 or 32 bits or floats of 32 or 64, got {bits} "
            f"bits of WAV format {kind}; convert the file from a better original"
        )
    if channels not in (1, 2):
        raise ArchiveError(f"{where}: expected one channel, or two to average, got {channels}")
    if not _LOWEST_HZ <= rate_hz <= _HIGHEST_HZ:
        raise ArchiveError(
            f"{where}: expected a rate of {_LOWEST_HZ} to {_HIGHEST_HZ} Hz, got {rate_hz} Hz"
        )
    return _Format(kind, channels, rate_hz, bits)


def _read(file: BinaryIO, n_bytes: int, form: _Format, where: str) -> Iterator[np.ndarray]:
    """The samples in the next `n_bytes` of the file, a block at a time."""
    while n_bytes:
        raw = file.read(min(n_bytes, _BLOCK * form.frame))
        if not raw or len(raw) % form.frame:
            raise ArchiveError(
                f"{where}: truncated, expected {n_bytes} bytes more, got {len(raw)}; "
                "fetch the file again"
            )
        n_bytes -= len(raw)
        yield _samples(raw, form)


def _samples(raw: bytes, form: _Format) -> np.ndarray:
    """Mono samples in [-1, 1] as float32."""
    if form.kind == _FLOAT:
        values = np.frombuffer(raw, f"<f{form.bits // 8}").astype(np.float32, copy=False)
    elif form.bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = wide.view("<i4")[:, 0] * np.float32(2.0**-31)
    else:
        values = np.frombuffer(raw, f"<i{form.bits // 8}") * np.float32(2.0 ** (1 - form.bits))

    if form.channels == 2:
        return values.reshape(-1, 2).mean(1, dtype=np.float32)
    return values
