"""Initialisations of complex weights.

Reference: Trabelsi et al. (2018), "Deep Complex Networks", section 3.6.
"""

import math

import torch
from torch import Generator, Tensor


def _fans(weight: Tensor) -> tuple[int, int]:
    if weight.dim() < 2 or not weight.is_complex():
        raise ValueError(
            f"expected a complex weight of two or more axes, got {weight.dtype} "
            f"{tuple(weight.shape)}"
        )
    receptive = weight[0, 0].numel()
    return weight.shape[1] * receptive, weight.shape[0] * receptive


def _scale(weight: Tensor, criterion: str) -> float:
    """The deviation sigma of each part, E|w|^2 = 2 sigma^2.

    Glorot: 1/sqrt(fan_in + fan_out); He: 1/sqrt(fan_in).
    """
    fan_in, fan_out = _fans(weight)
    scales = {"glorot": 1 / math.sqrt(fan_in + fan_out), "he": 1 / math.sqrt(fan_in)}
    if criterion not in scales:
        raise ValueError(f"expected criterion 'glorot' or 'he', got {criterion!r}")
    return scales[criterion]


@torch.no_grad()
def trabelsi_standard_(
    weight: Tensor, criterion: str = "glorot", *, generator: Generator | None = None
) -> Tensor:
    """Fill a complex tensor in place with circular normals: E|w|^2 = 2 sigma^2.

    weight: complex (out, in, *kernel). A Rayleigh modulus with a uniform phase is a circular
        Gaussian, so the two parts
    are drawn as independent normals of deviation sigma. Reference: Trabelsi et al. 2018, section
    3.6.
    """
    sigma = _scale(weight, criterion)
    torch.view_as_real(weight).normal_(0.0, sigma, generator=generator)
    return weight


@torch.no_grad()
def trabelsi_independent_(
    weight: Tensor, criterion: str = "glorot", *, generator: Generator | None = None
) -> Tensor:
    """Fill a complex tensor in place with (semi-)unitary filters, scaled to E|w|^2 = 2 sigma^2.

    The weight, read as a matrix (out, in * kernel), becomes U V^H of a random complex matrix, its
    rows (or columns, where there are more rows) orthonormal, scaled to E|w|^2 = 2 sigma^2.
    Reference: Trabelsi et al. 2018, section 3.6.
    """
    sigma = _scale(weight, criterion)
    rows, cols = weight.shape[0], weight[0].numel()
    parts = torch.randn(
        rows, cols, 2, dtype=torch.float64, device=weight.device, generator=generator
    )
    u, _, vh = torch.linalg.svd(torch.view_as_complex(parts), full_matrices=False)
    unitary = u @ vh  # mean of |entry|^2 is 1 / max(rows, cols)
    weight.copy_((unitary * sigma * math.sqrt(2 * max(rows, cols))).reshape(weight.shape))
    return weight
