"""What a network hears as operators of an ONNX graph: the features of `cplxnet.musicnet.features` from a raw window."""

from __future__ import annotations

import numpy as np

from cplxnet.musicnet.features import FEATURE_KINDS, STFT_HOP, STFT_WINDOW

from .graph import Graph, Value


def hear(graph: Graph, signal: str, *, window: int, kind: str, cplx: bool, shift: bool) -> Value:
    """Features (B, C, L) of the input `signal` (B, window), as `features(signal, kind, cplx, shift)` computes them."""
    if kind not in FEATURE_KINDS:
        raise ValueError(
            f"expected a feature kind of {', '.join(sorted(FEATURE_KINDS))}, got {kind!r}"
        )
    if kind == "raw":
        value = Value(graph.reshape(signal, 1, window), (1, window), False)
        return with_zero_imaginary_part(graph, value) if cplx else value
    value = _fft(graph, signal, window, shift) if kind == "fft" else _stft(graph, signal, window)
    return value if cplx else modulus(graph, value)


def pair(graph: Graph, real: Value, imag: Value) -> Value:
    """The complex value of two real ones (B, C, L)."""
    channels, length = real.shape
    parts = [graph.reshape(part.name, channels, 1, length) for part in (real, imag)]
    both = graph.node("Concat", *parts, axis=2)
    return Value(graph.reshape(both, 2 * channels, length), real.shape, True)


def with_zero_imaginary_part(graph: Graph, value: Value) -> Value:
    """x + 0i of a real value (B, C, L)."""
    return pair(
        graph, value, value._replace(name=graph.node("Mul", value.name, graph.constant(0.0)))
    )


def channels(graph: Graph, value: Value) -> Value:
    """A complex (B, C, L) as real (B, 2C, L), the real parts and then the imaginary ones: what real networks take."""
    count, length = value.shape
    parts = graph.node("Transpose", graph.pairs(value), perm=[0, 2, 1, 3])
    return Value(graph.reshape(parts, 2 * count, length), (2 * count, length), False)


def modulus(graph: Graph, value: Value) -> Value:
    """|z| of a complex value."""
    axes = graph.constant([2], np.int64)
    squares = graph.node("ReduceSumSquare", graph.pairs(value), axes, keepdims=0)
    return Value(graph.node("Sqrt", squares), value.shape, False)


def _fft(graph: Graph, signal: str, window: int, shift: bool) -> Value:
    """The discrete Fourier transform; times (-1)^t it comes out with frequency zero in the centre (even windows)."""
    if shift and window % 2:
        raise ValueError(
            f"expected a window of even length to shift, got {window}; try shift=False"
        )
    if shift:
        signal = graph.node("Mul", signal, graph.constant(1 - 2 * (np.arange(window) % 2)))
    spectrum = graph.node("DFT", graph.reshape(signal, window, 1), "", graph.constant(1, np.int64))
    return Value(graph.node("Transpose", spectrum, perm=[0, 2, 1]), (1, window), True)


def _stft(graph: Graph, signal: str, window: int) -> Value:
    """A convolution with the Hann window times cosines and sines of each frequency; zeros beyond both ends."""
    n_pad = -window % STFT_HOP
    t, k = np.arange(STFT_WINDOW), np.arange(STFT_WINDOW // 2 + 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * t / STFT_WINDOW)
    wave = hann * np.exp(-2j * np.pi * np.outer(k, t) / STFT_WINDOW)
    kernel = np.stack((wave.real, wave.imag), 1).reshape(-1, 1, STFT_WINDOW)
    half = STFT_WINDOW // 2
    made = graph.node(
        "Conv",
        graph.reshape(signal, 1, window),
        graph.constant(kernel),
        strides=[STFT_HOP],
        pads=[half, half + n_pad],
    )
    return Value(made, (len(k), (window + n_pad) // STFT_HOP + 1), True)
