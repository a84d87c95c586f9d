"""Running tests with the C functions, without them, and on a number of threads."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytest
import torch

from cplxnet.nn.fast import native

has_compiler = (
    shutil.which(os.environ.get("CC", "cc")) is not None and os.environ.get("CPLXNET_NATIVE") != "0"
)
in_c = pytest.mark.skipif(not has_compiler, reason="no C compiler, or CPLXNET_NATIVE=0")


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """The plain formulas within."""
    before = native.enabled()
    native.use(False)
    try:
        yield
    finally:
        native.use(before)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """n threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
