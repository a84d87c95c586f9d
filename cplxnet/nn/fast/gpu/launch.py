"""What the GPU kernels share: how an operation is registered, a kernel started, an array cut into
programs; and the precision of products.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

PROGRAMS = 512  # programs that share a sum: about four for each multiprocessor of an H100

STARTED = Counter[str]()  # how often each kernel was started, under fake tensors too


class KernelError(RuntimeError):
    """A kernel that does not compile or start on this GPU, perhaps for one size of arrays only."""


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
            raise KernelError(f"{first_line(error)} in the GPU kernel {kernel.__name__}") from error

    return start


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def ceil_div(n: int, size: int) -> int:
    return -(-n // size)


def first_line(error: BaseException) -> str:
    """Of what an error says; its name and arguments where that is nothing."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


# ---- precision of products -----------------------------------------------------------------------


def tf32() -> bool:
    """Whether torch rounds float32 products to TF32, by either of its names for this setting."""
    matmul = torch.backends.cuda.matmul
    try:
        return matmul.allow_tf32
    except RuntimeError:  # set by the newer name, beside which torch refuses to read the older
        return matmul.fp32_precision == "tf32"


def set_tf32(on: bool) -> None:
    """Switch the rounding of torch's float32 products to TF32 on or off."""
    matmul = torch.backends.cuda.matmul
    try:
        matmul.allow_tf32  # noqa: B018 - raises where the newer name is in use
        matmul.allow_tf32 = on
    except RuntimeError:
        matmul.fp32_precision = "tf32" if on else "ieee"


def precision() -> str:
    """The precision of products, as the process has it set.

    The type of autocast under it, "tf32" where torch allows it, or "float32".
    """
    if torch.is_autocast_enabled("cuda"):
        return str(torch.get_autocast_dtype("cuda")).removeprefix("torch.")
    return "tf32" if tf32() else "float32"
