"""One affine map of a chain of layers with what follows it up to the next: the form in which a network is made compact.

    y = pool(relu(M_o (W * x)_o + b_o))

for every output unit o. A unit is a channel or a neuron, complex or real; M is a real 2x2 matrix that acts on (real,
imaginary) of a complex unit, where batch norm was. A linear layer over all of (units, length) is a convolution whose
kernel is as long as its input, so that convolutions and linear layers are one thing here.
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


@dataclasses.dataclass(frozen=True)
class Stage:
    """The affine map and its tail. weight (out, in, k) complex or real, bias (out,) alike, mix (out, 2, 2) real.

    whole: a linear layer, k = the length of its input. real_part: of a complex result only the real part goes on.
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
        return (
            length + 2 * self.padding - self.dilation * (self.weight.shape[2] - 1) - 1
        ) // self.stride + 1

    def shortest(self, n_out: int) -> int:
        """The least length of an input that gives `n_out` positions."""
        n = n_out if self.pool is None else (n_out - 1) * self.pool.stride + self.pool.size
        return (
            (n - 1) * self.stride
            + self.dilation * (self.weight.shape[2] - 1)
            + 1
            - 2 * self.padding
        )

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless real x (B, takes * in, length) can be read."""
        if (
            x.dim() != 3
            or x.shape[1] != self.takes * self.weight.shape[1]
            or x.dtype != torch.float32
        ):
            expected = f"float32 (B, {self.takes * self.weight.shape[1]}, length)"
            raise ValueError(f"{self.name}: expected {expected}, got {x.dtype} {tuple(x.shape)}")
        n = x.shape[2]
        if (self.whole and n != self.weight.shape[2]) or n < self.shortest(1):
            expected = (
                f"length {self.weight.shape[2]}"
                if self.whole
                else f"length {self.shortest(1)} at least"
            )
            raise ValueError(
                f"{self.name}: expected {expected}, got {n}; try the window the network was trained on"
            )

    def check_tensors(self) -> None:
        """Raise ValueError unless shapes and geometry fit together, as what a file says might not."""
        out, fits = self.weight.shape[0], self.weight.dim() == 3 and min(self.weight.shape) > 0
        fits &= self.bias.shape == (out,) and self.bias.dtype == self.weight.dtype
        fits &= self.mix is None or (self.weight.is_complex() and self.mix.shape == (out, 2, 2))
        numbers = (
            self.stride,
            self.dilation,
            *((self.pool.size, self.pool.stride) if self.pool else ()),
        )
        if (
            not fits
            or min(numbers) < 1
            or self.padding < 0
            or (self.whole and (numbers != (1, 1) or self.padding))
        ):
            raise ValueError(
                f"{self.name}: shapes {tuple(self.weight.shape)}, {tuple(self.bias.shape)} do not fit"
            )

    def replaced(self, **changes: object) -> "Stage":
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


def mixed(matrix: Tensor | None, z: Tensor) -> Tensor:
    """M_o z_o of each unit: matrix (out, 2, 2) real or None, z (out,) complex or real."""
    if matrix is None:
        return z
    return torch.view_as_complex(
        (matrix @ torch.view_as_real(z).unsqueeze(-1)).squeeze(-1).contiguous()
    )


def real_form(stage: Stage) -> tuple[Tensor, Tensor]:
    """The same map between real numbers: float32 weight (gives * out, takes * in, k) and bias (gives * out,).

    Unit o becomes the neighbours 2o (real part) and 2o + 1 (imaginary part). Exact: M W is formed in float64.
    """
    if not stage.weight.is_complex():
        return stage.weight.float(), stage.bias.float()
    weight, bias = (
        block_weight(torch.view_as_real(stage.weight)),
        torch.view_as_real(stage.bias),
    )  # (2o, 2i, k), (o, 2)
    if stage.mix is not None:
        rows = weight.double().unflatten(0, (-1, 2))  # (o, 2, 2i, k)
        weight = torch.einsum("oab,obik->oaik", stage.mix.double(), rows).flatten(0, 1)
    bias = bias.flatten()
    if stage.real_part:
        weight, bias = weight[0::2], bias[0::2]
    return weight.float().contiguous(), bias.float().contiguous()
