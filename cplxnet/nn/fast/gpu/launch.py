"""What the GPU kernels share: how an operation is registered and a kernel started; the precision of
products.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

STARTED = Counter[str]()  # how often each kernel was started, under fake tensors too


class KernelError(RuntimeError):
    """A kernel that does not compile or start on this GPU, perhaps for one size of arrays only."""


def kernel_op(*mutated: str) -> Callable[[Callable[..., Any]], Any]:
    """Register a function that makes its results and fills them by `launch`, as `cplxnet::NAME`.

    Under fake tensors the same function runs, and starts no kernel. `mutated` names the arguments
    that it writes into.
    """

    def register(function: Callable[..., Any]) -> Any:
        name = f"cplxnet::{function.__name__}"
        operation = torch.library.custom_op(name, function, mutates_args=mutated)
        operation.register_fake(function)
        return operation

    return register


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a Triton kernel on its arguments' device.

    Fake tensors have no memory: with them the kernel is only counted.
    """
    STARTED[kernel.__name__] += 1

    tensors = [value for value in arguments if isinstance(value, Tensor)]
    if any(isinstance(tensor, FakeTensor) for tensor in tensors):
        return

    try:
        # Triton launches on the process's current device, which need not be the tensors'
        with torch.cuda.device_of(tensors[0]):
            kernel[grid](*arguments, **constants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler raises, the plain formulas can go on
        failure = KernelError(f"{first_line(error)} in the GPU kernel {kernel.__name__}")
        failure.add_note("try CPLXNET_NATIVE=0: the plain formulas, which are slower")
        raise failure from error


def launch_over(kernel: Any, n: int, *arguments: Any, BLOCK: int = 1024, **constants: Any) -> None:
    """Start a kernel whose programs take BLOCK of n elements each."""
    launch(kernel, (-(-n // BLOCK),), *arguments, n=n, BLOCK=BLOCK, **constants)


def first_line(error: BaseException) -> str:
    """Of what an error says; its name and arguments where that is nothing."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


# ---- precision of products -----------------------------------------------------------------------

PRECISIONS = {"float32": "tf32x3", "tf32": "tf32", "bfloat16": "bfloat16"}  # and Triton's names


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
