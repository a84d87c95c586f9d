"""The arithmetic of complex batch normalisation: 2x2 algebra, and the passes over the activations.

    y = M (x - m) + b,   M = W (V + eps I)^(-1/2)

for each channel, with m and V the mean and the covariance of (real, imaginary) over the N rows of x_ri (N, C, 2).
`normalise_plain` says this in tensor operations; `normalise` computes the same with its gradient in closed form, in few
passes over blocks of rows that fit the cache, and is what training uses. A test holds the two together.

A tail (`Tail`) of split ReLU and average pooling can come with it: the passes then read and write each activation once
for all three layers, and what lies between them is never stored (see `folding`).

Gradient. With x' = x - m, G = dL/dy, and gV = dL/dV (through M, 2x2 algebra per channel, left to autograd),

    dL/db = sum G,   dL/dM = sum G x'^T,   dL/dx = M^T G - mean(M^T G) + (gV + gV^T) x' / N.

Reference: Trabelsi et al. 2018, "Deep Complex Networks", equations 3 to 6; Ioffe and Szegedy 2015 for the gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native

_BLOCK = 1 << 16  # complex numbers in a block of rows on the CPU: half a megabyte, which a core's cache holds


class Tail(NamedTuple):
    """What follows y in the same pass. relu: the split ReLU; pool: then the average of two neighbours (every part).

    length: rows of a sample; the N rows are samples of so many, and an odd last one has no neighbour and is left out.
    Only float32 on the CPU with the C functions can have a tail.
    """

    relu: bool = False
    pool: bool = False
    length: int = 1

    @property
    def code(self) -> int:
        """As in native.c."""
        return 2 if self.pool else int(self.relu)


_NO_TAIL = Tail()


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


def apply_affine(x_ri: Tensor, matrix: Tensor, shift: Tensor, tail: Tail = _NO_TAIL) -> Tensor:
    """`affine`, in one pass where nobody asks for a gradient; with a tail nobody may."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x_ri, matrix, shift)):
        return affine(x_ri, matrix, shift)
    return _passes(tail, x_ri).affine(matrix, shift)


def normalise_plain(
    x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y (N, C, 2), mean (2, C) and covariance (2, 2, C): the formula as it stands."""
    mean, cov = moments(x_ri)
    matrix = matrix_of(cov, weight, eps)
    shift = -(matrix * mean).sum(1)
    return affine(x_ri, matrix, shift if bias is None else shift + bias), mean, cov


def normalise(
    x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, tail: Tail = _NO_TAIL
) -> tuple[Tensor, Tensor, Tensor]:
    """The same values and gradients as `normalise_plain`; the mean and the covariance carry no gradient.

    With a tail, y is what it makes of y: (N, C, 2), or after pooling (N/length * (length // 2), C, 2).
    """
    return _Normalise.apply(x_ri, weight, bias, eps, tail)


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
        ctx: Any, x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, tail: Tail
    ) -> tuple[Tensor, Tensor, Tensor]:
        passes = _passes(tail, x_ri)
        mean, cov = passes.moments()
        matrix = matrix_of(cov, weight, eps)
        shift = -(matrix * mean).sum(1)
        shift = shift if bias is None else shift + bias
        y = passes.affine(matrix, shift)
        ctx.save_for_backward(x_ri, mean, cov, weight, matrix, shift)
        ctx.eps, ctx.has_bias, ctx.tail = eps, bias is not None, tail
        ctx.mark_non_differentiable(mean, cov)
        return y, mean, cov

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x_ri, mean, cov, weight, *forward_map = ctx.saved_tensors
        grad, n = grad.contiguous(), len(x_ri)
        passes = _passes(ctx.tail, x_ri, grad, forward_map=forward_map)
        total, by_matrix = passes.gradient_sums(grad, mean)
        matrix, by_cov, by_weight = _through_matrix(cov, weight, ctx.eps, by_matrix)
        back, around = matrix.transpose(0, 1), (by_cov + by_cov.transpose(0, 1)) / n
        shift = -(back * total).sum(1) / n - (around * mean).sum(1)
        dx = passes.affine_two(grad, back, around, shift)
        return dx, by_weight, total if ctx.has_bias else None, None, None


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
        return torch.view_as_real(mean).t().contiguous(), torch.stack((torch.stack((rr, ri)), torch.stack((ri, ii))))

    def affine(self, matrix: Tensor, shift: Tensor) -> Tensor:
        (p, q), s, y = _as_complex(matrix), torch.complex(shift[0], shift[1]), torch.empty_like(self.z)
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
        (p, q), (a, b), s = _as_complex(matrix), _as_complex(around), torch.complex(shift[0], shift[1])
        g, dx = torch.view_as_complex(grad), torch.empty_like(self.z)
        for rows, up, out in _blocks(self.z, g, dx):
            torch.addcmul(s, up, p, out=out)
            out.addcmul_(up.conj().resolve_conj(), q).addcmul_(rows, a).addcmul_(rows.conj().resolve_conj(), b)
        return torch.view_as_real(dx)


class _Native:
    """The same passes in C (native.c), for float32 on the CPU, and with a tail.

    forward_map: matrix and shift of y = M x + s, by which a gradient comes back through a tail.
    """

    def __init__(self, x_ri: Tensor, tail: Tail = _NO_TAIL, forward_map: Sequence[Tensor] = ()) -> None:
        self.x, (self.n, self.c, _), self.tail = x_ri, x_ri.shape, tail
        self.rows = max(_BLOCK // self.c // 8, 1)
        self.forward_map = (x_ri, x_ri)  # not looked at
        if tail.code and forward_map:
            matrix, shift = forward_map
            self.forward_map = (_by_pairs(matrix), shift.t().contiguous())

    def _total(self, partial: Tensor) -> Tensor:
        return partial.sum(0, dtype=torch.float64)

    def _partial(self, n_sums: int) -> Tensor:
        return torch.empty(-(-self.n // self.rows), n_sums, self.c, 2)

    def _pair_sums(self, tail: Tail, grad: Tensor, grad_mean: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of g' (C, 2) and of g'_i x'_j (2, 2, C), where g' = g - grad_mean; the means are (C, 2)."""
        partial, sizes = self._partial(3), (tail.code, self.n, self.c, tail.length, self.rows)
        native.call("pair_sums", *sizes, grad, grad_mean, self.x, mean, *self.forward_map, partial)
        plain, same, across = self._total(partial)
        (re_re, im_im), (re_im, im_re) = same.unbind(-1), across.unbind(-1)
        return plain, torch.stack((torch.stack((re_re, re_im)), torch.stack((im_re, im_im))))

    def moments(self) -> tuple[Tensor, Tensor]:
        partial = self._partial(1)
        native.call("column_sums", self.n, self.c, self.rows, self.x, partial)
        mean = (self._total(partial)[0] / self.n).float()
        _, power = self._pair_sums(_NO_TAIL, self.x, mean, mean)
        return mean.t().contiguous(), (power / self.n).float()

    def affine(self, matrix: Tensor, shift: Tensor) -> Tensor:
        n = self.n // self.tail.length * (self.tail.length // 2) if self.tail.pool else self.n
        y = self.x.new_empty(n, self.c, 2)
        sizes = (self.tail.code, n, self.c, self.tail.length)
        native.call("affine_pairs", *sizes, self.x, _by_pairs(matrix), shift.t().contiguous(), y)
        return y

    def gradient_sums(self, grad: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        total, by_matrix = self._pair_sums(self.tail, grad, grad.new_zeros(self.c, 2), mean.t().contiguous())
        return total.float().t().contiguous(), by_matrix.float()

    def affine_two(self, grad: Tensor, matrix: Tensor, around: Tensor, shift: Tensor) -> Tensor:
        dx, sizes = torch.empty_like(self.x), (self.tail.code, self.n, self.c, self.tail.length)
        maps = (_by_pairs(matrix), self.x, _by_pairs(around), shift.t().contiguous())
        native.call("affine_two", *sizes, grad, *maps, *self.forward_map, dx)
        return dx


def _by_pairs(matrix: Tensor) -> Tensor:
    """M (2, 2, C) as native.c reads it, (2, C, 2): what each part has of itself, and what it has of the other."""
    return torch.stack((matrix.diagonal(), matrix.flip(1).diagonal()))


def _passes(tail: Tail, x_ri: Tensor, *others: Tensor, forward_map: Sequence[Tensor] = ()) -> _Native | _Blocked:
    """In C where that can be had."""
    if tail.code or native.usable(x_ri, *others):
        return _Native(x_ri, tail, forward_map)
    return _Blocked(x_ri)


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
