"""Scores of music21's corpus as notes: pitch, place and length as written, one list for all parts.

Of a MusicXML score only the first measures are parsed: music21 takes a minute for the whole of a
long movement.
"""

import dataclasses
import warnings
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import music21

# General MIDI programs, from 0, by a word in the part's name.
PROGRAMS = {"violin": 40, "viola": 41, "cello": 42, "clarinet": 71, "piano": 0}


@dataclasses.dataclass(frozen=True)
class ScoreNote:
    """A note as written.

    Attributes:
        beat: where it begins, in quarter notes from the start of the score.
        beats: its length in quarter notes.
        pitch: MIDI note.
        program: General MIDI program, from 0.
        part: number of the part, from 0.
        value: MusicNet's word for its length, "Dotted Eighth".
    """

    beat: float
    beats: float
    pitch: int
    program: int
    part: int
    value: str


def read(
    path: Path, *, quarters: float = float("inf")
) -> tuple[list[ScoreNote], list[tuple[float, float]]]:
    """The notes of the score at `path`, and its metronome marks as (beat, quarter notes a minute).

    Args:
        path: an .mxl file, or anything else that music21 reads.
        quarters: of an .mxl file only about this many quarter notes are read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # music21 warns of small faults in its own corpus
        if path.suffix == ".mxl":
            score = music21.converter.parseData(excerpt(path, quarters), format="musicxml")
        else:
            score = music21.converter.parse(path, forceSource=True, storePickle=False)

        parts = score.getElementsByClass(music21.stream.Part)
        flat_parts = [(part, part.flatten()) for part in parts]

        notes: list[ScoreNote] = []
        bpm_at: dict[float, float | None] = {}
        for number, (part, flat) in enumerate(flat_parts):
            notes += part_notes(part, flat, number)
            bpm_at |= _metronome_marks(flat)

    marks = [(beat, float(bpm)) for beat, bpm in bpm_at.items() if bpm]
    return notes, sorted(marks)


def excerpt(path: Path, quarters: float) -> str:
    """The MusicXML text of the .mxl score at `path`, every part cut after about `quarters` quarter
    notes.

    The cut is after a whole measure, the same one in each part. A shorter score comes back whole.
    """
    root = _document(path)
    parts = root.findall("part")
    n_measures = max(_measures_in(part, quarters) for part in parts)

    for part in parts:
        for measure in part.findall("measure")[n_measures:]:
            part.remove(measure)
    return ElementTree.tostring(root, encoding="unicode")


def _document(path: Path) -> ElementTree.Element:
    """The root of the MusicXML inside an .mxl archive, which META-INF/container.xml names."""
    with zipfile.ZipFile(path) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        rootfile = next(element for element in container.iter() if element.tag.endswith("rootfile"))
        return ElementTree.fromstring(archive.read(rootfile.attrib["full-path"]))


def _measures_in(part: ElementTree.Element, quarters: float) -> int:
    """How many of the part's measures fill `quarters` quarter notes, by its time signatures."""
    filled = Fraction(0)
    length = Fraction(4)  # of a measure, in quarter notes; 4/4 until the score says otherwise

    for number, measure in enumerate(part.findall("measure"), start=1):
        for time in measure.iter("time"):
            beats = time.findtext("beats")  # may be a sum: "3+2"
            beat_type = time.findtext("beat-type")
            if beats and beat_type:
                n_beats = sum(Fraction(term) for term in beats.split("+"))
                length = n_beats * Fraction(4, int(beat_type))

        filled += length
        if filled >= quarters:
            return number
    return len(part)


def part_notes(
    part: music21.stream.Part, flat: music21.stream.Stream, number: int
) -> Iterator[ScoreNote]:
    """The notes of a part, tied notes joined; grace notes have no length in a score and are left
    out.

    Args:
        part: the part, for its instrument.
        flat: `part.flatten()`, its notes at their offsets from the start.
        number: of the part, from 0.
    """
    program = _program(part)
    open_ties: dict[int, ScoreNote] = {}  # by pitch

    for element in flat.notes:
        if element.duration.quarterLength == 0 or isinstance(element, music21.harmony.Harmony):
            continue

        beat = float(element.offset)
        beats = float(element.duration.quarterLength)
        value = _note_value(element.duration)
        for note in element.notes if isinstance(element, music21.chord.Chord) else (element,):
            if not isinstance(note, music21.note.Note):
                continue

            pitch = round(note.pitch.ps)
            tie = note.tie.type if note.tie else None
            held = open_ties.pop(pitch, None) if tie in ("stop", "continue") else None
            if held and abs(held.beat + held.beats - beat) < 1e-6:
                current = dataclasses.replace(held, beats=held.beats + beats)
            else:
                current = ScoreNote(beat, beats, pitch, program, number, value)
                if held:
                    yield held

            if tie in ("start", "continue"):
                open_ties[pitch] = current
            else:
                yield current

    yield from open_ties.values()


def _program(part: music21.stream.Part) -> int:
    """The General MIDI program of a part: by its name, else as the score says, else piano."""
    name = (part.partName or "").lower()
    for word, program in PROGRAMS.items():
        if word in name:
            return program

    instrument = part.getInstrument(returnDefault=True)
    program_of_score = instrument.midiProgram if instrument else None
    return PROGRAMS["piano"] if program_of_score is None else int(program_of_score)


def _note_value(duration: music21.duration.Duration) -> str:
    """MusicNet's words for a duration: "Quarter", "Dotted Eighth"."""
    kind = duration.type.replace("16th", "Sixteenth").replace("32nd", "Thirty Second").title()
    return "Dotted " * (duration.dots > 0) + kind


def _metronome_marks(flat: music21.stream.Stream) -> dict[float, float | None]:
    """{beat: quarter notes a minute} of the marks with a number that the score itself states."""
    bpm_at: dict[float, float | None] = {}
    for mark in flat.getElementsByClass(music21.tempo.MetronomeMark):
        if mark.number is not None and not mark.numberImplicit:
            bpm_at[float(mark.offset)] = mark.getQuarterBPM()
    return bpm_at
