"""The formula of complex batch normalisation: 2x2 whitening of (real, imaginary) per channel.

    y = M (x - m) + b,   M = W (V + eps I)^(-1/2)

m and V are the mean and the covariance of (real, imaginary) of each channel over the N rows of x_ri
(N, C, 2). Gradients are left to autograd. `fast.batchnorm` computes the same in C, with the
gradient in closed form: with x' = x - m, G = dL/dy, and gV = dL/dV through M,

    dL/db = sum G,   dL/dM = sum G x'^T,   dL/dx = M^T G - mean(M^T G) + (gV + gV^T) x' / N.

References:
    Trabelsi et al. (2018), "Deep Complex Networks", equations 3 to 6.
    Ioffe and Szegedy (2015), "Batch Normalization", for the gradient.
"""

import torch
from torch import Tensor


def normalise(
    x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the batch's own statistics.

    Args:
        x_ri: (N, C, 2), real.
        weight: W (2, 2, C), I/sqrt(2) if None.
        bias: b (2, C), 0 if None.
        eps: added to the diagonal of V.

    Returns:
        y (N, C, 2), mean (2, C) and biased covariance (2, 2, C).
    """
    mean, cov = moments(x_ri)
    return normalise_by(x_ri, mean, cov, weight, bias, eps), mean, cov


def normalise_by(
    x_ri: Tensor,
    mean: Tensor,
    cov: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Normalise by given statistics.

    Args:
        x_ri: (..., C, 2), real.
        mean: m (2, C).
        cov: V (2, 2, C).
        weight, bias, eps: as in `normalise`.

    Returns:
        y (..., C, 2).
    """
    return affine(x_ri, *map_by(mean, cov, weight, bias, eps))


def map_by(
    mean: Tensor, cov: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Normalisation by given statistics as y = M x + s; arguments as in `normalise_by`.

    Returns:
        M (2, 2, C) and s (2, C).
    """
    matrix = matrix_of(cov, weight, eps)
    shift = -(matrix * mean).sum(1)

    return matrix, shift if bias is None else shift + bias


def moments(x_ri: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (2, C) and biased covariance (2, 2, C) over the rows of (N, C, 2)."""
    mean = x_ri.mean(0)
    centred = x_ri - mean  # squares of the centred values: E x^2 - (E x)^2 would cancel
    rr, ii = centred.square().mean(0).unbind(-1)
    ri = centred.prod(-1).mean(0)
    cov = torch.stack((torch.stack((rr, ri)), torch.stack((ri, ii))))

    return mean.t(), cov


def matrix_of(cov: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """M = W (V + eps I)^(-1/2), (2, 2, C); W = I/sqrt(2) where there is no weight."""
    root = inverse_root(cov, eps)
    if weight is None:
        return root * 0.5**0.5

    return (weight.unsqueeze(2) * root).sum(1)


def inverse_root(cov: Tensor, eps: float) -> Tensor:
    """(V + eps I)^(-1/2) of covariances V (2, 2, C), in closed form.

    With a, d the diagonal and b the off-diagonal of V + eps I, s = sqrt(ad - b^2) and
    t = sqrt(a + d + 2s), it is [[d + s, -b], [-b, a + s]] / (s t). Rounding can make ad - b^2 too
    small or negative where the parts are nearly dependent. Since V is positive semidefinite it is
    never below eps (a + d - eps), which guards it.
    """
    a = cov[0, 0] + eps
    d = cov[1, 1] + eps
    b = cov[0, 1]
    det = torch.maximum(a * d - b * b, eps * (a + d - eps))
    s = det.sqrt()
    t = (a + d + 2 * s).sqrt()

    return torch.stack((torch.stack((d + s, -b)), torch.stack((-b, a + s)))) / (s * t)


def affine(x_ri: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """y = M x + s per channel: x_ri (..., C, 2), matrix (2, 2, C), shift (2, C)."""
    re, im = x_ri.unbind(-1)
    y_re = matrix[0, 0] * re + matrix[0, 1] * im + shift[0]
    y_im = matrix[1, 0] * re + matrix[1, 1] * im + shift[1]

    return torch.stack((y_re, y_im), -1)
