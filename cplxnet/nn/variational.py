"""Linear and convolutional layers with a Gaussian posterior over the weights, complex and real.

    y = b + mu x + sqrt(sigma^2 |x|^2) * eps     in training
    y = b + mu x                                 in evaluation

with eps ~ CN(0, 1, 0) or N(0, 1), one draw for each output. This is the local reparameterisation:
the noise of the weights is drawn where it acts, at the outputs. "VD" layers have the KL of
variational dropout, "ARD" layers that of automatic relevance determination (see `kl`); they differ
in nothing else. Constructor arguments and shapes are those of the mean layer, as in `torch.nn`.

References:
    Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks".
    Kingma, Salimans and Welling (2015), "Variational Dropout and the Local Reparameterization
        Trick".
    Molchanov, Ashukha and Vetrov (2017), "Variational Dropout Sparsifies Deep Neural Networks".
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .conv import CplxConv1d, CplxConv2d, _CplxConv
from .fast import gpu
from .fast.dispatch import is_transformed, native_usable
from .fast.noise import SquaredPairs
from .gaussian import GaussianWeight, with_noise
from .kl import COMPLEX_ARD, COMPLEX_VD, REAL_ARD, REAL_VD, squared_modulus
from .linear import CplxLinear, product
from .parameters import as_ri


class _Noisy(GaussianWeight):
    """The mean layer's forward, and in training noise of its weights, drawn at the outputs."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[misc]

        y = gpu.forward(self, x)
        if y is not None:
            return y

        x, square = with_square(x)
        mean = super().forward(x)  # type: ignore[misc]
        return with_noise(mean, self.variance(square))

    def variance(self, square: Tensor) -> Tensor:
        """sigma^2 |x|^2: the mean layer without bias and with real weights e^log_sigma2, on |x|^2.

        square: |x|^2, real, of the input's shape. Returns real numbers in the output's.
        """
        raise NotImplementedError


class _NoisyLinear(_Noisy):
    def variance(self, square: Tensor) -> Tensor:
        *outer, n = square.shape
        rows = square.reshape(math.prod(outer), n)
        if is_transformed() and not torch.compiler.is_compiling():
            variance = product(rows, self.log_sigma2.exp())
        else:
            variance = _LinearInLog.apply(rows, self.log_sigma2)

        return variance.reshape(*outer, len(self.log_sigma2))


class _NoisyConv(_Noisy):
    def variance(self, square: Tensor) -> Tensor:
        kernel = self.log_sigma2.exp()
        if isinstance(self, _CplxConv):
            return self.real_conv(square, kernel)

        return self._conv_forward(square, kernel, None)  # type: ignore[operator]


class CplxLinearVD(_NoisyLinear, CplxLinear):
    """`CplxLinear` under variational dropout: complex (..., in) -> (..., out)."""

    term = COMPLEX_VD


class CplxLinearARD(_NoisyLinear, CplxLinear):
    """`CplxLinear` under automatic relevance determination: complex (..., in) -> (..., out)."""

    term = COMPLEX_ARD


class CplxConv1dVD(_NoisyConv, CplxConv1d):
    """`CplxConv1d` under variational dropout: complex (B, in, L) -> (B, out, L')."""

    term = COMPLEX_VD


class CplxConv1dARD(_NoisyConv, CplxConv1d):
    """`CplxConv1d` under automatic relevance determination: complex (B, in, L) -> (B, out, L')."""

    term = COMPLEX_ARD


class CplxConv2dVD(_NoisyConv, CplxConv2d):
    """`CplxConv2d` under variational dropout: complex (B, in, H, W) -> (B, out, H', W')."""

    term = COMPLEX_VD


class CplxConv2dARD(_NoisyConv, CplxConv2d):
    """`CplxConv2d` under automatic relevance determination: (B, in, H, W) -> (B, out, H', W')."""

    term = COMPLEX_ARD


class LinearVD(_NoisyLinear, nn.Linear):
    """`torch.nn.Linear` under variational dropout (Molchanov et al. 2017)."""

    term = REAL_VD


class LinearARD(_NoisyLinear, nn.Linear):
    """`torch.nn.Linear` under automatic relevance determination."""

    term = REAL_ARD


class Conv1dVD(_NoisyConv, nn.Conv1d):
    """`torch.nn.Conv1d` under variational dropout (Molchanov et al. 2017)."""

    term = REAL_VD


class Conv1dARD(_NoisyConv, nn.Conv1d):
    """`torch.nn.Conv1d` under automatic relevance determination."""

    term = REAL_ARD


class Conv2dVD(_NoisyConv, nn.Conv2d):
    """`torch.nn.Conv2d` under variational dropout (Molchanov et al. 2017)."""

    term = REAL_VD


class Conv2dARD(_NoisyConv, nn.Conv2d):
    """`torch.nn.Conv2d` under automatic relevance determination."""

    term = REAL_ARD


def with_square(x: Tensor) -> tuple[Tensor, Tensor]:
    """x and |x|^2, real, in x's memory layout.

    Mean and variance of a layer are computed from the two, so that their gradients are added in one
    pass.
    """
    if not x.is_complex():
        return x, x.square()

    if x.dim() >= 2:
        # Layers of this package have their channels last in memory. They are moved before `as_ri`,
        # since the gradient of view_as_real comes out contiguous.
        pairs = as_ri(x.movedim(1, -1))
        if native_usable(pairs):
            pairs, square = SquaredPairs.apply(pairs)
            return torch.view_as_complex(pairs).movedim(-1, 1), square.movedim(-1, 1)

    return x, squared_modulus(as_ri(x), True)


class _LinearInLog(torch.autograd.Function):
    """x e^s^T of x (N, in) and s (out, in); the gradient by s, (g^T x) e^s, is made in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        weight = s.exp()
        ctx.save_for_backward(x, weight)
        ctx.s = s  # not saved: s may be clamped in place before the backward pass
        x = x.to(s.dtype)

        return product(x, weight).to(s.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: not a constant, though the same
            weight = weight * (ctx.s - ctx.s.detach()).exp()
        x = x.to(weight.dtype)
        grad = grad.to(x.dtype)  # under autocast the product may have come out in another type
        needs_x, needs_s = ctx.needs_input_grad
        by_x = product(grad, weight.T) if needs_x else None
        by_s = (grad.T @ x).mul_(weight) if needs_s else None

        return by_x, by_s
