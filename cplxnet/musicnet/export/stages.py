"""A compact network as operators of an ONNX graph: each stage a convolution or a product, ReLU and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cplxnet.nn.compaction.block import Stage, real_form
from cplxnet.nn.compaction.network import Compact

from .graph import Graph, Value
from .hearing import channels

_POOLS = {"average": "AveragePool", "maximum": "MaxPool"}


def append_compact(graph: Graph, network: Compact, value: Value) -> Value:
    """Append what `network.real_forward` computes; real numbers in, pairs of them for complex units, and out."""
    if value.cplx and not network.is_complex:
        value = channels(graph, value)
    name, takes = value.name, network.stages[0].takes
    if network.stages[0].whole:  # all of the input is one unit
        name = _one_unit(graph, value)
    elif len(network.inputs) < network.in_channels:
        index = network.inputs[:, None] * takes + torch.arange(takes)
        name = graph.node("Gather", name, graph.constant(index.flatten().numpy(), np.int64), axis=1)
    for stage in network.stages:
        name = _linear(graph, stage, name) if stage.whole else _convolution(graph, stage, name)
    last = network.stages[-1]
    shape = (
        (len(last.weight),) if last.whole else (len(last.weight), _length(network, value.shape[-1]))
    )
    return Value(name, shape, last.gives == 2)


def _one_unit(graph: Graph, value: Value) -> str:
    """(B, C, L) as (B, parts, C L): the first linear layer reads the channels one after another."""
    n = int(np.prod(value.shape))
    if not value.cplx:
        return graph.reshape(value.name, 1, n)
    return graph.reshape(graph.node("Transpose", graph.pairs(value), perm=[0, 2, 1, 3]), 2, n)


def _length(network: Compact, length: int) -> int:
    for stage in network.stages:
        length = stage.n_conv(length)
        length = (
            length if stage.pool is None else (length - stage.pool.size) // stage.pool.stride + 1
        )
    return length


def _convolution(graph: Graph, stage: Stage, name: str) -> str:
    weight, bias = real_form(stage)
    geometry: dict[str, Any] = {
        "strides": [stage.stride],
        "pads": [stage.padding] * 2,
        "dilations": [stage.dilation],
    }
    name = graph.node(
        "Conv", name, graph.weight(weight.numpy()), graph.constant(bias.numpy()), **geometry
    )
    name = graph.node("Relu", name) if stage.relu else name
    if stage.pool is None:
        return name
    return graph.node(
        _POOLS[stage.pool.kind], name, kernel_shape=[stage.pool.size], strides=[stage.pool.stride]
    )


def _linear(graph: Graph, stage: Stage, name: str) -> str:
    rows, columns = (
        len(stage.weight) * stage.gives,
        stage.takes * int(np.prod(stage.weight.shape[1:])),
    )
    weight = graph.node("Reshape", _matrix(graph, stage), graph.constant((rows, columns), np.int64))
    bias = graph.constant(real_form(stage)[1].numpy())
    made = graph.node("Gemm", graph.reshape(name, columns), weight, bias, transB=1)
    return graph.node("Relu", made) if stage.relu else made


def _matrix(graph: Graph, stage: Stage) -> str:
    """The stage's real weight. That of a complex stage is put together in the graph from the weights that are left."""
    if not stage.weight.is_complex() or stage.mix is not None:
        return graph.weight(real_form(stage)[0].numpy())
    ri = torch.view_as_real(stage.weight)  # (out, in, k, 2)
    pairs = graph.node("Transpose", graph.weight(ri.numpy(), pairs=True), perm=[0, 1, 3, 2])
    straight = graph.node("Mul", pairs, graph.constant([[1.0], [-1.0]]))
    if stage.real_part:
        return straight
    crossed = graph.node("Gather", pairs, graph.constant([1, 0], np.int64), axis=2)
    shape = graph.constant((len(ri), 1, -1), np.int64)
    return graph.node(
        "Concat", *(graph.node("Reshape", part, shape) for part in (straight, crossed)), axis=1
    )
