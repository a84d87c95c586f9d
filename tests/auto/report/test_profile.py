"""Figures over C and over layers show the numbers of their tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scored_runs import fill, stage
from small import small

from cplxnet.auto import experiments, report
from cplxnet.auto.manifest import grid
from cplxnet.auto.report import profile, style, trade_off


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
