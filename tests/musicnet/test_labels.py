"""Label lookup against a loop over every interval."""

import tracemalloc

import numpy as np
import pytest
import torch

from cplxnet.musicnet.labels import N_NOTES, NoteLookup, note_changes


def by_loop(start, end, note_class, positions) -> np.ndarray:
    """The definition: note c sounds at p iff start <= p < end for one of its intervals."""
    sounding = np.zeros((len(positions), N_NOTES), np.float32)
    for s, e, c in zip(start, end, note_class, strict=True):
        for row, p in enumerate(positions):
            if s <= p < e:
                sounding[row, c] = 1
    return sounding


def lookup(start, end, note_class) -> NoteLookup:
    columns = (np.array(values, np.int64) for values in (start, end, note_class))
    return NoteLookup([note_changes(*columns)])


def sounding_at(table: NoteLookup, note_class: int, positions: list[int]) -> list[float]:
    return table(torch.tensor(positions))[:, note_class].tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_classes", [2, 84])
def test_random_intervals_against_a_loop(seed, n_classes):
    # 60 intervals on 100 samples: overlaps of one class, touching and empty ones are all common
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 100, 60)
    end = start + rng.integers(0, 25, 60)
    note_class = rng.choice([0, 41, 42, 83] if n_classes == 2 else np.arange(84), 60)
    positions = np.arange(-3, 130)
    table = lookup(start, end, note_class)
    expected = by_loop(start, end, note_class, positions)
    assert torch.equal(table(torch.from_numpy(positions)), torch.from_numpy(expected))


def test_instants_increase_and_every_one_changes_the_set():
    rng = np.random.default_rng(1)
    start = rng.integers(0, 300, 200)
    instants, words = note_changes(
        start, start + rng.integers(0, 20, 200), rng.integers(0, 84, 200)
    )
    assert (np.diff(instants) > 0).all()
    assert (np.diff(words, axis=0, prepend=0) != 0).any(axis=1).all()
    assert not words[-1].any()


def test_start_is_inclusive_and_end_exclusive():
    assert sounding_at(lookup([10], [20], [5]), 5, [9, 10, 19, 20]) == [0, 1, 1, 0]


def test_every_class_has_its_own_bit():
    classes = np.arange(N_NOTES)
    table = lookup(10 * classes, 10 * classes + 10, classes)
    assert torch.equal(table(torch.from_numpy(10 * classes + 3)), torch.eye(N_NOTES))


def test_all_classes_at_once():
    table = lookup([4] * N_NOTES, [8] * N_NOTES, range(N_NOTES))
    assert table(torch.tensor([3, 4, 7, 8])).sum(1).tolist() == [0, 84, 84, 0]


def test_same_pitch_twice_sounds_until_the_last_ends():
    # the inner one ends first; then two that start together and end apart
    assert sounding_at(lookup([0, 2], [10, 5], [7, 7]), 7, [4, 5, 9, 10]) == [1, 1, 1, 0]
    assert sounding_at(lookup([3, 3], [6, 9], [7, 7]), 7, [2, 3, 6, 8, 9]) == [0, 1, 1, 1, 0]


def test_touching_intervals_leave_no_gap_and_no_instant():
    start, end, note = np.array([0, 5]), np.array([5, 9]), np.array([7, 7])
    assert note_changes(start, end, note)[0].tolist() == [0, 9]
    assert sounding_at(lookup(start, end, note), 7, [4, 5, 8, 9]) == [1, 1, 1, 0]


def test_empty_intervals_and_no_intervals_sound_nowhere():
    assert lookup([5], [5], [7])(torch.arange(10)).sum() == 0
    assert lookup([], [], [])(torch.arange(10)).sum() == 0


def test_shape_and_dtype_follow_the_positions():
    notes = lookup([10], [20], [5])(torch.arange(24).reshape(2, 3, 4))
    assert notes.shape == (2, 3, 4, 84) and notes.dtype == torch.float32
    assert notes[..., 5].flatten().nonzero().flatten().tolist() == list(range(10, 20))


def test_several_recordings_end_to_end():
    # both change at flat position 10: the first one's note ends, the second one's begins
    first = note_changes(np.array([2]), np.array([10]), np.array([0]))
    instants, words = note_changes(np.array([0]), np.array([3]), np.array([83]))
    table = NoteLookup([first, (instants + 10, words)])
    notes = table(torch.arange(15))
    assert notes[:, 0].nonzero().flatten().tolist() == list(range(2, 10))
    assert notes[:, 83].nonzero().flatten().tolist() == [10, 11, 12]


def test_a_million_notes_fit_in_100_mb():
    # the labels of the whole of MusicNet, 330 recordings, every start and end an instant of its own
    rng = np.random.default_rng(0)
    n_recordings, n_notes = 330, 3334
    tracemalloc.start()
    changes = []
    for number in range(n_recordings):
        start = np.sort(rng.choice(4_000_000, n_notes, replace=False))
        end = start + rng.integers(500, 20_000, n_notes)
        instants, words = note_changes(start, end, rng.integers(0, 84, n_notes))
        changes.append((instants + number * 5_000_000, words))
    table = NoteLookup(changes)
    del changes
    resident, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        len(table.instants) > 1_900_000
    )  # of 2.2 million starts and ends; overlaps of one class drop some
    assert table.nbytes == 24 * len(table.instants) <= 100e6
    assert resident <= 100e6 and peak <= 200e6
