"""For `transcription.ipynb`: how good a transcription is, by frames and by notes.

Average precision needs no threshold; whoever wants notes does. It is chosen on
validation, where the network was not trained and the final scores are not taken. The scores are
those of mir_eval.

References: Bay, Ehmann and Downie (2009), "Evaluation of Multiple-F0 Estimation and Tracking
Systems" (frames); Raffel et al. (2014), "mir_eval: A Transparent Implementation of Common MIR
Metrics".
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import mir_eval
import numpy as np
import torch

from cplxnet.musicnet import recordings
from cplxnet.musicnet.labels import LOWEST_NOTE, NoteLookup, changes_within
from cplxnet.musicnet.scores import Values, ranking
from cplxnet.musicnet.transcription import midi
from cplxnet.musicnet.transcription.windows import Network, frame_positions, transcribe
from cplxnet.progress import bar

# in mir_eval's order
FRAME_SCORES = ("precision", "recall", "accuracy", "substitution", "miss", "false_alarm", "error")
NOTE_SCORES = ("precision", "recall", "f_measure")


# ---- what is true, and what a network says ------------------------------------------------------


def true_roll(recording: recordings.Recording, hop: int) -> np.ndarray:
    """The notes that sound at the frames of `transcribe` by the labels: bool (frames, 84)."""
    length = len(recording.data)
    sounding = NoteLookup([changes_within(recording.labels, length)])
    return sounding(torch.from_numpy(frame_positions(length, hop))).bool().numpy()


def transcribe_file(
    model: Network,
    path: str | os.PathLike[str],
    *,
    hop: int = 2048,
    progress: bool = True,
    **heard: object,
) -> tuple[np.ndarray, np.ndarray]:
    """Every recording of an 11 kHz file, one after another.

    Args:
        model: as `transcribe` takes it.
        path: an HDF5 file of recordings.
        hop: samples from one frame to the next.
        progress: show a bar over the recordings.
        heard: `window`, `kind`, `cplx`, `shift`, `batch_size` and `device` of `transcribe`.

    Returns:
        The true roll, bool, and the probabilities, float32, (frames, 84).
    """
    options: dict = {"rate_hz": recordings.rate_hz(path), "hop": hop, **heard}
    rolls = []
    probabilities = []
    items = recordings.recordings(path)
    for recording in bar(items, desc="recordings", leave=False, disable=not progress):
        rolls.append(true_roll(recording, hop))
        _, heard_notes = transcribe(model, recording.data, progress=False, **options)
        probabilities.append(heard_notes)
    return np.concatenate(rolls), np.concatenate(probabilities)


def labelled_notes(recording: recordings.Recording, *, rate_hz: int) -> np.ndarray:
    """The labels of a recording at `rate_hz` as `midi.NOTES`, by start, then note.

    Empty ones are left out.
    """
    labels = recording.labels[recording.labels["end_time"] > recording.labels["start_time"]]
    notes = np.empty(len(labels), midi.NOTES)
    notes["start_s"] = labels["start_time"] / rate_hz
    notes["end_s"] = labels["end_time"] / rate_hz
    notes["note"] = labels["note"]
    return notes[np.lexsort((notes["note"], notes["start_s"]))]


# ---- scores -------------------------------------------------------------------------------------


def best_threshold(target: Values, probability: Values) -> float:
    """The threshold t with the best frame F-measure of `probability >= t`, over all entries.

        F(t) = 2 TP/(reported + true) = 2 A/(1 + A),   A(t) = TP/(reported + true - TP)

    so the best accuracy A (Bay et al. 2009) is at the same t. Every value of a true entry is tried:
    between two of them only false alarms change. Of equal ones the highest is taken.

    Args:
        target: 0 or 1 (frames, 84).
        probability: (frames, 84).

    Raises:
        ValueError: as `scores.pooled_average_precision`.
    """
    positive, hits, reported = ranking(target, probability)  # values rising
    f_measure = 2 * hits / (reported + len(positive))
    return float(positive[(f_measure == f_measure.max()).nonzero()[-1, 0]])


def frame_scores(times: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores of a roll of yes and no against the true one, of all frames together.

    `precision` TP/(TP + FP), `recall` TP/(TP + FN), `accuracy` TP/(TP + FP + FN), `f_measure`, and
    the errors `substitution`, `miss`, `false_alarm` and their sum `error`, per true entry (Bay et
    al. 2009), by `mir_eval.multipitch`.

    Args:
        times: float (frames,), seconds, increasing.
        target: bool (frames, 84).
        predicted: bool (frames, 84).

    Raises:
        ValueError: shapes that differ, or nothing that sounds: recall is undefined then.
    """
    _check(times, target, predicted)
    if not target.any():
        raise ValueError(
            "expected a frame with a note, got silence: recall is undefined; try a longer part"
        )
    with _quiet():  # mir_eval warns of a roll without notes; its precision is 0
        values = mir_eval.multipitch.metrics(
            times, _frequencies(target), times, _frequencies(predicted)
        )
    # seven more values, of octaves folded into one, are left out
    scores = {name: float(value) for name, value in zip(FRAME_SCORES, values, strict=False)}

    total = scores["precision"] + scores["recall"]
    product = scores["precision"] * scores["recall"]
    return {**scores, "f_measure": 2 * product / total if total else 0.0}


def note_scores(
    true: np.ndarray, predicted: np.ndarray, *, offsets: bool = False
) -> dict[str, float]:
    """`precision`, `recall` and `f_measure` of a list of notes, by `mir_eval.transcription`.

    A note is right if its pitch is and it begins within 50 ms of a true one; each true one counts
    once.

    Args:
        true: `midi.NOTES` (notes,).
        predicted: `midi.NOTES` (notes,).
        offsets: its end must also be within 50 ms or 20 percent of the true length.

    Raises:
        ValueError: no true note.
    """
    if not len(true):
        raise ValueError(
            "expected a true note at least, got none: recall is undefined; try a longer part"
        )
    with _quiet():
        values = mir_eval.transcription.precision_recall_f1_overlap(
            _intervals(true),
            _hertz(true["note"]),
            _intervals(predicted),
            _hertz(predicted["note"]),
            offset_ratio=0.2 if offsets else None,
        )
    return {name: float(value) for name, value in zip(NOTE_SCORES, values, strict=False)}


def _check(times: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> None:
    if target.shape != predicted.shape or target.ndim != 2 or times.shape != target.shape[:1]:
        raise ValueError(
            f"expected times (frames,) and two rolls (frames, 84), got {times.shape}, "
            f"{target.shape}, {predicted.shape}"
        )


def _hertz(note: np.ndarray) -> np.ndarray:
    return 440.0 * 2.0 ** ((note - 69) / 12)


def _frequencies(roll: np.ndarray) -> list[np.ndarray]:
    """The frequencies that sound in each frame."""
    return [_hertz(np.flatnonzero(frame) + LOWEST_NOTE) for frame in roll]


def _intervals(notes: np.ndarray) -> np.ndarray:
    return np.stack([notes["start_s"], notes["end_s"]], axis=1)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimate.* empty", category=UserWarning)
        yield
