"""From a score to a performance: notes in seconds, with the small liberties of a player.

Randomness comes from one generator per recording, so a recording does not depend on which others are made.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path

import music21
import numpy as np

from cplxnet.musicnet.recordings import HIGHEST_NOTE, LOWEST_NOTE

from . import excerpt
from .pieces import Piece

PROGRAMS = {
    "violin": 40,
    "viola": 41,
    "cello": 42,
    "clarinet": 71,
    "piano": 0,
}  # General MIDI, from 0
TEMPO_SPREAD = 0.04  # of a recording's tempo
RUBATO_SPREAD = 0.03  # of the tempo from beat to beat, smoothed over four
ONSET_SPREAD_S, ARTICULATION = 0.006, (0.88, 0.98)  # notes end a little early
TUNING_CENTS = 12.0  # a recording lies within +- this of A = 440 Hz
PART_SPREAD_DB, PHRASE_SPREAD_DB, NOTE_SPREAD_DB = 1.5, 3.0, 1.5


@dataclasses.dataclass(frozen=True)
class ScoreNote:
    """A note as written: `beat` and `beats` in quarter notes, `program` by General MIDI from 0, `part` from 0."""

    beat: float
    beats: float
    pitch: int
    program: int
    part: int
    value: str


@dataclasses.dataclass(frozen=True)
class Performance:
    """Notes as played, column by column, in order of onset; times in seconds."""

    start_s: np.ndarray
    end_s: np.ndarray
    pitch: np.ndarray
    program: np.ndarray
    level_db: np.ndarray
    written: list[ScoreNote]
    cents: float  # the whole recording's deviation from A = 440 Hz
    seconds: float
    dropped: int  # notes outside 21..104, left out


def _program(part: music21.stream.Part) -> int:
    """The General MIDI program of a part: by its name, else what the score says, else piano."""
    name = (part.partName or "").lower()
    for word, program in PROGRAMS.items():
        if word in name:
            return program
    instrument = part.getInstrument(returnDefault=True)
    told = instrument.midiProgram if instrument else None
    return PROGRAMS["piano"] if told is None else int(told)


def _value(duration: music21.duration.Duration) -> str:
    """MusicNet's words for a duration: "Quarter", "Dotted Eighth"."""
    kind = duration.type.replace("16th", "Sixteenth").replace("32nd", "Thirty Second").title()
    return "Dotted " * (duration.dots > 0) + kind


def _part_notes(
    part: music21.stream.Part, flat: music21.stream.Stream, number: int
) -> Iterator[ScoreNote]:
    """The part's notes with ties joined; grace notes have no length in a score and are left out."""
    program = _program(part)
    tied: dict[int, ScoreNote] = {}
    for element in flat.notes:
        if element.duration.quarterLength == 0 or isinstance(element, music21.harmony.Harmony):
            continue
        for note in element.notes if isinstance(element, music21.chord.Chord) else (element,):
            if not isinstance(note, music21.note.Note):
                continue
            pitch, beat, beats = (
                round(note.pitch.ps),
                float(element.offset),
                float(element.duration.quarterLength),
            )
            held = (
                tied.pop(pitch, None)
                if note.tie and note.tie.type in ("stop", "continue")
                else None
            )
            if held and abs(held.beat + held.beats - beat) < 1e-6:
                current = dataclasses.replace(held, beats=held.beats + beats)
            else:
                current = ScoreNote(beat, beats, pitch, program, number, _value(element.duration))
                if held:
                    yield held
            if note.tie and note.tie.type in ("start", "continue"):
                tied[pitch] = current
            else:
                yield current
    yield from tied.values()


def read(
    path: Path, *, quarters: float = float("inf")
) -> tuple[list[ScoreNote], list[tuple[float, float]]]:
    """The notes of the score at `path`, and its metronome marks as (beat, quarter notes a minute).

    Of an .mxl file only about the first `quarters` quarter notes are read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # music21 warns of small faults in its own corpus
        if path.suffix == ".mxl":
            text = excerpt.musicxml(path, quarters)
            score = music21.converter.parseData(text, format="musicxml")
        else:
            score = music21.converter.parse(path, forceSource=True, storePickle=False)
        parts = [(part, part.flatten()) for part in score.getElementsByClass(music21.stream.Part)]
        notes = [
            note
            for number, (part, flat) in enumerate(parts)
            for note in _part_notes(part, flat, number)
        ]
        marks = [
            mark
            for _, flat in parts
            for mark in flat.getElementsByClass(music21.tempo.MetronomeMark)
        ]
        told = {
            float(m.offset): m.getQuarterBPM()
            for m in marks
            if m.number is not None and not m.numberImplicit
        }
    return notes, sorted((beat, float(bpm)) for beat, bpm in told.items() if bpm)


def _clock(
    beats: float, bpm: list[tuple[float, float]], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(beat, seconds) at each quarter note up to `beats`: the marked tempo times a recording's pace and its rubato."""
    grid = np.arange(0.0, beats + 2.0)
    marked = np.array([speed for _, speed in bpm])[
        np.searchsorted([beat for beat, _ in bpm], grid, side="right") - 1
    ]
    rubato = np.convolve(
        generator.normal(0.0, 2 * RUBATO_SPREAD, len(grid) + 3), np.full(4, 0.25), mode="valid"
    )
    pace = 1.0 + TEMPO_SPREAD * generator.uniform(-1.0, 1.0)
    seconds = 60.0 / (marked * pace * np.exp(np.clip(rubato, -0.15, 0.15)))
    return grid, np.concatenate([[0.0], np.cumsum(seconds[:-1])])


def _levels(
    written: list[ScoreNote], start_s: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Loudness of each note in dB: part, phrase (a new level every five seconds, in between interpolated) and note."""
    parts = generator.normal(0.0, PART_SPREAD_DB, 64)
    phrase_s = np.arange(0.0, start_s.max() + 10.0, 5.0)
    phrase = np.interp(start_s, phrase_s, generator.normal(0.0, PHRASE_SPREAD_DB, len(phrase_s)))
    single = generator.normal(0.0, NOTE_SPREAD_DB, len(written))
    return parts[[note.part % 64 for note in written]] + phrase + single


def perform(
    written: list[ScoreNote],
    marks: list[tuple[float, float]],
    *,
    piece: Piece,
    generator: np.random.Generator,
) -> Performance:
    """Play the notes `written` at the score's `marks` (or the piece's tempo), `piece.seconds` long at most.

    Notes outside 21..104 are left out and counted; a note still sounding at the end of an excerpt is cut there.

    Raises
    ------
    ValueError: no note to play.
    """
    length = max((note.beat + note.beats for note in written), default=0.0)
    repeats = [
        dataclasses.replace(n, beat=n.beat + k * length)
        for k in range(piece.times)
        for n in written
    ]
    bpm = marks if marks and marks[0][0] == 0 else [(0.0, piece.quarter_bpm), *marks]
    grid, clock = _clock(length * piece.times, bpm, generator)
    repeats.sort(key=lambda n: (n.beat, n.part, n.pitch, n.beats))
    begin = np.interp([n.beat for n in repeats], grid, clock)
    end = np.interp([n.beat + n.beats for n in repeats], grid, clock)
    begin_s = np.maximum(0.0, begin + generator.normal(0.0, ONSET_SPREAD_S, len(begin)))
    end_s = begin_s + np.maximum(0.03, (end - begin) * generator.uniform(*ARTICULATION, len(begin)))
    pitch = np.array([n.pitch for n in repeats], dtype=np.int64)
    heard = begin_s < piece.seconds - 0.05
    inside = (pitch >= LOWEST_NOTE) & (pitch <= HIGHEST_NOTE)
    keep = np.flatnonzero(heard & inside)
    if not len(keep):
        raise ValueError(
            f"{piece.name}: expected notes in {LOWEST_NOTE}..{HIGHEST_NOTE}, got none; try another score"
        )
    keep = keep[np.lexsort((pitch[keep], begin_s[keep]))]
    chosen = [repeats[k] for k in keep]
    end_s = np.minimum(end_s[keep], piece.seconds)
    return Performance(
        start_s=begin_s[keep],
        end_s=end_s,
        pitch=pitch[keep],
        program=np.array([n.program for n in chosen], dtype=np.int64),
        level_db=_levels(chosen, begin_s[keep], generator),
        written=chosen,
        cents=float(generator.uniform(-TUNING_CENTS, TUNING_CENTS)),
        seconds=float(end_s.max()),
        dropped=int((heard & ~inside).sum()),
    )
