"""Speed that a manifest may ask for: products of fewer digits, a compiled forward pass.

Off by default. What is rounded is the input of the real matrix products and convolutions, which
tensor cores then multiply; the complex values between layers, batch norm, the loss, the KL and the
weights stay float32. Between the layers of a real network values are bfloat16.
"""

import contextlib
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from cplxnet.nn.fast import gpu


def prepare(model: nn.Module, *, device: str, products: str, compiled: bool) -> None:
    """Give `model` the forward pass that a manifest asks for; parameters and names stay.

    Args:
        device: where it runs.
        products: "bfloat16": inputs of products and convolutions are rounded to it; for "tf32" see
            `tf32`.
        compiled: by torch.compile. A forward pass that cannot be compiled runs as it is, with a
            warning.
    """
    forward: Callable[..., Any] = type(model).forward
    if compiled:
        forward = _compiled(forward)
    if products == "bfloat16":  # around the forward pass alone, as torch asks
        forward = _rounded(forward, torch.device(device).type)
    if compiled or products == "bfloat16":
        # bound, so that a copy of the network runs itself
        object.__setattr__(model, "forward", types.MethodType(forward, model))


def _rounded(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """`forward` under autocast to bfloat16, and what it gives as float32, for the loss.

    A real network ends in bfloat16, in which a loss of 0.007 (a label of 0 at a logit of -5) is 0.
    """

    def run(*args: Any) -> Any:
        with torch.autocast(device_type, torch.bfloat16):
            output = forward(*args)
        return output.float() if output.dtype == torch.bfloat16 else output

    return run


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    with warnings.catch_warnings():
        # torch's compiler imports parts of torch that it deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        fast: Callable[..., Any] | None = torch.compile(forward)

    def run(*args: Any) -> Any:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*args)
            except Exception as error:
                # of the compiler; one of the network's own comes again below
                reason = gpu.first_line(error)
                warnings.warn(
                    f"not compiled, training goes on as it is: {reason}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                fast = None
        return forward(*args)

    return run


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Whether CUDA's float32 products and convolutions are rounded to 10 bits (TF32).

    torch has it on for convolutions. The setting is the process's own, and is put back. Other
    devices do not know it.
    """
    cudnn: Any = torch.backends.cudnn
    before, before_cudnn = gpu.tf32(), None
    with contextlib.suppress(RuntimeError):  # set by torch's newer name: left as it is
        before_cudnn = cudnn.allow_tf32

    try:
        gpu.set_tf32(on)
        if before_cudnn is not None:
            cudnn.allow_tf32 = on
        yield
    finally:
        gpu.set_tf32(before)
        if before_cudnn is not None:
            cudnn.allow_tf32 = before_cudnn


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """cuDNN's convolutions give the same bits each time: some gradients of its own choice add by
    atomics. Put back as `tf32`.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.deterministic
    cudnn.deterministic = True
    try:
        yield
    finally:
        cudnn.deterministic = before
