"""The trade-off's figure and its front: points, lines and bands are where the table says."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from scored_runs import TUNED

from cplxnet.auto import experiments
from cplxnet.auto.report import trade_off


def points(axes: matplotlib.axes.Axes, *, filled: bool) -> set[tuple[float, float]]:
    white = to_rgba("white")
    lines = [
        line for line in axes.get_lines() if line.get_marker() == "o" and len(line.get_xdata()) == 1
    ]
    chosen = [line for line in lines if (to_rgba(line.get_markerfacecolor()) != white) == filled]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in chosen}


def test_trade_off_shows_every_run_before_and_after(table: pd.DataFrame) -> None:
    axes = trade_off.draw(trade_off.rows(table)).axes[0]
    assert points(axes, filled=False) == {
        (compression, before) for compression, before, _ in TUNED.values()
    }
    assert points(axes, filled=True) == {
        (compression, after) for compression, _, after in TUNED.values()
    }
    assert axes.get_xscale() == "log"
    # each C once, over the higher of its two replicates
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "0.01": (12.0, 0.93),
        "0.1": (100.0, 0.84),
    }
    assert len(axes.texts) == 2
    assert "compression" in axes.get_xlabel() and "average precision" in axes.get_ylabel()


def test_trade_off_shows_dense_as_a_band(table: pd.DataFrame) -> None:
    axes = trade_off.draw(trade_off.rows(table)).axes[0]
    (band,) = axes.patches
    # no wider than the replicates are apart
    assert band.get_y() == pytest.approx(0.90, abs=1e-12)
    assert band.get_height() == pytest.approx(0.02, abs=1e-12)
    assert axes.get_lines()[0].get_ydata()[0] == pytest.approx(0.91)
    assert "0.900 to 0.920" in axes.get_legend().get_texts()[0].get_text()


def test_the_pareto_front_is_of_means_over_replicates(table: pd.DataFrame) -> None:
    # C = 0.05: the best and the smallest single runs are its, its means are beaten by C = 0.1
    more = table.assign(run=table["run"].str.replace("0.01", "0.05"))
    more[experiments.C] = more[experiments.C].replace(0.01, 0.05)
    more["setting"] = more["setting"].replace("C = 0.01", "C = 0.05")
    more = more[more["run"].str.startswith("c0.05")]
    tuned = more["stage"] == "fine-tune"
    more.loc[tuned, "compression"] = [10.0, 200.0]
    more.loc[tuned, "average_precision"] = [0.94, 0.60]
    runs = trade_off.rows(pd.concat([table, more]))

    means = trade_off.front(runs)
    assert list(means.index) == [("VD", "C = 0.01"), ("VD", "C = 0.1")] and (means["n"] == 2).all()
    np.testing.assert_allclose(means["compression"], [11, 125])
    np.testing.assert_allclose(means["after"], [0.92, 0.82])
    assert set(runs.loc[runs["pareto"], experiments.C]) == {0.01, 0.1}


def test_no_front_joins_methods_of_one_setting(table: pd.DataFrame) -> None:
    """It ran from a network that hears phases down to one at chance."""
    one = table[table["setting"] == "C = 0.1"]
    other = one.assign(method="ARD", average_precision=0.5, compression=300.0, folder="ard")
    rows = trade_off.rows(pd.concat([one, other]))
    assert len(trade_off.front(rows)) == 2
    for runs, is_drawn in ((rows, False), (trade_off.rows(table), True)):
        axes = trade_off.draw(runs).axes[0]
        assert ("Pareto front of means" in axes.get_legend_handles_labels()[1]) == is_drawn


def test_scores_far_below_all_others_are_counted_not_drawn(table: pd.DataFrame) -> None:
    """A pruner leaves next to nothing before fine-tuning; what it reaches after is to be seen."""
    runs = trade_off.rows(table)
    runs["before"] = [0.05, 0.86, 0.07, 0.74]
    drawn = trade_off.draw(runs)
    (axes,) = drawn.axes
    assert 0.4 < axes.get_ylim()[0] < 0.74 and 0.93 < axes.get_ylim()[1] < 1
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert "before fine-tuning (number: C), 2 more below, 0.050 to 0.070" in labels


def test_many_methods_are_lines_through_their_means_told_apart_near_one(
    table: pd.DataFrame,
) -> None:
    """Numbers of eight methods covered each other; one collapsed network hid all differences."""
    named = ["ARD", "L0", "VD", "gradual", "one-shot", "random"]
    many = pd.concat([table.assign(method=f"complex {m}", run=m + table["run"]) for m in named])
    runs = trade_off.rows(many)
    runs["after"] = np.where(runs["method"] == "complex random", 0.05, runs["after"])
    axes = trade_off.draw(runs).axes[0]
    assert not axes.texts and np.isnan([y for _, y in points(axes, filled=False)]).all()

    # C = 0.01 at 11 times and 0.92, C = 0.1 at 125 times and 0.82
    lines = [line.get_xydata() for line in axes.get_lines() if line.get_marker() == "None"]
    through = [
        line for line in lines if line.shape == (2, 2) and np.allclose(line[:, 0], [11, 125])
    ]
    # and no Pareto front, which would be that line once more, below the others
    assert sum(np.allclose(line[:, 1], [0.92, 0.82]) for line in through) == 5
    assert sum(np.allclose(line[:, 1], 0.05) for line in through) == 1

    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "dense, mean 0.910" in labels and "Pareto front of means" not in labels
    # as far from 0.5 to 0.9 as from 0.9 to 0.98: a fifth of what misses
    heights = axes.transData.transform([(1, 0.5), (1, 0.9), (1, 0.98)])[:, 1]
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0])
    assert axes.get_ylim()[0] < 0.05 and 0.93 < axes.get_ylim()[1] < 1


def test_a_folder_without_scores_says_what_to_try(table: pd.DataFrame) -> None:
    with pytest.raises(
        ValueError, match=r"expected runs scored by 'valid', got none .scorers: test.; try .*status"
    ):
        trade_off.rows(table, scorer="valid")
    with pytest.raises(ValueError, match="got none"):
        trade_off.rows(table[:0])
