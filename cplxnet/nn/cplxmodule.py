"""Weights of cplxmodule's networks into ours, and ours in its layout.

cplxmodule (Nazarov and Burnaev's library; its state dicts are what the older complex_paper system
saved) holds a complex parameter as two real ones and a mask as numbers:

    theirs                       ours
    fc.weight.real, .imag        fc.weight_ri[..., 0], [..., 1]
    fc.bias.real, .imag          fc.bias_ri[..., 0], [..., 1]
    fc.log_sigma2                the same
    fc.mask (0.0 or 1.0)         fc.mask (bool)
    norm.running_var             norm.running_var + eps I: theirs has the eps of batch norm in it
    already

Real layers and the rest of batch norm are the same in both. Everything works on state dicts:
cplxmodule is not needed.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .batchnorm import CplxBatchNorm1d
from .masked import Masked
from .parameters import ComplexParameters

State = Mapping[str, Tensor]


@torch.no_grad()
def load_cplxmodule(
    model: nn.Module, state: State, *, names: Mapping[str, str] | None = None
) -> None:
    """Copy parameters and buffers of a cplxmodule network into `model`: the same outputs.

    Args:
        model: of the same layers; its variational and masked layers take log_sigma2 and mask.
        state: what `state_dict()` of the other network gives. Its batch norms' eps, which a state
            dict does not hold, is taken to be that of ours (1e-5 in both libraries unless it was
            asked for).
        names: their layer -> our layer, for layers that are named otherwise; see `names_in_order`.

    Raises:
        ValueError: before anything is changed, with every parameter that is missing, left over or
            of another shape, and every mask that holds more than zeros and ones.
    """
    renamed = {_renamed(key, names or {}): value for key, value in state.items()}
    taken: dict[str, Tensor] = {}
    faults: list[str] = []
    for name, layer in model.named_modules():
        for key in [*layer._parameters, *layer._buffers]:
            held: Any = getattr(layer, key)
            if held is None or key in layer._non_persistent_buffers_set:
                continue
            path = f"{name}.{key}".strip(".")
            try:
                taken[path] = _taken(layer, key, path, renamed, held)
            except ValueError as error:
                faults.append(str(error))
    faults += [
        f"{key}: not in {type(model).__name__}" for key in renamed
    ]  # `_taken` took out what has a place
    if faults:
        raise ValueError("the weights do not fit the network; " + "; ".join(faults))
    model.load_state_dict(taken)


@torch.no_grad()
def cplxmodule_state(
    model: nn.Module, *, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The state dict of `model` as cplxmodule lays it out, for a network of the same layers there.

    names: our layer -> their layer, for layers that are named otherwise there. The tensors are
        copies.
    """
    state: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        for key, value in [*layer._parameters.items(), *layer._buffers.items()]:
            if value is None or key in layer._non_persistent_buffers_set:
                continue
            path = _renamed(f"{name}.{key}".strip("."), names or {})
            if isinstance(layer, ComplexParameters) and key.endswith("_ri"):
                path = path.removesuffix("_ri")
                state[f"{path}.real"], state[f"{path}.imag"] = (
                    part.clone() for part in value.detach().unbind(-1)
                )
            elif isinstance(layer, Masked) and key == "mask":
                weight: Any = layer.weight
                state[path] = value.to(weight.real.dtype if weight.is_complex() else weight.dtype)
            elif isinstance(layer, CplxBatchNorm1d) and key == "running_var":
                state[path] = value + _ridge(layer)
            else:
                state[path] = value.detach().clone()
    return state


def names_in_order(model: nn.Module, state: State) -> dict[str, str]:
    """`names` for `load_cplxmodule`: their layer -> our layer, the k-th to the k-th.

    Layers without parameters do not count.
    For networks of the same layers in the same order under other names, as those of the older
    complex_paper system. Raises ValueError where the numbers of layers differ; shapes are
    `load_cplxmodule`'s to check.
    """
    theirs = list(dict.fromkeys(_owner(key) for key in state))
    ours = list(dict.fromkeys(_owner(key) for key in model.state_dict()))
    if len(theirs) != len(ours):
        raise ValueError(
            f"expected as many layers with parameters as in {type(model).__name__}, {len(ours)} "
            f"({', '.join(ours)}), got {len(theirs)} ({', '.join(theirs)}); try `names`"
        )
    return dict(zip(theirs, ours, strict=True))


def _owner(key: str) -> str:
    """The layer of a state dict's key: `fc` of `fc.weight.real` and of `fc.mask`."""
    for part in (".real", ".imag"):
        key = key.removesuffix(part)
    return key.rpartition(".")[0]


def _renamed(key: str, names: Mapping[str, str]) -> str:
    owner = _owner(key)
    return key if owner not in names else f"{names[owner]}{key[len(owner) :]}".strip(".")


def _taken(layer: nn.Module, key: str, path: str, state: dict[str, Tensor], held: Tensor) -> Tensor:
    """The value for our `path`, taken out of `state`, in our layout."""
    if isinstance(layer, ComplexParameters) and key.endswith("_ri"):
        stem = path.removesuffix("_ri")
        real, imag = (state.pop(f"{stem}.{part}", None) for part in ("real", "imag"))
        path = f"{stem}.real and {stem}.imag"
        if real is not None and imag is not None and real.shape != imag.shape:
            raise ValueError(
                f"{path}: parts of different shape, {tuple(real.shape)} and {tuple(imag.shape)}"
            )
        value = None if real is None or imag is None else torch.stack((real, imag), -1)
    else:
        value = state.pop(path, None)
    if value is None:
        raise ValueError(f"{path}: missing")
    if value.shape != held.shape:
        raise ValueError(f"{path}: expected shape {tuple(held.shape)}, got {tuple(value.shape)}")
    if (
        isinstance(layer, Masked)
        and key == "mask"
        and not bool(((value == 0) | (value == 1)).all())
    ):
        raise ValueError(
            f"{path}: expected zeros and ones, got others; try binarize_masks of cplxmodule"
        )
    return (
        value - _ridge(layer)
        if isinstance(layer, CplxBatchNorm1d) and key == "running_var"
        else value
    )


def _ridge(layer: CplxBatchNorm1d) -> Tensor:
    """eps I (2, 2, 1)."""
    held = layer.running_var
    return layer.eps * torch.eye(2, dtype=held.dtype, device=held.device).unsqueeze(-1)
