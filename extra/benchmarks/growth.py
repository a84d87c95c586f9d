"""How cost grows: `python -m extra.benchmarks.growth [--rounds 7] [--no-write]`, some minutes on an
idle machine.

Four things are varied, one at a time, each over more than a decade: the batch (training steps), the
number of recordings (10 to 330, the feed's batch grows with it), their length, and the notes of a
recording. For each quantity the exponent b of time ~ size^b is fitted by least squares on
logarithms: 1 is proportional, 0 is no growth. The label lookup is a binary search, so its time is
fitted also as a + b log2(notes). Writes growth.png and README.md's table.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from cplxnet import files
from cplxnet.auto.report import style
from cplxnet.musicnet import MusicNet

from . import report
from .feed import WINDOW
from .machine import description
from .noise import RATE_HZ, write_corpus
from .steps import entrant, example, train, with_memory_kept
from .timing import alternate, median

CHART = Path(__file__).with_name("growth.png")
BATCHES = (8, 16, 32, 64, 128, 256)
RECORDINGS = (10, 33, 100, 330)
SECONDS = (15, 60, 240, 960)  # a recording
NOTES = (100, 1_000, 10_000, 100_000)  # a recording
LOOKUPS = 4096  # positions a call
AHEAD = 32  # batches a call: the feed draws 16 at once


class Growth(NamedTuple):
    """Seconds of several quantities at each size of one variable."""

    variable: str
    sizes: Sequence[int]
    seconds: dict[str, list[float]]

    def slope(self, quantity: str) -> float:
        """b of seconds ~ sizes^b."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds[quantity]), 1)[0])


def by_batch(rounds: int) -> Growth:
    """Training steps, dense and with variational dropout."""
    seconds: dict[str, list[float]] = {"dense step": [], "VD step": []}
    for size in BATCHES:
        x, target = example(size)
        for kind, times in zip(("", "VD"), seconds.values(), strict=True):
            net = entrant("cplxnet", kind, x)
            times.append(
                median(
                    functools.partial(with_memory_kept, functools.partial(train, net, target)),
                    rounds,
                )
            )
    return Growth("windows a batch", BATCHES, seconds)


def _by_corpus(
    variable: str, sizes: Sequence[int], rounds: int, shape: Callable[[int], dict[str, float]]
) -> Growth:
    """Opening, the feed and the label lookup on corpora of `shape(size)`, the arguments of
    `write_corpus`.

    The last two in turn over the sizes, on one thread: what they grow by is less than what the
    machine drifts by.
    """
    opening, feeds, lookups = [], {}, {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "corpus.h5"
            write_corpus(path, **shape(size))  # type: ignore[arg-type]
            opening.append(median(functools.partial(MusicNet, path, WINDOW, 1), min(rounds, 3)))
            corpus = MusicNet(path, WINDOW, 1)
        batches = corpus.draws(10**9, torch.Generator().manual_seed(0))
        positions = torch.randint(
            int(corpus.samples.sum()), (LOOKUPS,), generator=torch.Generator().manual_seed(1)
        )
        feeds[str(size)] = functools.partial(_batches, batches)
        lookups[str(size)] = functools.partial(corpus.notes, positions)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fed = [times.median / AHEAD for times in alternate(feeds, 5 * rounds, turn=0.01).values()]
        looked = [times.median for times in alternate(lookups, 10 * rounds, turn=0.01).values()]
    finally:
        torch.set_num_threads(n_threads)
    return Growth(
        variable,
        sizes,
        {"opening": opening, "feed, a batch": fed, f"{LOOKUPS} label lookups": looked},
    )


def _batches(batches: Iterator[object]) -> None:
    for _ in range(AHEAD):
        next(batches)


def by_recordings(rounds: int) -> Growth:
    return _by_corpus(
        "recordings", RECORDINGS, rounds, lambda n: {"n_recordings": n, "seconds": 60}
    )


def by_length(rounds: int) -> Growth:
    return _by_corpus(
        "seconds a recording", SECONDS, rounds, lambda s: {"n_recordings": 30, "seconds": s}
    )


def by_notes(rounds: int) -> Growth:
    def shape(n: int) -> dict[str, float]:
        # so short that a class rests most of the time: notes that run into each other are one
        # change, not two
        return {
            "n_recordings": 10,
            "seconds": 60,
            "notes_per_second": n / 60,
            "note_seconds": min(0.4, 1000 / n),
        }

    return _by_corpus("notes a recording", NOTES, rounds, shape)


def logarithm(found: Growth, quantity: str) -> tuple[float, float]:
    """b and R^2 of seconds = a + b log2(size)."""
    x, y = np.log2(found.sizes), np.array(found.seconds[quantity])
    b, a = np.polyfit(x, y, 1)
    return float(b), float(1 - np.sum((y - a - b * x) ** 2) / np.sum((y - y.mean()) ** 2))


@style.styled
def chart(found: Sequence[Growth]) -> Figure:
    figure = Figure(figsize=(11, 7.5))
    for ax, growth in zip(figure.subplots(2, 2).flat, found, strict=True):
        for k, (quantity, seconds) in enumerate(growth.seconds.items()):
            colour, marker = style.COLOURS[k], style.MARKERS[k]
            label = f"{quantity} (exponent {growth.slope(quantity):.2f})"
            milliseconds = [1000 * value for value in seconds]
            ax.loglog(growth.sizes, milliseconds, color=colour, marker=marker, label=label)
        ax.set(xlabel=growth.variable, ylabel="time (ms)")
        ax.set_xticks(growth.sizes, [f"{size:,}" for size in growth.sizes], minor=False)
        ax.minorticks_off()
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
        style.plain_log(ax, axis="y")
        style.legend(ax, on=ax, place="upper left")
    return figure


def text(found: Sequence[Growth]) -> str:
    rows = []
    for growth in found:
        for quantity, seconds in growth.seconds.items():
            spoken = ", ".join(f"{1000 * value:.3g}" for value in seconds)
            sizes = ", ".join(map(str, growth.sizes))
            rows.append([growth.variable, sizes, quantity, spoken, f"{growth.slope(quantity):.2f}"])
    step, fit = logarithm(found[-1], f"{LOOKUPS} label lookups")
    return "\n\n".join(
        [
            f"{time.strftime('%Y-%m-%d')}; {description()}; {RATE_HZ} Hz, "
            f"windows of {WINDOW} samples.",
            "![time against batch, recordings, length and notes](growth.png)",
            report.table(["varied", "sizes", "what", "ms", "exponent"], rows),
            f"Label lookup against notes a recording: {1e9 * step / LOOKUPS:.2f} ns more "
            f"a position for every doubling of the notes (R^2 of that straight line {fit:.2f}); "
            "proportional growth would be an exponent of 1.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extra.benchmarks.growth", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=7, help="of each measurement, the median counts"
    )
    parser.add_argument(
        "--no-write", action="store_true", help="print, and leave the files as they are"
    )
    arguments = parser.parse_args()
    found = []
    for measured in (by_batch, by_recordings, by_length, by_notes):
        found.append(measured(arguments.rounds))
        print(found[-1], flush=True)
    written = text(found)
    print(written)
    if not arguments.no_write:
        figure = chart(found)
        files.write(CHART, lambda file: figure.savefig(file, format="png", dpi=110))
        report.write(written, section="growth")


if __name__ == "__main__":
    main()
