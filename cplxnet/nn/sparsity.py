"""The KL of a whole network, relevance masks, and counts of zero weights.

Layers are named as in `Module.named_modules()`. Counts are in real numbers: a complex weight counts
two. log_sigma2, gates, masks and running statistics are no parameters of the compressed network and
do not count.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .fast import gpu
from .fast.clipping import GradientNorm
from .gaussian import GaussianWeight, Penalised
from .masked import Masked
from .parameters import stored_parameter

Reduction = Literal["sum", "mean"]


# -- KL --------------------------------------------------------------------------------------------


def kl_sum(module: nn.Module, reduction: Reduction = "sum", *, channels: float = 1.0) -> Tensor:
    """The KL of all variational layers: the second half of the ELBO.

    Args:
        module: a network with variational layers.
        reduction: "sum" adds over all weights, as the ELBO does. "mean" averages within each layer
            and adds the layers: the flaw of the first grid search, which compresses small upstream
            layers too much; kept to reproduce it.
        channels: multiplies the KL of channels, which `GroupVD` and `BothVD` layers have (and ARD).

    Returns:
        A differentiable scalar.

    Raises:
        ValueError: no variational layer, or another reduction.
    """
    return torch.stack(list(_reduced(module, reduction, channels).values())).sum()


@torch.enable_grad()
def kl_backward(
    module: nn.Module,
    scale: float | Tensor,
    reduction: Reduction = "sum",
    norm: GradientNorm | None = None,
    *,
    channels: float = 1.0,
) -> Tensor:
    """`(scale * kl_sum(module, reduction)).backward()` and `kl_sum` in one pass over the weights.

    What a training step does after the loss's own backward pass, so that there are gradients to add
    to. Frozen parameters (`requires_grad` False) get none.

    Args:
        module: a network with variational layers.
        scale: factor of the KL in the objective; a tensor on the weights' device is not read back.
        reduction: as in `kl_sum`.
        norm: is told the sum of squares of each gradient that the pass computes. It learns nothing
            where that would take another pass.
        channels: as in `kl_sum`.

    Returns:
        `kl_sum(module, reduction)`, a scalar without a graph.

    Raises:
        ValueError: no variational layer, or another reduction.
    """
    layers = list(_layers(module, reduction).values())
    shares = [1.0 if reduction == "sum" else 1.0 / x.n_penalties for x in layers]
    if all(layer.own == GaussianWeight.own for layer in layers):
        on_gpu = gpu.kl_backward(layers, scale, shares, norm)
        if on_gpu is not None:
            return on_gpu

    values = []
    for layer, share in zip(layers, shares, strict=True):
        factor = scale * share
        like = layer.get_parameter(layer.own[0])
        factor = factor.to(like) if isinstance(factor, Tensor) else like.new_full((), factor)
        values.append(layer.kl_backward(factor, norm, channels) * share)

    return torch.stack(values).sum()


def named_penalties(module: nn.Module, reduction: Reduction | None = None) -> dict[str, Tensor]:
    """{layer name: KL}, differentiable: of each weight (None), or its "sum" or "mean"."""
    if reduction is None:
        return {name: layer.penalty for name, layer in variational_layers(module).items()}

    return _reduced(module, reduction)


def variational_layers(module: nn.Module) -> dict[str, Penalised]:
    """{name: layer} of every layer with a penalty: a posterior, noise of channels, or gates.

    Raises:
        ValueError: there is none.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Penalised)}
    if not layers:
        raise ValueError(
            "expected variational layers (CplxLinearVD, Conv1dARD, ...) in "
            f"{type(module).__name__}, got none; try the model's VD or ARD form, or leave the KL "
            "out of the objective"
        )

    return layers


def _reduced(module: nn.Module, reduction: str, channels: float = 1.0) -> dict[str, Tensor]:
    values = {}
    for name, layer in _layers(module, reduction).items():
        total = layer.kl(channels)
        values[name] = total if reduction == "sum" else total / layer.n_penalties

    return values


def _layers(module: nn.Module, reduction: str) -> dict[str, Penalised]:
    if reduction not in ("sum", "mean"):
        raise ValueError(f"expected reduction 'sum' or 'mean', got {reduction!r}")

    return variational_layers(module)


# -- masks -----------------------------------------------------------------------------------------


def relevance_masks(module: nn.Module, threshold: float) -> dict[str, Tensor]:
    """{layer name: bool mask, shape of the weight}: True where log_alpha <= threshold, or a gate is
    not shut."""
    return {name: layer.relevance(threshold) for name, layer in variational_layers(module).items()}


def masked_layers(module: nn.Module) -> dict[str, Any]:
    """{name: layer} of every layer with a mask.

    Raises:
        ValueError: there is none.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Masked)}
    if not layers:
        raise ValueError(
            f"expected masked layers (CplxLinearMasked, ...) in {type(module).__name__}, got none; "
            "try the model's Masked form"
        )

    return layers


@torch.no_grad()
def deploy_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Copy masks into the masked layers of the same names, and set masked weights to zero.

    Raises:
        ValueError: before anything is changed, with every mask that has no masked layer, every
            masked layer without a mask, and every mask of another shape than its layer's weight.
        RuntimeError: a weight is not a parameter of its own any more (see `Masked`).
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Masked)}
    for layer in layers.values():
        stored_parameter(layer, "weight")

    kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
    faults = [
        f"{name}: a mask, but the layer is {kinds.get(name, 'missing')}"
        for name in masks
        if name not in layers
    ]
    faults += [f"{name}: {kinds[name]} without a mask" for name in layers if name not in masks]
    faults += [
        f"{name}: expected a mask of shape {tuple(layer.mask.shape)}, "
        f"got {tuple(masks[name].shape)}"
        for name, layer in layers.items()
        if name in masks and masks[name].shape != layer.mask.shape
    ]
    if faults:
        raise ValueError("masks do not fit the masked layers; " + "; ".join(faults))

    for name, layer in layers.items():
        layer.mask = masks[name]
        weight: Any = layer.weight
        weight.masked_fill_(~layer.mask, 0)


# -- counts ----------------------------------------------------------------------------------------


def sparsity(module: nn.Module, threshold: float) -> dict[str, tuple[int, int]]:
    """{parameter name: (zeros, total)} in real numbers, of every parameter that counts.

    A masked layer's weight has the zeros of its mask, a variational layer's weight those that
    relevance(threshold) drops. All other parameters count as dense, whatever their values. A
    parameter that two layers share counts once.
    """
    counts: dict[str, tuple[int, int]] = {}
    counted: set[nn.Parameter] = set()
    for prefix, layer in module.named_modules():
        n_dropped = 0
        if isinstance(layer, Masked):
            stored_parameter(layer, "weight")  # computed from others, its zeros would not count
            n_dropped = int((~layer.mask).sum())
        elif isinstance(layer, Penalised):
            n_dropped = int((~layer.relevance(threshold)).sum())

        for key, parameter in layer.named_parameters(recurse=False):
            if parameter in counted or (isinstance(layer, Penalised) and key in layer.own):
                continue
            counted.add(parameter)

            n_parts = {"weight": 1, "weight_ri": 2}.get(key, 0)  # of what has zeros
            counts[f"{prefix}.{key}".lstrip(".")] = (n_parts * n_dropped, parameter.numel())

    return counts


def compression(module: nn.Module, threshold: float) -> float:
    """n_par/(n_par - n_zero) in real numbers: 1.0 for a dense network, inf if nothing is left.

    Raises:
        ValueError: a module without parameters.
    """
    counts = sparsity(module, threshold).values()
    n_zero = sum(zeros for zeros, _ in counts)
    n_par = sum(total for _, total in counts)
    if n_par == 0:
        raise ValueError(
            f"expected a module with parameters, got {type(module).__name__} without any"
        )

    return n_par / (n_par - n_zero) if n_zero < n_par else float("inf")
