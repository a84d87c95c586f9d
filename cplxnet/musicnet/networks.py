"""The three networks of Trabelsi et al. (2018), complex and real, with every kind of layer.

A network is built by its registered name, `complex.DeepConvNetVD` say: field, architecture, kind of
layer. It takes the features of a batch (B, in_channels, length), complex or real, and gives the
logits (B, 84).

Complex networks use split ReLU and average pooling and return the real part of their last layer.
Real ones use ReLU and max pooling, and their last bias starts at -5, since about one label in
twenty is positive.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn.forms import COMPLEX, REAL

from .features import as_channels
from .labels import N_NOTES

KINDS = tuple(COMPLEX)  # of layers: ordinary, with a penalty, masked


class ComplexField:
    """What complex networks are made of, with layers of one kind."""

    norm = cplx.CplxBatchNorm1d
    head = cplx.CplxToReal
    last_bias = 0.0
    dtype = torch.complex64

    def __init__(self, kind: str) -> None:
        self.linear, self.conv = COMPLEX[kind]

    def relu(self) -> nn.Module:
        return cplx.Split(nn.ReLU())

    def pool(self, size: int, stride: int) -> nn.Module:
        return cplx.Split(nn.AvgPool1d(size, stride))


class RealField:
    """What real networks are made of, with layers of one kind."""

    norm = nn.BatchNorm1d
    relu = nn.ReLU
    pool = nn.MaxPool1d
    head = nn.Identity
    last_bias = -5.0
    dtype = torch.float32

    def __init__(self, kind: str) -> None:
        self.linear, self.conv = REAL[kind]


Field = ComplexField | RealField
FIELDS: dict[str, type[Field]] = {"complex": ComplexField, "real": RealField}


class Network(nn.Sequential):
    """A stack of layers over (B, in_channels, length) features.

    A real network given complex features reads their real and imaginary parts as twice the
    channels; a complex network given real features takes them as real parts.
    """

    is_chain = True  # its forward is that of its layers in turn: what `nn.compact` asks

    def __init__(self, layers: dict[str, nn.Module], *, is_complex: bool) -> None:
        super().__init__(OrderedDict(layers))
        self.is_complex = is_complex

    def __getitem__(self, index: int | slice) -> nn.Module:  # type: ignore[override]
        """A layer, or a slice of the network as a network of the same field."""
        if isinstance(index, slice):
            return Network(dict(list(self._modules.items())[index]), is_complex=self.is_complex)
        return super().__getitem__(index)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_complex() and not self.is_complex:
            x = as_channels(x)
        elif self.is_complex and not x.is_complex():
            x = torch.complex(x, torch.zeros_like(x))
        return cplx.through(self, x)


def deep_conv_net(
    field: str,
    kind: str,
    *,
    length: int = 4096,
    in_channels: int = 1,
    kernel_size: int | None = None,
    width: float = 1.0,
) -> Network:
    """The deep convolutional network: six convolutions, then 2048 units, then 84.

    Args:
        field: "complex" or "real".
        kind: of layer, one of `KINDS`.
        length: samples (or frequencies) of a window.
        in_channels: channels of the features.
        kernel_size: of the first layer; None: 6 complex, 7 real. The paper's k3 variant has 3.
        width: factor of all channels and hidden units, which match the size of another network.

    Raises:
        ValueError: a width that is not above 0, or windows too short for the network.
    """
    if width <= 0:
        raise ValueError(f"expected a width above 0, got {width:g}")

    first = kernel_size or (6 if field == "complex" else 7)
    # channels, kernel size, stride of each convolution
    if field == "complex":
        stages = [(16, first, 2), (32, 3, 2), (64, 3, 1), (64, 3, 1), (128, 3, 1), (128, 3, 1)]
    else:
        stages = [(64, first, 3), (64, 3, 2), (128, 3, 1), (128, 3, 1), (256, 3, 1), (256, 3, 1)]

    parts = FIELDS[field](kind)
    layers: dict[str, nn.Module] = {}
    channels = in_channels

    for i, (published, size, stride) in enumerate(stages, 1):
        out = max(round(width * published), 1)
        normed = i != 5  # the fifth has a bias in place of batch norm, and no pooling

        layers[f"conv{i}"] = parts.conv(channels, out, size, stride=stride, bias=not normed)
        if normed:
            layers[f"norm{i}"] = parts.norm(out)
        layers[f"relu{i}"] = parts.relu()
        if normed:
            layers[f"pool{i}"] = parts.pool(2, 2)
        channels = out

    return _with_head(parts, layers, (in_channels, length), max(round(width * 2048), 1))


def shallow_conv_net(field: str, kind: str, *, length: int = 4096, in_channels: int = 1) -> Network:
    """One convolution of 512 samples and stride 16, pooling of 4 by 2, then 2048, then 84."""
    parts = FIELDS[field](kind)
    width = 32 if field == "complex" else 64

    layers = {
        "conv1": parts.conv(in_channels, width, 512, stride=16),
        "relu1": parts.relu(),
        "pool1": parts.pool(4, 2),
    }
    return _with_head(parts, layers, (in_channels, length))


def two_layer_dense(field: str, kind: str, *, length: int = 4096, in_channels: int = 1) -> Network:
    """Two linear layers: 2048, then 84."""
    return _with_head(FIELDS[field](kind), {}, (in_channels, length))


def _with_head(
    parts: Field, layers: dict[str, nn.Module], shape: tuple[int, int], hidden: int = 2048
) -> Network:
    """Append flatten, the hidden layer and the logits; running the trunk tells its width."""
    trunk = nn.Sequential(*layers.values(), nn.Flatten()).eval()
    probe = torch.zeros(1, *shape, dtype=parts.dtype)

    try:
        with torch.no_grad():
            width = trunk(probe).shape[1]
    except RuntimeError as error:
        raise ValueError(
            f"expected windows long enough for this network, got {shape[1]} samples; try 4096"
        ) from error
    trunk.train()

    last = parts.linear(hidden, N_NOTES)
    with torch.no_grad():
        last.bias.fill_(parts.last_bias)  # type: ignore[operator]

    layers |= {
        "flatten": nn.Flatten(),
        "fc1": parts.linear(width, hidden),
        "relu_fc1": parts.relu(),
        "fc2": last,
    }

    return Network(layers | {"head": parts.head()}, is_complex=parts.dtype.is_complex)


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "DeepConvNet": deep_conv_net,
    "ShallowConvNet": shallow_conv_net,
    "TwoLayerDense": two_layer_dense,
}


MODELS: dict[str, Callable[..., Network]] = {
    f"{field}.{architecture}{kind}": functools.partial(ARCHITECTURES[architecture], field, kind)
    for field in FIELDS
    for architecture in ARCHITECTURES
    for kind in KINDS
}


def build(name: str, example: Tensor, **options: Any) -> Network:
    """The network registered as `name`.

    Args:
        name: a key of `MODELS`.
        example: features (B, in_channels, length) of the shape that it will take.
        options: `kernel_size` and `width` of `deep_conv_net`.

    Raises:
        ValueError: an unknown name, or windows too short for the network.
    """
    if name not in MODELS:
        raise ValueError(f"expected a network of {', '.join(MODELS)}, got {name!r}")

    halves = 2 if example.is_complex() and name.startswith("real.") else 1
    return MODELS[name](in_channels=example.shape[1] * halves, length=example.shape[2], **options)
