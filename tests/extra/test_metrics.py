"""Scores of rolls and notes against counts by hand, the threshold against all thresholds."""

import mir_eval
import numpy as np
import pytest

from cplxnet.musicnet.transcription import midi
from extra import metrics


def notes(*rows: tuple[float, float, int]) -> np.ndarray:
    return np.array(list(rows), midi.NOTES)


def test_frame_scores_of_a_roll_made_by_hand() -> None:
    target, predicted = np.zeros((4, 84), bool), np.zeros((4, 84), bool)
    target[0, [10, 20]] = target[1, [10, 20]] = target[2, 30] = True  # 5 true entries
    predicted[0, [10, 21]] = True  # a hit, a substitution
    predicted[1, 10] = True  # a hit, a miss
    predicted[2, 30] = predicted[2, 42] = True  # a hit and, an octave above, a false alarm
    predicted[3, 5] = True  # a false alarm in silence
    found = metrics.frame_scores(np.arange(4) / 43, target, predicted)
    assert found["precision"] == pytest.approx(3 / 6) and found["recall"] == pytest.approx(3 / 5)
    assert found["accuracy"] == pytest.approx(3 / 8) and found["f_measure"] == pytest.approx(6 / 11)
    errors = {name: found[name] for name in ("substitution", "miss", "false_alarm", "error")}
    assert errors == pytest.approx(
        {"substitution": 1 / 5, "miss": 1 / 5, "false_alarm": 2 / 5, "error": 4 / 5}
    )


def test_frame_scores_are_the_counts_of_random_rolls() -> None:
    rng = np.random.default_rng(11)
    target, predicted = rng.random((60, 84)) < 0.05, rng.random((60, 84)) < 0.07
    predicted |= target & (rng.random((60, 84)) < 0.6)
    hits, false, missed = (
        (target & predicted).sum(),
        (predicted & ~target).sum(),
        (target & ~predicted).sum(),
    )
    found = metrics.frame_scores(np.arange(60.0), target, predicted)
    assert found["precision"] == pytest.approx(hits / (hits + false))
    assert found["recall"] == pytest.approx(hits / (hits + missed))
    assert found["accuracy"] == pytest.approx(hits / (hits + false + missed))

    # the rolls as frequencies, written by another way, through mir_eval itself
    def hertz(roll: np.ndarray) -> list[np.ndarray]:
        notes = [[n for n in range(84) if row[n]] for row in roll]
        return [np.array([mir_eval.util.midi_to_hz(n + 21) for n in row]) for row in notes]

    times = np.arange(60.0)
    theirs = mir_eval.multipitch.evaluate(times, hertz(target), times, hertz(predicted))
    assert found["accuracy"] == theirs["Accuracy"] and found["error"] == theirs["Total Error"]


def test_silence_predicted_scores_zero_and_a_silent_reference_is_refused() -> None:
    target = np.zeros((3, 84), bool)
    with pytest.raises(ValueError, match="expected a frame with a note, got silence"):
        metrics.frame_scores(np.arange(3.0), target, ~target)
    target[1, 40] = True
    found = metrics.frame_scores(np.arange(3.0), target, np.zeros_like(target))
    assert found["precision"] == found["recall"] == found["f_measure"] == 0 and found["miss"] == 1
    with pytest.raises(
        ValueError, match=r"two rolls \(frames, 84\), got \(3,\), \(3, 84\), \(2, 84\)"
    ):
        metrics.frame_scores(np.arange(3.0), target, target[:2])


@pytest.mark.parametrize("levels", [7, 1000])  # with few levels many entries share a probability
def test_best_threshold_is_the_best_of_all(levels: int) -> None:
    rng = np.random.default_rng(levels)
    target = rng.random((80, 20)) < 0.1
    probability = (
        np.round(np.clip(0.3 * target + rng.random((80, 20)) * 0.7, 0, 1) * levels) / levels
    )

    def scores(threshold: float) -> tuple[float, float]:
        reported = probability >= threshold
        hits = (reported & target).sum()
        return 2 * hits / (reported.sum() + target.sum()), hits / (reported | target).sum()

    tried = {value: scores(value) for value in np.unique(probability)}
    best = metrics.best_threshold(target, probability)
    assert scores(best)[0] == max(f for f, _ in tried.values())
    assert scores(best)[1] == max(accuracy for _, accuracy in tried.values())
    assert best == max(value for value in tried if tried[value][0] == scores(best)[0])


def test_note_scores_by_hand() -> None:
    true = notes((0.0, 1.0, 60), (1.0, 2.0, 62), (2.0, 3.0, 64), (3.0, 3.2, 65))
    found = notes(
        (0.04, 1.0, 60),  # right
        (1.06, 2.0, 62),  # begins 60 ms late: wrong
        (2.0, 2.5, 64),  # right, ends too early
        (3.0, 3.22, 65),  # right, also at its end
        (3.0, 3.2, 66),  # another pitch
    )
    scores = metrics.note_scores(true, found)
    assert scores == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "f_measure": 2 / 3})
    scores = metrics.note_scores(true, found, offsets=True)
    assert scores == pytest.approx({"precision": 2 / 5, "recall": 2 / 4, "f_measure": 4 / 9})
    assert metrics.note_scores(true, found[:0])["f_measure"] == 0
    with pytest.raises(ValueError, match="expected a true note at least, got none"):
        metrics.note_scores(true[:0], found)
