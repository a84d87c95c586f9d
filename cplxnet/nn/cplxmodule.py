"""Weights of cplxmodule's networks into ours, and ours in its layout.

cplxmodule (Nazarov and Burnaev's library; its state dicts are what the older complex_paper system
saved) holds a complex parameter as two real ones and a mask as numbers:

    theirs                       ours
    fc.weight.real, .imag        fc.weight_ri[..., 0], [..., 1]
    fc.bias.real, .imag          fc.bias_ri[..., 0], [..., 1]
    fc.log_sigma2                the same
    fc.mask (0.0 or 1.0)         fc.mask (bool)
    norm.running_var             norm.running_var + eps I, as theirs contains the eps

Gates and noise of channels have no layer there: they are left out, and weights are multiplied by
their gates.
Real layers and the rest of batch norm are the same in both. Everything works on state dicts:
cplxmodule is not needed.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .batchnorm import CplxBatchNorm1d, unit_matrix
from .gaussian import Penalised
from .masked import Masked
from .parameters import ComplexParameters, stored_parameter

State = Mapping[str, Tensor]


@torch.no_grad()
def load_cplxmodule(
    model: nn.Module, state: State, *, names: Mapping[str, str] | None = None
) -> None:
    """Copy parameters and buffers of a cplxmodule network into `model`: the same outputs.

    Args:
        model: of the same layers; its variational and masked layers take log_sigma2 and mask.
        state: the `state_dict()` of the other network. It does not hold the eps of batch norm,
            which is taken to be that of ours (1e-5 is the default of both libraries).
        names: their layer -> our layer, for layers of another name; see `names_in_order`.

    Raises:
        ValueError: before anything is changed, with every parameter that is missing, left over or
            of another shape, and every mask that holds more than zeros and ones.
    """
    theirs = {_renamed(key, names or {}): value for key, value in state.items()}
    ours: dict[str, Tensor] = {}
    faults: list[str] = []
    for path, layer, key, stored in _stored_tensors(model):
        try:
            ours[path] = _converted(layer, key, path, theirs, stored)
        except ValueError as error:
            faults.append(str(error))
    # `_converted` has removed what has a place
    faults += [f"{key}: not in {type(model).__name__}" for key in theirs]
    if faults:
        raise ValueError("the weights do not fit the network; " + "; ".join(faults))

    model.load_state_dict(ours)


@torch.no_grad()
def cplxmodule_state(
    model: nn.Module, *, names: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """The state dict of `model` as cplxmodule lays it out, for a network of the same layers there.

    Args:
        model: its parameters and buffers are copied.
        names: our layer -> their layer, for layers of another name there.

    Returns:
        {their name: a copy}.
    """
    state: dict[str, Tensor] = {}
    for our_path, layer, key, stored in _stored_tensors(model):
        path = _renamed(our_path, names or {})
        if isinstance(layer, Penalised):
            if key in layer.own and key != "log_sigma2":
                continue
            if key in ("weight", "weight_ri"):
                weight = layer.weight_in_evaluation
                stored = torch.view_as_real(weight) if weight.is_complex() else weight
        if isinstance(layer, ComplexParameters) and key.endswith("_ri"):
            path = path.removesuffix("_ri")
            state[f"{path}.real"] = stored[..., 0].clone()
            state[f"{path}.imag"] = stored[..., 1].clone()
        elif isinstance(layer, Masked) and key == "mask":
            state[path] = stored.to(stored_parameter(layer, "weight").dtype)
        elif isinstance(layer, CplxBatchNorm1d) and key == "running_var":
            state[path] = stored + layer.eps * unit_matrix(layer.running_var)
        else:
            state[path] = stored.clone()

    return state


def names_in_order(model: nn.Module, state: State) -> dict[str, str]:
    """`names` for `load_cplxmodule`: their layer -> our layer, the k-th to the k-th.

    For networks of the same layers in the same order under other names, as those of the older
    complex_paper system. Layers without parameters do not count; shapes are not compared.

    Raises:
        ValueError: the numbers of layers differ.
    """
    theirs = list(dict.fromkeys(_owner(key) for key in state))
    ours = list(dict.fromkeys(_owner(key) for key in model.state_dict()))
    if len(theirs) != len(ours):
        raise ValueError(
            f"expected as many layers with parameters as in {type(model).__name__}, {len(ours)} "
            f"({', '.join(ours)}), got {len(theirs)} ({', '.join(theirs)}); try `names`"
        )

    return dict(zip(theirs, ours, strict=True))


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """(path, layer, key, tensor) of every entry of the state dict, detached."""
    for name, layer in model.named_modules():
        for key, stored in [*layer._parameters.items(), *layer._buffers.items()]:
            if stored is not None and key not in layer._non_persistent_buffers_set:
                yield f"{name}.{key}".strip("."), layer, key, stored.detach()


def _owner(key: str) -> str:
    """The layer of a state dict's key: `fc` of `fc.weight.real` and of `fc.mask`."""
    key = key.removesuffix(".real").removesuffix(".imag")
    return key.rpartition(".")[0]


def _renamed(key: str, names: Mapping[str, str]) -> str:
    owner = _owner(key)
    if owner not in names:
        return key

    return f"{names[owner]}{key[len(owner) :]}".strip(".")


def _converted(
    layer: nn.Module, key: str, path: str, theirs: dict[str, Tensor], stored: Tensor
) -> Tensor:
    """The value for our `path` in our layout, removed from `theirs`; `stored` is what we have.

    Raises:
        ValueError: it is missing, has another shape, or is a mask of more than zeros and ones.
    """
    keys = [path]
    if isinstance(layer, ComplexParameters) and key.endswith("_ri"):
        stem = path.removesuffix("_ri")
        keys = [f"{stem}.real", f"{stem}.imag"]
        path = " and ".join(keys)

    found = [theirs.pop(their_key, None) for their_key in keys]
    parts = [part for part in found if part is not None]
    if len(parts) < len(keys):
        raise ValueError(f"{path}: missing")
    shapes = [tuple(part.shape) for part in parts]
    if len(set(shapes)) > 1:
        raise ValueError(f"{path}: parts of different shape, {shapes[0]} and {shapes[1]}")

    value = parts[0] if len(parts) == 1 else torch.stack(parts, -1)
    if value.shape != stored.shape:
        raise ValueError(f"{path}: expected shape {tuple(stored.shape)}, got {tuple(value.shape)}")

    is_mask = isinstance(layer, Masked) and key == "mask"
    if is_mask and not bool(((value == 0) | (value == 1)).all()):
        raise ValueError(
            f"{path}: expected zeros and ones, got others; try binarize_masks of cplxmodule"
        )
    if isinstance(layer, CplxBatchNorm1d) and key == "running_var":
        return value - layer.eps * unit_matrix(layer.running_var)

    return value
