"""The arithmetic of complex batch normalisation: 2x2 algebra, and the passes over the activations.

    y = M (x - m) + b,   M = W (V + eps I)^(-1/2)

for each channel, with m and V the mean and the covariance of (real, imaginary) over the N rows of x_ri (N, C, 2).
`normalise_plain` says this in tensor operations; `normalise` computes the same with its gradient in closed form, in few
passes over blocks of rows that fit the cache, and is what training uses; `fast.batchnorm` has them in C. A test holds
the three together.

Gradient. With x' = x - m, G = dL/dy, and gV = dL/dV (through M, 2x2 algebra per channel, left to autograd),

    dL/db = sum G,   dL/dM = sum G x'^T,   dL/dx = M^T G - mean(M^T G) + (gV + gV^T) x' / N.

Reference: Trabelsi et al. 2018, "Deep Complex Networks", equations 3 to 6; Ioffe and Szegedy 2015 for the gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fast import batchnorm, native
from .fast.batchnorm import NO_TAIL, Tail

_BLOCK = (
    1 << 16
)  # complex numbers in a block of rows on the CPU: half a megabyte, which a core's cache holds


def inverse_root(cov: Tensor, eps: float) -> Tensor:
    """(V + eps I)^(-1/2) of covariances V (2, 2, C), in closed form.

    With a, d the diagonal and b the off-diagonal of V + eps I, s = sqrt(ad - b^2) and t = sqrt(a + d + 2s), it is
    [[d + s, -b], [-b, a + s]] / (s t). Rounding can make ad - b^2 too small or negative where the parts are
    nearly dependent; since V is positive semidefinite it is never below eps (a + d - eps), which guards it.
    """
    a, d, b = cov[0, 0] + eps, cov[1, 1] + eps, cov[0, 1]
    det = torch.maximum(a * d - b * b, eps * (a + d - eps))
    s = det.sqrt()
    t = (a + d + 2 * s).sqrt()
    return torch.stack((torch.stack((d + s, -b)), torch.stack((-b, a + s)))) / (s * t)


def matrix_of(cov: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """M = W (V + eps I)^(-1/2), (2, 2, C); W = I/sqrt(2) where there is no weight."""
    root = inverse_root(cov, eps)
    return root * 0.5**0.5 if weight is None else (weight.unsqueeze(2) * root).sum(1)


def moments(x_ri: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (2, C) and biased covariance (2, 2, C) over the rows of (N, C, 2)."""
    mean = x_ri.mean(0)
    centred = x_ri - mean  # squares of the centred values: E x^2 - (E x)^2 would cancel
    (rr, ii), ri = centred.square().mean(0).unbind(-1), centred.prod(-1).mean(0)
    return mean.t(), torch.stack((torch.stack((rr, ri)), torch.stack((ri, ii))))


def affine(x_ri: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """y = M x + s per channel: x_ri (N, C, 2), matrix (2, 2, C), shift (2, C)."""
    re, im = x_ri.unbind(-1)
    y_re = matrix[0, 0] * re + matrix[0, 1] * im + shift[0]
    y_im = matrix[1, 0] * re + matrix[1, 1] * im + shift[1]
    return torch.stack((y_re, y_im), -1)


def normalise_plain(
    x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y (N, C, 2), mean (2, C) and covariance (2, 2, C): the formula as it stands."""
    mean, cov = moments(x_ri)
    matrix = matrix_of(cov, weight, eps)
    shift = -(matrix * mean).sum(1)
    return affine(x_ri, matrix, shift if bias is None else shift + bias), mean, cov


def normalise(
    x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, tail: Tail = NO_TAIL
) -> tuple[Tensor, Tensor, Tensor]:
    """The same values and gradients as `normalise_plain`; the mean and the covariance carry no gradient.

    tail: what follows in the same pass, only where C can take the tensors (`native.usable`).
    """
    if native.usable(*(t for t in (x_ri, weight, bias) if t is not None)):
        return batchnorm.Normalise.apply(x_ri, weight, bias, eps, tail)
    assert not tail.code
    return _Normalise.apply(x_ri, weight, bias, eps)


def normalise_by(
    x_ri: Tensor,
    mean: Tensor,
    cov: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    tail: Tail = NO_TAIL,
) -> Tensor:
    """y by a mean (2, C) and a covariance (2, 2, C) that are given, in one pass where nobody asks for a gradient.

    tail: as in `normalise`, and only without a gradient.
    """
    given = [t for t in (x_ri, mean, cov, weight, bias) if t is not None]
    with_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    if not with_gradient and native.usable(*given):
        return batchnorm.normalise_by(x_ri, mean, cov, weight, bias, eps, tail)
    assert not tail.code
    matrix = matrix_of(cov, weight, eps)
    shift = -(matrix * mean).sum(1)
    shift = shift if bias is None else shift + bias
    return affine(x_ri, matrix, shift) if with_gradient else _Blocked(x_ri).affine(matrix, shift)


def running_map(
    mean: Tensor, cov: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """M (2, 2, C) and s (2, C) of y = M x + s by given statistics."""
    matrix = matrix_of(cov, weight, eps)
    shift = -(matrix * mean).sum(1)
    return matrix, shift if bias is None else shift + bias


def _as_complex(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """p, q (C) with M z = p z + q conj(z) for real 2x2 matrices M (2, 2, C)."""
    (a, b), (c, d) = matrix
    return torch.complex(a + d, c - b) / 2, torch.complex(a - d, c + b) / 2


def _blocks(*rows: Tensor) -> Any:
    """The tensors (N, C) cut alike into blocks of rows; whole on a GPU, where there is no cache to fit."""
    size = max(_BLOCK // rows[0].shape[1], 1) if rows[0].device.type == "cpu" else len(rows[0])
    return zip(*(r.split(size) for r in rows), strict=True)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        passes = _Blocked(x_ri)
        mean, cov = passes.moments()
        matrix = matrix_of(cov, weight, eps)
        shift = -(matrix * mean).sum(1)
        y = passes.affine(matrix, shift if bias is None else shift + bias)
        ctx.save_for_backward(x_ri, mean, cov, weight)
        ctx.eps, ctx.has_bias = eps, bias is not None
        ctx.mark_non_differentiable(mean, cov)
        return y, mean, cov

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x_ri, mean, cov, weight = ctx.saved_tensors
        grad, n, passes = grad.contiguous(), len(x_ri), _Blocked(x_ri)
        total, by_matrix = passes.gradient_sums(grad, mean)
        matrix, by_cov, by_weight = _through_matrix(cov, weight, ctx.eps, by_matrix)
        back, around = matrix.transpose(0, 1), (by_cov + by_cov.transpose(0, 1)) / n
        shift = -(back * total).sum(1) / n - (around * mean).sum(1)
        dx = passes.affine_two(grad, back, around, shift)
        return dx, by_weight, total if ctx.has_bias else None, None


class _Blocked:
    """The passes over x (N, C, 2) as complex tensor operations, block by block."""

    def __init__(self, x_ri: Tensor) -> None:
        self.z = torch.view_as_complex(x_ri)

    def moments(self) -> tuple[Tensor, Tensor]:
        z, mean = self.z, self.z.mean(0)
        power, cross = torch.zeros_like(torch.view_as_real(mean)), torch.zeros_like(mean.real)
        for (rows,) in _blocks(z):
            centred = torch.view_as_real(rows - mean)
            cross += centred.prod(-1).sum(0)
            power += centred.square_().sum(0)
        (rr, ii), ri = (power / len(z)).unbind(-1), cross / len(z)
        return torch.view_as_real(mean).t().contiguous(), torch.stack(
            (torch.stack((rr, ri)), torch.stack((ri, ii)))
        )

    def affine(self, matrix: Tensor, shift: Tensor) -> Tensor:
        (p, q), s, y = (
            _as_complex(matrix),
            torch.complex(shift[0], shift[1]),
            torch.empty_like(self.z),
        )
        for rows, out in _blocks(self.z, y):
            torch.addcmul(s, rows, p, out=out)
            out.addcmul_(rows.conj().resolve_conj(), q)
        return torch.view_as_real(y)

    def gradient_sums(self, grad: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of g (2, C) and of g_i x'_j (2, 2, C)."""
        g, m = torch.view_as_complex(grad), torch.complex(mean[0], mean[1])
        outer, inner = torch.zeros_like(m), torch.zeros_like(m)  # sums of g x' and of g conj(x')
        for rows, up in _blocks(self.z, g):
            centred = rows - m
            outer += (up * centred).sum(0)
            inner += (up * centred.conj_physical_()).sum(0)
        # Re and Im of g conj(x') and g x' hold the four products of parts
        re_re, im_im = (inner.real + outer.real) / 2, (inner.real - outer.real) / 2
        im_re, re_im = (outer.imag + inner.imag) / 2, (outer.imag - inner.imag) / 2
        by_matrix = torch.stack((torch.stack((re_re, re_im)), torch.stack((im_re, im_im))))
        return torch.view_as_real(g.sum(0)).t().contiguous(), by_matrix

    def affine_two(self, grad: Tensor, matrix: Tensor, around: Tensor, shift: Tensor) -> Tensor:
        """matrix g + around x + shift."""
        (p, q), (a, b), s = (
            _as_complex(matrix),
            _as_complex(around),
            torch.complex(shift[0], shift[1]),
        )
        g, dx = torch.view_as_complex(grad), torch.empty_like(self.z)
        for rows, up, out in _blocks(self.z, g, dx):
            torch.addcmul(s, up, p, out=out)
            out.addcmul_(up.conj().resolve_conj(), q).addcmul_(rows, a).addcmul_(
                rows.conj().resolve_conj(), b
            )
        return torch.view_as_real(dx)


def _through_matrix(
    cov: Tensor, weight: Tensor | None, eps: float, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """M, and the gradients of its inputs V and W given dL/dM: autograd on a few numbers per channel."""
    with torch.enable_grad():
        cov = cov.detach().requires_grad_()
        weight = None if weight is None else weight.detach().requires_grad_()
        matrix = matrix_of(cov, weight, eps)
        inputs = [cov] if weight is None else [cov, weight]
        by_cov, *rest = torch.autograd.grad(matrix, inputs, grad)
    return matrix.detach(), by_cov, rest[0] if rest else None
