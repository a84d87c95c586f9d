"""Differences at equal compression of tables whose answer is known; intervals against scipy's."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cplxnet.auto.manifest import experiments
from cplxnet.auto.report import compare, profile

TIMES = (4.0, 20.0, 100.0, 300.0)


def table(gaps: dict[int, float], shift: float = 1.0) -> pd.DataFrame:
    """Score 0.9 - 0.05 ln(compression) for A; less by the seed's gap for B, at `shift` times."""
    rows = []
    for method, times, gap in [("A", 1.0, dict.fromkeys(gaps, 0.0)), ("B", shift, gaps)]:
        for seed in gaps:
            for x in np.array(TIMES) * times:
                score = 0.9 - 0.05 * np.log(x) - gap[seed]
                own = {
                    "run": f"{method}{x}{seed}",
                    "folder": "f",
                    "method": method,
                    "seed": seed,
                    experiments.C: x,
                }
                more = {
                    "stage": "fine-tune",
                    "scorer": "test",
                    "compression": x,
                    "average_precision": score,
                }
                rows.append(own | more)
    return pd.DataFrame(rows)


def test_the_difference_at_equal_compression_is_found_where_both_have_runs() -> None:
    gaps = {0: 0.01, 1: 0.02, 2: 0.03}
    found = compare.rows(
        table(gaps, shift=1.7)
    )  # linear in ln(compression): interpolation is exact
    np.testing.assert_allclose(found["difference"], 0.02, atol=1e-12)
    assert found["compression"].min() == pytest.approx(4 * 1.7) and found[
        "compression"
    ].max() == pytest.approx(300)
    assert (
        (found["n"] == 3).all()
        and (found["low"] >= 0.01 - 1e-12).all()
        and (found["high"] <= 0.03 + 1e-12).all()
    )
    said = compare.sentences(table(gaps, shift=1.7), found)
    assert said[0].startswith(
        "A against B, from 6.8 to 300 times fewer, 3 pairs: better by 0.0200 on average, 95"
    )
    assert any(text.startswith("A is better from 6.8 to 300 times") for text in said)


def test_one_pair_has_no_interval_and_methods_far_apart_nothing_to_say() -> None:
    one = table({0: -0.01})
    found = compare.rows(one)
    assert found["low"].isna().all()
    assert compare.sentences(one, found)[0].startswith(
        "B against A"
    ) and "may be chance" in "".join(compare.sentences(one, found))
    apart = table({0: 0.01}, shift=1000.0)
    assert compare.rows(apart).empty
    assert "share no range of compression" in compare.sentences(apart, compare.rows(apart))[0]
    with pytest.raises(ValueError, match="expected runs of two methods"):
        compare.rows(one[one["method"] == "A"])


def test_interval_is_students_t() -> None:
    values = np.array([0.8, 0.82, 0.9])
    mean, low, high = profile.interval(pd.Series(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(profile.interval(pd.Series([0.8]))[1])
