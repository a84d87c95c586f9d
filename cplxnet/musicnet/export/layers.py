"""The layers of a network as operators of an ONNX graph: what each computes in evaluation, in real arithmetic.

A complex convolution is a real one of its 2x2 block form. A complex linear layer is one product of its weight, stored
once, with the rows (Re x, -Im x) and (Im x, Re x). Batch norm of the running statistics is an affine map of each
channel, folded into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _single

from cplxnet import nn as cplx
from cplxnet.nn.conv import _CplxConv, block_weight
from cplxnet.nn.whitening import matrix_of

from .graph import Graph, Value

_REAL_CONV = (nn.Conv1d, nn.Conv2d)
_POOLS = {nn.AvgPool1d: "AveragePool", nn.MaxPool1d: "MaxPool"}
_DROPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, cplx.CplxDropout)  # nothing in evaluation
_ELEMENTWISE: dict[type[nn.Module], Callable[[Any], tuple[str, dict[str, float]]]] = {
    nn.ReLU: lambda layer: ("Relu", {}),
    nn.Tanh: lambda layer: ("Tanh", {}),
    nn.Sigmoid: lambda layer: ("Sigmoid", {}),
    nn.LeakyReLU: lambda layer: ("LeakyRelu", {"alpha": layer.negative_slope}),
    nn.ELU: lambda layer: ("Elu", {"alpha": layer.alpha}),
}


class UnknownLayerError(TypeError):
    """A layer that this exporter does not know; the text names it and its place in the network."""


def weight_of(layer: Any) -> Tensor:
    """The weight that a linear or convolutional layer uses, as it stores it: masked, complex ones with an axis of 2."""
    if isinstance(layer, cplx.masked.Masked):
        return layer.masked_weight
    return layer.weight_ri if "weight_ri" in layer._parameters else layer.weight


def append(
    graph: Graph, layers: list[tuple[str, nn.Module]], value: Value, shapes: list[tuple[int, ...]]
) -> Value:
    """Append `layers` one after another. shapes: what each gives, without the batch, in its own (complex) numbers."""
    k = 0
    while k < len(layers):
        name, layer = layers[k]
        follower = layers[k + 1][1] if k + 1 < len(layers) else None
        if isinstance(layer, (_CplxConv, *_REAL_CONV)) and _norm_of(layer) is type(follower):
            value = _convolution(graph, layer, value, shapes[k], norm=follower)
            k += 1
        elif (
            isinstance(layer, cplx.CplxLinear)
            and isinstance(follower, cplx.CplxToReal)
            and len(value.shape) == 1
        ):
            value = _real_part_of_linear(graph, layer, value, shapes[k])
            k += 1
        else:
            value = _append_one(graph, layer, name, value, shapes[k])
        k += 1
    return value


def _append_one(graph: Graph, layer: Any, name: str, value: Value, shape: tuple[int, ...]) -> Value:
    match layer:
        case _CplxConv() | nn.Conv1d() | nn.Conv2d():
            return _convolution(graph, layer, value, shape)
        case cplx.CplxLinear() if len(value.shape) == 1:
            return _complex_linear(graph, layer, value, shape)
        case nn.Linear() if len(value.shape) == 1 and not value.cplx:
            weight = graph.weight(weight_of(layer).detach().numpy())
            bias = [] if layer.bias is None else [graph.constant(layer.bias.detach().numpy())]
            return Value(graph.node("Gemm", value.name, weight, *bias, transB=1), shape, False)
        case cplx.CplxBatchNorm1d() | nn.BatchNorm1d():
            return _batch_norm(graph, layer, value)
        case cplx.Split(module=inner) if type(inner) in _POOLS or type(inner) in _ELEMENTWISE:
            return _append_one(graph, inner, name, value, shape)
        case cplx.CplxToReal():
            return Value(graph.part(value, 0), shape, False)
        case cplx.CplxModulus():
            squares = graph.node(
                "ReduceSumSquare", graph.pairs(value), graph.constant([2], np.int64), keepdims=0
            )
            return Value(graph.node("Sqrt", squares), shape, False)
        case nn.Flatten(start_dim=1, end_dim=-1):
            return _flatten(graph, value, shape)
    if isinstance(layer, _DROPPED):
        return value
    if type(layer) in _POOLS:
        return value._replace(name=_pool(graph, layer, value), shape=shape)
    if type(layer) in _ELEMENTWISE:
        kind, attributes = _ELEMENTWISE[type(layer)](layer)
        return value._replace(name=graph.node(kind, value.name, **attributes))
    known = "linear, convolutional and batch-norm layers, Split, pooling, Flatten, CplxToReal, CplxModulus and "
    known += ", ".join(kind.__name__ for kind in _ELEMENTWISE)
    raise UnknownLayerError(f"{name}: expected {known}, got {layer} after shape {value.shape}")


def _norm_of(layer: nn.Module) -> type[nn.Module]:
    return cplx.CplxBatchNorm1d if isinstance(layer, _CplxConv) else nn.BatchNorm1d


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation as y = M x + s: M (C, p, p), s (C, p), p = 2 for complex channels, 1 for real ones."""
    if norm.running_var is None:
        raise UnknownLayerError(
            "batch norm: expected running statistics, got none; they are the batch's own there"
        )
    if isinstance(norm, cplx.CplxBatchNorm1d):
        matrix = matrix_of(norm.running_var, norm.weight, norm.eps).movedim(-1, 0)
        mean = norm.running_mean.t()
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.t()
    else:
        scale = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
        matrix, mean = scale.view(-1, 1, 1), norm.running_mean.view(-1, 1)
        bias = torch.zeros_like(mean) if norm.bias is None else norm.bias.view(-1, 1)
    return matrix, bias - torch.einsum("cpq,cq->cp", matrix, mean)


def _batch_norm(graph: Graph, norm: Any, value: Value) -> Value:
    """By itself: a convolution of size 1, a group a channel."""
    matrix, shift = _affine(norm)
    n, p = shift.shape
    kernel = graph.constant(matrix.reshape(n * p, p, 1).detach().numpy())
    inputs = value.name if len(value.shape) == 2 else graph.reshape(value.name, n * p, 1)
    made = graph.node(
        "Conv", inputs, kernel, graph.constant(shift.flatten().detach().numpy()), group=n
    )
    return value._replace(name=made if len(value.shape) == 2 else graph.reshape(made, n * p))


def _convolution(
    graph: Graph, layer: Any, value: Value, shape: tuple[int, ...], norm: Any = None
) -> Value:
    if layer.padding_mode != "zeros":
        raise UnknownLayerError(
            f"expected padding_mode zeros, got {layer.padding_mode!r} of {layer}"
        )
    kernel = weight_of(layer).detach()
    is_complex, p = value.cplx, 2 if value.cplx else 1
    kernel = block_weight(kernel) if is_complex else kernel
    held = layer.bias_ri if is_complex else layer.bias
    bias = torch.zeros(len(kernel) // p, p) if held is None else held.detach().reshape(-1, p)
    if norm is not None:
        matrix, shift = (part.detach() for part in _affine(norm))
        kernel = torch.einsum("cpq,cq...->cp...", matrix, kernel.unflatten(0, (-1, p))).flatten(
            0, 1
        )
        bias = torch.einsum("cpq,cq->cp", matrix, bias) + shift
    made = graph.node(
        "Conv",
        value.name,
        graph.weight(kernel.numpy()),
        graph.constant(bias.flatten().numpy()),
        strides=list(layer.stride),
        pads=_pads(layer),
        dilations=list(layer.dilation),
        group=layer.groups,
    )
    return Value(made, shape, is_complex)


def _pads(layer: Any) -> list[int]:
    """Zeros before each axis, then after each."""
    if layer.padding == "valid":
        return [0] * 2 * len(layer.kernel_size)
    if layer.padding != "same":
        return [*layer.padding] * 2
    spans = [
        (size - 1) * step for size, step in zip(layer.kernel_size, layer.dilation, strict=True)
    ]
    return [span // 2 for span in spans] + [span - span // 2 for span in spans]


def _complex_linear(graph: Graph, layer: Any, value: Value, shape: tuple[int, ...]) -> Value:
    n_in, n_out = value.shape[0], shape[0]
    weight = graph.weight(weight_of(layer).detach().numpy(), pairs=True)
    pairs = graph.pairs(value)
    straight = graph.node("Mul", pairs, graph.constant([1.0, -1.0]))
    crossed = graph.node("Gather", pairs, graph.constant([1, 0], np.int64), axis=2)
    rows = graph.node(
        "Concat", *(graph.reshape(name, 1, 2 * n_in) for name in (straight, crossed)), axis=1
    )
    flat = graph.node("Reshape", weight, graph.constant((n_out, 2 * n_in), np.int64))
    product = graph.node(
        "Gemm", graph.reshape(rows, 2 * n_in), flat, transB=1
    )  # (2B, out), read as (B, 2, out)
    both = graph.node("Transpose", graph.reshape(product, 2, n_out), perm=[0, 2, 1])
    made = graph.reshape(both, 2 * n_out)
    if layer.bias_ri is not None:
        made = graph.node("Add", made, graph.constant(layer.bias_ri.detach().flatten().numpy()))
    return Value(made, shape, True)


def _real_part_of_linear(graph: Graph, layer: Any, value: Value, shape: tuple[int, ...]) -> Value:
    """Re(W x + b) alone: a real product with the rows (Re W, -Im W)."""
    signed = weight_of(layer).detach() * torch.tensor([1.0, -1.0])
    weight = graph.weight(signed.numpy(), pairs=True)
    flat = graph.node("Reshape", weight, graph.constant((shape[0], 2 * value.shape[0]), np.int64))
    bias = [] if layer.bias_ri is None else [graph.constant(layer.bias_ri.detach()[:, 0].numpy())]
    return Value(graph.node("Gemm", value.name, flat, *bias, transB=1), shape, False)


def _flatten(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    if not value.cplx:
        return Value(graph.reshape(value.name, *shape), shape, False)
    if len(value.shape) == 1:
        return value
    # (B, C, 2, L) -> (B, C, L, 2) -> pairs in the order of the complex numbers
    last = graph.node(
        "Transpose",
        graph.reshape(value.name, value.shape[0], 2, int(np.prod(value.shape[1:]))),
        perm=[0, 1, 3, 2],
    )
    return Value(graph.reshape(last, 2 * shape[0]), shape, True)


def _pool(graph: Graph, pool: Any, value: Value) -> str:
    (size,), (stride,), (padding,) = (
        _single(v) for v in (pool.kernel_size, pool.stride, pool.padding)
    )
    options: dict[str, Any] = {"kernel_shape": [size], "strides": [stride], "pads": [padding] * 2}
    options["ceil_mode"] = int(pool.ceil_mode)
    if isinstance(pool, nn.AvgPool1d):
        options["count_include_pad"] = int(pool.count_include_pad)
    else:
        options["dilations"] = list(_single(pool.dilation))
    return graph.node(_POOLS[type(pool)], value.name, **options)
