"""The epoch at which fine-tuning stopped, against compression."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cplxnet.auto.manifest.experiments import C

from . import plots, style
from .folders import by_method, chosen


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a fine-tuned run: folder, run, method, C, seed, compression, epochs, n_epochs (planned), stopped_early.

    table: of `gather`.
    """
    tuned = chosen(table, scorer, "fine-tune")
    columns = [
        "folder",
        "run",
        "method",
        C,
        "seed",
        "compression",
        "epochs",
        "n_epochs",
        "stopped_early",
    ]
    return tuned[columns].astype({"compression": float})


def figure(found: pd.DataFrame) -> Figure:
    """Filled: stopped early; hollow: trained to the end of its schedule, which is the dotted line."""
    drawn, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for n_epochs in sorted(set(found["n_epochs"])):
        axes.axhline(n_epochs, color="0.5", ls=":", lw=1)
    for index, (method, group) in enumerate(by_method(found)):
        colour, marker = style.of(index)
        for stopped, runs in group.groupby("stopped_early"):
            face, said = (colour, "stopped early") if stopped else ("white", "whole schedule")
            label = f"{method}, {said}".removeprefix(", ")
            axes.plot(
                runs["compression"], runs["epochs"], marker, mfc=face, mec=colour, label=label
            )
    axes.set(
        xscale="log", xlabel="compression, times fewer real numbers", ylabel="epochs of fine-tuning"
    )
    axes.set_ylim(0, 1.1 * max(found["n_epochs"]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    plots.plain_log(axes)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)
    return drawn


def sentences(found: pd.DataFrame) -> list[str]:
    """How many stopped early, and when."""
    early = found[found["stopped_early"].astype(bool)]
    text = f"{len(early)} of {len(found)} runs stopped fine-tuning early"
    return [
        f"{text}, after {early['epochs'].min()} to {early['epochs'].max()} epochs."
        if len(early)
        else f"{text}."
    ]
