"""What the notebooks share: where they run, how errors look, pickers, output that refreshes itself.

Every notebook begins with `notebook.start()`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from cplxnet.extras import extra

from .progress import is_live, shell

INTERRUPTED = "interrupted; run the same cell again and it goes on from here"

# What a caller's mistake or the world raises. Anything else is a fault of ours: it keeps its
# traceback.
_TOLD = (ValueError, TypeError, OSError, RuntimeError, ImportError)
_MOST_SHARE = 0.05  # of the time, for drawing


def start() -> None:
    """Work from the root of the checkout, and show what went wrong as one message.

    Jupyter starts a notebook in the notebook's own folder; paths in notebooks are from the root,
    and the folders `extra/` and `legacy/` are imported from there.

    Raises:
        FileNotFoundError: as `root`.
    """
    place = root()
    os.chdir(place)
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

    ipython = shell()
    if ipython is not None:
        ipython.set_custom_exc((Exception, KeyboardInterrupt), _show_error)


def root(folder: str | Path = ".") -> Path:
    """The folder that notebooks work from: that of `pyproject.toml`, or else that of `runs/`.

    Args:
        folder: where to begin; the search goes upward.

    Raises:
        FileNotFoundError: neither is there.
    """
    below = Path(folder).resolve()
    for mark in ("pyproject.toml", "runs"):
        for place in (below, *below.parents):
            if (place / mark).exists():
                return place
    raise FileNotFoundError(
        f"expected pyproject.toml or runs/ in {below} or above it, got neither; "
        "try the notebook in its checkout, or make a folder runs/ beside it"
    )


# -- errors ----------------------------------------------------------------------------------------


def _show_error(
    ipython: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> list[str]:
    """IPython's handler: a message alone where that says it all; `%tb` shows the rest."""
    ipython._get_exc_info((kind, error, trace))  # sets what `%tb` shows
    if issubclass(kind, KeyboardInterrupt):
        ipython._showtraceback(kind, INTERRUPTED, [INTERRUPTED])
    elif isinstance(error, _TOLD) and _is_ours(trace):
        ipython._showtraceback(kind, error, [f"{kind.__name__}: {error}"])
    else:
        ipython.showtraceback((kind, error, trace), tb_offset=tb_offset)
    return []


def _is_ours(trace: TracebackType) -> bool:
    """Whether the error was raised by a line of this package or of a module beside a notebook."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = Path(trace.tb_frame.f_code.co_filename)
    ours = (Path(__file__).parents[1], Path.cwd() / "extra", Path.cwd() / "legacy")
    return any(file.is_relative_to(place) for place in ours)


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
        with extra("notebooks"):
            import ipywidgets

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
        import ipywidgets
        from IPython.display import display

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
    with extra("notebooks"):
        from IPython.display import display

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

    from IPython.core.pylabtools import print_figure
    from IPython.display import Image

    png = print_figure(shown)
    pyplot.close(shown)
    return Image(png)
