"""Linear and convolutional layers with a Gaussian posterior over the weights, complex and real.

    y = b + mu x + sqrt(sigma^2 |x|^2) * eps     in training, eps ~ CN(0, 1, 0) or N(0, 1), one draw per output
    y = b + mu x                                 in evaluation

"VD" layers carry the KL of variational dropout, "ARD" layers that of automatic relevance determination (see `kl`); they
differ in nothing else. Constructor arguments are those of the mean layer, as in `torch.nn`.

References: Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks"; Kingma,
Salimans and Welling (2015), "Variational Dropout and the Local Reparameterization Trick".
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.utils import _single

from .conv import CplxConv1d, CplxConv2d
from .fast import gpu, native
from .fast.conv import conv2d
from .gaussian import GaussianWeight, with_noise
from .kl import COMPLEX_ARD, COMPLEX_VD, REAL_ARD, REAL_VD, squared_modulus
from .linear import CplxLinear, product
from .parameters import as_ri


def with_square(x: Tensor) -> tuple[Tensor, Tensor]:
    """x and |x|^2, real, in x's memory layout: mean and variance are made of them, their gradients meet here."""
    if not x.is_complex():
        return x, x.square()
    if x.dim() >= 2:
        # in the order of memory, where layers of this package have their channels last; moved first, as the gradient of
        # `view_as_real` comes out contiguous
        pairs = as_ri(x.movedim(1, -1))
        if native.usable(pairs):
            same, square = _SquaredPairs.apply(pairs)
            return torch.view_as_complex(same).movedim(-1, 1), square.movedim(-1, 1)
    return x, squared_modulus(as_ri(x), True)


class _SquaredPairs(torch.autograd.Function):
    """Pairs (..., 2) and re^2 + im^2; from the gradients h and g by both, h + 2 g (re, im), in one pass each."""

    @staticmethod
    def forward(ctx: Any, pairs: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pairs)
        square = pairs.new_empty(pairs.shape[:-1])
        native.call("dot_pairs", square.numel(), pairs, pairs, square)
        return pairs.view_as(pairs), square

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_same: Tensor, by_square: Tensor) -> Tensor:
        (pairs,) = ctx.saved_tensors
        by_pairs = torch.empty_like(pairs)
        native.call(
            "square_pairs_grad",
            by_square.numel(),
            by_same.contiguous(),
            by_square.contiguous(),
            pairs,
            by_pairs,
        )
        return by_pairs


class _LinearInLog(torch.autograd.Function):
    """x e^s^T of x (N, in) and s (out, in). By hand for the gradient of s: (g^T x) e^s, multiplied in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
        weight, x = s.exp(), x.to(s.dtype)
        ctx.save_for_backward(x, weight)
        return product(x, weight).to(s.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, by_s = ctx.needs_input_grad
        grad = grad.to(x.dtype)  # under autocast the product may have come out in another type
        return product(grad, weight.T) if by_x else None, (grad.T @ x).mul_(
            weight
        ) if by_s else None


class _Noisy(GaussianWeight):
    """The mean layer's forward, plus noise of the right variance while training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[misc]

        y = gpu.forward(self, x)
        if y is not None:
            return y

        x, square = with_square(x)
        return with_noise(super().forward(x), self.variance(square))  # type: ignore[misc]

    def variance(self, square: Tensor) -> Tensor:
        """sigma^2 |x|^2 from |x|^2: the mean layer's geometry, with real weights e^log_sigma2 and no bias.

        square: real, of the input's shape. Returns real numbers in the output's.
        """
        raise NotImplementedError


class _NoisyLinear(_Noisy):
    def variance(self, square: Tensor) -> Tensor:
        *outer, n = square.shape
        rows = square.reshape(math.prod(outer), n)
        return _LinearInLog.apply(rows, self.log_sigma2).reshape(*outer, len(self.log_sigma2))


class _NoisyConv(_Noisy):
    stride: Any
    padding: Any
    dilation: Any
    groups: int

    def variance(self, square: Tensor) -> Tensor:
        energy, padding = _bordered(self, square)
        weight, geometry = self.log_sigma2.exp(), (self.stride, padding, self.dilation, self.groups)
        if self.log_sigma2.dim() == 4:
            return conv2d(energy, weight, None, *geometry)
        if not self.term.cplx:
            return F.conv1d(energy, weight, None, *geometry)
        # the complex layer works channels last as an image of height 1 (see `parameters`); so does its variance
        pad = padding if isinstance(padding, str) else (0, *_single(padding))
        stride, dilation = (1, *_single(self.stride)), (1, *_single(self.dilation))
        image, weight = (
            t.unsqueeze(-2).contiguous(memory_format=torch.channels_last) for t in (energy, weight)
        )
        return (
            conv2d(image, weight, None, stride, pad, dilation, self.groups)
            .squeeze(-2)
            .to(energy.dtype)
        )


def _bordered(layer: Any, x: Tensor) -> tuple[Tensor, Any]:
    """What the mean layer convolves: x with its borders where padding_mode is not zeros, and the padding left to do."""
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return layer.padded(x)
    if layer.padding_mode == "zeros":
        return x, layer.padding
    return F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0


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
    """`CplxConv2d` under automatic relevance determination: complex (B, in, H, W) -> (B, out, H', W')."""

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
