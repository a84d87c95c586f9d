"""From a score to a performance: notes in seconds, with the small liberties of a player.

Randomness comes from one generator per recording, so a recording does not depend on which others
are made.
"""

import dataclasses

import numpy as np

from cplxnet.musicnet.recordings import HIGHEST_NOTE, LOWEST_NOTE

from .pieces import Piece
from .score import ScoreNote

TEMPO_SPREAD = 0.04  # of a recording's tempo
RUBATO_SPREAD = 0.03  # of the tempo from beat to beat, smoothed over four
ONSET_SPREAD_S = 0.006
ARTICULATION = (0.88, 0.98)  # share of its written length that a note sounds
SHORTEST_S = 0.03
TUNING_CENTS = 12.0  # a recording lies within +- this of A = 440 Hz
PART_SPREAD_DB = 1.5
PHRASE_SPREAD_DB = 3.0
PHRASE_S = 5.0
NOTE_SPREAD_DB = 1.5
_MOST_PARTS = 64


@dataclasses.dataclass(frozen=True)
class Performance:
    """Notes as played, a column each, in order of onset.

    Attributes:
        start_s, end_s: float64 (notes,), seconds.
        pitch: int64 (notes,), MIDI notes.
        program: int64 (notes,), General MIDI programs from 0.
        level_db: float64 (notes,), loudness.
        written: the notes of the score, in the same order.
        cents: how far the whole recording lies from A = 440 Hz.
        seconds: where the last note ends.
        dropped: how many notes lay outside 21..104 and were left out.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    pitch: np.ndarray
    program: np.ndarray
    level_db: np.ndarray
    written: list[ScoreNote]
    cents: float
    seconds: float
    dropped: int


def perform(
    written: list[ScoreNote],
    marks: list[tuple[float, float]],
    *,
    piece: Piece,
    generator: np.random.Generator,
) -> Performance:
    """Play the notes `written` for at most `piece.seconds`.

    Notes outside 21..104 are left out and counted; a note that still sounds at the end is cut
    there.

    Args:
        written: the notes of a score.
        marks: the score's metronome marks, (beat, quarter notes a minute); the piece's own tempo
            before the first.
        piece: how long, how often, and the tempo where the score names none.
        generator: of this recording alone. The order of the draws below is part of the recipe.

    Raises:
        ValueError: no note to play.
    """
    notes = _repeated(written, piece.times)
    length = max((note.beat + note.beats for note in written), default=0.0)
    bpm = marks if marks and marks[0][0] == 0 else [(0.0, piece.quarter_bpm), *marks]
    grid, clock = _clock(length * piece.times, bpm, generator)

    begin = np.interp([note.beat for note in notes], grid, clock)
    end = np.interp([note.beat + note.beats for note in notes], grid, clock)
    start_s = np.maximum(0.0, begin + generator.normal(0.0, ONSET_SPREAD_S, len(begin)))
    sounding = (end - begin) * generator.uniform(*ARTICULATION, len(begin))
    end_s = start_s + np.maximum(SHORTEST_S, sounding)

    pitch = np.array([note.pitch for note in notes], dtype=np.int64)
    heard = start_s < piece.seconds - 0.05
    inside = (pitch >= LOWEST_NOTE) & (pitch <= HIGHEST_NOTE)
    keep = np.flatnonzero(heard & inside)
    if not len(keep):
        raise ValueError(
            f"{piece.name}: expected notes in {LOWEST_NOTE}..{HIGHEST_NOTE}, got none; "
            "try another score"
        )

    keep = keep[np.lexsort((pitch[keep], start_s[keep]))]
    played = [notes[k] for k in keep]
    end_s = np.minimum(end_s[keep], piece.seconds)
    return Performance(
        start_s=start_s[keep],
        end_s=end_s,
        pitch=pitch[keep],
        program=np.array([note.program for note in played], dtype=np.int64),
        level_db=_levels(played, start_s[keep], generator),
        written=played,
        cents=float(generator.uniform(-TUNING_CENTS, TUNING_CENTS)),
        seconds=float(end_s.max()),
        dropped=int((heard & ~inside).sum()),
    )


def _repeated(written: list[ScoreNote], times: int) -> list[ScoreNote]:
    """The notes `times` times over, in order of beat, part and pitch."""
    length = max((note.beat + note.beats for note in written), default=0.0)
    notes = [
        dataclasses.replace(note, beat=note.beat + repeat * length)
        for repeat in range(times)
        for note in written
    ]
    return sorted(notes, key=lambda note: (note.beat, note.part, note.pitch, note.beats))


def _clock(
    beats: float, bpm: list[tuple[float, float]], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(beat, seconds) at each quarter note up to `beats`: the marked tempo, times the recording's
    pace and rubato.
    """
    grid = np.arange(0.0, beats + 2.0)
    mark_beats = [beat for beat, _ in bpm]
    mark_speeds = np.array([speed for _, speed in bpm])
    marked = mark_speeds[np.searchsorted(mark_beats, grid, side="right") - 1]

    wobble = generator.normal(0.0, 2 * RUBATO_SPREAD, len(grid) + 3)
    rubato = np.convolve(wobble, np.full(4, 0.25), mode="valid")
    pace = 1.0 + TEMPO_SPREAD * generator.uniform(-1.0, 1.0)

    seconds = 60.0 / (marked * pace * np.exp(np.clip(rubato, -0.15, 0.15)))
    return grid, np.concatenate([[0.0], np.cumsum(seconds[:-1])])


def _levels(
    written: list[ScoreNote], start_s: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Loudness of each note in dB: its part's, plus its phrase's (drawn every 5 s, interpolated),
    plus its own.
    """
    parts = generator.normal(0.0, PART_SPREAD_DB, _MOST_PARTS)

    phrase_s = np.arange(0.0, start_s.max() + 2 * PHRASE_S, PHRASE_S)
    drawn = generator.normal(0.0, PHRASE_SPREAD_DB, len(phrase_s))
    phrase = np.interp(start_s, phrase_s, drawn)

    single = generator.normal(0.0, NOTE_SPREAD_DB, len(written))
    return parts[[note.part % _MOST_PARTS for note in written]] + phrase + single
