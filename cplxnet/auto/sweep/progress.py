"""What is shown while runs are on workers: a bar for the grid, a line for each run under way."""

import time
from typing import Any, Self

from cplxnet.auto.progress import bar, duration, printable
from cplxnet.auto.runner.folder import RunFolder

from .queue import Queue

EVERY_S = 1.0


class Board:
    """Bars drawn from the runs' status files, so that they look the same wherever the runs are."""

    def __init__(self, queue: Queue) -> None:
        settings = queue.settings
        self.queue = queue
        self._off = not settings.progress
        self._drawn_at = 0.0
        self._lines: list[Any] = []
        self._grid = bar(
            total=len(queue.names), desc=settings.folder.name, unit="run", disable=self._off
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grid.update(len(self.queue.outcomes) - self._grid.n)
        for shown in (*self._lines, self._grid):
            shown.close()

    def show(self, remark: str = "") -> None:
        """Draw anew, at most once a second. remark: stands beside the grid's bar."""
        now = time.monotonic()
        if self._off or now - self._drawn_at < EVERY_S:
            return
        self._drawn_at = now

        with_others = f"{len(self.queue.pending)} with others" if self.queue.waiting else ""
        self._grid.update(len(self.queue.outcomes) - self._grid.n)
        self._grid.set_postfix_str(remark or with_others)

        names = sorted(self.queue.running)
        while len(self._lines) < len(names):
            position = len(self._lines) + 1
            self._lines.append(bar(total=0, position=position, bar_format="{desc}", leave=False))
        for number, shown in enumerate(self._lines):
            line = self._line(names[number]) if number < len(names) else ""
            shown.set_description_str(printable(line))

    def _line(self, name: str) -> str:
        """c1e-03-r0: sparsify 3/75, AP 0.712, 2 h 05 min left"""
        try:
            status = RunFolder(self.queue.settings.folder / name).status
        except (OSError, ValueError):  # damaged: its outcome says so
            return name

        if "epoch" not in status:
            return f"{name}: {status['state']}"
        parts = [f"{status['stage']} {status['epoch']}/{status['n_epochs']}"]
        if status.get("validation") is not None:
            parts.append(f"AP {status['validation']:.3f}")
        if status.get("left_s") is not None:
            parts.append(f"{duration(status['left_s'])} left")
        return f"{name}: {', '.join(parts)}"
