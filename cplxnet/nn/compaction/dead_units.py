"""Units of a chain of stages that can go: those that are constant, and those that nobody reads. The function stays.

A unit all of whose weights are zero is constant, pool(relu(bias)) = relu(bias), and goes into the next bias:

    b_o + M_o sum_k W[o, c, k] v_c     in place of     W[o, c, :] * x_c,    x_c = v_c everywhere

which is right where the next stage adds no border of zeros, or v_c is 0; elsewhere the unit stays. At least one unit of
every stage stays (of weight zero), so that a constant network needs no rules of its own.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from .block import Stage, mixed


def shrink(stages: Sequence[Stage]) -> tuple[list[Stage], Tensor]:
    """The stages without their dead units, and the units of the input that are read (int64).

    Warns (RuntimeWarning) of every stage of which no weight is left: what it gives, and all after it, is constant.
    """
    for stage in stages:
        if not stage.weight.any():
            warnings.warn(
                f"{stage.name}: every weight is masked or zero; its output, and the network's, is constant",
                RuntimeWarning,
                stacklevel=3,
            )
    return _without_unread(_without_constants(stages))


def _without_constants(stages: Sequence[Stage]) -> list[Stage]:
    made = [stages[0]]
    for stage in stages[1:]:
        before = made[-1]
        dead = ~before.weight.flatten(1).any(1)
        value = _rectified(before)
        foldable = dead & (value == 0) if stage.padding else dead
        kept = _kept(~foldable)
        weight = stage.weight[:, kept]
        weight[:, foldable[kept]] = 0  # what is folded must not be added again
        bias = stage.bias + _through(stage, foldable, value)
        made[-1] = _rows(before, kept)
        made.append(stage.replaced(weight=weight, bias=bias))
    return made


def _without_unread(stages: list[Stage]) -> tuple[list[Stage], Tensor]:
    made, read = [stages[-1]], stages[-1].weight.any(2).any(0)
    for stage in reversed(stages[:-1]):
        kept = _kept(read)
        made[0] = made[0].replaced(weight=made[0].weight[:, kept])
        weight = stage.weight * read.view(
            -1, 1, 1
        )  # the one that stays though nobody reads it needs no inputs
        made.insert(0, _rows(stage.replaced(weight=weight), kept))
        read = made[0].weight.any(2).any(0)
    kept = _kept(read)
    made[0] = made[0].replaced(weight=made[0].weight[:, kept])
    return made, kept


def _through(stage: Stage, units: Tensor, value: Tensor) -> Tensor:
    """What `units` (in,) of constant `value` (in,) add to the stage's bias, in float64."""
    exact = torch.complex128 if stage.weight.is_complex() else torch.float64
    added = stage.weight[:, units].sum(2, dtype=exact) @ value[units].to(exact)
    mix = None if stage.mix is None else stage.mix.double()
    return mixed(mix, added).to(stage.bias.dtype)


def _rectified(stage: Stage) -> Tensor:
    """What units with zero weights give: relu(bias), in both parts; only the real part where the rest goes nowhere."""
    bias = stage.bias.real if stage.real_part and stage.bias.is_complex() else stage.bias
    if not stage.relu:
        return bias
    return torch.complex(bias.real.relu(), bias.imag.relu()) if bias.is_complex() else bias.relu()


def _kept(keep: Tensor) -> Tensor:
    """Indices of True, the first if there is none."""
    index = keep.nonzero().flatten()
    return index if len(index) else index.new_zeros(1)


def _rows(stage: Stage, kept: Tensor) -> Stage:
    mix = None if stage.mix is None else stage.mix[kept]
    return stage.replaced(weight=stage.weight[kept], bias=stage.bias[kept], mix=mix)
