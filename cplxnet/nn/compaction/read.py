"""A network read as a chain of stages: masks applied, batch norm folded into the layer before it.

Batch norm in evaluation is y = M (z - m) + s per channel. After z = W * x + b it becomes

    y = M (W * x) + M (b - m) + s

In a complex layer M is a real 2x2 matrix (`Stage.mix`); in a real one the rows of W are scaled by
gamma/sqrt(var + eps).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.nn.activation import CplxDropout, CplxFlatten, CplxToReal, Split
from cplxnet.nn.batchnorm import CplxBatchNorm1d
from cplxnet.nn.conv import CplxConv1d
from cplxnet.nn.gaussian import Penalised
from cplxnet.nn.linear import CplxLinear
from cplxnet.nn.masked import Masked
from cplxnet.nn.sequential import leaves
from cplxnet.nn.whitening import map_by

from .block import Pool, Stage

WEIGHTED = (CplxConv1d, nn.Conv1d, CplxLinear, nn.Linear)


class UnknownLayer(TypeError):
    """A layer that cannot be made compact, or exported; the text names it and its place."""


@dataclasses.dataclass
class _Reader:
    """What has been read so far.

    Attributes:
        threshold: of log_alpha, for variational layers.
        masks: those given, by layer.
        name, layer: what is read now.
        stages: the chain so far.
        flattened: whether a flatten came that no linear layer has followed yet.
    """

    threshold: float
    masks: Mapping[str, Tensor]
    name: str = ""
    layer: Any = None
    stages: list[Stage] = dataclasses.field(default_factory=list)
    flattened: bool = False

    @property
    def last(self) -> Stage:
        if not self.stages:
            raise self.refused("it comes before the first layer with weights")
        return self.stages[-1]

    def refused(self, why: str) -> UnknownLayer:
        return _refused(self.name, self.layer, why)

    def append(self, weight: Tensor, **geometry: Any) -> None:
        """A stage of the layer that is read, with this weight."""
        bias = self.layer.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias.clone()
        self.stages.append(Stage(self.name, weight, bias, **geometry))

    def amend(self, **changes: Any) -> None:
        self.stages[-1] = dataclasses.replace(self.stages[-1], **changes)


@torch.no_grad()
def read_chain(model: nn.Module, threshold: float, masks: Mapping[str, Tensor]) -> list[Stage]:
    """The stages of `model`, with masked weights set to zero.

    Args:
        model: a `Sequential`, nested or not, of linear and one-dimensional convolutional layers of
            any kind, batch norm, (split) ReLU, (split) average or maximum pooling, flatten,
            dropout and `CplxToReal`. Nothing in it is changed.
        threshold: a variational weight is kept if log_alpha <= threshold.
        masks: by layer, in place of the layers' own.

    Raises:
        UnknownLayer: any other layer.
        ValueError: masks that do not fit, or weights that are not finite.
    """
    reader = _Reader(threshold, masks)
    layers = layers_of(model)
    strangers = [name for name in masks if name not in layers]
    if strangers:
        raise ValueError(
            f"masks do not fit the network; no layers of the names {', '.join(strangers)}"
        )

    for name, layer in layers.items():
        reader.name = name
        reader.layer = layer
        read = reader_of(layer)
        if read is None:
            raise reader.refused("compact does not know it")
        read(reader, layer)

    if not reader.stages:
        raise ValueError(
            "expected a network with linear or convolutional layers, got "
            f"{type(model).__name__} without"
        )
    if reader.flattened and not reader.stages[-1].whole:
        name, flatten = [pair for pair in layers.items() if isinstance(pair[1], nn.Flatten)][-1]
        raise _refused(name, flatten, "no linear layer comes after it, which would read its output")

    return reader.stages


def reader_of(layer: nn.Module) -> "Callable[[_Reader, Any], None] | None":
    """By exact type: a user's subclass may have another forward; ours are by base."""
    if isinstance(layer, (Masked, Penalised)):
        return next((READERS[kind] for kind in WEIGHTED if isinstance(layer, kind)), None)
    return READERS.get(type(layer))


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """{name: layer} of a chain.

    Raises:
        UnknownLayer: a `Sequential` that may do more than run its layers in turn.
    """
    layers = dict(leaves(model))
    for name, layer in layers.items():
        if isinstance(layer, nn.Sequential):
            why = "its forward is its own; set is_chain = True on it if that only runs the layers"
            raise _refused(name, layer, why)
    return layers


def _refused(name: str, layer: nn.Module, why: str) -> UnknownLayer:
    return UnknownLayer(
        f"{name or 'the network itself'}: {type(layer).__name__} cannot be made compact: {why}; "
        "expected a Sequential of linear, Conv1d, batch-norm layers, (split) ReLU, average or "
        "maximum pooling, flatten, dropout, CplxToReal"
    )


def _kept_weight(reader: _Reader, layer: Any) -> Tensor:
    """The weight, zero where it is masked."""
    name = reader.name
    weight = layer.weight_in_evaluation if isinstance(layer, Penalised) else layer.weight
    if not torch.isfinite(weight).all():
        raise ValueError(
            f"{name}: expected finite weights, got NaN or infinity; try an earlier snapshot"
        )

    if name in reader.masks:
        mask = reader.masks[name]
    elif isinstance(layer, Masked):
        mask = layer.mask
    elif isinstance(layer, Penalised):
        mask = layer.relevance(reader.threshold)
    else:
        return weight.clone()

    if mask.shape != weight.shape:
        raise ValueError(
            f"{name}: expected a mask of shape {tuple(weight.shape)}, got {tuple(mask.shape)}"
        )
    return weight.masked_fill(~mask.to(weight.device, torch.bool), 0)


def _convolution(reader: _Reader, layer: Any) -> None:
    if isinstance(layer.padding, str) or (layer.padding_mode != "zeros" and layer.padding[0]):
        raise reader.refused(
            f"padding {layer.padding!r}, {layer.padding_mode}: not a number of zeros"
        )
    if reader.flattened or (reader.stages and reader.stages[-1].whole):
        raise reader.refused("a convolution after flatten or a linear layer")

    weight = _ungrouped(_kept_weight(reader, layer), layer.groups)
    reader.append(
        weight, stride=layer.stride[0], padding=layer.padding[0], dilation=layer.dilation[0]
    )


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """(out, in/groups, k) as (out, in, k), zero between groups."""
    if groups == 1:
        return weight

    out, n_in, k = weight.shape
    ungrouped = weight.new_zeros(out, n_in * groups, k)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        ungrouped[rows, group * n_in : (group + 1) * n_in] = weight[rows]
    return ungrouped


def _linear(reader: _Reader, layer: Any) -> None:
    weight = _kept_weight(reader, layer)
    if not reader.stages:
        weight = weight.unsqueeze(1)  # all of the input, one unit
    elif reader.stages[-1].whole:
        weight = weight.unsqueeze(2)
    elif reader.flattened:
        weight = weight.unflatten(1, (len(reader.stages[-1].weight), -1))  # (out, channels, length)
    else:
        raise reader.refused("a linear layer after a convolution, without flatten between them")

    reader.flattened = False
    reader.append(weight, whole=True)


def _batch_norm(reader: _Reader, layer: Any) -> None:
    stage = reader.last
    if stage.relu or stage.pool or reader.flattened or stage.real_part:
        raise reader.refused(
            "batch norm that does not follow its linear or convolutional layer at once"
        )
    if layer.running_mean is None:
        raise reader.refused("batch norm without running statistics, which depends on the batch")

    if isinstance(layer, CplxBatchNorm1d):
        bias = torch.view_as_real(stage.bias.to(torch.complex128)).t()
        mean = layer.running_mean - bias  # of W * x alone
        cov = layer.running_var.double()
        matrix, shift = map_by(mean, cov, layer.weight, layer.bias, layer.eps)

        matrix = matrix.movedim(-1, 0)
        mix = matrix if stage.mix is None else matrix @ stage.mix.double()
        reader.amend(mix=mix.float(), bias=torch.complex(*shift).to(stage.bias.dtype))
        return

    scale = (layer.running_var.double() + layer.eps).rsqrt()
    scale = scale if layer.weight is None else scale * layer.weight
    offset = 0 if layer.bias is None else layer.bias

    weight = stage.weight.double() * scale.view(-1, 1, 1)
    bias = (stage.bias - layer.running_mean) * scale + offset
    reader.amend(weight=weight.to(stage.weight.dtype), bias=bias.to(stage.bias.dtype))


def _relu(reader: _Reader, layer: nn.Module) -> None:
    pool = reader.last.pool
    if pool is not None and pool.kind == "average":
        raise reader.refused("ReLU after average pooling")

    reader.amend(relu=True)  # before maximum pooling or after it: the same


def _pool(reader: _Reader, layer: Any, kind: Any) -> None:
    stage = reader.last
    size, stride, padding = (
        int(torch.as_tensor(v)) for v in (layer.kernel_size, layer.stride, layer.padding)
    )
    if padding or layer.ceil_mode or int(torch.as_tensor(getattr(layer, "dilation", 1))) != 1:
        raise reader.refused("pooling with padding, dilation or ceil_mode")

    if getattr(layer, "return_indices", False) or stage.pool or stage.whole or reader.flattened:
        raise reader.refused(
            "pooling that gives indices, is the second in a row, or follows flatten"
        )

    reader.amend(pool=Pool(kind, size, stride))


def _split(reader: _Reader, layer: Split) -> None:
    if type(layer.module) not in (nn.ReLU, nn.AvgPool1d, nn.MaxPool1d, nn.Identity, nn.Dropout):
        raise reader.refused(f"compact does not know Split({type(layer.module).__name__})")

    reader.layer = layer.module
    READERS[type(layer.module)](reader, layer.module)


def _flatten(reader: _Reader, layer: Any) -> None:
    if (layer.start_dim, layer.end_dim) not in ((1, -1), (1, 2)):
        raise reader.refused(
            f"flatten from axis {layer.start_dim} to {layer.end_dim}, expected 1 to -1"
        )

    reader.flattened = True


def _to_real(reader: _Reader, layer: nn.Module) -> None:
    if not reader.last.weight.is_complex() or reader.stages[-1].real_part:
        raise reader.refused("its input is real already")

    reader.amend(real_part=True)


READERS: dict[type[nn.Module], Callable[[_Reader, Any], None]] = {
    CplxConv1d: _convolution,
    nn.Conv1d: _convolution,
    CplxLinear: _linear,
    nn.Linear: _linear,
    CplxBatchNorm1d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    Split: _split,
    nn.ReLU: _relu,
    nn.AvgPool1d: lambda reader, layer: _pool(reader, layer, "average"),
    nn.MaxPool1d: lambda reader, layer: _pool(reader, layer, "maximum"),
    nn.Flatten: _flatten,
    CplxFlatten: _flatten,
    CplxToReal: _to_real,
    # nothing in evaluation
    **dict.fromkeys((nn.Identity, nn.Dropout, CplxDropout), lambda reader, layer: None),
}
