"""Ways to run a stage on real activations (B, units, length): dense, CSR, and sparse rows in C.

All give the same values up to rounding. Which is fastest depends on how many weights are left, on
the shape, the batch and the machine, so `compact` times them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from cplxnet.nn.conv import two_dimensional
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable
from cplxnet.nn.parameters import channels_last

from .block import Stage, real_form
from .sparse_linear import to_csr

LONGEST = 16384  # as in sparse.c
_TOGETHER = 32  # samples that a sparse linear layer takes at a time: two to eight AVX registers
_FEW = 8  # samples; fewer make no vector of them
_POOLS = {"average": 1, "maximum": 2}  # as in sparse.c
Engine = Callable[[Tensor], Tensor]


class Dense:
    """A convolution over a channels-last image of height 1, or one matrix product.

    Torch's operations alone, on any device.
    """

    def __init__(self, stage: Stage) -> None:
        weight, self.bias = real_form(stage)
        self.stage = stage
        if stage.whole:
            self.weight = weight.flatten(1)
        else:
            self.weight = channels_last(weight.unsqueeze(2))

    def __call__(self, x: Tensor) -> Tensor:
        stage = self.stage
        if stage.whole:
            y = F.linear(x.flatten(1), self.weight, self.bias).unsqueeze(2)
            return y.relu_() if stage.relu else y

        image = channels_last(x.unsqueeze(2))
        geometry = two_dimensional(1, stage.stride, stage.padding, stage.dilation)
        y = F.conv2d(image, self.weight, self.bias, *geometry)  # type: ignore[arg-type]
        y = y.relu_() if stage.relu else y
        if stage.pool is not None:
            pool = F.avg_pool2d if stage.pool.kind == "average" else F.max_pool2d
            y = pool(y, (1, stage.pool.size), (1, stage.pool.stride))
        return y.squeeze(2)


class Csr:
    """A linear layer as torch's product of a CSR matrix and the batch's columns."""

    def __init__(self, stage: Stage) -> None:
        weight, self.bias = real_form(stage)
        self.weight = to_csr(weight.flatten(1))
        self.relu = stage.relu

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias.unsqueeze(1), self.weight, x.flatten(1).t()).t()
        return (y.relu_() if self.relu else y).unsqueeze(2)


class SparseRows:
    """Only the weights that are left, row by row, with bias, ReLU and pooling in the same pass.

    A strided convolution reads each channel as `stride` channels, in which position p stands at
    p // stride: neighbouring outputs then read neighbours. A linear layer runs along the batch.
    """

    def __init__(self, stage: Stage) -> None:
        weight, self.bias = real_form(stage)
        row, unit, tap = weight.nonzero(as_tuple=True)
        self.stage = stage
        self.rows = len(weight)
        self.value = weight[row, unit, tap]
        # row r has the values start[r] to start[r + 1]
        self.start = torch.zeros(self.rows + 1, dtype=torch.int32)
        self.start[1:] = torch.bincount(row, minlength=self.rows).cumsum(0)

        if stage.whole:
            self.channel = (unit * weight.shape[2] + tap).int()
            self.tap = torch.zeros_like(tap, dtype=torch.int32)
        else:
            position = tap * stage.dilation
            self.channel = (unit * stage.stride + position % stage.stride).int()
            self.tap = (position // stage.stride).int()

    def __call__(self, x: Tensor) -> Tensor:
        return self._whole(x.flatten(1)) if self.stage.whole else self._convolution(x)

    def _convolution(self, x: Tensor) -> Tensor:
        stage = self.stage
        n = x.shape[2]
        before = stage.padding
        after = stage.padding + (-(n + 2 * stage.padding)) % stage.stride
        if before or after:
            x = F.pad(x, (before, after))
        if stage.stride > 1:
            x = x.unflatten(2, (-1, stage.stride)).transpose(2, 3).flatten(1, 2)

        return self._run(x, stage.n_conv(n))

    def _whole(self, x: Tensor) -> Tensor:
        batch = len(x)
        if batch < _FEW:  # one sample after another
            return self._run(x.unsqueeze(2), 1)

        together = min(_TOGETHER, batch)
        x = F.pad(x, (0, 0, 0, -batch % together))
        groups = x.unflatten(0, (-1, together)).transpose(1, 2)  # (groups, in, together)
        y = self._run(groups, together)
        return y.transpose(1, 2).flatten(0, 1)[:batch].unsqueeze(2)

    def _run(self, x: Tensor, length: int) -> Tensor:
        """x (n, in, ...) to (n, rows, positions), `length` of them before pooling."""
        x = x.contiguous()
        pool = self.stage.pool
        kind, size, stride = (0, 1, 1) if pool is None else (_POOLS[pool.kind], *pool[1:])
        y = x.new_empty(len(x), self.rows, length if pool is None else pool.n_out(length))
        per_block = 16 if len(x) < _FEW else self.rows  # a thread's share: rows of a sample, or all
        arrays = (self.start, self.channel, self.tap, self.value, self.bias)
        native.call(
            "sparse_rows", len(x), self.rows, length, x.shape[1] * x.shape[2], x.shape[2], x,
            *arrays, int(self.stage.relu), kind, size, stride, y.shape[2], per_block, y,
        )  # fmt: skip
        return y


ENGINES: dict[str, Callable[[Stage], Engine]] = {"dense": Dense, "csr": Csr, "rows": SparseRows}


def candidates(stage: Stage, x: Tensor) -> list[str]:
    """The engines that can run `stage` on `x` (B, units, length) here; dense always can."""
    names = ["dense"]
    if stage.whole and not torch.compiler.is_compiling():
        names.append("csr")

    long = stage.pool is not None and stage.n_conv(x.shape[2]) > LONGEST
    if not long and native_usable(x.new_empty(0)):
        names.append("rows")
    return names


def by_rule(stage: Stage, x: Tensor) -> str:
    """The engine without measuring: sparse where three quarters of the weights are gone."""
    able = candidates(stage, x)
    if int(stage.weight.count_nonzero()) * 4 > stage.weight.numel() or able == ["dense"]:
        return "dense"
    return "rows" if "rows" in able else "csr"
