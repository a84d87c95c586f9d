"""The GPU kernels: on CPU tensors by Triton's interpreter, on a GPU's where there is one."""

import importlib
from types import ModuleType

import pytest
import torch


def interpreted(name: str) -> ModuleType:
    """A module of cplxnet.nn.fast.gpu; skips where Triton is not there."""
    pytest.importorskip("triton", reason="no Triton")
    return importlib.import_module(f"cplxnet.nn.fast.gpu.{name}")


def error(value: torch.Tensor, right: torch.Tensor) -> float:
    """|value - right| / |right| over all elements."""
    value = value.to(right.dtype)
    return ((value - right).norm() / right.norm()).item()
