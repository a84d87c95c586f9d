"""Whether a fast path may take some tensors: asked here, and nowhere else.

A fast path either hands the memory of its tensors to compiled code, or writes a gradient by hand
where autograd would take longer. Both need plain tensors and plain execution. Under tracing, fake
tensors or torch.func transforms a tensor may have no memory, or its size may be a tensor itself;
the plain formulas, which are torch operations, run there.

`native.use(False)`, or CPLXNET_NATIVE=0 in the environment, turns compiled code off, on GPUs too.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from . import native


def is_transformed() -> bool:
    """Whether torch traces, compiles or transforms what runs now.

    torch.compile, torch.jit.trace, torch.func transforms (vmap, grad, jvp), forward-mode
    differentiation.
    """
    if torch.compiler.is_compiling():  # first: torch.compile cannot look into the questions below
        return True

    return (
        torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def plain_execution() -> bool:
    """Whether each torch operation runs as it is called, on the tensors that it is called with.

    False where `is_transformed`, and under dispatch and function modes (FakeTensorMode, make_fx,
    FLOP counters). `with torch.device(...)` is a function mode too; it only says where new tensors
    lie, so it does not count.
    """
    return not (
        is_transformed()
        or is_in_torch_dispatch_mode(include_infra_modes=True)
        or any(not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack())
    )


def native_usable(*tensors: Tensor) -> bool:
    """Whether the C functions can take these tensors, and there is a library of them.

    The tensors must be float32, contiguous, in the CPU's memory, and of no subclass of Tensor but
    Parameter.
    """
    return (
        native.enabled()
        and plain_execution()
        and all(t.dtype == torch.float32 and native.addressable(t) for t in tensors)
        and native.library() is not None
    )


def own_gradient_usable(*tensors: Tensor) -> bool:
    """Whether a product or a convolution of these tensors may have a gradient written by hand.

    On the CPU alone, and not under autocast, which would cast the inputs of torch's own operation
    and not those of ours.
    """
    return (
        plain_execution()
        and not torch.is_autocast_enabled("cpu")
        and all(t.device.type == "cpu" and native.is_plain(t) for t in tensors)
    )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the `backward` of an autograd.Function whose gradient has no derivative.

    torch's own refuses in `Tensor.backward` alone: torch.autograd.grad, and with it hvp and
    hessian, would take the gradient for a constant, and give wrong numbers.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "expected a gradient that is not differentiated again, got create_graph=True; try "
                "the plain formulas (CPLXNET_NATIVE=0 in the environment), and the full network of "
                "a shrunk one"
            )
        return backward(ctx, *grads)

    return once
