"""Activations of complex numbers, and the ways between complex and real tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _single

from .parameters import as_ri, from_image, to_image

# Maps of each real number by itself. They act on both parts of a complex tensor in one pass.
ELEMENTWISE = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Identity,
)


class Split(nn.Module):
    """f(Re z) + i f(Im z) for a real module f: split ReLU, average pooling, and so on.

    Elementwise activations and `AvgPool1d` act on both parts in one pass; any other module is
    called twice.

    Args:
        module: f, which takes and returns real tensors.

    Reference: Trabelsi et al. (2018), "Deep Complex Networks", section 3.4 (the split ReLU is their
    CReLU).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        if isinstance(self.module, ELEMENTWISE):
            # with the channels last, where they lie in memory: the backward pass of ReLU keeps the
            # layout of a dense array only
            axis = min(1, z.dim() - 1)
            parts = self.module(as_ri(z.movedim(axis, -1)))
            return torch.view_as_complex(parts).movedim(-1, axis)

        if isinstance(self.module, nn.AvgPool1d) and z.dim() == 3:
            return from_image(_average(to_image(z), self.module), 3)

        return torch.complex(self.module(z.real), self.module(z.imag))


def _average(image: Tensor, pool: nn.AvgPool1d) -> Tensor:
    """`pool` along the last axis of (B, C, 1, L); `avg_pool1d` would undo channels last."""
    size = (1, *_single(pool.kernel_size))
    stride = (1, *_single(pool.stride))
    padding = (0, *_single(pool.padding))

    return F.avg_pool2d(image, size, stride, padding, pool.ceil_mode, pool.count_include_pad)


class CplxModReLU(nn.Module):
    """relu(|z| + b) z/|z|, and 0 at z = 0: shrinks the modulus, keeps the phase.

    Args:
        threshold: start value of the learnt real b.
        channels: learn a b for each of so many channels (axis 1); None for a single one.

    Reference: Arjovsky, Shah and Bengio (2016), "Unitary Evolution Recurrent Neural Networks",
    equation 8.
    """

    def __init__(self, threshold: float = -0.5, channels: int | None = None) -> None:
        super().__init__()
        shape = () if channels is None else (channels,)
        self.threshold = nn.Parameter(torch.full(shape, float(threshold)))

    def forward(self, z: Tensor) -> Tensor:
        re, im = as_ri(z).unbind(-1)
        squared = re * re + im * im
        tiny = torch.finfo(squared.dtype).tiny  # keeps the gradient of the root finite at z = 0
        modulus = squared.clamp(min=tiny).sqrt()

        channel_axes = [-1, *[1] * (z.dim() - 2)] if self.threshold.dim() else []
        bias = self.threshold.view(channel_axes)
        # where b > 0, relu(|z| + b)/|z| has no limit at z = 0: value and gradient are 0 there
        factor = torch.where(squared < tiny, 0.0, torch.relu(modulus + bias) / modulus)

        return z * factor


class CplxToReal(nn.Module):
    """The real part, Re z."""

    def forward(self, z: Tensor) -> Tensor:
        return as_ri(z)[..., 0]


class CplxModulus(nn.Module):
    """The modulus |z|, with gradient 0 at z = 0."""

    def forward(self, z: Tensor) -> Tensor:
        return z.abs()


class RealToCplx(nn.Module):
    """x + 0i; with `halves`, a + bi from the two halves a, b of the channels of (B, 2C, ...).

    Raises:
        ValueError: an odd number of channels with `halves`.
    """

    def __init__(self, halves: bool = False) -> None:
        super().__init__()
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        if not self.halves:
            return torch.complex(x, torch.zeros_like(x))

        if x.shape[1] % 2:
            raise ValueError(
                "expected an even number of channels, half real and half imaginary, got "
                f"{tuple(x.shape)}"
            )
        return torch.complex(*x.chunk(2, 1))

    def extra_repr(self) -> str:
        return f"halves={self.halves}"


class CplxFlatten(nn.Flatten):
    """`torch.nn.Flatten`, which takes complex tensors, under the name users look for."""


class CplxDropout(nn.Module):
    """z m/(1 - p), m ~ Bernoulli(1 - p) for each complex number: both parts go or stay.

    No effect in eval mode.

    Args:
        p: probability of dropping.

    Raises:
        ValueError: p is not in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"expected a probability p in [0, 1], got {p}")
        self.p = p

    def forward(self, z: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return z

        return z * F.dropout(torch.ones_like(z.real), self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"
