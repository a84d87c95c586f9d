"""What all figures look like: dense networks, colours, legends and names."""

import pandas as pd
import pytest

from cplxnet.auto.report import profile, style, trade_off


def test_dense_scores_have_one_precision_in_a_legend(table: pd.DataFrame) -> None:
    """The band was from 0.98670 to 0.98690 and its mean 0.987."""
    close = table.replace({0.90: 0.98670, 0.92: 0.98690})
    other = table[table["run"] == "c0.01-r0"].assign(method="ARD", run="ard")
    axes = trade_off.draw(trade_off.rows(pd.concat([close, other]))).axes[0]
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert [label for label in labels if label.startswith("dense")] == [
        "dense VD, 0.98670 to 0.98690 (2 replicates)",
        "dense VD, mean 0.98680",
        "dense ARD, 0.90000",
    ]


def test_one_dense_network_is_a_line_without_a_band(table: pd.DataFrame) -> None:
    axes = trade_off.draw(trade_off.rows(table[table["seed"] == 0])).axes[0]
    assert len(axes.patches) == 0 and axes.get_lines()[0].get_ydata()[0] == 0.90
    assert axes.get_legend().get_texts()[0].get_text() == "dense, 0.900"


def test_methods_that_begin_from_the_same_networks_have_one_band(table: pd.DataFrame) -> None:
    first = table[
        table["run"] == "c0.01-r0"
    ]  # of a second method, so far with one of the two dense networks
    both = trade_off.rows(pd.concat([table, first.assign(method="ARD", run="ard")]))
    (band,) = trade_off.draw(both).axes[0].patches
    assert band.get_y() == pytest.approx(0.90, abs=2e-3)
    both.loc[both["method"] == "ARD", "dense"] = 0.7  # a network of its own: a line of its own
    axes = trade_off.draw(both).axes[0]
    assert len(axes.patches) == 1
    assert {line.get_label() for line in axes.get_lines()} >= {
        "dense ARD, 0.700",
        "dense VD, mean 0.910",
    }


def test_many_methods_and_settings_look_unlike_each_other() -> None:
    methods = pd.DataFrame({"method": [f"method {k}" for k in range(20)]})
    assert len(set(style.looks(methods).values())) == 20

    named = ["C = 0.01", "C = 0.1", "C = 0", "sparsity = 0.9", "sparsity = 0.998", ""]
    colour_of = style.colours(pd.DataFrame({"setting": named}))
    assert len(colour_of) == 6
    assert all(alpha == 1 for *_, alpha in colour_of.values())
    # each kind from its least to its greatest, in the same colours
    assert colour_of["C = 0.01"] == pytest.approx(colour_of["sparsity = 0.9"], abs=0.02)
    assert colour_of["C = 0.1"] != colour_of["C = 0.01"]


def test_long_legends_take_no_room_from_the_axes_and_stay_on_the_paper(table: pd.DataFrame) -> None:
    """As of a grid of many methods: the axes were 1 inch high, their label cut off."""
    named = [f"complex VD fine-tune lr=0.00{k} distill temperature=2" for k in range(9)]
    many = pd.concat([table.assign(method=name, run=name + table["run"]) for name in named])
    for drawn in (
        trade_off.draw(trade_off.rows(many)),
        profile.draw(profile.rows(many), dense=trade_off.rows(many)),
    ):
        drawn.canvas.draw()
        for axes in drawn.axes[:2]:
            assert axes.get_window_extent().height > 2.2 * drawn.dpi
            assert axes.yaxis.label.get_window_extent().height < axes.get_window_extent().height
        (key,) = drawn.legends
        extent = key.get_window_extent()
        assert extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= drawn.bbox.x1
        assert extent.y1 < drawn.axes[-1].get_window_extent().y0


def test_names_with_dollars_are_drawn_as_they_are(table: pd.DataFrame) -> None:
    """matplotlib took what is between two of them for a formula, and failed where it was none."""
    drawn = trade_off.draw(trade_off.rows(table.replace({"method": {"VD": r"$\frac$ VD"}})))
    profile.draw(profile.rows(table.replace({"method": {"VD": r"$\frac$ VD"}}))).canvas.draw()
    drawn.canvas.draw()
