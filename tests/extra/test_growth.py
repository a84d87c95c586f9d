"""The chart of how cost grows shows what was measured."""

import numpy as np
import pytest


def test_every_quantity_has_a_line_of_its_milliseconds():
    """It asked `style` for a function that was gone, so that nothing measured was drawn."""
    pytest.importorskip("ncls")  # of extra/benchmarks/requirements.txt
    from extra.benchmarks import growth

    seconds = {"dense step": [0.001, 0.004], "VD step": [0.002, 0.004]}
    measured = [growth.Growth(name, (8, 32), seconds) for name in ("a", "b", "c", "d")]
    assert measured[0].slope("VD step") == pytest.approx(0.5)
    panels = growth.chart(measured).axes
    assert [axes.get_xlabel() for axes in panels] == ["a", "b", "c", "d"]
    dense, vd = panels[0].get_lines()
    np.testing.assert_allclose(dense.get_xydata(), [[8, 1], [32, 4]])
    np.testing.assert_allclose(vd.get_xydata(), [[8, 2], [32, 4]])
    assert dense.get_color() != vd.get_color()
    labels = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert labels == ["dense step (exponent 1.00)", "VD step (exponent 0.50)"]
    times = [label.get_text() for axes in panels for label in axes.get_yticklabels()]
    assert "1" in times and not any("$" in time for time in times)
