"""What a whole network says about its weights: KL, which are relevant, masks put in place, and how many are zero.

Layers are named as in `Module.named_modules()`. Counts are real numbers: a complex weight counts two. log_sigma2, masks
and running statistics are not parameters of the compressed network and do not count.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .fast import gpu
from .gaussian import GaussianWeight
from .kl import CODES, Squares
from .masked import Masked
from .parameters import stored_parameter

Reduction = Literal["sum", "mean"]


def variational_layers(module: nn.Module) -> dict[str, GaussianWeight]:
    """{name: layer} of every layer with a Gaussian posterior. Raises ValueError if there is none."""
    layers = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, GaussianWeight)
    }
    if not layers:
        raise ValueError(
            f"expected variational layers (CplxLinearVD, Conv1dARD, ...) in {type(module).__name__}, got none; "
            "try the model's VD or ARD form, or leave the KL out of the objective"
        )
    return layers


def kl_sum(module: nn.Module, reduction: Reduction = "sum") -> Tensor:
    """The KL of all variational layers as one differentiable scalar: the second half of the ELBO.

    reduction "sum" adds over all weights, as the ELBO does. "mean" averages within each layer and adds the layers: the
    flaw of the first grid search, which compresses small upstream layers too much; kept to reproduce it.
    Raises ValueError where there is no variational layer, or for another reduction.
    """
    return torch.stack(list(_reduced(module, reduction).values())).sum()


def kl_backward(
    module: nn.Module,
    scale: float | Tensor,
    reduction: Reduction = "sum",
    squares: Squares | None = None,
) -> Tensor:
    """`(scale * kl_sum(module, reduction)).backward()`, and `kl_sum(module, reduction)`, in one pass over the weights.

    What a training step does: after the loss's own backward pass, so that there are gradients to add to. Returns a
    scalar without a graph. squares: a dict that takes, for `clip_grad_norm_`, the sum of squares of every gradient that
    the pass makes, by its parameter; it stays empty where that would be a pass of its own. Raises ValueError as
    `kl_sum` does.
    """
    layers = list(_layers(module, reduction).values())
    parameters = [p for layer in layers for p in (layer.stored_weight, layer.log_sigma2)]
    if gpu.usable(*parameters) and all(layer.term in CODES for layer in layers):
        return _kl_backward_on_gpu(layers, scale, reduction, squares)
    scale, values = float(scale), []
    for layer in layers:
        share = 1.0 if reduction == "sum" else 1.0 / layer.log_sigma2.numel()
        factor = layer.log_sigma2.new_full((), scale * share)
        values.append(layer.kl_backward(factor, squares) * share)
    return torch.stack(values).sum()


@torch.no_grad()
def _kl_backward_on_gpu(
    layers: list[GaussianWeight], scale: float | Tensor, reduction: str, squares: Squares | None
) -> Tensor:
    from .fast.gpu.kl import kl_backward as all_layers

    weights = [layer.stored_weight for layer in layers]
    log_sigma2 = [layer.log_sigma2 for layer in layers]
    for p in (*weights, *log_sigma2):
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    shares = [1.0 if reduction == "sum" else 1.0 / s.numel() for s in log_sigma2]
    if not isinstance(scale, Tensor):
        scale = weights[0].new_full((), scale)
    totals = all_layers(
        weights,
        log_sigma2,
        [CODES[layer.term] for layer in layers],
        scale,
        [w.grad for w in weights],
        [s.grad for s in log_sigma2],
        shares,
    )
    if squares is not None:
        for w, s, total in zip(weights, log_sigma2, totals.unbind(), strict=True):
            squares.update({w: total[1], s: total[2]})
    values = totals[:, 0]
    if reduction == "mean":
        values = torch.stack([v * share for v, share in zip(values.unbind(), shares, strict=True)])
    return values.sum().to(weights[0].dtype)


def named_penalties(module: nn.Module, reduction: Reduction | None = None) -> dict[str, Tensor]:
    """{layer name: KL}, differentiable: of every weight (None), or its "sum" or "mean" over the layer's weights."""
    if reduction is None:
        return {name: layer.penalty for name, layer in variational_layers(module).items()}
    return _reduced(module, reduction)


def _reduced(module: nn.Module, reduction: str) -> dict[str, Tensor]:
    layers = _layers(module, reduction)
    return {
        n: x.kl() if reduction == "sum" else x.kl() / x.log_sigma2.numel()
        for n, x in layers.items()
    }


def _layers(module: nn.Module, reduction: str) -> dict[str, GaussianWeight]:
    if reduction not in ("sum", "mean"):
        raise ValueError(f"expected reduction 'sum' or 'mean', got {reduction!r}")
    return variational_layers(module)


def relevance_masks(module: nn.Module, threshold: float) -> dict[str, Tensor]:
    """{layer name: bool mask, shape of the weight}: True where log_alpha <= threshold."""
    return {name: layer.relevance(threshold) for name, layer in variational_layers(module).items()}


@torch.no_grad()
def deploy_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Copy masks into the masked layers of the same names, and set the weights they switch off to zero.

    Raises ValueError, before anything is changed, that lists every name of a mask without a masked layer, of a masked
    layer without a mask, and of a mask of another shape than its layer's weight.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, Masked)}
    for layer in layers.values():
        stored_parameter(layer, "weight")
    kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
    faults = [
        f"{n}: a mask, but the layer is {kinds.get(n, 'missing')}" for n in masks if n not in layers
    ]
    faults += [f"{n}: {kinds[n]} without a mask" for n in layers if n not in masks]
    faults += [
        f"{n}: expected a mask of shape {tuple(layer.mask.shape)}, got {tuple(masks[n].shape)}"
        for n, layer in layers.items()
        if n in masks and masks[n].shape != layer.mask.shape
    ]
    if faults:
        raise ValueError("masks do not fit the masked layers; " + "; ".join(faults))
    for name, layer in layers.items():
        layer.mask = masks[name]
        weight: Any = layer.weight
        weight.masked_fill_(~layer.mask, 0)


def sparsity(module: nn.Module, threshold: float) -> dict[str, tuple[int, int]]:
    """{parameter name: (zeros, total)} in real numbers, of every parameter that counts.

    A masked layer's weight has the zeros of its mask, a variational layer's weight those that relevance(threshold)
    drops; all other parameters are taken as dense, whatever their values.
    """
    counts: dict[str, tuple[int, int]] = {}
    seen: set[nn.Parameter] = set()  # a parameter that two layers share counts once
    for prefix, layer in module.named_modules():
        dropped = _dropped(layer, threshold)
        for key, parameter in layer.named_parameters(recurse=False):
            if parameter in seen or (isinstance(layer, GaussianWeight) and key == "log_sigma2"):
                continue
            seen.add(parameter)
            zeros = dropped if key in ("weight", "weight_ri") else 0
            parts = 2 if key == "weight_ri" else 1
            counts[f"{prefix}.{key}" if prefix else key] = (parts * zeros, parameter.numel())
    return counts


def _dropped(layer: nn.Module, threshold: float) -> int:
    """How many (complex or real) weights of this very layer are zero."""
    if isinstance(layer, Masked):
        stored_parameter(layer, "weight")  # or its zeros would be counted nowhere
        return int((~layer.mask).sum())
    return int((~layer.relevance(threshold)).sum()) if isinstance(layer, GaussianWeight) else 0


def compression(module: nn.Module, threshold: float) -> float:
    """n_par/(n_par - n_zero) in real numbers, 1.0 for a dense network, inf where nothing is left."""
    counts = sparsity(module, threshold).values()
    n_zero, n_par = sum(zeros for zeros, _ in counts), sum(total for _, total in counts)
    if n_par == 0:
        raise ValueError(
            f"expected a module with parameters, got {type(module).__name__} without any"
        )
    return n_par / (n_par - n_zero) if n_zero < n_par else float("inf")
