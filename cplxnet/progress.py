"""Progress bars (lines in a notebook, text on a terminal), and lines beside them."""

import errno
import functools
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.utils import ObjectWrapper


class _Stream(ObjectWrapper):
    """A text stream that drops its text once it cannot be written.

    A run does not end because its bars cannot be shown: when the reader of a pipe ends (`| tee`), a
    terminal is closed, a log's disk is full. Only on standard output a full disk is an error.
    """

    def write(self, text: str) -> int:
        """As of a file."""
        return self._lasting(self._wrapped.write, text)

    def flush(self) -> None:
        """As of a file."""
        self._lasting(self._wrapped.flush)

    def _lasting(self, act: Callable[..., Any], *arguments: str) -> Any:
        try:
            return act(*arguments)
        except OSError as error:
            if self._wrapped is sys.stdout and error.errno not in (errno.EPIPE, errno.EIO):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._wrapped.fileno())
            return act(*arguments)

    def __eq__(self, other: object) -> bool:  # tqdm looks for bars of one stream
        return self._wrapped == getattr(other, "_wrapped", other)

    def __hash__(self) -> int:
        return hash(self._wrapped)


class NotebookBar(tqdm):
    """A bar in a notebook's output, drawn anew in its place.

    It is text: a saved notebook shows the line as it stood at the end. A widget needs its kernel,
    and without one opens as "Error displaying widget".
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._handle: Any = None
        own = {"file": io.StringIO(), "ascii": False, "dynamic_ncols": False}
        super().__init__(*args, **(options | own))

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show the bar, or `msg` in its place; `pos` has no meaning here."""
        from IPython.display import display

        line = {"text/plain": str(self) if msg is None else msg}
        if self._handle is None:
            self._handle = display(line, raw=True, display_id=True)
        else:
            self._handle.update(line, raw=True)


@functools.cache
def _terminal(path: str) -> TextIO:
    try:
        return open(path, "a")
    except OSError:  # a socket, say, or nothing there: the bars are not worth a run
        return sys.stderr


def shell() -> Any:
    """IPython's shell where this process has one; that of a notebook has a `kernel`."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def is_live() -> bool:
    """Whether this is a notebook that somebody looks at, not one that a command runs."""
    return hasattr(shell(), "kernel") and os.environ.get("CPLXNET_PROGRESS", "auto") == "auto"


def bar(*args: Any, **options: Any) -> tqdm:
    """A tqdm bar with this package's settings; arguments as of tqdm.

    The environment variable CPLXNET_PROGRESS asks for another kind: text (on stderr, also in a
    notebook), off, or the path of a file or terminal to draw on, so that a notebook run by a
    command shows its bars there and keeps none.

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
    if "desc" in options:
        options["desc"] = printable(options["desc"] or "")

    kind = NotebookBar if is_live() else tqdm
    defaults = {"unit": "batch", "dynamic_ncols": True, "mininterval": 0.5}
    file = {"file": _Stream(options.get("file", sys.stderr))}
    return kind(*args, **(defaults | options | file))


def finish(shown: tqdm, text: str) -> None:
    """Fill a bar that ends before its total, and say why.

    `reset` takes the new total, and begins the time anew, which is put back.
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
    """Print a line that leaves the bars whole; nothing if it is empty or bars are off.

    A notebook shows what is on stderr in red, as an error: there it goes to stdout.
    """
    if text and os.environ.get("CPLXNET_PROGRESS") != "off":
        in_notebook = hasattr(shell(), "kernel")
        stream = sys.stdout if in_notebook else sys.stderr
        tqdm.write(_lines(text), file=_Stream(stream))


def show(text: str, file: TextIO | None = None, *, clear: bool = False) -> None:
    """Print text that may hold names and words of others; characters that the terminal does not
    have are escaped. clear: on an empty terminal.
    """
    if (file or sys.stdout) is None:  # closed, as by a daemon
        return
    stream = _Stream(file or sys.stdout)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lines = _lines(text).encode(encoding, "backslashreplace").decode(encoding)
    print(("\x1b[H\x1b[2J" if clear else "") + lines, file=stream, flush=True)


def printable(text: str) -> str:
    """`text` with control characters escaped, so that none of them reaches a terminal."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def duration(seconds: float) -> str:
    """A time in words: 45 s, 12 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
