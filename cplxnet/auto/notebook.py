"""What the notebooks share: where they run, and how errors look.

Every notebook begins with `notebook.start()`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from cplxnet.progress import shell

INTERRUPTED = "interrupted; run the same cell again and it goes on from here"

# What a caller's mistake or the world raises. Anything else is a fault of ours: it keeps its
# traceback.
_TOLD = (ValueError, TypeError, OSError, RuntimeError, ImportError)


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
        message = f"{kind.__name__}: {error}"
        if isinstance(error, FileNotFoundError) and str(Path.cwd()) not in message:
            message += f" (working directory: {Path.cwd()})"
        ipython._showtraceback(kind, error, [message])
    else:
        ipython.showtraceback((kind, error, trace), tb_offset=tb_offset)
    return []


def _is_ours(trace: TracebackType) -> bool:
    """Whether the error was raised by a line of this package or of a module beside a notebook."""
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in ("cplxnet", "extra", "legacy")
