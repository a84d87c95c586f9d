"""Complex batch normalisation in C (native.c), float32 on the CPU, and with what may follow it in the same pass.

The formulas are those of `whitening`; the 2x2 algebra of a channel, which as tensor operations costs more than its few
numbers are worth, is in C too, in double. A matrix M of each channel is passed as (2, C, 2): what each part has of
itself (M_00, M_11), and what it has of the other (M_01, M_10).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native

BLOCK = (
    1 << 13
)  # complex numbers in a block of rows, whose sums are formed in float32 and added in float64


class Tail(NamedTuple):
    """What follows y in the same pass. relu: the split ReLU; pool: then the average of two neighbours (every part).

    length: rows of a sample; the N rows are samples of so many, and an odd last one has no neighbour and is left out.
    """

    relu: bool = False
    pool: bool = False
    length: int = 1

    @property
    def code(self) -> int:
        """As in native.c."""
        return 2 if self.pool else int(self.relu)


NO_TAIL = Tail()


class Normalise(torch.autograd.Function):
    """`whitening.normalise`, and its tail; with `Tail.pool` y has N/length * (length // 2) rows."""

    @staticmethod
    def forward(
        ctx: Any, x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, tail: Tail
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, c, _ = x_ri.shape
        rows, partial = _blocks(x_ri, 1)
        native.call("column_sums", n, c, rows, x_ri, partial)
        mean = (partial.sum(0, dtype=torch.float64)[0] / n).float()
        cov = _covariance(_pair_sums(x_ri, mean, x_ri, mean, NO_TAIL, (x_ri, x_ri)) / n)
        given_map = forward_map(mean, cov, weight, bias, eps)
        y = _affine(x_ri, given_map, tail)
        ctx.save_for_backward(x_ri, mean, cov, weight, *given_map)
        ctx.eps, ctx.has_bias, ctx.tail = eps, bias is not None, tail
        by_part = mean.t()
        ctx.mark_non_differentiable(by_part, cov)
        return y, by_part, cov

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x_ri, mean, cov, weight, *given_map = ctx.saved_tensors
        (n, c, _), grad, dx = x_ri.shape, grad.contiguous(), torch.empty_like(x_ri)
        sums = _pair_sums(grad, grad.new_zeros(c, 2), x_ri, mean, ctx.tail, given_map)
        by_weight, by_bias = grad.new_empty(2, 2, c), grad.new_empty(2, c)
        back, around, shift = grad.new_empty(2, c, 2), grad.new_empty(2, c, 2), grad.new_empty(c, 2)
        given = (sums, mean, cov, weight, ctx.eps)
        native.call("whitening_gradient", c, n, *given, by_weight, by_bias, back, around, shift)
        sizes = (ctx.tail.code, n, c, ctx.tail.length)
        native.call("affine_two", *sizes, grad, back, x_ri, around, shift, *given_map, dx)
        return (
            dx,
            None if weight is None else by_weight,
            by_bias if ctx.has_bias else None,
            None,
            None,
        )


def normalise_by(
    x_ri: Tensor,
    mean: Tensor,
    cov: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    tail: Tail,
) -> Tensor:
    """y by a mean (2, C) and a covariance (2, 2, C) that are given, and its tail; without a gradient."""
    return _affine(x_ri, forward_map(mean.t().contiguous(), cov, weight, bias, eps), tail)


def _blocks(x_ri: Tensor, n_sums: int) -> tuple[int, Tensor]:
    """Rows in a block, and room for the blocks' sums (blocks, n_sums, C, 2)."""
    n, c, _ = x_ri.shape
    rows = max(BLOCK // c, 1)
    return rows, x_ri.new_empty(-(-n // rows), n_sums, c, 2)


def _pair_sums(
    grad: Tensor, grad_mean: Tensor, x_ri: Tensor, mean: Tensor, tail: Tail, given_map: Any
) -> Tensor:
    """Sums (3, C, 2), float64, of g' = g - grad_mean, of (g'_re x'_re, g'_im x'_im) and of (g'_re x'_im, g'_im x'_re).

    g: the gradient before the tail, of which `grad` is that after it; the means are (C, 2).
    """
    (n, c, _), (rows, partial) = x_ri.shape, _blocks(x_ri, 3)
    native.call(
        "pair_sums",
        tail.code,
        n,
        c,
        tail.length,
        rows,
        grad,
        grad_mean,
        x_ri,
        mean,
        *given_map,
        partial,
    )
    return partial.sum(0, dtype=torch.float64)


def _covariance(moments: Tensor) -> Tensor:
    """(2, 2, C) from what `_pair_sums` finds of x and x, over N: (., re^2 im^2, re im) of each channel."""
    _, (rr, ii), (ri, _) = moments.float().transpose(1, 2)
    return torch.stack((rr, ri, ri, ii)).view(2, 2, -1)


def forward_map(
    mean: Tensor, cov: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """M (2, C, 2) and b - M mean (C, 2), from a mean (C, 2)."""
    c = len(mean)
    matrix, shift = mean.new_empty(2, c, 2), mean.new_empty(c, 2)
    native.call("whitening_map", c, mean, cov, weight, bias, eps, matrix, shift)
    return matrix, shift


def _affine(x_ri: Tensor, given_map: tuple[Tensor, Tensor], tail: Tail) -> Tensor:
    n, c, _ = x_ri.shape
    n = n // tail.length * (tail.length // 2) if tail.pool else n
    y = x_ri.new_empty(n, c, 2)
    native.call("affine_pairs", tail.code, n, c, tail.length, x_ri, *given_map, y)
    return y
