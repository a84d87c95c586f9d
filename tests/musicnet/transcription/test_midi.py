"""Rolls as notes against a loop over frames; MIDI files as another library reads them."""

from pathlib import Path

import numpy as np
import pytest
import symusic

from cplxnet.musicnet import recordings
from cplxnet.musicnet.transcription import midi
from extra import metrics


@pytest.fixture
def roll() -> np.ndarray:
    """200 frames of notes of a few frames each, some next to each other, some at both ends."""
    rng = np.random.default_rng(3)
    return np.repeat(rng.random((50, 84)) < 0.05, 4, axis=0) & (rng.random((200, 84)) < 0.9)


def by_hand(roll: np.ndarray, hop_s: float) -> set[tuple[float, float, int]]:
    found = set()
    for note in range(84):
        first = None
        for k in range(len(roll) + 1):
            sounds = k < len(roll) and roll[k, note]
            if sounds and first is None:
                first = k
            if not sounds and first is not None:
                found.add(
                    (
                        round(max((first - 0.5) * hop_s, 0), 6),
                        round((k - 0.5) * hop_s, 6),
                        note + 21,
                    )
                )
                first = None
    return found


def test_notes_are_the_runs_of_frames(roll: np.ndarray) -> None:
    notes = midi.notes_of(roll, np.arange(200) * 0.02)
    expected = by_hand(roll, 0.02)
    assert {(round(float(s), 6), round(float(e), 6), int(n)) for s, e, n in notes} == expected
    assert len(notes) == len(expected) > 100
    order = list(zip(notes["start_s"], notes["note"], strict=True))
    assert order == sorted(order)


def test_notes_give_the_roll_back(roll: np.ndarray) -> None:
    times, back = np.arange(200) * 0.02, np.zeros_like(roll)
    for start, end, note in midi.notes_of(roll, times):
        back[:, note - 21] |= (times >= start) & (times < end)
    assert (back == roll).all()


def test_short_notes_are_left_out(roll: np.ndarray) -> None:
    times = np.arange(200) * 0.02
    lengths = [end - start for start, end, _ in by_hand(roll, 0.02)]
    notes = midi.notes_of(roll, times, least_s=0.05)
    assert len(notes) == sum(length >= 0.05 for length in lengths) < len(lengths)
    assert not len(midi.notes_of(np.zeros((5, 84), bool), times[:5]))


def test_a_single_frame_lasts_as_long_as_the_recording() -> None:
    roll = np.ones((1, 84), bool)
    assert (midi.notes_of(roll, np.zeros(1), duration_s=0.05)["end_s"] == 0.05).all()
    with pytest.raises(ValueError, match="expected duration_s, got None"):
        midi.notes_of(roll, np.zeros(1))
    with pytest.raises(ValueError, match=r"expected frames before 0\.05 s, got one at 0\.1 s"):
        midi.notes_of(np.ones((2, 84), bool), np.array([0.0, 0.1]), duration_s=0.05)


def test_what_is_no_roll_is_refused(roll: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"got float64 \(200, 84\) and \(200,\); try probabilities >= threshold"
    ):
        midi.notes_of(roll.astype(float), np.arange(200))
    with pytest.raises(ValueError, match=r"times \(frames,\), got bool \(200, 84\) and \(7,\)"):
        midi.notes_of(roll, np.arange(7))


def test_midi_read_back_by_another_library(tmp_path: Path, roll: np.ndarray) -> None:
    notes = midi.notes_of(roll, np.arange(200) * 256 / 11000)  # times that no clock of MIDI hits
    path = midi.write_midi(tmp_path / "into" / "a.mid", notes)
    (track,) = symusic.Score(path, ttype="second").tracks
    assert track.program == 0 and not track.is_drum
    found = sorted((n.pitch, n.start, n.end) for n in track.notes)
    expected = sorted(zip(notes["note"], notes["start_s"], notes["end_s"], strict=True))
    np.testing.assert_allclose(found, np.array(expected, float), atol=3e-4)
    assert {n.velocity for n in track.notes} == {midi.VELOCITY}
    assert [p.name for p in path.parent.iterdir()] == ["a.mid"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = midi.write_midi(tmp_path / "a.mid", np.array([(0.0, 1.0, 60)], midi.NOTES))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"0\.\.127"):
        midi.write_midi(path, np.array([(0.0, 1.0, 200)], midi.NOTES))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_labels_are_notes_in_seconds(tiny_corpus: Path) -> None:
    item = next(recordings.recordings(tiny_corpus / "musicnet_11khz_test.h5"))
    notes = metrics.labelled_notes(item, rate_hz=11000)
    rows = {(r["start_time"] / 11000, r["end_time"] / 11000, int(r["note"])) for r in item.labels}
    assert {(float(s), float(e), int(n)) for s, e, n in notes} == rows and len(notes) == len(
        item.labels
    )
