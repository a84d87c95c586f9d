"""How notes as written become notes as played."""

import numpy as np
import pytest
from demo_pieces import piece

from extra.corpora.demo import performance
from extra.corpora.demo.score import ScoreNote


def test_notes_outside_the_classes_are_dropped_and_counted_and_ends_clipped():
    written = [
        ScoreNote(float(k), 30.0, p, 0, 0, "Whole") for k, p in enumerate((20, 21, 104, 105, 108))
    ]
    played = performance.perform(written, [], piece=piece(), generator=np.random.default_rng(0))
    assert sorted(played.pitch.tolist()) == [21, 104] and played.dropped == 3
    assert played.end_s.max() == 5.0
    with pytest.raises(ValueError, match=r"id_1001.*expected notes in 21\.\.104, got none"):
        performance.perform(written[:1], [], piece=piece(), generator=np.random.default_rng(0))


def test_tempo_comes_from_the_score_where_it_has_one():
    written = [ScoreNote(float(k), 1.0, 60, 0, 0, "Quarter") for k in range(64)]
    for marks, bpm in (([], 126.0), ([(0.0, 240.0)], 240.0)):
        played = performance.perform(
            written, marks, piece=piece(seconds=60.0), generator=np.random.default_rng(1)
        )
        assert 60.0 * 63 / (played.start_s[-1] - played.start_s[0]) == pytest.approx(bpm, rel=0.07)
