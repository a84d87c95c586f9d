"""What cplxnet is to reach at batch 32, from the times of one run."""

from collections.abc import Mapping
from typing import NamedTuple

from .average_precision import SKLEARN
from .feed import ORIGINAL
from .steps import BOGUS, DENSE, OURS
from .timing import Times

BATCH = 32


class Measured(NamedTuple):
    """All that a run found. `times`: {(work, batch): {contestant: Times}}, batch 0 where it does
    not apply.
    """

    times: Mapping[tuple[str, int], Mapping[str, Times]]
    memory: Mapping[str, float]  # MiB
    floors: Mapping[tuple[str, int], float]  # seconds


class Target(NamedTuple):
    """`least` times as fast as `rival` at `work`."""

    work: str
    batch: int
    rival: str
    least: float


FASTER = (
    Target("train", BATCH, "cplxmodule", 1.9),
    Target("train VD", BATCH, BOGUS, 5.5),
    Target("train VD", BATCH, "cplxmodule", 18.0),
    Target("train VD", BATCH, "complextorch", 13.0),
    Target("train ARD", BATCH, "complextorch", 3.0),
    Target("evaluate", BATCH, "cplxmodule", 1.5),
    Target("feed", 0, ORIGINAL, 3.0),
    Target("feed, FFT", 0, ORIGINAL, 3.0),
    Target("average precision", 0, SKLEARN, 3.0),
)
MOST_OF_DENSE = 1.5


class Verdict(NamedTuple):
    claim: str
    wanted: str
    found: str
    met: bool


def verdicts(measured: Measured) -> list[Verdict]:
    rows = [_faster(measured, target) for target in FASTER]
    rows += [_of_dense(measured, work) for work in ("train VD", "train ARD")]
    if measured.memory:
        own, rival = measured.memory[OURS], measured.memory["cplxmodule"]
        found = f"{own:.0f} against {rival:.0f} MiB"
        rows.append(
            Verdict("peak memory of a VD step", "at most cplxmodule's", found, own <= rival)
        )
    return rows


def _faster(measured: Measured, target: Target) -> Verdict:
    times = measured.times[target.work, target.batch]
    ratio = times[target.rival].median / times[OURS].median
    claim = f"{target.work}, against {target.rival}"
    return Verdict(claim, f"{target.least:g} times as fast", f"{ratio:.2f}", ratio >= target.least)


def _of_dense(measured: Measured, work: str) -> Verdict:
    times = measured.times[work, BATCH]
    ratio = times[OURS].median / times[DENSE].median
    claim = f"{work}, against own dense step"
    return Verdict(
        claim, f"at most {MOST_OF_DENSE:g} times as long", f"{ratio:.2f}", ratio <= MOST_OF_DENSE
    )
