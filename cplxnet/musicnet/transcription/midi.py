"""Piano rolls, bool (frames, 84), as lists of notes, and notes as a MIDI file.

Frame k stands for the time [(k - 1/2) hop, (k + 1/2) hop): a note begins and ends halfway between two frames, no
further than half a hop from where the network heard it.
"""

import os
from pathlib import Path

import numpy as np

from cplxnet.extras import extra
from cplxnet.files import written
from cplxnet.musicnet import recordings
from cplxnet.musicnet.labels import LOWEST_NOTE

with extra("transcription"):
    import pretty_midi

NOTES = np.dtype(
    [("start_s", "<f8"), ("end_s", "<f8"), ("note", "<i8")]
)  # [start, end) in seconds, MIDI note
VELOCITY = 80  # of every note: the networks do not hear loudness
_TICKS = 1000  # a beat of 0.5 s: times are kept to 0.25 ms


def notes_of(roll: np.ndarray, times: np.ndarray, *, least_s: float = 0.0) -> np.ndarray:
    """The notes of a piano roll: a note is a run of frames in which its class sounds.

    Args:
        roll: bool (frames, 84). times: float (frames,), seconds, evenly spaced, as `transcribe` gives them.
        least_s: notes shorter than this are left out; 0 keeps every one.

    Returns:
        `NOTES` (notes,), by start, then note.

    Raises:
        ValueError: a roll that is not bool (frames, notes), or times of another length.
    """
    if roll.ndim != 2 or roll.dtype != bool or times.shape != roll.shape[:1]:
        raise ValueError(
            f"expected a bool roll (frames, notes) and times (frames,), got {roll.dtype} {roll.shape} and "
            f"{times.shape}; try probabilities >= threshold"
        )
    step = np.diff(
        roll.astype(np.int8), axis=0, prepend=0, append=0
    ).T  # (84, frames + 1): +1 begins, -1 ends
    note, first = np.nonzero(step == 1)
    last = np.nonzero(step == -1)[
        1
    ]  # of the same runs, in the same order: note by note, then in time
    hop_s = float(times[1] - times[0]) if len(times) > 1 else 0.0
    notes = np.empty(len(note), NOTES)
    notes["start_s"] = np.maximum(times[first] - hop_s / 2, 0)
    notes["end_s"] = times[last - 1] + hop_s / 2
    notes["note"] = note + LOWEST_NOTE
    notes = notes[notes["end_s"] - notes["start_s"] >= least_s]
    return notes[np.lexsort((notes["note"], notes["start_s"]))]


def labelled_notes(recording: recordings.Recording, *, rate_hz: int) -> np.ndarray:
    """The labels of a recording at `rate_hz` as `NOTES`, by start, then note; empty ones left out."""
    labels = recording.labels[recording.labels["end_time"] > recording.labels["start_time"]]
    notes = np.empty(len(labels), NOTES)
    notes["start_s"], notes["end_s"] = labels["start_time"] / rate_hz, labels["end_time"] / rate_hz
    notes["note"] = labels["note"]
    return notes[np.lexsort((notes["note"], notes["start_s"]))]


def midi(notes: np.ndarray, *, program: int = 0) -> pretty_midi.PrettyMIDI:
    """The notes as one track of General MIDI instrument `program` (0: grand piano) at one velocity."""
    track = pretty_midi.Instrument(program)
    for note in notes:
        track.notes.append(
            pretty_midi.Note(
                VELOCITY, int(note["note"]), float(note["start_s"]), float(note["end_s"])
            )
        )
    score = pretty_midi.PrettyMIDI(resolution=_TICKS)
    score.instruments.append(track)
    return score


def write_midi(path: str | os.PathLike[str], notes: np.ndarray, *, program: int = 0) -> Path:
    """Write `midi(notes)` to a standard MIDI file, whole or not at all; returns the path."""
    path = Path(path)
    with written(path) as temporary:
        midi(notes, program=program).write(str(temporary))
    return path
