"""Figures show the numbers of their tables: points, lines and bands are where the table says."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from small import small
from test_tables import fill, stage

from cplxnet.auto import experiments, report
from cplxnet.auto.manifest import grid
from cplxnet.auto.report import curves, profile, style, trade_off

matplotlib.use("Agg")

DENSE = {0: 0.90, 1: 0.92}
TUNED = {  # (C, replicate) -> compression, before, after
    (0.01, 0): (10.0, 0.88, 0.91),
    (0.01, 1): (12.0, 0.86, 0.93),
    (0.1, 0): (150.0, 0.70, 0.80),
    (0.1, 1): (100.0, 0.74, 0.84),
}


@pytest.fixture
def table() -> pd.DataFrame:
    rows = []
    for (c, seed), (compression, before, after) in TUNED.items():
        about = {
            "folder": "runs",
            "run": f"c{c}-r{seed}",
            "method": "VD",
            experiments.C: c,
            "setting": f"C = {c:g}",
            "scored_on": ("test.h5", 4096, 128),
            "seed": seed,
            "state": "done",
            "scorer": "test",
            "positive_share": 0.03,
            "n_par": 1000,
            "n_zero": 0,
        }
        score = {
            "average_precision": DENSE[seed],
            "average_precision_start": None,
            "compression": 1.0,
        }
        rows.append({**about, "stage": "dense", **score})
        score = {
            "average_precision": after,
            "average_precision_start": before,
            "compression": compression,
        }
        rows.append({**about, "stage": "fine-tune", **score})
    return pd.DataFrame(rows)


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


def test_dense_has_the_colour_of_the_method_that_began_from_it(table: pd.DataFrame) -> None:
    """A method without a C, which this figure does not draw, shifted the colours of dense."""
    pruned = table.assign(method="gradual", setting="sparsity = 0.9", folder="pruned")
    pruned[experiments.C] = None
    other = table.assign(method="real VD", folder="real")
    other.loc[other["stage"] == "dense", "average_precision"] = 0.5
    everything = pd.concat([pruned, table, other])
    upper = profile.draw(profile.rows(everything), dense=trade_off.rows(everything)).axes[0]
    colour = {line.get_label(): line.get_color() for line in upper.get_lines()}
    assert colour["dense VD, mean 0.910"] == colour["VD after fine-tuning"]
    assert colour["dense real VD, mean 0.500"] == colour["real VD after fine-tuning"]
    assert not any("gradual" in label for label in colour)


def test_a_c_of_zero_is_in_the_table_and_said_to_be_on_no_axis(tmp_path: Path) -> None:
    """It was left out of the figure in silence; of zeros alone matplotlib could draw none."""
    grid.write(tmp_path, {"c0": small({experiments.C: 0.0})})
    stages = {"dense": stage(0.4), "fine-tune": stage(0.3, start=0.2, n_zero=50)}
    fill(tmp_path, "c0", grid.read(tmp_path)["c0"], stages)
    made = report.make("c-profile", tmp_path, out=tmp_path / "out")
    assert made.figure is None and made.rows[experiments.C].tolist() == [0.0]
    assert "C = 0 has no place on an axis of logarithms: it is in the CSV alone." in made.sentences


def test_no_network_with_numbers_left_is_all_zeros(table: pd.DataFrame) -> None:
    tuned = table["stage"] == "fine-tune"
    table.loc[tuned, "compression"] = [2.0, 2.0, 5000.0, 5000.0]
    drawn = profile.draw(profile.rows(table))
    drawn.canvas.draw()
    (right,) = drawn.axes[1].child_axes
    percents = [right.yaxis.get_major_formatter()(times, None) for times in (2, 100, 450, 1e3, 5e3)]
    assert percents == ["50", "99", "99.78", "99.9", "99.98"]


def test_against_parameter_shows_means(table: pd.DataFrame) -> None:
    upper, lower = profile.draw(profile.rows(table)).axes
    lines = {line.get_label(): line for line in upper.get_lines()}
    np.testing.assert_allclose(lines["VD before fine-tuning"].get_ydata(), [0.87, 0.72])
    np.testing.assert_allclose(lines["VD after fine-tuning"].get_ydata(), [0.92, 0.82])
    np.testing.assert_allclose(lower.get_lines()[0].get_ydata(), [120**0.5, 15000**0.5])
    np.testing.assert_allclose(lower.get_lines()[0].get_xdata(), [0.01, 0.1])


def test_sparsity_by_layer_averages_replicates() -> None:
    rows = [
        {
            "method": "VD",
            experiments.C: c,
            "setting": f"C = {c:g}",
            "stage": "sparsify",
            "layer": layer,
            "n_zero": zeros,
            "n_par": 100,
            "sparsity": zeros / 100,
        }
        for c, layer, zeros in [
            (0.1, "conv1", 10),
            (0.1, "conv1", 30),
            (0.1, "conv2", 0),
            (0.1, "fc1", 90),
            (0.1, "fc1", 94),
        ]
    ]
    (axes,) = profile.layer_figure(pd.DataFrame(rows)).axes
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == ["conv1", "conv2", "fc1"]
    np.testing.assert_allclose(line.get_ydata(), [20.0, 0.0, 92.0])


def test_layers_with_weights_to_lose_are_there_with_zeros_or_without(tmp_path: Path) -> None:
    manifest = small(model="complex.DeepConvNet", window=4096)
    grid.write(tmp_path, {"one": manifest})
    weighted = [*(f"conv{k}" for k in range(1, 7)), "fc1", "fc2"]
    counts = {name: {"n_par": 10, "n_zero": 9 * (name == "fc1")} for name in [*weighted, "norm1"]}
    fill(tmp_path, "one", manifest, {"sparsify": stage(0.3) | {"layers": counts}})
    made = profile.layers_report(style.Request([tmp_path], tmp_path))
    assert list(made.rows["layer"]) == weighted and made.rows["sparsity"].sum() == 0.9
    (said,) = made.sentences
    assert "in fc1 (90 percent" in said and "in conv1 (0 percent" in said


def test_pruned_networks_have_layers_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """They have a mask and no posterior: they were left out, and a grid of them alone crashed."""
    changes = {
        "stages.sparsify.model.name": "complex.TwoLayerDenseMasked",
        "stages.sparsify.objective": {"loss": 1.0},
        "stages.sparsify.pruner": {"name": "one-shot", "sparsity": 0.5},
    }
    manifest = small(changes)
    grid.write(tmp_path, {"one": manifest, "two": manifest})
    fill(tmp_path, "one", manifest, {"sparsify": stage(0.3, n_zero=50)})
    fill(tmp_path, "two", manifest, {"sparsify": stage(0.3) | {"layers": {}}})
    made = profile.layers_report(style.Request([tmp_path], tmp_path))
    assert made.rows["layer"].tolist() == ["fc1", "fc2"]
    assert made.rows["sparsity"].tolist() == [0.5, 0.5]
    assert "two is left out: expected counts of fc1, fc2" in capsys.readouterr().err


@pytest.mark.parametrize("change", [("file", "other.h5"), ("stride", 64)])
def test_scores_of_other_windows_share_no_figure(tmp_path: Path, change: tuple) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, changes in zip(
        folders, ({}, {f"datasets.test.{change[0]}": change[1]}), strict=True
    ):
        manifest = small(changes)
        grid.write(folder, {"run": manifest})
        stages = {"dense": stage(0.4), "fine-tune": stage(0.3, start=0.2, n_zero=50)}
        fill(folder, "run", manifest, stages)
    for kind in ("trade-off", "c-profile", "curves", "compare"):
        made = report.make(kind, folders, out=tmp_path, strict=False)
        assert made.figure is None and "which do not compare; try one" in made.sentences[0]
        assert str(change[1]) in made.sentences[0]
    # the course of training does compare
    assert report.make("stopping", folders, out=tmp_path).figure is not None


def test_a_class_that_is_never_reported_has_no_precision(tmp_path: Path) -> None:
    manifest = small()
    grid.write(tmp_path, {"one": manifest})
    older = {"ap": [0.5, 0.2, None], "precision": [0.8, 0.0, None], "recall": [0.4, 0.0, None]}
    newer = older | {"support": [7, 2, 0]}
    for notes, expected in ((older, np.nan), (newer, 0.0)):
        result = stage(0.3)
        result["scores"]["test"]["end"]["notes"] = notes
        fill(tmp_path, "one", manifest, {"dense": result})
        _, classes, task = curves.rows(tmp_path)
        assert task["name"] == "note" and classes["class"].tolist() == [21, 22]
        np.testing.assert_equal(classes["precision"].tolist(), [0.8, expected])


def test_of_many_settings_each_methods_greatest_is_drawn_and_all_are_kept() -> None:
    """33 labels in one panel had squeezed the others to a strip."""
    methods = {"VD": [f"C = {c}" for c in (0.1, 1, 3)], "pruned": [f"C = {c}" for c in range(10)]}
    methods["VD with a name that is longer than the panel for names"] = ["C = 0.2"]
    groups = [(method, setting) for method, settings in methods.items() for setting in settings]
    rows = [
        {"method": m, "setting": setting, "folder": "runs", "run": str(k), "stage": name}
        for k, (m, setting) in enumerate(groups)
        for name in ("dense", "fine-tune")
    ]
    pooled = pd.DataFrame([row | {"recall": r, "precision": 1 - r} for row in rows for r in (0, 1)])
    classes = pd.DataFrame(
        [
            row | {"class": note, "ap": 0.01 * k, "precision": 0.5, "recall": 0.5, "support": 3}
            for k, row in enumerate(rows)
            for note in (60, 61)
        ]
    )

    figure = curves.draw(pooled, classes)
    first, ap, *_ = figure.axes
    assert first.get_title() == "scored on test, greatest C or sparsity"
    greatest = {"VD C = 3", "pruned C = 9", f"{groups[-1][0]} C = 0.2"}
    assert {line.get_label() for line in first.get_lines()} == {"dense", *greatest}
    drawn = {line.get_label(): line.get_ydata()[0] for line in ap.get_lines()}
    numbers = {f"{m} {setting}": 0.01 * (2 * k + 1) for k, (m, setting) in enumerate(groups)}
    assert {name: drawn[name] for name in greatest} == pytest.approx(
        {name: numbers[name] for name in greatest}
    )

    figure.draw_without_rendering()
    assert all(axes.get_position().height > 0.25 for axes in figure.axes)
    assert len(figure.legends) == 1  # below: a name is too long for its panel

    few = curves.draw(pooled[pooled["method"] == "VD"], classes[classes["method"] == "VD"])
    assert few.axes[0].get_title() == "scored on test" and not few.legends
    assert len({line.get_label() for line in few.axes[0].get_lines()}) == 4


def test_learning_curves_reach_the_score_after_the_last_epoch() -> None:
    history = pd.DataFrame(
        {
            "stage": ["dense", "dense", "sparsify", "sparsify"],
            "loss": [0.3, 0.2, 0.1, 0.1],
            "kl": [None, None, 5e5, 4e5],
            "validation": [0.1, 0.5, 0.6, None],
            "validation_after": [None, 0.6, None, 0.55],
            "compression": [1.0, 1.0, 1.5, 20.0],
        }
    )
    _, validation, _, compression = curves.learning_curves(history).axes
    dense, sparsify = validation.get_lines()
    assert dense.get_xydata().tolist() == [[0, 0.1], [1, 0.5], [2, 0.6]]
    assert sparsify.get_xydata().tolist() == [[2, 0.6], [4, 0.55]]
    assert compression.get_lines()[1].get_xydata().tolist() == [[3, 1.5], [4, 20]]


def test_learning_curves_have_a_line_per_stage_and_no_kl_where_there_is_none() -> None:
    history = pd.DataFrame(
        {
            "stage": ["dense", "dense", "sparsify"],
            "loss": [0.3, 0.2, 0.1],
            "kl": [None, None, 5e5],
            "validation": [0.1, 0.5, None],
        }
    )
    loss, validation, kl = curves.learning_curves(history).axes
    assert [list(line.get_ydata()) for line in loss.get_lines()] == [[0.3, 0.2], [0.1]]
    assert list(validation.get_lines()[0].get_ydata()) == [0.1, 0.5]
    drawn = np.concatenate([line.get_ydata() for line in kl.get_lines()])
    assert list(drawn[np.isfinite(drawn)]) == [5e5]


def test_a_folder_without_scores_says_what_to_try(table: pd.DataFrame) -> None:
    with pytest.raises(
        ValueError, match=r"expected runs scored by 'valid', got none .scorers: test.; try .*status"
    ):
        trade_off.rows(table, scorer="valid")
    with pytest.raises(ValueError, match="got none"):
        trade_off.rows(table[:0])


def test_readings_say_what_the_table_says(table: pd.DataFrame) -> None:
    dense, low, high = report.readings(table)
    assert (
        dense
        == "Dense: average precision 0.910 on test (0.030 would be chance), 1,000 real numbers."
    )
    assert low == (
        "VD, C = 0.01: 11 times fewer real numbers, average precision 0.870 before and 0.920 after "
        "fine-tuning, 0.010 above dense."
    )
    assert high.startswith("VD, C = 0.1: 125 times fewer") and high.endswith("0.090 below dense.")
    assert report.readings(table[:0]) == []
