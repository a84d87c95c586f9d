"""Progress bars: widgets in a live notebook, text on a terminal and in notebooks run by a command."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto

Item = TypeVar("Item")


def bar(*args: Any, **options: Any) -> tqdm:
    """A tqdm bar with this package's settings; CPLXNET_PROGRESS=text asks for text, =off for none."""
    how = os.environ.get("CPLXNET_PROGRESS", "auto")
    if how not in ("auto", "text", "off"):
        raise ValueError(f"expected CPLXNET_PROGRESS of auto, text or off, got {how!r}")
    kind = tqdm if how == "text" else tqdm_auto
    if how == "off":
        options["disable"] = True
    return kind(*args, **({"dynamic_ncols": True, "mininterval": 0.5} | options))


def ticking(shown: tqdm, items: Iterable[Item]) -> Iterator[Item]:
    """`items` in order, the bar `shown` one further after each."""
    for item in items:
        yield item
        shown.update()
