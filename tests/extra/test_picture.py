"""The picture of a transcription shows each entry's outcome at its time and note."""

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgba

from extra import picture

matplotlib.use("Agg")


@pytest.fixture
def rolls() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times = np.arange(100) * 0.1
    target, predicted = np.zeros((100, 84), bool), np.zeros((100, 84), bool)
    target[10:20, 39] = predicted[15:30, 39] = True  # C4: missed, hit, false alarm
    return times, target, predicted


def colour_at(axes: matplotlib.axes.Axes, seconds: float, note: float) -> tuple[float, ...]:
    """The colour that a reader sees at a point of the axes."""
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    data = image.get_array()
    row = int((note - bottom) / (top - bottom) * data.shape[0])
    column = int((seconds - left) / (right - left) * data.shape[1])
    return image.cmap(image.norm(data[row, column]))


def test_every_outcome_is_where_it_belongs(rolls: tuple[np.ndarray, ...]) -> None:
    times, target, predicted = rolls
    figure = picture.beside(
        times, target, {"one": predicted, "other": target}, begin_s=0.5, seconds=4.0
    )
    upper, lower = figure.axes
    for seconds, kind in ((1.2, "miss"), (1.7, "hit"), (2.5, "false alarm")):
        assert colour_at(upper, seconds, 60) == to_rgba(picture.COLOURS[kind])
        assert colour_at(upper, seconds, 61) == to_rgba("white")
    assert colour_at(lower, 1.2, 60) == to_rgba(picture.COLOURS["hit"])
    labels = dict(
        zip(upper.get_yticks(), (tick.get_text() for tick in upper.get_yticklabels()), strict=True)
    )
    assert (
        labels[60] == "C4" and upper.get_title("left") == "one" and lower.get_xlabel() == "seconds"
    )
    assert (
        upper.get_xlim() == pytest.approx((0.45, 4.45))
        and upper.get_ylim()[0] < 60 < upper.get_ylim()[1]
    )


def test_outcomes_count_as_they_should(rolls: tuple[np.ndarray, ...]) -> None:
    _, target, predicted = rolls
    kinds = picture.outcomes(target, predicted)
    assert np.bincount(kinds.ravel()).tolist() == [8400 - 20, 5, 5, 10]
    with pytest.raises(
        ValueError, match=r"expected rolls of one shape, got \(100, 84\) and \(99, 84\)"
    ):
        picture.outcomes(target, predicted[1:])


def test_a_part_beyond_the_end_is_refused(rolls: tuple[np.ndarray, ...]) -> None:
    times, target, predicted = rolls
    with pytest.raises(
        ValueError,
        match=r"expected a part of 0 to 9\.9 s, got one from 60\.0 s on; try begin_s = 0",
    ):
        picture.beside(times, target, {"one": predicted}, begin_s=60.0, seconds=4.0)
