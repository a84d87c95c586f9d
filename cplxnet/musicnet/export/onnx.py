"""A network as an ONNX file, which other runtimes open: no complex types inside, the batch axis dynamic.

    export_onnx(model, "net.onnx")                       inputs real, imag (batch, C, L): the features' two parts
    export_onnx(model, "net.onnx", raw_audio=True)       input signal (batch, window): the Fourier transform is inside

All is float32, the output is `logits` (batch, 84), opset 20 of the standard domain. Where features are real, the one
input is `features` (batch, C, L). What the network hears (window, rate, kind, cplx, shift) is in the file's metadata,
under `cplxnet`, as JSON. Weights that are mostly zero, masked ones say, are stored by what is left.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from cplxnet.files import written
from cplxnet.musicnet.features import as_channels, features
from cplxnet.musicnet.networks import Network
from cplxnet.musicnet.resample import TARGET_HZ
from cplxnet.nn.compaction.network import Compact

from . import hearing, layers
from .graph import Graph, Value
from .stages import append_compact


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    window: int = 4096,
    rate_hz: int = TARGET_HZ,
    kind: str = "fft",
    cplx: bool = True,
    shift: bool = True,
    raw_audio: bool = False,
) -> Path:
    """Write what `model` computes in evaluation to the ONNX file `path`, whole or not at all.

    Args:
        model: dense, variational (its means), masked or compact, a stack of layers.
        window, rate_hz, kind, cplx, shift: what it hears, as `auto.heard(manifest)` and `features` say.
        raw_audio: take the window itself and compute the features inside.

    Raises:
        UnknownLayerError: a layer that has no form here, named, with its place; nothing is written.
    """
    heard = {"window": window, "rate_hz": rate_hz, "kind": kind, "cplx": cplx, "shift": shift}
    training = model.training
    try:
        made = _model(model.eval(), heard, raw_audio)
    finally:
        model.train(training)
    path = Path(path)
    with written(path) as temporary:
        temporary.write_bytes(made.SerializeToString())
    return path


@torch.no_grad()
def _model(model: nn.Module, heard: dict, raw_audio: bool) -> onnx.ModelProto:
    graph, how = Graph(), {key: heard[key] for key in ("kind", "cplx", "shift")}
    x = features(torch.zeros(1, heard["window"]), **how)
    if raw_audio:
        value = hearing.hear(
            graph, graph.input("signal", heard["window"]), window=heard["window"], **how
        )
    elif x.is_complex():
        real, imag = (
            Value(graph.input(name, *x.shape[1:]), tuple(x.shape[1:]), False)
            for name in ("real", "imag")
        )
        value = hearing.pair(graph, real, imag)
    else:
        value = Value(graph.input("features", *x.shape[1:]), tuple(x.shape[1:]), False)
    value = _append(graph, model, value, x)
    if value.cplx:
        raise layers.UnknownLayerError(
            "expected real outputs, got complex ones; try CplxToReal at the end"
        )
    metadata = {"cplxnet": json.dumps({**heard, "raw_audio": raw_audio})}
    return graph.model(value.name, value.shape, metadata)


def _append(graph: Graph, model: nn.Module, value: Value, x: Tensor) -> Value:
    """The network on `value`, the features; x: an example of them."""
    if isinstance(model, (Network, Compact)) and model.is_complex and not value.cplx:
        value, x = (
            hearing.with_zero_imaginary_part(graph, value),
            torch.complex(x, torch.zeros_like(x)),
        )
    elif isinstance(model, Network) and not model.is_complex and value.cplx:
        value, x = hearing.channels(graph, value), as_channels(x)
    if isinstance(model, Compact):
        return append_compact(graph, model, value)
    named = _leaves(model)
    return layers.append(graph, named, value, _shapes(named, x))


def _leaves(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The layers of nested `nn.Sequential`s in order."""
    if type(model) not in (nn.Sequential, Network):
        return [(prefix, model)]
    return [
        leaf
        for name, child in model.named_children()
        for leaf in _leaves(child, f"{prefix}.{name}".strip("."))
    ]


def _shapes(named: list[tuple[str, nn.Module]], x: Tensor) -> list[tuple[int, ...]]:
    """What each layer gives for x, without the batch."""
    found = []
    for _, layer in named:
        x = layer(x)
        found.append(tuple(x.shape[1:]))
    return found
