"""A network as a chain of real modules that computes the same logits: the form that is exported.

ONNX runtimes have no complex tensors. So a complex value (B, C, L) becomes a real one (B, 2C, L),
whose channels are the real and the imaginary part of each unit in turn; a complex (B, N) becomes
pairs, (B, 2N). The layers follow:

    convolution    a real convolution by the 2x2 block form [[Re w, -Im w], [Im w, Re w]]
    linear layer   Re Wx = <(Re W, Im W), (Re x, -Im x)>,  Im Wx = <(Re W, Im W), (Im x, Re x)>
    batch norm     y = M x + s per channel, folded into the convolution before it
    split f        f itself where it acts on each number or channel by itself, else f on each part

Reference: Trabelsi et al. (2018), section 3.2, for the block form.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.nn.activation import ELEMENTWISE
from cplxnet.nn.compaction.block import Stage, real_form
from cplxnet.nn.compaction.network import Compact
from cplxnet.nn.compaction.read import UnknownLayer
from cplxnet.nn.conv import _CplxConv, block_weight
from cplxnet.nn.gaussian import Penalised
from cplxnet.nn.masked import Masked
from cplxnet.nn.sequential import leaves
from cplxnet.nn.whitening import map_by

_POOLS = (nn.AvgPool1d, nn.MaxPool1d)
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, cplx.CplxDropout)  # in evaluation

UnknownLayerError = UnknownLayer  # its name here: a layer without a real form


class Step(nn.Module):
    """y = function(x, **constants) as a module: what the chain is made of beside torch's layers."""

    def __init__(self, function: Callable[..., Tensor], **constants: Tensor | None) -> None:
        super().__init__()
        self.function = function
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self._buffers)


# ---- functions of parts in turn -----------------------------------------------------------------


def pairs_of(x: Tensor) -> Tensor:
    """(B, 2C, ...) -> (B, C, 2, ...)."""
    return x.unflatten(1, (-1, 2))


def complex_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b of pairs: (B, 2 in) -> (B, 2 out), weight (out, 2 in), bias (2 out,).

    Linear layers are most of a network. The block form would store each of their weights twice.
    """
    pairs = pairs_of(x)  # (B, in, 2)
    conjugate = pairs * torch.tensor([1.0, -1.0])  # (Re x, -Im x)
    swapped = pairs.flip(2)  # (Im x, Re x)
    rows = torch.stack((conjugate, swapped), 1).flatten(2).flatten(0, 1)  # (2B, 2 in)

    parts = F.linear(rows, weight).unflatten(0, (-1, 2))  # (B, 2, out)
    y = parts.transpose(1, 2).flatten(1)
    return y if bias is None else y + bias


def channel_map(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """y = M x + s of every channel: (B, 2C) or (B, 2C, L), M (C, 2, 2), s (C, 2)."""
    pairs = pairs_of(x).unsqueeze(3) if x.dim() == 2 else pairs_of(x)
    y = matrix @ pairs + shift.unsqueeze(-1)  # (B, C, 2, L)
    return y.flatten(1, 2).view_as(x)


def complex_flatten(x: Tensor) -> Tensor:
    """(B, 2C, ...) -> pairs (B, 2N), in the order in which complex numbers are flattened."""
    return x if x.dim() == 2 else pairs_of(x).flatten(3).transpose(2, 3).flatten(1)


def real_part(x: Tensor) -> Tensor:
    """Re z: (B, 2C, ...) -> (B, C, ...)."""
    return pairs_of(x)[:, :, 0]


def modulus(x: Tensor) -> Tensor:
    """|z|: (B, 2C, ...) -> (B, C, ...)."""
    return pairs_of(x).square().sum(2).sqrt()


def mod_relu(x: Tensor, threshold: Tensor) -> Tensor:
    """relu(|z| + b) z/|z|, and 0 at z = 0."""
    z = pairs_of(x)
    size = z.square().sum(2, keepdim=True).sqrt()  # (B, C, 1, ...)
    b = threshold.view(-1, *[1] * (z.dim() - 2))
    return torch.where(size > 0, torch.relu(size + b) * z / size, 0.0).flatten(1, 2)


def split_parts(x: Tensor, module: nn.Module) -> Tensor:
    """f(Re z) + i f(Im z) for any real module f."""
    parts = [module(pairs_of(x)[:, :, part]) for part in (0, 1)]
    return torch.stack(parts, 2).flatten(1, 2)


def with_zero_imaginary_part(x: Tensor) -> Tensor:
    """x + 0i: (B, C, ...) -> (B, 2C, ...)."""
    return torch.stack((x, torch.zeros_like(x)), 2).flatten(1, 2)


def parts_as_channels(x: Tensor) -> Tensor:
    """Parts in turn as the C real parts, then the C imaginary ones: what real networks take."""
    return pairs_of(x).transpose(1, 2).flatten(1, 2)


def channels_as_parts(x: Tensor) -> Tensor:
    """The C real parts and then the C imaginary ones as parts in turn."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


# ---- networks -----------------------------------------------------------------------------------


@torch.no_grad()
def real_chain(model: nn.Module, x: Tensor) -> nn.Sequential:
    """`model` in evaluation as real modules in turn, independent of it.

    Args:
        model: a stack of layers (`nn.Sequential`, nested or not) or what `nn.compact` gives, in
            evaluation mode.
        x: an example of its input (B, C, L), complex or real.

    Returns:
        The chain. Complex input goes in as parts in turn, (B, 2C, L).

    Raises:
        UnknownLayerError: a layer without a real form, or complex outputs.
    """
    takes_complex = getattr(model, "is_complex", x.is_complex())
    modules: list[nn.Module] = []
    if takes_complex and not x.is_complex():
        modules.append(Step(with_zero_imaginary_part))
        x = torch.complex(x, torch.zeros_like(x))
    elif x.is_complex() and not takes_complex:
        modules.append(Step(parts_as_channels))
        x = torch.cat((x.real, x.imag), 1)

    if isinstance(model, Compact):
        modules += _stages(model)
        y = model(x)
    else:
        y = _layers(model, x, modules)

    if y.is_complex():
        raise UnknownLayerError(
            "expected real outputs, got complex ones; try CplxToReal at the end"
        )
    return nn.Sequential(*modules).eval()


def _layers(model: nn.Module, x: Tensor, modules: list[nn.Module]) -> Tensor:
    """Append the real modules of a stack of layers to `modules`; returns its output for `x`."""
    previous: nn.Module = nn.Identity()
    for name, layer in leaves(model):
        if isinstance(layer, _IDLE):
            continue
        if getattr(layer, "running_var", 0) is None:
            # its output would depend on the batch
            raise UnknownLayerError(f"{name}: expected running statistics, got none in {layer}")
        if isinstance(layer, cplx.CplxBatchNorm1d) and isinstance(previous, cplx.CplxConv1d):
            _fold_norm(modules[-1], layer)
        else:
            modules.append(_module(layer, name, x))
        x = layer(x)
        previous = layer
    return x


def _module(layer: Any, name: str, x: Tensor) -> nn.Module:
    """The real module of one layer; x: an example of what it is given."""
    match layer:
        case cplx.Split(module=inner) if isinstance(inner, (*ELEMENTWISE, *_POOLS)):
            return copy.deepcopy(inner)
        case cplx.Split(module=inner):
            return Step(functools.partial(split_parts, module=copy.deepcopy(inner)))
        case cplx.RealToCplx():
            return Step(channels_as_parts if layer.halves else with_zero_imaginary_part)
        case _CplxConv():
            bias = None if layer.bias_ri is None else layer.bias_ri.flatten()
            return _convolution(block_weight(_weight_of(layer)), bias, layer)
        case cplx.CplxLinear() if x.dim() == 2:
            bias = None if layer.bias_ri is None else layer.bias_ri.flatten()
            return Step(complex_linear, weight=_weight_of(layer).flatten(1), bias=bias)
        case cplx.CplxBatchNorm1d():
            matrix, shift = _matrix_and_shift(layer)
            return Step(channel_map, matrix=matrix, shift=shift)
        case nn.Flatten(start_dim=1, end_dim=-1) if x.is_complex():
            return Step(complex_flatten)
        case cplx.CplxToReal():
            return Step(real_part)
        case cplx.CplxModulus():
            return Step(modulus)
        case cplx.CplxModReLU():
            return Step(mod_relu, threshold=layer.threshold.detach())
        case nn.Conv1d() | nn.Conv2d():
            return _convolution(_weight_of(layer), layer.bias, layer)
        case nn.Linear():
            return _linear(_weight_of(layer), layer.bias)
    if not x.is_complex() and not layer(x).is_complex():
        return copy.deepcopy(layer)  # real: left to torch.onnx.export
    raise UnknownLayerError(
        f"{name}: expected linear, convolutional and batch-norm layers, Split, Flatten, dropout, "
        "CplxToReal, CplxModulus, CplxModReLU, RealToCplx or layers of real numbers, got "
        f"{layer} on {tuple(x.shape)}"
    )


def _weight_of(layer: Any) -> Tensor:
    """The weight as the layer uses it: masked, and complex ones with a last axis of 2."""
    if isinstance(layer, Masked):
        return layer.masked_weight.detach()

    weight = layer.weight_in_evaluation if isinstance(layer, Penalised) else layer.weight
    return (torch.view_as_real(weight) if weight.is_complex() else weight).detach()


_GEOMETRY = ("stride", "padding", "dilation", "groups", "padding_mode")


def _convolution(weight: Tensor, bias: Tensor | None, like: Any) -> nn.Module:
    """A plain convolution of this weight and bias, with the geometry of the layer `like`."""
    kind: Any = nn.Conv1d if weight.dim() == 3 else nn.Conv2d
    geometry = {key: getattr(like, key) for key in _GEOMETRY if hasattr(like, key)}
    channels = weight.shape[1] * geometry.get("groups", 1)
    return _filled(kind(channels, len(weight), tuple(weight.shape[2:]), **geometry), weight, bias)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    return _filled(nn.Linear(weight.shape[1], len(weight)), weight, bias)


def _filled(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """The layer, given this weight, and this bias or 0."""
    bias = torch.zeros(len(weight)) if bias is None else bias
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _matrix_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Complex batch norm in evaluation as y = M x + s: M (C, 2, 2), s (C, 2)."""
    matrix, shift = map_by(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
    return matrix.movedim(-1, 0), shift.t().contiguous()


def _fold_norm(convolution: Any, norm: cplx.CplxBatchNorm1d) -> None:
    """M (w * x + b) + s = (M w) * x + (M b + s), written into the convolution."""
    matrix, shift = _matrix_and_shift(norm)
    weight = convolution.weight.unflatten(0, (-1, 2))  # (out, 2, 2 in, k)
    bias = convolution.bias.unflatten(0, (-1, 2))

    weight = torch.einsum("cpq,cqik->cpik", matrix, weight)
    bias = torch.einsum("cpq,cq->cp", matrix, bias) + shift
    convolution.load_state_dict({"weight": weight.flatten(0, 1), "bias": bias.flatten()})


def _stages(network: Compact) -> list[nn.Module]:
    """The real modules of a compact network."""
    first = network.stages[0]
    modules: list[nn.Module] = []
    if not first.whole and len(network.inputs) < network.in_channels:
        index = network.inputs[:, None] * first.takes + torch.arange(first.takes)
        modules.append(Step(lambda x, index: x.index_select(1, index), index=index.flatten()))

    for stage in network.stages:
        modules += _linear_stage(stage) if stage.whole else [_convolution(*real_form(stage), stage)]
        if stage.relu:
            modules.append(nn.ReLU())
        if stage.pool is not None:
            kind = nn.AvgPool1d if stage.pool.kind == "average" else nn.MaxPool1d
            modules.append(kind(stage.pool.size, stage.pool.stride))
    return modules


def _linear_stage(stage: Stage) -> list[nn.Module]:
    weight = stage.weight.flatten(1)
    if not weight.is_complex():
        return [nn.Flatten(), _linear(weight, stage.bias)]

    weight = torch.view_as_real(weight).flatten(1)
    bias = torch.view_as_real(stage.bias)  # (out, 2)
    modules: list[nn.Module] = [Step(complex_flatten)]
    if stage.mix is None:
        modules.append(Step(complex_linear, weight=weight, bias=bias.flatten()))
    else:
        modules.append(Step(complex_linear, weight=weight, bias=None))
        modules.append(Step(channel_map, matrix=stage.mix, shift=bias))
    return [*modules, Step(real_part)] if stage.real_part else modules
