"""The GPU kernels on CPU tensors, by Triton's interpreter."""

import importlib
from types import ModuleType

import pytest
import torch


def interpreted(name: str) -> ModuleType:
    """A module of cplxnet.nn.fast.gpu; skips where the kernels run on a GPU, or Triton is not there."""
    pytest.importorskip("triton", reason="no Triton")
    if torch.cuda.is_available():
        pytest.skip("the kernels run on the GPU here: tests marked cuda", allow_module_level=True)
    return importlib.import_module(f"cplxnet.nn.fast.gpu.{name}")


def error(value: torch.Tensor, right: torch.Tensor) -> float:
    """|value - right| / |right| over all elements."""
    value = value.to(right.dtype)
    return ((value - right).norm() / right.norm()).item()
