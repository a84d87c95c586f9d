"""Piano rolls, bool (frames, 84), as lists of notes, and notes as a MIDI file.

Frame k stands for the time [(k - 1/2) hop, (k + 1/2) hop): a note begins and ends halfway between
two frames, no further than half a hop from where the network heard it.
"""

import os
from pathlib import Path

import numpy as np

from cplxnet.extras import extra
from cplxnet.files import written
from cplxnet.musicnet.labels import LOWEST_NOTE

with extra("transcription"):
    import pretty_midi

# [start, end) in seconds, MIDI note
NOTES = np.dtype([("start_s", "<f8"), ("end_s", "<f8"), ("note", "<i8")])
VELOCITY = 80  # of every note: the networks do not hear loudness
_TICKS = 1000  # a beat of 0.5 s, so that times are kept to 0.25 ms
TICK_S = 0.5 / _TICKS


def notes_of(
    roll: np.ndarray, times: np.ndarray, *, duration_s: float | None = None, least_s: float = 0.0
) -> np.ndarray:
    """The notes of a piano roll: a note is a run of frames in which its class sounds.

    Args:
        roll: bool (frames, 84).
        times: float (frames,), seconds, evenly spaced, as `transcribe` gives them.
        duration_s: of the recording, beyond the last frame's time; no note ends after it. None:
            half a hop beyond the last frame.
        least_s: notes shorter than this are left out; 0 keeps every one.

    Returns:
        `NOTES` (notes,), by start, then note. Each ends after it starts.

    Raises:
        ValueError: a roll that is not bool (frames, notes), times of another length, a single frame
            without `duration_s`, or frames at or after `duration_s`.
    """
    if roll.ndim != 2 or roll.dtype != bool or times.shape != roll.shape[:1]:
        raise ValueError(
            f"expected a bool roll (frames, notes) and times (frames,), got {roll.dtype} "
            f"{roll.shape} and {times.shape}; try probabilities >= threshold"
        )
    if len(times) == 1 and duration_s is None:
        raise ValueError("expected duration_s, got None: a single frame does not tell its length")
    if duration_s is not None and len(times) and times[-1] >= duration_s:
        raise ValueError(f"expected frames before {duration_s} s, got one at {times[-1]} s")

    # (84, frames + 1): +1 where a note begins, -1 where it has ended
    step = np.diff(roll.astype(np.int8), axis=0, prepend=0, append=0).T
    note, first = np.nonzero(step == 1)
    _, after = np.nonzero(step == -1)  # of the same runs in the same order: by note, then time

    half_hop_s = float(times[1] - times[0]) / 2 if len(times) > 1 else np.inf
    notes = np.empty(len(note), NOTES)
    notes["note"] = note + LOWEST_NOTE
    notes["start_s"] = np.maximum(times[first] - half_hop_s, 0)
    notes["end_s"] = times[after - 1] + half_hop_s
    if duration_s is not None:
        notes["end_s"] = np.minimum(notes["end_s"], duration_s)
    notes = notes[notes["end_s"] - notes["start_s"] >= least_s]
    return notes[np.lexsort((notes["note"], notes["start_s"]))]


def midi(notes: np.ndarray, *, track: str = "") -> pretty_midi.PrettyMIDI:
    """The notes, `NOTES` (notes,), as one track of this name: a grand piano at one velocity."""
    instrument = pretty_midi.Instrument(0, name=track)
    for note in notes:
        start_s = float(note["start_s"])
        end_s = max(float(note["end_s"]), start_s + TICK_S)  # one that ends at once never stops
        instrument.notes.append(pretty_midi.Note(VELOCITY, int(note["note"]), start_s, end_s))

    score = pretty_midi.PrettyMIDI(resolution=_TICKS)
    score.instruments.append(instrument)
    return score


def write_midi(path: str | os.PathLike[str], notes: np.ndarray, *, track: str = "") -> Path:
    """Write `midi(notes)` to a standard MIDI file, whole or not at all; returns the path."""
    path = Path(path)
    with written(path) as temporary:
        midi(notes, track=track).write(str(temporary))
    return path
