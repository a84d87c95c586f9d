"""Layers in turn, with batch norm, split ReLU and average pooling fused.

    y = pool(relu(W (V + eps I)^(-1/2) (x - m) + b))

One by one these layers read and write every activation several times over, and keep what lies
between them for the backward pass. Fused they read x twice for its mean and covariance, and once
more to write y; the gradient needs x and dL/dy alone (see `fast.batchnorm`). The values are the
same.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.modules.utils import _single

from .activation import Split
from .batchnorm import CplxBatchNorm1d
from .fast import gpu


def through(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """x through `layers` in turn, as `torch.nn.Sequential` does it.

    A `CplxBatchNorm1d` followed by `Split(nn.ReLU())`, and perhaps `Split(nn.AvgPool1d(2))`, runs
    as one where the C functions apply (complex64 (B, C, L), channels last, on the CPU), or the
    GPU's kernels, and none of the layers has a hook.
    """
    remaining = list(layers)
    with gpu.noise_ahead(remaining, x):
        while remaining:
            layer = remaining[0]
            n_fused = _n_fused(remaining[:3], x)
            if n_fused:
                assert isinstance(layer, CplxBatchNorm1d)
                x = layer.fused(x, pool=n_fused == 3)
            else:
                x = layer(x)
            del remaining[: n_fused or 1]
    return x


def leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of nested `nn.Sequential`s in order, with their names.

    A `nn.Sequential` with a forward of its own is one of them, unless it says `is_chain`: that this
    only runs its layers in turn.
    """
    is_chain = type(module).forward is nn.Sequential.forward or getattr(module, "is_chain", False)
    if not isinstance(module, nn.Sequential) or not is_chain:
        yield prefix, module
        return

    for name, child in module._modules.items():  # named_children leaves out a layer used twice
        if child is not None:
            yield from leaves(child, f"{prefix}.{name}" if prefix else name)


def _n_fused(layers: Sequence[nn.Module], x: Tensor) -> int:
    """How many of the next `layers` run as one.

    3 (batch norm, ReLU, pooling), 2 (no pooling) or 0.
    """
    if len(layers) < 2 or type(layers[0]) is not CplxBatchNorm1d:
        return 0
    if not _is_split(layers[1], nn.ReLU) or _any_hook(layers[:2]):
        return 0
    if not layers[0].fused_usable(x):
        return 0

    pools = len(layers) == 3 and x.shape[2] > 1 and _halves(layers[2])
    return 3 if pools and not _any_hook(layers[2:]) else 2


def _is_split(layer: nn.Module, kind: type[nn.Module]) -> bool:
    return type(layer) is Split and type(layer.module) is kind


def _halves(layer: nn.Module) -> bool:
    """Whether this is the average of neighbours in pairs."""
    if not _is_split(layer, nn.AvgPool1d):
        return False

    pool: Any = layer.module
    sizes = [_single(size) for size in (pool.kernel_size, pool.stride, pool.padding)]
    return sizes == [(2,), (2,), (0,)] and not pool.ceil_mode


def _any_hook(layers: Iterable[nn.Module]) -> bool:
    """Whether one of these layers has a hook, or all layers do."""
    parts = [part for layer in layers for part in layer.modules()]
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return _has_any_global_hook() or any(getattr(part, kind) for part in parts for kind in kinds)
