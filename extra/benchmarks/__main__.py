"""All measurements in one process: `make bench`, or `python -m extra.benchmarks [--quick]
[--no-write]`.
"""

import argparse
import datetime
import gc
import importlib.metadata
import os
import time
from typing import NamedTuple

import torch

from . import agreement, average_precision, feed, machine, memory, report
from .steps import contest
from .targets import BATCH, Measured
from .timing import Times, alternate

VERSIONS = ("torch", "numpy", "scipy", "cplxmodule", "complextorch", "ncls", "scikit-learn")
STEPS = {  # work: (kind of layers, what is called)
    "train": ("", "train"),
    "train VD": ("VD", "train"),
    "train ARD": ("ARD", "train"),
    "evaluate": ("", "evaluate"),
    "KL VD": ("VD", "kl"),
    "KL ARD": ("ARD", "kl"),
}


class Plan(NamedTuple):
    """How much of it: rounds of each work by batch size, and the rest."""

    rounds: dict[int, dict[str, int]]
    feed_rounds: int
    feed_seconds: float  # a recording
    average_precision_rounds: int
    memory: bool


FULL = Plan(
    {
        32: {"train": 8, "train VD": 5, "train ARD": 6, "evaluate": 15, "KL VD": 4, "KL ARD": 5},
        128: {"train": 4, "train VD": 3, "train ARD": 3, "evaluate": 6},
    },
    feed_rounds=10,
    feed_seconds=365,  # 5.3 hours in all, 0.8 GB
    average_precision_rounds=3,
    memory=True,
)
QUICK = Plan(
    {32: {"train": 4, "train VD": 2, "train ARD": 3, "evaluate": 6, "KL VD": 1}},
    feed_rounds=5,
    feed_seconds=60,
    average_precision_rounds=1,
    memory=False,
)


def measure(plan: Plan) -> tuple[Measured, machine.Limits]:
    """Everything in `plan`, told as it goes."""
    times: dict[tuple[str, int], dict[str, Times]] = {}
    limits = machine.limits()
    for batch, works in plan.rounds.items():
        for work, rounds in works.items():
            times[work, batch if work[:2] != "KL" else 0] = _timed(work, batch, rounds)
    found = feed.run(plan.feed_rounds, seconds=plan.feed_seconds)
    times |= {(work, 0): value for work, value in found.items()}
    _, times["average precision", 0] = average_precision.run(plan.average_precision_rounds)
    floors = {(work, b): s for b in plan.rounds for work, s in machine.floors(limits, b).items()}
    return Measured(times, memory.peaks(BATCH) if plan.memory else {}, floors), limits


def _timed(work: str, batch: int, rounds: int) -> dict[str, Times]:
    start = time.perf_counter()
    kind, call = STEPS[work]
    contestants = contest(kind, batch, call)
    found = alternate(contestants, rounds)
    del contestants
    gc.collect()
    spoken = ", ".join(f"{name} {times.median * 1000:.1f}" for name, times in found.items())
    print(f"{work}, batch {batch}: {spoken} ms [{time.perf_counter() - start:.0f} s]", flush=True)
    return found


def heading(limits: machine.Limits, taken: float, load: float, quick: bool) -> list[str]:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    return [
        f"{datetime.date.today()}, `make bench`{' QUICK=--quick' if quick else ''}, "
        f"{taken / 60:.1f} minutes; load average at the start {load:.2f}",
        machine.description(),
        versions,
        f"largest matrix product {limits.matmul / 1e9:.0f} GFLOP/s, "
        f"memory copy {limits.copy / 1e9:.0f} GB/s read and written; "
        f"{machine.complex_macs() / 1e6:.2f} million complex multiply-adds a window",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extra.benchmarks", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="batch 32 only, few rounds, no memory: about two minutes",
    )
    parser.add_argument(
        "--no-write", action="store_true", help="print, and leave README.md as it is"
    )
    arguments = parser.parse_args()
    start, load = time.perf_counter(), os.getloadavg()[0]
    agreed = agreement.check()
    for name, what, delta in agreed:
        print(f"agreement: {name}, {what}: {delta:.1e}", flush=True)
    measured, limits = measure(QUICK if arguments.quick else FULL)
    taken = time.perf_counter() - start
    written = report.text(measured, agreed, heading(limits, taken, load, arguments.quick))
    print(written)
    if not arguments.no_write:
        report.write(written)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
