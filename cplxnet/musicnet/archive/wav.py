"""WAV files into float samples at 44.1 kHz: what is safe is converted with a notice, what is not is refused.

Reference: Multimedia Programming Interface and Data Specifications 1.0 (RIFF); WAVEFORMATEXTENSIBLE.
"""

import struct

import numpy as np

from cplxnet.musicnet.resample import SOURCE_HZ, resample

from .faults import ArchiveError

_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_USUAL = {(_INTEGER, 16), (_FLOAT, 32)}
_LOWEST_HZ, _HIGHEST_HZ = 22_050, 192_000  # below, the band that 11 kHz holds (5.5 kHz) is no longer safely whole


def _chunks(content: memoryview, where: str) -> dict[bytes, memoryview]:
    """The first `fmt ` and `data` chunk; a `data` chunk longer than the file is a truncated file."""
    if len(content) < 12 or bytes(content[:4]) != b"RIFF" or bytes(content[8:12]) != b"WAVE":
        raise ArchiveError(f"{where}: expected a WAV file (RIFF....WAVE), got {bytes(content[:12])!r}")
    found: dict[bytes, memoryview] = {}
    position = 12
    while position + 8 <= len(content) and b"data" not in found:
        name, size = struct.unpack_from("<4sI", content, position)
        there = len(content) - position - 8
        if size > there:
            raise ArchiveError(
                f"{where}: truncated, chunk {name.decode('latin1')!r} expects {size} bytes, got {there}; "
                "fetch the file again"
            )
        found[name] = content[position + 8 : position + 8 + size]
        position += 8 + size + (size & 1)
    for name in (b"fmt ", b"data"):
        if name not in found:
            raise ArchiveError(f"{where}: truncated, expected a chunk {name.decode()!r}, got none")
    return found


def _format(chunk: memoryview, where: str) -> tuple[int, int, int, int]:
    """(kind of samples, channels, rate in Hz, bits a sample)."""
    if len(chunk) < 16:
        raise ArchiveError(f"{where}: expected a 'fmt ' chunk of 16 bytes or more, got {len(chunk)}")
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)  # the first field of the sub-format's GUID
    return kind, channels, rate_hz, bits


def _samples(raw: memoryview, kind: int, bits: int, where: str) -> np.ndarray:
    """Samples in [-1, 1] as float32, a view of `raw` where it is float32 already."""
    if kind == _FLOAT and bits in (32, 64):
        return np.frombuffer(raw, f"<f{bits // 8}").astype(np.float32, copy=False)
    if kind == _INTEGER and bits in (16, 32):
        return np.frombuffer(raw, f"<i{bits // 8}") * np.float32(2.0 ** (1 - bits))
    if kind == _INTEGER and bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] * np.float32(2.0**-31)
    raise ArchiveError(
        f"{where}: expected samples of 16, 24 or 32 bits or floats of 32 or 64, got {bits} bits of WAV format {kind}; "
        "convert the file from a better original"
    )


def samples(content: bytes, where: str) -> tuple[np.ndarray, list[str]]:
    """Mono samples at 44.1 kHz, float32 (samples,), of the WAV file `content`, and notices of what was converted.

    Raises
    ------
    ArchiveError: not WAV, truncated, 8 bits or compressed, over two channels, a rate outside 22 050..192 000 Hz.
    """
    chunks = _chunks(memoryview(content), where)
    kind, channels, rate_hz, bits = _format(chunks[b"fmt "], where)
    if channels not in (1, 2):
        raise ArchiveError(f"{where}: expected one channel, or two to average, got {channels}")
    if not _LOWEST_HZ <= rate_hz <= _HIGHEST_HZ:
        raise ArchiveError(f"{where}: expected a rate of {_LOWEST_HZ} to {_HIGHEST_HZ} Hz, got {rate_hz} Hz")
    raw, frame = chunks[b"data"], channels * bits // 8
    if frame and len(raw) % frame:
        raise ArchiveError(f"{where}: truncated, expected frames of {frame} bytes, got {len(raw)} bytes of samples")
    found = _samples(raw, kind, bits, where)
    if not len(found):
        raise ArchiveError(f"{where}: expected samples, got none")
    return _convert(found, channels, rate_hz, f"{bits} bits" if (kind, bits) not in _USUAL else "", where)


def _convert(found: np.ndarray, channels: int, rate_hz: int, width: str, where: str) -> tuple[np.ndarray, list[str]]:
    notices = [f"{where}: samples of {width} converted to float32"] if width else []
    if channels == 2:
        found = found.reshape(-1, 2).mean(1, dtype=np.float32)
        notices.append(f"{where}: stereo, its two channels averaged")
    if rate_hz != SOURCE_HZ:
        found = resample(found, source_hz=rate_hz, target_hz=SOURCE_HZ)
        notices.append(
            f"{where}: {rate_hz} Hz resampled to {SOURCE_HZ} Hz; label times taken as samples at {SOURCE_HZ} Hz"
        )
    return found, notices
