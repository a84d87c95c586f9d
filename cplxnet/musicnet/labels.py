"""Which notes sound at a sample: a table of the instants at which the set of notes changes.

A recording's labels become a step function of time. It is stored as its sorted change instants
(int64, samples) and, per instant, two int64 words of 42 bits: bit c % 42 of word c // 42 is set
while class c = MIDI note - 21 sounds. Finding the notes at any sample is one binary search and 84
shifts, on whatever device the tables live. A change takes 24 bytes, so the 1.1 million notes of
MusicNet take at most 53 MB.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .recordings import HIGHEST_NOTE, LOWEST_NOTE

N_NOTES = HIGHEST_NOTE - LOWEST_NOTE + 1  # 84 classes; class 0 is the lowest note
N_WORDS = 2
BITS = N_NOTES // N_WORDS  # 42 bits a word, far from the sign bit
_BEFORE_ALL = np.iinfo(np.int64).min  # instant of the empty set that every table starts with


def note_changes(
    start: np.ndarray, end: np.ndarray, note_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step function of sounding notes of the intervals `[start, end)` of class `note_class`.

    A class sounds where at least one of its intervals does: intervals of one class may overlap
    (they are counted) or touch (no change where they meet). Empty intervals are ignored.

    Args:
        start: int64 (notes,), samples.
        end: int64 (notes,), samples, exclusive.
        note_class: int64 (notes,), 0..83.

    Returns:
        instants: int64 (changes,), increasing, each with a set unlike the one before.
        words: int64 (changes, 2), the set from that instant on.
    """
    instant = np.concatenate([start, end])
    note = np.concatenate([note_class, note_class])
    step = np.repeat(np.array([1, -1]), len(start))
    order = np.lexsort((instant, note))
    instant, note, step = (values[order] for values in (instant, note, step))

    # the last event of each (class, instant): counts in between at one instant were never heard
    last = np.append((instant[1:] != instant[:-1]) | (note[1:] != note[:-1]), True)[: len(instant)]
    # a class ends at count 0, so one running count over all of them starts every class at 0
    sounding = (np.cumsum(step)[last] > 0).astype(np.int64)
    instant = instant[last]
    note = note[last]
    step = np.diff(sounding, prepend=0)

    changed = np.flatnonzero(step)  # where a class begins (+1) or ceases (-1) to sound
    order = changed[np.argsort(instant[changed], kind="stable")]
    instant, note, step = (values[order] for values in (instant, note, step))

    # each class alternates +1, -1, so the running sum of step * 2**bit is the bit set, exactly
    last = np.append(instant[1:] != instant[:-1], True)[: len(instant)]  # of each instant
    bit = step << (note % BITS)
    sums = [np.cumsum(np.where(note // BITS == word, bit, 0)) for word in range(N_WORDS)]
    return instant[last], np.stack([total[last] for total in sums], axis=1)


def changes_within(labels: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """`note_changes` of a recording's labels (`recordings.LABELS`), cut off at its end."""
    start = np.minimum(labels["start_time"], length)
    end = np.minimum(labels["end_time"], length)
    return note_changes(start, end, labels["note"] - LOWEST_NOTE)


class NoteLookup:
    """Sounding notes by position, over the changes of recordings laid end to end.

    Args:
        changes: for each recording in turn, `(instants, words)` as `note_changes` gives them. The
            instants are shifted by the recording's offset, none is past its end, and they do not
            decrease over the whole.
        device: where the tables live and `__call__` computes.
    """

    def __init__(
        self, changes: Sequence[tuple[np.ndarray, np.ndarray]], device: torch.device | str = "cpu"
    ) -> None:
        instants = np.concatenate([np.array([_BEFORE_ALL]), *(instants for instants, _ in changes)])
        words = np.concatenate([np.zeros((1, N_WORDS), np.int64), *(words for _, words in changes)])
        self.instants = torch.from_numpy(instants).to(device)
        self.words = torch.from_numpy(words).to(device)
        self._bits = torch.arange(BITS, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes that the tables hold."""
        return self.instants.nbytes + self.words.nbytes

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """The notes sounding at `positions`, without a host sync: int64 (...) -> float32 (..., 84).

        Each is 0 or 1.
        """
        # right: at the very instant of a change the new set holds; starts are inclusive, ends not
        last = torch.searchsorted(self.instants, positions, right=True) - 1
        words = self.words[last].unsqueeze(-1)  # (..., 2, 1)
        return ((words >> self._bits) & 1).flatten(-2).to(torch.float32)
