"""Complex batch normalisation in C (batchnorm.c), optionally fused with ReLU and pooling.

The formulas are those of `cplxnet.nn.whitening`, for float32 on the CPU. The 2x2 algebra of a
channel, for which tensor operations cost more than its few numbers are worth, is in C too, in
double. A matrix M of each channel is passed as a map (2, C, 2): its diagonal (M_00, M_11), then its
off-diagonal (M_01, M_10).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native
from .dispatch import once_differentiable

# Complex numbers in a block of rows. Their sums are formed in float32, and added in float64.
BLOCK = 1 << 13


class Tail(NamedTuple):
    """What follows y = M x + s in the same pass.

    Attributes:
        relu: the split ReLU.
        pool: after it, the average of two neighbours along a sample; a last odd row is left out.
        length: rows of a sample; the N rows are N/length samples.
    """

    relu: bool = False
    pool: bool = False
    length: int = 1

    @property
    def code(self) -> int:
        """The number of `enum tail` in batchnorm.c."""
        return 2 if self.pool else int(self.relu)

    def n_rows(self, n: int) -> int:
        """Rows that are left of n."""
        return n // self.length * (self.length // 2) if self.pool else n


NO_TAIL = Tail()


class Normalise(torch.autograd.Function):
    """`whitening.normalise` and its tail, with the gradient in closed form.

    Takes x (N, C, 2), weight (2, 2, C) and bias (2, C) or None, eps and tail. Returns y (N, C, 2),
    fewer rows if the tail pools, and without a gradient the mean (2, C) and the covariance (2, 2,
    C).
    """

    @staticmethod
    def forward(
        ctx: Any, x_ri: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, tail: Tail
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, cov = _moments(x_ri)
        matrix, shift = forward_map(mean, cov, weight, bias, eps)
        y = _affine(x_ri, matrix, shift, tail)

        ctx.save_for_backward(x_ri, mean, cov, weight, matrix, shift)
        ctx.eps = eps
        ctx.tail = tail
        by_part = mean.t()
        ctx.mark_non_differentiable(by_part, cov)

        return y, by_part, cov

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x_ri, mean, cov, weight, matrix, shift = ctx.saved_tensors
        n, c, _ = x_ri.shape
        grad = grad.contiguous()

        # sums over the rows, from which the 2x2 algebra makes the gradients of the parameters, and
        # two maps
        zero = grad.new_zeros(c, 2)
        sums = _pair_sums(grad, zero, x_ri, mean, ctx.tail, matrix, shift)
        by_weight = grad.new_empty(2, 2, c)
        by_bias = grad.new_empty(2, c)
        of_grad = grad.new_empty(2, c, 2)
        of_x = grad.new_empty(2, c, 2)
        offset = grad.new_empty(c, 2)
        outputs = (by_weight, by_bias, of_grad, of_x, offset)
        native.call("whitening_gradient", c, n, sums, mean, cov, weight, ctx.eps, *outputs)

        # dL/dx = of_grad(dL/dy before the tail) + of_x(x) + offset
        dx = torch.empty_like(x_ri)
        sizes = (ctx.tail.code, n, c, ctx.tail.length)
        native.call("affine_two", *sizes, grad, of_grad, x_ri, of_x, offset, matrix, shift, dx)

        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        return dx, by_weight if needs_weight else None, by_bias if needs_bias else None, None, None


def normalise_by(
    x_ri: Tensor,
    mean: Tensor,
    cov: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    tail: Tail,
) -> Tensor:
    """`whitening.normalise_by` and its tail, without a gradient; shapes as there."""
    matrix, shift = forward_map(mean.t().contiguous(), cov, weight, bias, eps)
    return _affine(x_ri, matrix, shift, tail)


def forward_map(
    mean: Tensor, cov: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """M = W (V + eps I)^(-1/2) as a map (2, C, 2), and b - M mean (C, 2), from a mean (C, 2)."""
    c = len(mean)
    matrix = mean.new_empty(2, c, 2)
    shift = mean.new_empty(c, 2)
    native.call("whitening_map", c, mean, cov, weight, bias, eps, matrix, shift)

    return matrix, shift


def _affine(x_ri: Tensor, matrix: Tensor, shift: Tensor, tail: Tail) -> Tensor:
    """M x + s and its tail."""
    n, c, _ = x_ri.shape
    n_rows = tail.n_rows(n)
    y = x_ri.new_empty(n_rows, c, 2)
    native.call("affine_pairs", tail.code, n_rows, c, tail.length, x_ri, matrix, shift, y)

    return y


def _moments(x_ri: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C, 2) and biased covariance (2, 2, C) of (N, C, 2)."""
    n, c, _ = x_ri.shape
    rows, block_sums = _blocks(x_ri, 1)
    native.call("column_sums", n, c, rows, x_ri, block_sums)
    mean = (block_sums.sum(0, dtype=torch.float64)[0] / n).float()

    # no tail, so the map is not used
    sums = _pair_sums(x_ri, mean, x_ri, mean, NO_TAIL, x_ri, x_ri)
    _, (rr, ii), (ri, _) = (sums / n).float().transpose(1, 2)

    return mean, torch.stack((rr, ri, ri, ii)).view(2, 2, -1)


def _pair_sums(
    grad: Tensor,
    grad_mean: Tensor,
    x_ri: Tensor,
    mean: Tensor,
    tail: Tail,
    matrix: Tensor,
    shift: Tensor,
) -> Tensor:
    """Sums over rows of g' = g - grad_mean and of its products with x' = x - mean.

    `grad` is the gradient after the tail, g that before it; both means are (C, 2).

    Returns:
        (3, C, 2), float64: the sums of g', of (g'_re x'_re, g'_im x'_im), and of (g'_re x'_im,
        g'_im x'_re).
    """
    n, c, _ = x_ri.shape
    rows, block_sums = _blocks(x_ri, 3)
    sizes = (tail.code, n, c, tail.length, rows)
    native.call("pair_sums", *sizes, grad, grad_mean, x_ri, mean, matrix, shift, block_sums)

    return block_sums.sum(0, dtype=torch.float64)


def _blocks(x_ri: Tensor, n_sums: int) -> tuple[int, Tensor]:
    """Rows in a block, and an empty tensor for the sums of the blocks, (blocks, n_sums, C, 2)."""
    n, c, _ = x_ri.shape
    rows = max(BLOCK // c, 1)

    return rows, x_ri.new_empty(-(-n // rows), n_sums, c, 2)
