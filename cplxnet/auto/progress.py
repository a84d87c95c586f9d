"""Progress bars: widgets in a live notebook, text on a terminal and where a command runs one."""

import functools
import os
import sys
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto


@functools.cache
def _terminal(path: str) -> TextIO:
    try:
        return open(path, "a")
    except OSError:  # a socket, say, or nothing there: the bars are not worth a run
        return sys.stderr


def bar(*args: Any, **options: Any) -> tqdm:
    """A tqdm bar with this package's settings; arguments as of tqdm.

    The environment variable CPLXNET_PROGRESS asks for another kind: text (also in a notebook), off,
    or the path of a file or terminal to draw on, so that a notebook run by a command shows its bars
    there and keeps none.

    Raises:
        ValueError: another value of CPLXNET_PROGRESS.
    """
    how = os.environ.get("CPLXNET_PROGRESS", "auto")
    if "/" in how:
        options["file"] = _terminal(how)
    elif how not in ("auto", "text", "off"):
        raise ValueError(f"expected CPLXNET_PROGRESS of auto, text, off or a path, got {how!r}")
    if how == "off":
        options["disable"] = True

    kind = tqdm_auto if how == "auto" else tqdm
    defaults = {"unit": "batch", "dynamic_ncols": True, "mininterval": 0.5}
    return kind(*args, **(defaults | options))


def finish(shown: tqdm, text: str) -> None:
    """Fill a bar that ends before its total, and say why.

    `reset` also tells a widget, which would stay where it is; it begins the time anew, though.
    """
    n = shown.n
    if shown.disable:
        return

    began = shown.start_t
    shown.reset(total=n)
    shown.start_t = began
    shown.update(n)
    shown.set_postfix_str(text)


def say(text: str) -> None:
    """Print a line that leaves the bars whole; nothing if it is empty or bars are off."""
    if text and os.environ.get("CPLXNET_PROGRESS") != "off":
        tqdm.write(text, file=sys.stderr)


def duration(seconds: float) -> str:
    """A time in words: 45 s, 12 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
