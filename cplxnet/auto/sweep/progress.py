"""What is seen while runs are on workers: a bar for the grid, a line for each run under way."""

import time
from typing import Any, Self

from cplxnet.auto.progress import bar
from cplxnet.auto.runner.folder import RunFolder

from .queue import Agenda

EVERY_S = 1.0


class Board:
    """Drawn from the runs' status files, so that it is the same wherever they run."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda, self._lines, self._shown = agenda, list[Any](), 0.0
        settings = agenda.settings
        self._off = not settings.progress
        self._grid = bar(
            total=len(agenda.names), desc=settings.folder.name, unit="run", disable=self._off
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.update(len(self.agenda.outcomes) - self._grid.n)
        for shown in (*self._lines, self._grid):
            shown.close()

    def show(self, remark: str = "") -> None:
        """Draw anew, at most once a second."""
        if self._off or time.monotonic() - self._shown < EVERY_S:
            return
        self._shown = time.monotonic()
        self._grid.update(len(self.agenda.outcomes) - self._grid.n)
        self._grid.set_postfix_str(
            remark or (f"{len(self.agenda.pending)} with others" if self.agenda.waiting else "")
        )
        names = sorted(self.agenda.running)
        while len(self._lines) < len(names):
            position = len(self._lines) + 1
            self._lines.append(bar(total=0, position=position, bar_format="{desc}", leave=False))
        for number, shown in enumerate(self._lines):
            shown.set_description_str(self._line(names[number]) if number < len(names) else "")

    def _line(self, name: str) -> str:
        try:
            return line(name, RunFolder(self.agenda.settings.folder / name).status)
        except ValueError:  # damaged: its outcome says so
            return name


def line(name: str, status: dict[str, Any]) -> str:
    """c1e-03-r0: sparsify 3/75, AP 0.712, 2 h 05 min left"""
    if "epoch" not in status:
        return f"{name}: {status['state']}"
    parts = [f"{status['stage']} {status['epoch']}/{status['n_epochs']}"]
    if status.get("validation") is not None:
        parts.append(f"AP {status['validation']:.3f}")
    if status.get("left_s") is not None:
        parts.append(f"{duration(status['left_s'])} left")
    return f"{name}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """45 s, 12 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
