"""Differences at equal compression of tables whose answer is known; intervals against scipy's."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cplxnet.auto.manifest import grid
from cplxnet.auto.report import compare, profile, style, text, trade_off

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
                    grid.C: x,
                    "setting": f"C = {x:g}",
                    "scored_on": ("test.h5", 4096, 128),
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
    gaps = {seed: 0.01 * (seed % 3 + 1) for seed in range(6)}
    # linear in ln(compression): interpolation is exact
    found = compare.rows(table(gaps, shift=1.7))
    np.testing.assert_allclose(found["difference"], 0.02, atol=1e-12)
    assert found["compression"].min() == pytest.approx(4 * 1.7)
    assert found["compression"].max() == pytest.approx(300)
    assert (found["n"] == 6).all()
    assert (found["low"] > 0.01).all() and (found["high"] < 0.03).all()
    (said,) = compare.sentences(table(gaps, shift=1.7), found)
    assert said.startswith(
        "A against B, from 6.8 to 300 times fewer, 6 pairs: better by 0.0200 on average, 95 "
        "percent interval 0.01"
    )


def test_an_interval_around_nothing_calls_no_method_better() -> None:
    unclear = table({seed: 0.02 * (-1) ** seed + 0.001 for seed in range(6)})
    (said,) = compare.sentences(unclear, compare.rows(unclear))
    assert "better" not in said and said.endswith("which does not tell them apart.")


@pytest.mark.parametrize("n", range(1, 6))
def test_fewer_than_six_pairs_have_a_range_and_no_verdict(n) -> None:
    few = table({seed: 0.01 * (seed + 1) for seed in range(n)})
    found = compare.rows(few)
    assert found[["low", "high", "overall_low", "overall_high"]].isna().all(axis=None)
    np.testing.assert_allclose(found["least"], 0.01, atol=1e-12)
    np.testing.assert_allclose(found["greatest"], 0.01 * n, atol=1e-12)
    (said,) = compare.sentences(few, found)
    assert f"{0.005 * (n + 1):+.4f} on average" in said and "interval 0" not in said
    assert "Fewer than 6 pairs tell neither an interval nor which is better." in said


def test_of_many_methods_the_differences_from_the_one_that_spans_most_are_drawn() -> None:
    """Ten pairs of five methods were ten lines, and one that is far off hid the others."""
    ranges = {  # of times fewer
        "A": (0.00, 4, 100),
        "B": (0.01, 20, 300),
        "C": (0.02, 4, 100),
        "D": (-0.03, 4, 300),
        "E": (0.50, 4, 100),
    }
    tables = []
    for name, (gap, low, high) in ranges.items():
        own = table({0: gap, 1: gap})
        own = own[(own["method"] == "B") & own["compression"].between(low, high)]
        tables.append(own.assign(method=name))
    differences = compare.rows(pd.concat(tables))
    assert len(differences.drop_duplicates(["first", "second"])) == 10

    axes = compare.draw(differences).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()[:-1]}
    drawn = {label: line.get_ydata()[0] for label, line in lines.items()}
    assert drawn == pytest.approx(
        {
            "A - D (2 pairs)": -0.03,
            "B - D (2 pairs)": -0.04,
            "C - D (2 pairs)": -0.05,
            "E - D (2 pairs)": -0.53,
        }
    )
    assert axes.get_yscale() == "symlog"
    looks = style.looks(pd.DataFrame({"method": ["A", "B", "C", "D", "E"]}))
    assert [line.get_color() for line in lines.values()] == [looks[m][0] for m in "ABCE"]


def test_methods_far_apart_have_nothing_to_say() -> None:
    apart = table({0: 0.01}, shift=1000.0)
    assert compare.rows(apart).empty
    assert "share no range of compression" in compare.sentences(apart, compare.rows(apart))[0]
    with pytest.raises(ValueError, match="expected runs of two methods"):
        compare.rows(apart[apart["method"] == "A"])


def test_scores_on_different_recordings_are_not_compared() -> None:
    both = table({0: 0.01})
    files = both["method"].map({"A": ("a.h5", 4096, 128), "B": ("b.h5", 4096, 128)})
    for rows in (compare.rows, trade_off.rows, profile.rows):
        with pytest.raises(ValueError, match=r"of the same windows, got others .*a\.h5.*b\.h5"):
            rows(both.assign(scored_on=files))


def test_interval_is_students_t() -> None:
    values = np.array([0.8, 0.82, 0.9])
    mean, low, high = profile.interval(pd.Series(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(profile.interval(pd.Series([0.8]))[1])


def test_who_wins_where_and_how_sure() -> None:
    gaps = {0: 0.01, 1: 0.03}
    ranks = compare.ranking(table(gaps), times=(2.0, 20.0, 100.0))
    assert list(ranks["times"]) == [20, 20, 100, 100]  # at 2 times there are no runs
    assert list(ranks["method"]) == ["A", "B", "A", "B"]
    best, second = ranks.iloc[2], ranks.iloc[3]
    assert best["score"] == pytest.approx(0.9 - 0.05 * np.log(100))
    assert second[["difference", "least", "greatest"]].tolist() == pytest.approx(
        [-0.02, -0.03, -0.01]
    )
    assert second["verdict"] == compare.ABOVE and np.isnan(second["low"]) and second["n"] == 2
    said = compare.winners(ranks)
    assert said[1] == (
        "At 100 times fewer A has the highest mean; in every pair above B (+0.0200, 2 pairs)."
    )

    # one pair of three goes the other way: a mean above, and no verdict
    unclear = compare.ranking(table({0: 0.02, 1: -0.01, 2: 0.02}), times=(100.0,))
    assert unclear["verdict"].tolist() == ["", compare.NOT_APART]
    assert "not told apart from B (+0.0100, 3 pairs)" in compare.winners(unclear)[0]

    # a single pair says which is above there, and not more
    single = compare.ranking(table({0: 0.02}), times=(100.0,))
    assert single["verdict"].tolist() == ["", compare.ONE]
    assert "in the one pair above B (+0.0200, 1 pair)" in compare.winners(single)[0]

    # from six pairs on the interval decides, although one pair goes the other way
    many = compare.ranking(table({k: 0.02 - 0.021 * (k == 0) for k in range(9)}), times=(100.0,))
    assert many.iloc[1]["greatest"] > 0 > many.iloc[1]["high"]
    assert many.iloc[1]["verdict"] == compare.BETTER


def test_no_rank_is_read_between_runs_that_are_far_apart() -> None:
    """L0 at 33 and 213 times was ranked at 50 and 100; what fell to 0.46 at 49 was ranked at 20."""
    scores = {
        "VD": {10: 0.98, 38: 0.98, 152: 0.97, 400: 0.95},
        "L0": {33: 0.98, 213: 0.96},
        "ARD": {10: 0.97, 49: 0.46},
    }
    own = table({0: 0.0}).iloc[0]
    runs = pd.DataFrame(
        [
            own.to_dict() | {"method": method, "compression": times, "average_precision": score}
            for method, by_times in scores.items()
            for times, score in by_times.items()
        ]
    )
    ranks = compare.ranking(runs, times=(10, 20, 50, 100, 152, 200, 213))
    # at 10 and 213 one of the two has a run; 38 and 152 are 4 times apart, near enough
    assert ranks.groupby("times")["method"].agg(list).to_dict() == {
        10: ["VD", "ARD"],
        213: ["VD", "L0"],
    }
    beside = compare.ranking(pd.concat([runs, runs[runs["method"] == "VD"].assign(method="twin")]))
    assert beside["times"].unique().tolist() == [20, 50, 100, 200, 400]
    assert set(beside["method"]) == {"VD", "twin"}


def test_methods_without_a_seed_in_common_are_ranked_by_their_means() -> None:
    """Without a pair there were no numbers to show: the page ended in a KeyError."""
    both = table({0: 0.01, 1: 0.01})
    apart = both[both["seed"] == both["method"].map({"A": 0, "B": 1})]
    ranks = compare.ranking(apart, times=(100.0,))
    assert ranks["n"].tolist() == [1, 0] and ranks["verdict"].tolist() == ["", compare.UNPAIRED]
    assert compare.winners(ranks) == [
        "At 100 times fewer A has the highest mean; without a pair with B (mean 0.6597)."
    ]
    *_, second = text.ranking_table(ranks)
    assert second == "| 100 | B | 0.6597 | none | none | 0 |"


def test_a_seed_with_one_run_so_far_hides_no_pair() -> None:
    gaps = {0: 0.01, 1: 0.03}
    begun = table(gaps)
    begun = begun[(begun["seed"] == 0) | (begun["compression"] == 20) | (begun["method"] == "A")]
    found = compare.rows(begun)
    assert (found["n"] == 1).all() and found["difference"].tolist() == pytest.approx([0.01] * 25)
    assert found["compression"].min() == 4 and found["compression"].max() == pytest.approx(300)


def test_a_score_that_is_no_number_takes_no_part() -> None:
    lacking = table({0: 0.01, 1: 0.01})
    lacking = lacking.astype({"average_precision": object})
    lacking.loc[(lacking["seed"] == 1) & (lacking["compression"] == 20), "average_precision"] = None
    found = compare.rows(lacking)
    assert found["difference"].tolist() == pytest.approx([0.01] * 25)


def test_tables_of_nothing_are_read_by_pandas(tmp_path: Path) -> None:
    far = table({0: 0.01}, shift=1000.0)
    for name, rows in {"pairs": compare.rows(far), "ranks": compare.ranking(far)}.items():
        (path,) = style.write(tmp_path / name, None, rows)
        assert len(rows) == 0 and list(pd.read_csv(path).columns) == list(rows.columns)
    full = table({0: 0.01})
    assert list(compare.rows(full).columns) == list(compare.rows(far).columns)
    assert list(compare.ranking(full).columns) == list(compare.ranking(far).columns)
