"""For the notebooks at the root: pickers, and output that refreshes itself."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.core.pylabtools import print_figure
from IPython.display import Image, display

from cplxnet.progress import is_live

_MOST_SHARE = 0.05  # of the time, for drawing


# -- pickers ---------------------------------------------------------------------------------------


class Picker:
    """Two lists to pick from: a folder of manifests, and one of the names that it offers.

    Where a command runs the notebook (CPLXNET_PROGRESS is set) they are a line of text.

    Args:
        folder: picked at first.
        name: that is picked at first; None: the first.
        label: what the names are.
        names: of a folder, those that it offers.
        holding: what a folder beside `folder` must hold to be offered.
        runs: the folder whose folders are offered.

    Raises:
        FileNotFoundError: no such folder, or no name in it; the text says which there are.
        ValueError: a name that it does not offer.
    """

    def __init__(
        self,
        folder: str,
        name: str | None = None,
        *,
        label: str = "manifest",
        names: Callable[[str], list[str]] | None = None,
        holding: str = "*.json",
        runs: str | Path = "runs",
    ) -> None:
        self._names = names or functools.partial(_manifests, runs=runs)
        offered = self._names(folder)
        if name is not None and name not in offered:
            raise ValueError(f"{folder}: expected a {label} of {', '.join(offered)}, got {name!r}")

        dropdown = ipywidgets.Dropdown
        folders = sorted({folder, *_folders(runs, holding)})
        self._folder = dropdown(options=folders, value=folder, description="folder")
        self._name = dropdown(options=offered, value=name or offered[0], description=label)
        self._folder.observe(self._offer, names="value")

    @property
    def folder(self) -> str:
        return str(self._folder.value)

    @property
    def name(self) -> str:
        return str(self._name.value)

    def _offer(self, _: Any) -> None:
        """Offer the new folder's names; that picked before stays where the folder has it."""
        before = self.name
        self._name.options = self._names(self.folder)
        if before in self._name.options:
            self._name.value = before

    def _ipython_display_(self) -> None:
        if is_live():
            display(ipywidgets.HBox([self._folder, self._name]))
        else:
            print(f"{self.folder}: {self.name}, of {', '.join(self._name.options)}")


def _folders(runs: str | Path, holding: str = "*.json") -> list[str]:
    """The folders in `runs` that hold files of this pattern."""
    depth = holding.count("/")
    return sorted({str(path.parents[depth]) for path in Path(runs).glob(f"*/{holding}")})


def _manifests(folder: str, runs: str | Path) -> list[str]:
    """The manifests of a folder, by name."""
    names = sorted(path.stem for path in Path(folder).glob("*.json"))
    if not names:
        got = "none" if Path(folder).is_dir() else "no such folder"
        there = ", ".join(_folders(runs)) or "none"
        raise FileNotFoundError(
            f"{folder}: expected a folder of manifests, got {got} in {Path.cwd()} (there are: "
            f"{there}); try experiment_generator.ipynb, which writes them"
        )
    return names


# -- output that refreshes itself ------------------------------------------------------------------


@contextlib.contextmanager
def refreshing(show: Callable[[], Any], *, every_s: float = 2.0) -> Iterator[None]:
    """Show what `show()` returns, anew while the block runs, and once more at its end.

        with refreshing(lambda: auto.status("runs/demo")):
            auto.run_many("runs/demo")

    A thread calls `show`, so it may read files and draw but not compute with torch. A call that
    finds nothing yet (an OSError or ValueError) is passed over. Any other error of `show` is said
    at the end, once, and neither ends the block nor replaces its own error.

    Args:
        show: a table, a figure, or anything else that a notebook displays.
        every_s: seconds between two calls; more where drawing would take over 5 percent.
    """
    handle = display({"text/plain": "..."}, raw=True, display_id=True)
    ended = threading.Event()
    faults: list[Exception] = []

    def refresh() -> float:
        """Draw once; the seconds to wait before the next time."""
        began = time.monotonic()
        try:
            shown = _picture(show())
            if handle is not None:  # None outside of a notebook
                handle.update(shown)
        except (OSError, ValueError):
            pass  # nothing yet
        except Exception as error:  # the edge: what is drawn never decides how a run ends
            faults.append(error)
        return max(every_s, (time.monotonic() - began) / _MOST_SHARE)

    def keep_refreshing() -> None:
        pause_s = every_s
        while not ended.wait(pause_s):
            pause_s = refresh()

    thread = threading.Thread(target=keep_refreshing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        refresh()
        if faults:
            print(f"not drawn: {type(faults[-1]).__name__}: {faults[-1]}", file=sys.stderr)


def _picture(shown: Any) -> Any:
    """A figure as a PNG, closed, so that the cell's end does not show it again; else as it is."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not isinstance(shown, pyplot.Figure):
        return shown

    png = print_figure(shown)
    pyplot.close(shown)
    return Image(png)
