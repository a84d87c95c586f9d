"""Units of a chain of stages that can go: those that are constant, and those that nobody reads.

A unit all of whose weights are zero is constant, v = pool(relu(bias)) = relu(bias). It is folded
into the next bias:

    W[o, c, :] * x_c  with x_c = v_c everywhere    becomes    b_o + M_o sum_k W[o, c, k] v_c

This is right where the next stage adds no border of zeros, or where v_c is 0; elsewhere the unit
stays. One unit of every stage stays at least, with weight zero, so that a constant network needs no
rules of its own. What the network computes does not change.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .block import Stage, mixed


def shrink(stages: Sequence[Stage]) -> tuple[list[Stage], Tensor]:
    """The stages without their dead units, and the units of the input that are read (int64).

    Warns:
        RuntimeWarning: a stage of which no weight is left; it and all after it are constant.
    """
    for stage in stages:
        if not stage.weight.any():
            warnings.warn(
                f"{stage.name}: every weight is masked or zero; its output, and the network's, "
                "is constant",
                RuntimeWarning,
                stacklevel=3,
            )
    return _without_unread(_without_constants(stages))


def _without_constants(stages: Sequence[Stage]) -> list[Stage]:
    shrunk = [stages[0]]
    for stage in stages[1:]:
        before = shrunk[-1]
        dead = ~before.weight.flatten(1).any(1)
        value = _constant(before)
        foldable = dead & (value == 0) if stage.padding else dead
        kept_units = _kept(~foldable)

        weight = stage.weight[:, kept_units]
        weight[:, foldable[kept_units]] = 0  # what is folded must not be added again
        bias = stage.bias + _folded(stage, foldable, value)
        shrunk[-1] = _rows(before, kept_units)
        shrunk.append(replace(stage, weight=weight, bias=bias))
    return shrunk


def _without_unread(stages: list[Stage]) -> tuple[list[Stage], Tensor]:
    shrunk: list[Stage] = []
    for stage in reversed(stages):
        if shrunk:
            read = _is_read(shrunk[0])
            kept_units = _kept(read)
            shrunk[0] = _columns(shrunk[0], kept_units)
            # the unit that stays although nobody reads it needs no inputs
            weight = stage.weight * read.view(-1, 1, 1)
            stage = _rows(replace(stage, weight=weight), kept_units)
        shrunk.insert(0, stage)
    kept_units = _kept(_is_read(shrunk[0]))
    shrunk[0] = _columns(shrunk[0], kept_units)
    return shrunk, kept_units


def _is_read(stage: Stage) -> Tensor:
    """Of each input unit, whether a weight that is not zero reads it: bool (in,)."""
    return stage.weight.any(2).any(0)


def _folded(stage: Stage, units: Tensor, value: Tensor) -> Tensor:
    """What `units` (in,) of constant `value` (in,) add to the stage's bias, in float64."""
    exact = torch.complex128 if stage.weight.is_complex() else torch.float64
    added = stage.weight[:, units].sum(2, dtype=exact) @ value[units].to(exact)
    mix = None if stage.mix is None else stage.mix.double()
    return mixed(mix, added).to(stage.bias.dtype)


def _constant(stage: Stage) -> Tensor:
    """The output of units whose weights are all zero: relu(bias), of both parts.

    Real part only if the stage gives that alone.
    """
    bias = stage.bias.real if stage.real_part and stage.bias.is_complex() else stage.bias
    if not stage.relu:
        return bias
    return torch.complex(bias.real.relu(), bias.imag.relu()) if bias.is_complex() else bias.relu()


def _kept(keep: Tensor) -> Tensor:
    """Indices of True, the first if there is none."""
    index = keep.nonzero().flatten()
    return index if len(index) else index.new_zeros(1)


def _columns(stage: Stage, kept: Tensor) -> Stage:
    return replace(stage, weight=stage.weight[:, kept])


def _rows(stage: Stage, kept: Tensor) -> Stage:
    mix = None if stage.mix is None else stage.mix[kept]
    return replace(stage, weight=stage.weight[kept], bias=stage.bias[kept], mix=mix)
