"""Initialisations of complex weights, in place.

Both draw weights of E|w|^2 = 2 sigma^2, with sigma = 1/sqrt(fan_in + fan_out) ("glorot") or
1/sqrt(fan_in) ("he").

Reference: Trabelsi et al. (2018), "Deep Complex Networks", section 3.6.
"""

import math

import torch
from torch import Generator, Tensor


@torch.no_grad()
def trabelsi_standard_(
    weight: Tensor, criterion: str = "glorot", *, generator: Generator | None = None
) -> Tensor:
    """Rayleigh modulus and uniform phase.

    That is a circular Gaussian, so the two parts are drawn as independent normals of deviation
    sigma.

    Args:
        weight: complex (out, in, *kernel), filled in place.
        criterion: "glorot" or "he".
        generator: of the random numbers; torch's own by default.

    Returns:
        The weight.

    Raises:
        ValueError: a weight that is real or has fewer than two axes, or another criterion.
    """
    sigma = _part_deviation(weight, criterion)
    torch.view_as_real(weight).normal_(0.0, sigma, generator=generator)

    return weight


@torch.no_grad()
def trabelsi_independent_(
    weight: Tensor, criterion: str = "glorot", *, generator: Generator | None = None
) -> Tensor:
    """(Semi-)unitary filters.

    The weight, read as a matrix (out, in * kernel), becomes U V^H of a random complex matrix: its
    rows are orthonormal, or its columns where there are more rows. Then it is scaled to
    E|w|^2 = 2 sigma^2. Arguments, Returns and Raises as for `trabelsi_standard_`.
    """
    sigma = _part_deviation(weight, criterion)
    rows = weight.shape[0]
    cols = weight[0].numel()
    parts = torch.randn(
        rows, cols, 2, dtype=torch.float64, device=weight.device, generator=generator
    )

    u, _, vh = torch.linalg.svd(torch.view_as_complex(parts), full_matrices=False)
    unitary = u @ vh  # mean of |entry|^2 is 1 / max(rows, cols)
    scaled = unitary * sigma * math.sqrt(2 * max(rows, cols))
    weight.copy_(scaled.reshape(weight.shape))

    return weight


def _part_deviation(weight: Tensor, criterion: str) -> float:
    """sigma, the standard deviation of each of the two parts."""
    if weight.dim() < 2 or not weight.is_complex():
        raise ValueError(
            f"expected a complex weight of two or more axes, got {weight.dtype} "
            f"{tuple(weight.shape)}"
        )
    receptive_field = weight[0, 0].numel()
    fan_in = weight.shape[1] * receptive_field
    fan_out = weight.shape[0] * receptive_field

    deviations = {"glorot": 1 / math.sqrt(fan_in + fan_out), "he": 1 / math.sqrt(fan_in)}
    if criterion not in deviations:
        raise ValueError(f"expected criterion 'glorot' or 'he', got {criterion!r}")

    return deviations[criterion]
