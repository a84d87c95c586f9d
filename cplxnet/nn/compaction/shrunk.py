"""A masked network trained on the shape that its masks leave.

Walk back from the output: a unit (a channel, a neuron, after flatten a position of a channel) is
live, that is read, if a kept weight joins it to a live unit; those of the last layer are. The
others are left out, with their batch norm and the columns that only they read:

    small weight = weight[rows that are read, columns that are read];  mask, bias, batch norm alike

Of a linear layer with few living weights these alone are left, in a vector (see `sparse_linear`).
What is left computes the same. In the masked network the gradient of everything left out is 0, so
without weight decay the same step is made, but for rounding; with it what is left out does not
decay, which no output shows. A unit without a living weight that is read stays: it is a constant,
which its bias and the shift of its batch norm go on to train.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.nn.batchnorm import CplxBatchNorm1d
from cplxnet.nn.gaussian import Penalised

from .read import WEIGHTED, UnknownLayer, layers_of, reader_of
from .sparse_linear import SparseLinear, is_sparse

NORMS = (CplxBatchNorm1d, nn.BatchNorm1d)
State = Mapping[str, Mapping[str, Any]]  # an optimiser's, by parameter name
KeptIndex = dict[str, tuple[Any, ...]]  # name in the state dict -> index: tensor[index] is left


class Shrunk:
    """The small network of a masked one, and the way back into the full shape.

    Args:
        model: the full network, a chain of layers that `compact` knows, masked or dense. Only
            `write_back` changes it.

    Attributes:
        network: the small network, with memory of its own. Its layers, parameters and buffers have
            the names of the full one's.

    Raises:
        UnknownLayer: another layer; a variational one, a convolution with groups, or a layer that
            is used twice.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept_index, flattened, sparse = _what_is_left(_known_layers(model))

        shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
        network: nn.Module = copy.deepcopy(model, memo=shared)
        for name, layer in network.named_modules():
            self._cut(name, layer)
        for name, columns in flattened.items():
            network.set_submodule(name, _FlattenAndRead(columns))
        for name, living in sparse.items():
            parameters = network.get_submodule(name)._parameters
            network.set_submodule(name, SparseLinear(living, parameters))
        self.network = network

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy what is left of the full network, whose masks are as before, into the small one."""
        full = self._model.state_dict()
        for name, value in self.network.state_dict().items():
            value.copy_(full[name][self._kept_index.get(name, ...)])

    @torch.no_grad()
    def write_back(self) -> None:
        """Write the parameters and buffers of the small network into the full one."""
        full = self._model.state_dict()
        for name, value in self.network.state_dict().items():
            full[name][self._kept_index.get(name, ...)] = value

    def part_of(self, state: State) -> dict[str, dict[str, Any]]:
        """What is left of an optimiser's state of the full network."""
        return _changed(state, self._part)

    def whole_of(self, state: State) -> dict[str, dict[str, Any]]:
        """An optimiser's state of the small network in the full shape, 0 for what is left out."""
        return _changed(state, self._whole)

    def _part(self, name: str, full: Tensor) -> Tensor:
        part = full.detach()[self._kept_index.get(name, ...)]
        return part.clone(memory_format=torch.contiguous_format)

    def _whole(self, name: str, part: Tensor) -> Tensor:
        whole = torch.zeros_like(self._model.get_parameter(name))
        whole[self._kept_index.get(name, ...)] = part
        return whole

    def _cut(self, name: str, layer: Any) -> None:
        """Replace the tensors of one layer, still the full network's, by what is left of them."""
        for key, full in layer.named_parameters(recurse=False):
            part = self._part(f"{name}.{key}", full)
            layer._parameters[key] = nn.Parameter(part, requires_grad=full.requires_grad)
        for key, full in layer.named_buffers(recurse=False):
            layer._buffers[key] = self._part(f"{name}.{key}", full)

        if isinstance(layer, WEIGHTED) and layer.weight.dim() > 1:
            n_out, n_in, *kernel = layer.weight.shape
            kind = "channels" if kernel else "features"
            setattr(layer, f"in_{kind}", n_in)
            setattr(layer, f"out_{kind}", n_out)
        elif isinstance(layer, NORMS) and f"{name}.weight" in self._kept_index:
            layer.num_features = len(self._kept_index[f"{name}.weight"][-1])


class _FlattenAndRead(nn.Module):
    """Flatten (B, channels, length), and take the columns that are read."""

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self.columns)


def _changed(state: State, change: Callable[[str, Tensor], Tensor]) -> dict[str, dict[str, Any]]:
    """`state` with every array in it changed; Adam's step is a tensor without axes."""
    return {
        name: {
            key: change(name, value) if isinstance(value, Tensor) and value.dim() else value
            for key, value in values.items()
        }
        for name, values in state.items()
    }


def _known_layers(model: nn.Module) -> dict[str, Any]:
    layers = layers_of(model)
    for name, layer in layers.items():
        plain = not isinstance(layer, Penalised) and getattr(layer, "groups", 1) == 1
        n_uses = sum(other is layer for other in layers.values())
        if reader_of(layer) is None or not plain or n_uses > 1:
            raise UnknownLayer(
                f"{name or 'the network itself'}: {type(layer).__name__} cannot be shrunk; "
                "expected a Sequential of masked or dense linear and Conv1d layers without groups, "
                "batch norm, (split) ReLU, pooling, flatten, dropout, CplxToReal, each used once"
            )
    return layers


def _what_is_left(layers: dict[str, Any]) -> tuple[KeptIndex, dict[str, Tensor], dict[str, Tensor]]:
    """Which part of the network is left.

    Returns:
        The index of what is left of each tensor; by each flatten's name the columns that are read;
        and the living weights of each layer that is sparse, bool (rows that are read, columns that
        are read).
    """
    n_units: dict[str, int | None] = {}  # that each layer is given; None: the network's input
    width: int | None = None
    for name, layer in layers.items():
        n_units[name] = width
        if isinstance(layer, WEIGHTED):
            width = len(layer.weight)
    # a flatten can select of the input; without one the first layer with weights reads it whole
    selects = any(isinstance(layers[name], nn.Flatten) for name in n_units if n_units[name] is None)

    kept_index: KeptIndex = {}
    flattened: dict[str, Tensor] = {}
    sparse: dict[str, Tensor] = {}
    read: Tensor | None = None  # bool, of the units that the next layer is given; None: all

    for name, layer in reversed(layers.items()):
        if isinstance(layer, WEIGHTED):
            living = _mask(layer)  # (out, in) or (out, in, k)
            if read is not None and len(read) != len(living):
                raise UnknownLayer(
                    f"{name}: expected {len(living)} units to be read, got {len(read)}; "
                    "try a flatten before the linear layer"
                )
            rows = torch.arange(len(living), device=living.device) if read is None else _true(read)
            read = living[rows].any(0) if living.dim() == 2 else living[rows].any(2).any(0)
            if n_units[name] is None and not selects:
                read = torch.ones_like(read)
            read[0] |= ~read.any()  # one unit stays, so that a constant network needs no rules

            columns = _true(read)
            index: tuple[Tensor, Tensor] = (rows.unsqueeze(1), columns)
            if is_sparse(living[index]):
                sparse[name] = living[index]
                row, column = sparse[name].nonzero(as_tuple=True)
                index = (rows[row], columns[column])

            for key in ("weight", "weight_ri", "mask"):
                kept_index[f"{name}.{key}"] = index
            for key in ("bias", "bias_ri"):
                kept_index[f"{name}.{key}"] = (rows,)
        elif read is None:
            continue
        elif isinstance(layer, NORMS):
            for key in ("weight", "bias", "running_mean", "running_var"):
                kept_index[f"{name}.{key}"] = (..., _true(read))
        elif isinstance(layer, nn.Flatten):
            by_unit = read.view(n_units[name] or 1, -1)
            units = by_unit.any(1)
            flattened[name] = _true(by_unit[units].flatten())
            read = units if n_units[name] else None
    return kept_index, flattened, sparse


def _mask(layer: Any) -> Tensor:
    mask: Tensor | None = getattr(layer, "mask", None)
    return torch.ones_like(layer.weight, dtype=torch.bool) if mask is None else mask


def _true(kept: Tensor) -> Tensor:
    """The indices of True."""
    return kept.nonzero().flatten()
