"""Masks of a given sparsity: of the weights of least modulus, or of weights at random.

A complex weight is masked whole, by |w|. Sparsity is the share of weights that is masked, and masks
come out with exactly round(sparsity * n) zeros, or those that there were if these are more.
`deploy_masks` puts them in place.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .sparsity import masked_layers

Sparsity = float | Mapping[str, float]  # of all weights together, or of each layer by its name


@torch.no_grad()
def magnitude_masks(
    module: nn.Module, sparsity: Sparsity, *, by_layer: bool = False
) -> dict[str, Tensor]:
    """{layer name: bool mask}, False for the weights of least |w|. What is masked stays masked.

    Args:
        module: a network with masked layers.
        sparsity: share of the weights to mask, in [0, 1]; that of each layer by its name.
        by_layer: one sparsity is that of every layer, not of all weights in one ranking.

    Raises:
        ValueError: no masked layer, one without a sparsity, or a sparsity outside [0, 1].
    """
    layers = masked_layers(module)
    scores = {
        name: torch.where(layer.mask, layer.weight.abs(), -1.0) for name, layer in layers.items()
    }
    kept = _largest_kept(scores, sparsity, by_layer)
    return {name: mask & layers[name].mask for name, mask in kept.items()}


def random_masks(
    module: nn.Module, sparsity: Sparsity, generator: torch.Generator, *, by_layer: bool = False
) -> dict[str, Tensor]:
    """{layer name: bool mask}, False for weights drawn at random, whatever is masked now.

    Args:
        module, sparsity, by_layer: as of `magnitude_masks`, which raises the same.
        generator: on the CPU, so that every device has the same masks.
    """
    scores = {
        name: torch.rand(layer.mask.shape, generator=generator, dtype=torch.float64)
        for name, layer in masked_layers(module).items()
    }
    return _largest_kept(scores, sparsity, by_layer)


def _largest_kept(
    scores: Mapping[str, Tensor], sparsity: Sparsity, by_layer: bool
) -> dict[str, Tensor]:
    if isinstance(sparsity, Mapping):
        lacking = [name for name in scores if name not in sparsity]
        if lacking:
            raise ValueError(
                f"expected the sparsity of every masked layer, got none of {', '.join(lacking)}"
            )
        return {name: _kept(score, sparsity[name]) for name, score in scores.items()}
    if by_layer:
        return {name: _kept(score, sparsity) for name, score in scores.items()}

    kept = _kept(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = kept.split([score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def _kept(scores: Tensor, sparsity: float) -> Tensor:
    """False for the round(sparsity * n) least scores; of equal ones the first are dropped."""
    if not 0 <= sparsity <= 1:
        raise ValueError(f"expected a sparsity from 0 to 1, got {sparsity}; try 0.9")

    n_dropped = round(sparsity * scores.numel())
    if n_dropped == 0:
        return torch.ones_like(scores, dtype=torch.bool)

    flat = scores.flatten()
    limit = flat.kthvalue(n_dropped).values
    below = flat < limit
    equal = flat == limit
    dropped = below | (equal & (equal.cumsum(0) <= n_dropped - below.sum()))
    return ~dropped.view(scores.shape)
