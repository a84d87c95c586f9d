"""The epoch at which fine-tuning stopped, against compression."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cplxnet.auto.manifest.experiments import C

from . import style
from .style import Report, Request
from .tables import by_method, of_scorer


def report(request: Request) -> Report:
    """the epoch at which fine-tuning stopped, against compression"""
    runs = rows(request.table(), scorer=request.scorer)

    early = runs[runs["stopped_early"].astype(bool)]
    sentence = f"{len(early)} of {len(runs)} runs stopped fine-tuning early"
    if len(early):
        least, most = early["epochs"].min(), early["epochs"].max()
        epochs = f"{least}" if least == most else f"{least} to {most}"
        sentence += f", after {epochs} epoch{'' if most == 1 else 's'}"
    return Report(figure(runs), runs, [f"{sentence}."])


def rows(table: pd.DataFrame, *, scorer: str = "test") -> pd.DataFrame:
    """A row a fine-tuned run of a table of `tables.collect`.

    Returns:
        Columns folder, run, method, C, setting, seed, compression, epochs, n_epochs (planned) and
        stopped_early.
    """
    about = ["folder", "run", "method", C, "setting", "seed"]
    course = ["compression", "epochs", "n_epochs", "stopped_early"]
    tuned = of_scorer(table, scorer, "fine-tune", on_one_set=False)
    return tuned[about + course].astype({"compression": float})


@style.styled
def figure(runs: pd.DataFrame) -> Figure:
    """Filled: stopped early. Hollow: trained to the end of the schedule, the dotted line."""
    drawn, axes = plt.subplots(figsize=(7, 4))
    for n_epochs in sorted(set(runs["n_epochs"])):
        axes.axhline(n_epochs, color="0.5", ls=":", lw=1)

    looks = style.looks(runs)
    for method, group in by_method(runs):
        colour, marker = looks[method]
        for early, ends in group.groupby("stopped_early"):
            face = colour if early else "white"
            label = f"{method}, {'stopped early' if early else 'whole schedule'}".lstrip(", ")
            axes.plot(
                ends["compression"], ends["epochs"], marker, mfc=face, mec=colour, label=label
            )

    axes.set(xscale="log", xlabel=style.TIMES, ylabel="epochs of fine-tuning")
    axes.set_ylim(0, 1.1 * max(runs["n_epochs"]))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    style.plain_log(axes)
    style.legend(axes)
    return drawn
