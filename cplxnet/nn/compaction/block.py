"""A stage: an affine map of a network with what follows it up to the next.

    y = pool(relu(M_o (W * x)_o + b_o))    for every output unit o

A unit is a channel or a neuron, complex or real. M is a real 2x2 matrix that acts on (real,
imaginary) of a complex unit, where batch norm was. A linear layer over all of (units, length) is a
convolution whose kernel is as long as its input, so convolutions and linear layers are one thing.
"""

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cplxnet.nn.conv import block_weight


class Pool(NamedTuple):
    """Pooling without borders: of every part by itself, as `Split(AvgPool1d)` or `MaxPool1d` do."""

    kind: Literal["average", "maximum"]
    size: int
    stride: int

    def n_out(self, length: int) -> int:
        """Positions that it gives of `length`."""
        return (length - self.size) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Stage:
    """The affine map and its tail.

    Attributes:
        name: of the layer it was.
        weight: W, (out, in, k), complex or real.
        bias: b, (out,), of the weight's type.
        mix: M, real (out, 2, 2), or None: the identity.
        whole: a linear layer: k is the length of its input.
        relu: of both parts.
        real_part: of a complex result only the real part goes on.
    """

    name: str
    weight: Tensor
    bias: Tensor
    mix: Tensor | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    whole: bool = False
    relu: bool = False
    pool: Pool | None = None
    real_part: bool = False

    @property
    def takes(self) -> int:
        """Real numbers that one input unit has."""
        return 2 if self.weight.is_complex() else 1

    @property
    def gives(self) -> int:
        """Real numbers that one output unit has."""
        return 2 if self.weight.is_complex() and not self.real_part else 1

    def n_conv(self, length: int) -> int:
        """Positions before pooling, of an input of `length`."""
        return (length + 2 * self.padding - self._span) // self.stride + 1

    def shortest(self, n_out: int) -> int:
        """The least length of an input that gives `n_out` positions."""
        n = n_out if self.pool is None else (n_out - 1) * self.pool.stride + self.pool.size
        return (n - 1) * self.stride + self._span - 2 * self.padding

    @property
    def _span(self) -> int:
        """Positions of the input from the kernel's first tap to its last."""
        return self.dilation * (self.weight.shape[2] - 1) + 1

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless real x (B, takes * in, length) can be read."""
        _, n_units, k = self.weight.shape
        channels = self.takes * n_units
        if x.dim() != 3 or x.shape[1] != channels or x.dtype != torch.float32:
            raise ValueError(
                f"{self.name}: expected float32 (B, {channels}, length), got {x.dtype} "
                f"{tuple(x.shape)}"
            )
        length = x.shape[2]
        if (self.whole and length != k) or length < self.shortest(1):
            expected = f"length {k}" if self.whole else f"length {self.shortest(1)} at least"
            raise ValueError(
                f"{self.name}: expected {expected}, got {length}; try the window that the network "
                "was trained on"
            )

    def check_tensors(self) -> None:
        """Raise ValueError unless shapes and geometry fit together: a file may say anything."""
        out = self.weight.shape[0]
        fits = self.weight.dim() == 3 and min(self.weight.shape) > 0
        fits &= self.bias.shape == (out,) and self.bias.dtype == self.weight.dtype
        fits &= self.mix is None or (self.weight.is_complex() and self.mix.shape == (out, 2, 2))

        pool = (self.pool.size, self.pool.stride) if self.pool else ()
        geometry = (self.stride, self.dilation, *pool)
        fits &= min(geometry) >= 1 and self.padding >= 0
        fits &= not self.whole or (geometry == (1, 1) and self.padding == 0)
        if not fits:
            shapes = f"{tuple(self.weight.shape)}, {tuple(self.bias.shape)}"
            raise ValueError(f"{self.name}: shapes {shapes} do not fit")


def mixed(matrix: Tensor | None, z: Tensor) -> Tensor:
    """M_o z_o of each unit: matrix (out, 2, 2) real or None, z (out,) complex or real."""
    if matrix is None:
        return z
    parts = matrix @ torch.view_as_real(z).unsqueeze(-1)
    return torch.view_as_complex(parts.squeeze(-1).contiguous())


def real_form(stage: Stage) -> tuple[Tensor, Tensor]:
    """The same map between real numbers.

    Unit o becomes the neighbours 2o (real part) and 2o + 1 (imaginary part). M W is formed in
    float64.

    Returns:
        float32 weight (gives * out, takes * in, k) and bias (gives * out,).
    """
    if not stage.weight.is_complex():
        return stage.weight.float(), stage.bias.float()

    weight = block_weight(torch.view_as_real(stage.weight))  # (2o, 2i, k)
    if stage.mix is not None:
        rows = weight.double().unflatten(0, (-1, 2))  # (o, 2, 2i, k)
        weight = torch.einsum("oab,obik->oaik", stage.mix.double(), rows).flatten(0, 1)
    bias = torch.view_as_real(stage.bias).flatten()
    if stage.real_part:
        weight = weight[0::2]
        bias = bias[0::2]
    return weight.float().contiguous(), bias.float().contiguous()
