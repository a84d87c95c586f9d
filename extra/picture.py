"""A predicted piano roll over the true one: what was heard, what was missed, what was made up."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cplxnet.auto.report import style
from cplxnet.musicnet.labels import LOWEST_NOTE

HIT = 1
MISS = 2
FALSE_ALARM = 3  # and 0: silence, rightly
# in grey they are told apart by their lightness
COLOURS = {"hit": style.COLOURS[6], "miss": style.COLOURS[0], "false alarm": style.COLOURS[4]}


def outcomes(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """0, HIT, MISS or FALSE_ALARM of each entry of two bool rolls of one shape: uint8.

    Raises:
        ValueError: shapes that differ.
    """
    if target.shape != predicted.shape:
        raise ValueError(f"expected rolls of one shape, got {target.shape} and {predicted.shape}")
    kinds = np.zeros(target.shape, np.uint8)
    kinds[target & predicted] = HIT
    kinds[target & ~predicted] = MISS
    kinds[~target & predicted] = FALSE_ALARM
    return kinds


def draw(axes: Axes, times: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> None:
    """The outcomes of every frame and note on `axes`, over seconds and notes.

    Args:
        axes: to draw on.
        times: float (frames,), seconds, evenly spaced.
        target: bool (frames, 84).
        predicted: bool (frames, 84).
    """
    kinds = outcomes(target, predicted)
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    above = LOWEST_NOTE + target.shape[1]  # the first note above the roll
    extent = (times[0] - half, times[-1] + half, LOWEST_NOTE - 0.5, above - 0.5)
    colours = ListedColormap(["white", *COLOURS.values()])
    axes.imshow(
        kinds.T,
        cmap=colours,
        vmin=0,
        vmax=3,
        aspect="auto",
        origin="lower",
        extent=extent,
        interpolation="nearest",
    )

    sounding = np.flatnonzero(kinds.any(0)) + LOWEST_NOTE
    low, high = (sounding.min(), sounding.max()) if len(sounding) else (57, 71)
    octaves = range(24, above, 12)
    axes.set_yticks(list(octaves), [f"C{note // 12 - 1}" for note in octaves])
    axes.set(ylim=(low - 2.5, high + 2.5), ylabel="note", xlabel="seconds")
    axes.grid(False, axis="x")


@style.styled
def beside(
    times: np.ndarray,
    target: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    *,
    begin_s: float,
    seconds: float,
) -> Figure:
    """One panel a prediction, its title above it, all of one part of a recording.

    Args:
        times: float (frames,), seconds, evenly spaced.
        target: bool (frames, 84).
        predicted: title -> bool (frames, 84).
        begin_s: where the part begins.
        seconds: its length.

    Raises:
        ValueError: a part without a frame.
    """
    part = (times >= begin_s) & (times < begin_s + seconds)
    if not part.any():
        raise ValueError(
            f"expected a part of 0 to {times[-1]:.1f} s, got one from {begin_s} s on; "
            "try begin_s = 0"
        )
    figure, panels = plt.subplots(
        len(predicted),
        1,
        figsize=(10, 3 * len(predicted) + 0.5),
        sharex=True,
        sharey=True,
    )
    for axes, (title, roll) in zip(np.atleast_1d(panels), predicted.items(), strict=True):
        draw(axes, times[part], target[part], roll[part])
        axes.set_title(title, loc="left", fontsize=10)
        axes.label_outer()
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure
