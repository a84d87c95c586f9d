"""An optional torch.compile around elementwise functions, with plain PyTorch as the way out.

Off by default: compiling takes seconds and a C++ compiler (CPU) or Triton (GPU). A trainer that runs thousands of steps
switches it on with `compile_kernels()`; where compiling fails, one warning says so and the plain functions run.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

_state = {"on": False}


def compile_kernels(on: bool = True) -> None:
    """Fuse each elementwise pass of the KL into one kernel from its next use on (`on=False`: plain functions again)."""
    _state["on"] = on


def kernels_compiled() -> bool:
    """Whether compiled kernels are in use: False also after compiling has failed."""
    return _state["on"]


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True, fullgraph=True)


def fused(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), compiled if that is switched on and works. The function must be pure and elementwise."""
    if _state["on"]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # the compiler's own deprecations are not the user's
                return _compiled(function)(*args)
        except Exception as error:  # whatever the compiler raises, training can go on without it
            _state["on"] = False
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            warnings.warn(
                f"compiling {function.__name__} failed, going on without: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
    return function(*args)
