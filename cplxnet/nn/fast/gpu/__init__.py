"""GPU kernels (Triton) of what a training step does most.

Each computes the plain formula in few passes over memory. `usable` is the one place that decides
whether they run; `layers` has what the layers of `cplxnet.nn` call. Every kernel is launched by a
`torch.library.custom_op`, which also runs on fake tensors, so that a step can be counted without a
GPU.
"""

import contextlib
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cplxnet.nn.fast import native
from cplxnet.nn.fast.clipping import GradientNorm
from cplxnet.nn.fast.dispatch import is_transformed

from .launch import PRECISIONS, KernelError, first_line, precision, set_tf32, tf32

DEVICES = {"cuda"}  # a test adds the device that is not there
LEAST_CAPABILITY = (8, 0)  # Ampere: the first with TF32
_DTYPES = (torch.float32, torch.complex64)


def usable(*tensors: Tensor | None) -> bool:
    """Whether the kernels can take these tensors; None is passed over.

    They are float32 or complex64, all on one CUDA device of compute capability 8.0 or more, and
    Triton is there. Not while a function is traced, compiled or transformed: tracers see through
    the plain formulas. Not under autocast to another type than bfloat16.
    """
    given = [t for t in tensors if t is not None]
    device = given[0].device
    if device.type not in DEVICES or not native.enabled() or is_transformed():
        return False

    products = precision()
    plain = (torch.Tensor, torch.nn.Parameter, FakeTensor)
    fit = all(
        type(t) in plain and t.dtype in _DTYPES and t.device == device and t.numel() > 0
        for t in given
    )
    if not fit or products not in PRECISIONS:
        return False
    return device.type != "cuda" or _ready(device.index or 0, products)


@functools.cache
def _ready(index: int, products: str) -> bool:
    """Whether the kernels compile and run on this GPU.

    They are tried once for each precision, with a warning if they do not.
    """
    if torch.cuda.get_device_capability(index) < LEAST_CAPABILITY:
        return False

    try:
        from .layers import trial

        trial(torch.device("cuda", index), products)
    except Exception as error:  # whatever the compiler raises, training can go on without
        warnings.warn(
            "the GPU kernels of cplxnet cannot be used, training will be slower: "
            f"{first_line(error)}; try a Triton that fits this PyTorch, or CPLXNET_NATIVE=0 to "
            "silence this",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return True


def in_order(*tensors: Tensor | None) -> bool:
    """Whether the kernels may read these as flat arrays; None is passed over."""
    return all(t is None or t.is_contiguous() for t in tensors)


def noise_ahead(
    layers: Sequence[torch.nn.Module], x: Tensor
) -> contextlib.AbstractContextManager[None]:
    """Within it, the noise of all these layers comes from one draw of torch's generator."""
    if x.device.type not in DEVICES:
        return contextlib.nullcontext()
    noisy = [
        n for n in layers if n.training and hasattr(n, "log_sigma2") and hasattr(n, "weight_ri")
    ]
    if not noisy or not usable(x):
        return contextlib.nullcontext()
    from . import layers as of_layers

    return of_layers.keys_ahead(len(noisy), x.device)


def forward(layer: Any, x: Tensor) -> Tensor | None:
    """What a complex linear or one-dimensional convolutional layer gives for x.

    Masked and noisy forms are included. None where the kernels do not take it (see `usable`):
    padding, dilation and groups are left to the plain formulas.
    """
    if not x.is_complex() or x.device.type not in DEVICES:
        return None

    weight = layer.weight_ri
    bias = layer.bias_ri
    mask = getattr(layer, "mask", None)
    log_sigma2 = getattr(layer, "log_sigma2", None) if layer.training else None

    if not usable(x, weight, bias, log_sigma2) or not in_order(weight, bias, log_sigma2, mask):
        return None

    from . import layers

    options = {"mask": mask, "log_sigma2": log_sigma2}
    if weight.dim() == 3:
        if x.shape[-1] != weight.shape[1]:
            return None  # the plain formula has the error
        largest = x.numel() // x.shape[-1] * max(x.shape[-1], len(weight))
        if 10 * largest >= 2**31:
            return None  # offsets of its kernels have 32 bits
        rows = x.reshape(-1, x.shape[-1])
        return layers.linear(rows, weight, bias, **options).view(*x.shape[:-1], len(weight))

    simple = (layer.padding, layer.dilation, layer.groups) == ((0,), (1,), 1)
    if weight.dim() != 4 or x.dim() != 3 or not simple:
        return None
    if x.shape[1] != weight.shape[1] or x.shape[2] < weight.shape[2]:
        return None  # the plain formula has the error
    return layers.conv1d(x, weight, bias, layer.stride[0], **options)


def kl_backward(
    layers: Sequence[Any],
    scale: float | Tensor,
    shares: list[float],
    norm: GradientNorm | None,
) -> Tensor | None:
    """`sparsity.kl_backward` of variational layers, each KL times its share.

    None where the kernels do not take them.
    """
    weights = [layer._stored for layer in layers]
    log_sigma2 = [layer.log_sigma2 for layer in layers]
    parameters = [*weights, *log_sigma2]

    grads = [p.grad for p in parameters]
    trained = all(p.requires_grad for p in parameters)
    if not trained or not usable(*parameters) or not in_order(*parameters, *grads):
        return None

    codes = [layer.term.code for layer in layers]
    if None in codes:
        return None

    from . import kl

    with torch.no_grad():
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        factor = scale if isinstance(scale, Tensor) else weights[0].new_full((), scale)
        totals = kl.kl_backward(
            weights,
            log_sigma2,
            codes,
            factor.to(weights[0].device),
            [w.grad for w in weights],
            [s.grad for s in log_sigma2],
            shares,
        )

    if norm is not None:
        for w, s, total in zip(weights, log_sigma2, totals.unbind(), strict=True):
            norm.add(w, total[1])
            norm.add(s, total[2])

    values = totals[:, 0]
    if any(share != 1 for share in shares):
        parts = zip(values.unbind(), shares, strict=True)
        values = torch.stack([value * share for value, share in parts])
    return values.sum().to(weights[0].dtype)
