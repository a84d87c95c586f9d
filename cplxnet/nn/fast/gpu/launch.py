"""What the GPU kernels share: how an operation is registered, and how its arrays are cut into programs."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

# {operator name: kernels it launches, or a function of its arguments that tells}
LAUNCHES: dict[str, int | Callable[..., int]] = {}

PROGRAMS = 512  # programs that share a sum: about four for each multiprocessor of an H100


def kernel_op(
    name: str, *, launches: int | Callable[..., int], mutates: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """Register a function as the operator `cplxnet::name`, noting how many kernels it launches.

    Args:
        name: the operator's name within the library `cplxnet`.
        launches: number of kernels, or a function of the operator's arguments that gives it.
        mutates: names of the arguments that the operator writes into.
    """

    def register(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        def on_its_device(*arguments: Any) -> Any:
            # Triton launches on the process's current device, which need not be the tensors'
            device = next(t for t in tree_leaves(arguments) if isinstance(t, torch.Tensor)).device
            if device.type != "cuda":
                return function(*arguments)
            with torch.cuda.device(device):
                return function(*arguments)

        LAUNCHES[f"cplxnet::{name}"] = launches
        return torch.library.custom_op(f"cplxnet::{name}", on_its_device, mutates_args=mutates)

    return register


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def ceil_div(n: int, size: int) -> int:
    return -(-n // size)
