"""From a performance to a recording: samples at 44.1 kHz by symusic, and the labels that go with
them.

symusic's renderer knows neither velocity nor pitch bend. So notes are rendered in groups of about
equal loudness and the groups mixed; and the recording is rendered slower or faster by the ratio of
its tuning and then resampled by it, which moves every note back to its time.
"""

from pathlib import Path

import numpy as np
import soxr
import symusic.core
from scipy.signal import lfilter

from cplxnet.musicnet.recordings import LABELS, Recording
from cplxnet.musicnet.resample import SOURCE_HZ

from .performance import Performance
from .pieces import Piece

LEAD_S = 0.25  # of room noise before the first note
TAIL_S = 0.5  # and after the last
LEVEL_STEP_DB = 2.0  # loudness is rounded to this
LEVEL_LIMIT_DB = 8.0
NOISE_DB = -60.0  # of the room, below full scale
NOISE_SPREAD_DB = 5.0
PEAK = 0.9
PEAK_SPREAD_DB = 3.0
_VELOCITY = 100  # of every note: the renderer ignores it


def record(
    performance: Performance, *, piece: Piece, font: Path, generator: np.random.Generator
) -> Recording:
    """The recording of `performance` at 44.1 kHz, its peak at 0.9 or up to 3 dB below, as drawn for
    it.

    Args:
        performance: what to play. piece: its key and texts.
        font: a sound font that symusic plays in tune (`soundfont.in_tune`).
        generator: of this recording alone.

    Raises:
        ValueError: the notes make no sound.
    """
    sound = _mix(performance, font=font)
    peak = float(np.abs(sound).max())
    if not peak > 0:
        raise ValueError(f"{piece.name}: expected sound, got silence; try another score")

    gain = PEAK * 10.0 ** (-generator.uniform(0.0, PEAK_SPREAD_DB) / 20.0) / peak
    sound = sound * np.float32(gain)
    data = sound + _noise(len(sound), generator)

    texts = (piece.composer, piece.composition, piece.movement, piece.ensemble)
    return Recording(piece.key, data.astype(np.float32), labels(performance), *texts)


def labels(performance: Performance) -> np.ndarray:
    """The labels of the recording that `record` makes: a row a note, in samples at 44.1 kHz,
    `[start, end)`.
    """
    written = performance.written
    table = np.zeros(len(performance.pitch), LABELS)
    table["start_time"] = np.rint((LEAD_S + performance.start_s) * SOURCE_HZ)
    table["end_time"] = np.rint((LEAD_S + performance.end_s) * SOURCE_HZ)
    table["instrument"] = performance.program + 1
    table["note"] = performance.pitch
    table["start_beat"] = [note.beat for note in written]
    table["end_beat"] = [note.beats for note in written]  # a length, as MusicNet has it
    table["note_value"] = [note.value.encode() for note in written]
    return table


def _mix(performance: Performance, *, font: Path) -> np.ndarray:
    """All notes at their loudness and the recording's tuning, without noise; float32 (samples,)."""
    ratio = 2.0 ** (performance.cents / 1200.0)
    samples = round((LEAD_S + performance.seconds + TAIL_S) * SOURCE_HZ)
    mixed = np.zeros(int(samples * ratio) + SOURCE_HZ, np.float32)

    level_db = np.clip(performance.level_db, -LEVEL_LIMIT_DB, LEVEL_LIMIT_DB)
    step = np.rint(level_db / LEVEL_STEP_DB)
    for value in np.unique(step):
        notes = np.flatnonzero(step == value)
        sound = _render_notes(performance, notes, ratio=ratio, font=font)[: len(mixed)]
        mixed[: len(sound)] += sound * np.float32(10.0 ** (value * LEVEL_STEP_DB / 20.0))

    tuned = soxr.resample(mixed, SOURCE_HZ * ratio, SOURCE_HZ, quality="VHQ")
    return tuned[:samples]


def _render_notes(
    performance: Performance, notes: np.ndarray, *, ratio: float, font: Path
) -> np.ndarray:
    """Mono samples of the notes numbered `notes`, all times stretched by `ratio`; float32
    (samples,).
    """
    score = symusic.core.ScoreSecond(480)
    for program in np.unique(performance.program[notes]):
        track = symusic.core.TrackSecond("", int(program), False)
        for k in notes[performance.program[notes] == program]:
            begin = (LEAD_S + performance.start_s[k]) * ratio
            end = (LEAD_S + performance.end_s[k]) * ratio
            pitch = int(performance.pitch[k])
            track.notes.append(symusic.core.NoteSecond(begin, end - begin, pitch, _VELOCITY))
        score.tracks.append(track)

    synthesizer = symusic.core.Synthesizer(str(font), SOURCE_HZ, 0)
    return np.asarray(synthesizer.render(score, False))[0]


def _noise(samples: int, generator: np.random.Generator) -> np.ndarray:
    """Room noise: white noise through a first-order low pass at about 700 Hz, at a level drawn for
    the recording.
    """
    noise = lfilter([0.1], [1.0, -0.9], generator.standard_normal(samples, dtype=np.float32))
    level_db = NOISE_DB + generator.uniform(-NOISE_SPREAD_DB, NOISE_SPREAD_DB)
    return (noise * (10.0 ** (level_db / 20.0) / noise.std())).astype(np.float32)
