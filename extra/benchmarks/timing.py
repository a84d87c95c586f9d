"""Contestants timed in turn, so that whatever slows the machine down slows all of them down."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Times(NamedTuple):
    """Seconds of one contestant: median, and first and third quartile."""

    median: float
    low: float
    high: float


def alternate(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    turn: float = 0.3,
    most: int = 5,
) -> dict[str, Times]:
    """Median seconds of a call of each contestant.

    In each of `rounds` rounds every contestant has one turn: a call that does not count, as nothing
    of its own is in the caches after the others' turns, then calls until `turn` seconds have gone
    by, at least one and no more than `most`. A first round warms up and does not count either.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, call in contestants.items():
            call()
            taken = _turn(call, turn, most)
            if number:
                seconds[name] += taken
    return {name: _summary(values) for name, values in seconds.items()}


def in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of `rounds` calls of each by `clock`, one after the other; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def median(call: Callable[[], object], n: int) -> float:
    """Median seconds of `n` calls in a row, after one that does not count."""
    call()
    return statistics.median(_turn(call, math.inf, n))


def _turn(call: Callable[[], object], turn: float, most: int) -> list[float]:
    taken: list[float] = []
    while not taken or (sum(taken) < turn and len(taken) < most):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def _summary(values: list[float]) -> Times:
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return Times(median, low, high)
