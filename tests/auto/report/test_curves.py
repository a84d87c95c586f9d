"""Precision, recall and the course of training: lines are where their tables say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scored_runs import fill, stage
from small import small

from cplxnet.auto.manifest import grid
from cplxnet.auto.report import curves


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
