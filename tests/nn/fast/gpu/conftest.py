"""Tensors of these tests are on the GPU where there is one."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _on_the_gpu() -> Iterator[None]:
    torch.set_default_device("cuda" if torch.cuda.is_available() else None)
    yield
    torch.set_default_device(None)
