"""What the GPU kernels share.

How an operation is registered, a kernel started, an array cut into programs.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from . import KernelError

PROGRAMS = 512  # programs that share a sum: about four for each multiprocessor of an H100

STARTED = Counter[str]()  # how often each kernel was started, under fake tensors too


def kernel_op(function: Callable[..., Any] | None = None, *, mutates: tuple[str, ...] = ()) -> Any:
    """Register a function that makes its results and fills them by `launch`, as `cplxnet::NAME`.

    Under fake tensors the same function runs, and starts no kernel. `mutates` names the arguments
    that it writes into.
    """

    def register(function: Callable[..., Any]) -> Any:
        name = f"cplxnet::{function.__name__}"
        operation = torch.library.custom_op(name, function, mutates_args=mutates)
        operation.register_fake(function)
        return operation

    return register if function is None else register(function)


def launch(kernel: Any, grid: tuple[int, ...], **options: Any) -> Callable[..., None]:
    """Start a Triton kernel with these constants, on its arguments' device.

    To be called as `launch(kernel, (n,), BLOCK=8)(x, y)`. Fake tensors have no memory: with them
    the kernel is only counted.
    """

    def start(*arguments: Any) -> None:
        STARTED[kernel.__name__] += 1

        tensors = [value for value in arguments if isinstance(value, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            return

        # Triton launches on the process's current device, which need not be the tensors'
        device = tensors[0].device
        try:
            with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
                kernel[grid](*arguments, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the compiler raises, the plain formulas can go on
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise KernelError(f"{reason} in the GPU kernel {kernel.__name__}") from error

    return start


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def ceil_div(n: int, size: int) -> int:
    return -(-n // size)


# ---- complex numbers as pairs (n, 2): this program's BLOCK of them -------------------------------


@triton.jit
def load_pairs(base, n, BLOCK: tl.constexpr):
    """Their parts (re, im), each (BLOCK,); 0 beyond n."""
    i = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    return tl.split(tl.reshape(tl.load(base + i, mask=i < 2 * n, other=0.0), (BLOCK, 2)))


@triton.jit
def store_pairs(base, re, im, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    tl.store(base + i, tl.reshape(tl.join(re, im), (2 * BLOCK,)), mask=i < 2 * n)
