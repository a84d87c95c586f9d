"""Early stopping on score sequences, against the definition in extra/design.md."""

import math
import random

import pytest
from torch import nn

from cplxnet.auto.manifest.schema import Early
from cplxnet.auto.train.early_stopping import EarlyStopping


def stopping(scores, **options):
    """Early stopping of a network that scores `scores`, in this order."""
    values = iter(scores)
    spec = Early(scorer="validation", **options)
    return EarlyStopping(spec, nn.Identity(), lambda scorer: next(values))


def stops_at(scores, **options):
    """Index of the score at which training stops, None if it never does."""
    early = stopping(scores, **options)
    for k in range(len(scores)):
        early.score()
        if early.stopped:
            return k
    return None


def by_definition(scores, patience, rtol, atol):
    """Score k stops if it is below best - max(rtol |best|, atol), or if scores k-patience+1..k
    brought no new best.
    """
    for k in range(1, len(scores)):
        best = max(scores[:k])
        if scores[k] < best - max(rtol * abs(best), atol):
            return k
        last = scores[k - patience + 1 : k + 1]
        before = scores[: k - patience + 1]
        if before and len(last) == patience and max(last) <= max(before):
            return k
    return None


def test_a_fall_of_more_than_the_absolute_tolerance():
    assert stops_at([0.50, 0.52, 0.51, 0.5001]) is None
    assert stops_at([0.50, 0.52, 0.51, 0.4999]) == 3
    assert stops_at([0.50, 0.60, 0.50]) == 2


def test_a_fall_of_exactly_the_tolerance_goes_on():
    assert stops_at([0.75, 0.5], atol=0.25) is None
    assert stops_at([0.75, math.nextafter(0.5, 0)], atol=0.25) == 1


def test_the_larger_of_the_two_tolerances_counts():
    assert stops_at([0.8, 0.65], rtol=0.25, atol=0.02) is None  # 0.2 allowed
    assert stops_at([0.8, 0.59], rtol=0.25, atol=0.02) == 1
    assert stops_at([0.01, 0.0], rtol=0.25, atol=0.02) is None  # 0.02 allowed
    assert stops_at([-1.0, -1.2], rtol=0.25, atol=0.0) is None  # of the best's modulus
    assert stops_at([-1.0, -1.3], rtol=0.25, atol=0.0) == 1


def test_the_twentieth_in_a_row_without_a_new_best():
    assert stops_at([0.5] * 20) is None  # the first is a best, 19 follow
    assert stops_at([0.5] * 21) == 20
    assert stops_at([0.5] * 20 + [0.51] + [0.51] * 19) is None
    assert stops_at([0.5] * 20 + [0.51] + [0.505] * 20) == 40


def test_patience_of_one_stops_at_the_first_that_is_no_best():
    assert stops_at([0.1, 0.2, 0.3, 0.3], patience=1) == 3


def test_a_slow_decline_is_measured_from_the_best_not_from_the_last():
    assert stops_at([0.50, 0.495, 0.49, 0.485, 0.4801, 0.4799]) == 5


def test_random_sequences_against_the_definition():
    rng, stopped = random.Random(0), 0
    for _ in range(500):
        scores = [round(rng.gauss(0.5, 0.02) + 0.004 * k, 3) for k in range(30)]
        options = {
            "patience": rng.randint(1, 8),
            "rtol": rng.choice([0.0, 0.1]),
            "atol": rng.choice([0.0, 0.02, 0.05]),
        }
        assert stops_at(scores, **options) == by_definition(scores, **options)
        stopped += stops_at(scores, **options) is not None
    assert 100 < stopped < 500  # both outcomes were seen


@pytest.mark.parametrize("cooldown", [0, 1, 3])
def test_cooldown_epochs_are_skipped_between_two_scorings(cooldown):
    early = stopping([0.1 * epoch for epoch in range(20)], cooldown=cooldown)
    scored = [epoch for epoch in range(20) if early.score() is not None]
    assert scored == list(range(0, 20, cooldown + 1))


def test_cooldown_counts_scores_not_epochs_towards_patience():
    early = stopping([0.5] * 10, patience=3, cooldown=1)
    ended = next(epoch for epoch in range(100) if early.score() and early.stopped)
    assert ended == 6  # scored at 0, 2, 4, 6; the last three brought no best


def test_nan_is_an_error_and_changes_nothing():
    early = stopping([0.5, math.nan])
    early.score()
    with pytest.raises(ValueError, match="expected a score, got NaN"):
        early.score()
    assert (early.best, early.last, early.n_without_best) == (0.5, 0.5, 0)


def test_without_a_rule_nothing_is_scored():
    early = EarlyStopping(None, nn.Identity(), lambda scorer: 1 / 0)
    assert early.score() is None and not early.stopped and early.restore_best() is False
    assert early.state() == {"early": None, "best": None}


def test_what_was_seen_goes_on_in_another():
    first = stopping([0.5, 0.6, 0.59], patience=3)
    for _ in range(3):
        first.score()
    second = stopping([0.58, 0.58], patience=3)
    second.load(first.state())
    second.score()
    assert not second.stopped
    second.score()
    assert second.stopped and second.reason() == "stopped early: AP 0.580 after 0.600"
