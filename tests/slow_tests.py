"""Which tests `make quick` leaves out: those listed in slow.txt, beside the ones that carry the
marker.

The list is measured, not guessed: `python -m pytest --write-slow` writes it anew from the tests
that it runs. Any other run names, at its end, the slow tests that are not on it.
"""

from collections import Counter
from pathlib import Path

import pytest

SLOW_S = 0.5  # seconds of a test function, all its cases together
LIST = Path(__file__).with_name("slow.txt")


def _function(nodeid: str) -> str:
    """The test function of a case, without its parameters."""
    return nodeid.partition("[")[0]


def is_there(name: str) -> bool:
    """Whether a line of the list names a test function that is there."""
    file, *_, function = name.split("::")
    path = LIST.parents[1] / file
    return path.is_file() and f"def {function}(" in path.read_text()


class SlowTests:
    """A plugin of pytest, registered by conftest.py."""

    def __init__(self, *, write: bool) -> None:
        self.write = write
        self.listed = set(LIST.read_text().splitlines())
        self.marked: set[str] = set()
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(tryfirst=True)  # before -m chooses
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if _function(item.nodeid) in self.listed:
                item.add_marker(pytest.mark.slow)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.seconds[_function(report.nodeid)] += report.duration
        if "slow" in report.keywords:  # items are collected in xdist's workers, reports come here
            self.marked.add(_function(report.nodeid))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        slow = {name for name, seconds in self.seconds.items() if seconds > SLOW_S}
        if self.write:
            kept = {name for name in self.listed if name not in self.seconds}
            kept = {name for name in kept if is_there(name)}
            LIST.write_text("".join(f"{name}\n" for name in sorted(slow | kept)))
            return

        unlisted = sorted(slow - self.marked)
        if unlisted:
            terminalreporter.section(f"over {SLOW_S:g} s and not in tests/slow.txt")
            for name in unlisted:
                terminalreporter.write_line(f"{self.seconds[name]:6.1f} s  {name}")
