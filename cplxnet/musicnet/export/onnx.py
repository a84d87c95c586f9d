"""A network as an ONNX file, which other runtimes open, and read back: no complex types, the batch
axis dynamic.

    export_onnx(model, "net.onnx")                  inputs real, imag (batch, C, L): features
    export_onnx(model, "net.onnx", raw_audio=True)  input signal (batch, window), features inside

`torch.onnx.export` writes the network's real form (`real_form`). All is float32, the output is
`logits` (batch, 84), in opset 20 of the standard domain. Where the features are real, the one input
is `features` (batch, C, L). What the network hears (window, rate, kind, cplx, shift) is in the
file's metadata, under `cplxnet`, as JSON. Weights that are mostly zero, as masked ones are, are
stored by what is left.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from cplxnet import files
from cplxnet.musicnet.features import STFT_HOP, STFT_WINDOW, features, read_heard
from cplxnet.musicnet.resample import TARGET_HZ

from .real_form import Step, UnknownLayerError, modulus, real_chain, with_zero_imaginary_part

# from here on in this process: the exporter says at every call that torchvision is not installed
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

OPSET = 20  # the first whose DFT takes its axis as an input; onnxruntime 1.17 and later
IR_VERSION = 9  # the one that came with that opset: older runtimes refuse files with a newer one
_SMALL = 1024  # numbers; a smaller weight is stored as it is
# For the weights and activations of all files opened here: a graph may ask for any number.
MOST_BYTES = 1 << 32


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

    Returns the path.

    Args:
        model: dense, variational (its means), masked or compact, a stack of layers.
        window: samples that the network hears.
        rate_hz: samples per second.
        kind, cplx, shift: as for `features`; `auto.heard(manifest)` gives them, and `window`.
        raw_audio: take the window itself and compute the features inside.

    Raises:
        UnknownLayerError: a layer without a real form, named, with its place; nothing is written.
        ValueError: an unknown kind of features, or weights that give NaN or infinity.
    """
    heard = {"window": window, "rate_hz": rate_hz, "kind": kind, "cplx": cplx, "shift": shift}
    training = model.training
    try:
        with torch.random.fork_rng(devices=[]):  # new layers draw weights before they are given
            proto = _exported(model.eval(), heard, raw_audio)
    finally:
        model.train(training)

    helper.set_model_props(proto, {"cplxnet": json.dumps({**heard, "raw_audio": raw_audio})})
    onnx.checker.check_model(proto, full_check=True)
    files.write(path, lambda file: file.write(proto.SerializeToString()))
    return Path(path)


class Exported(nn.Module):
    """What the file computes: the real form, of one input or of both parts of complex features."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, *inputs: Tensor) -> Tensor:
        x = torch.stack(inputs, 2).flatten(1, 2) if len(inputs) == 2 else inputs[0]
        return self.chain(x)


@torch.no_grad()
def _exported(model: nn.Module, heard: dict, raw_audio: bool) -> onnx.ModelProto:
    generator = torch.Generator().manual_seed(0)
    # not one window: a batch of 1 would become part of the file
    signal = torch.randn(2, heard["window"], generator=generator)
    x = features(signal, heard["kind"], cplx=heard["cplx"], shift=heard["shift"])

    chain = real_chain(model, x)
    if raw_audio:
        chain = nn.Sequential(*_features(heard["kind"], heard["cplx"], heard["shift"]), *chain)
        inputs = {"signal": signal}
    elif x.is_complex():
        inputs = {"real": x.real.contiguous(), "imag": x.imag.contiguous()}
    else:
        inputs = {"features": x}

    exported = Exported(chain).eval()
    _check(exported, exported(*inputs.values()), model(x))
    return _proto(exported, inputs)


def _features(kind: str, cplx: bool, shift: bool) -> list[Step]:
    """`features` of raw windows (B, window), complex ones as parts in turn, by what ONNX has."""
    match kind:
        case "raw":
            channel = Step(lambda signal: signal.unsqueeze(1))
            return [channel, Step(with_zero_imaginary_part)] if cplx else [channel]
        case "fft":
            transform = Step(functools.partial(_fourier, shift=shift))
        case "stft":
            transform = Step(_short_time_fourier, waves=_waves())
        case _:
            raise ValueError(f"expected raw, fft or stft of raw audio, got {kind!r}; try features")
    return [transform] if cplx else [transform, Step(modulus)]


def _fourier(signal: Tensor, shift: bool) -> Tensor:
    """The discrete Fourier transform: (B, window) -> (B, 2, window)."""
    spectrum = torch.view_as_real(torch.fft.fft(signal))
    if shift:
        spectrum = spectrum.roll(signal.shape[1] // 2, 1)
    return spectrum.transpose(1, 2)


def _short_time_fourier(signal: Tensor, waves: Tensor) -> Tensor:
    """The short-time Fourier transform as a convolution: (B, window) -> (B, 122, L).

    ONNX has an operator for it, whose error in onnxruntime is ten times as large.
    """
    half = STFT_WINDOW // 2
    padded = F.pad(signal, (half, half + -signal.shape[1] % STFT_HOP))
    return F.conv1d(padded.unsqueeze(1), waves, stride=STFT_HOP)


def _waves() -> Tensor:
    """Cosine and negative sine of each frequency under the Hann window: (122, 1, 120)."""
    t = torch.arange(STFT_WINDOW, dtype=torch.float64)
    frequency = torch.arange(STFT_WINDOW // 2 + 1, dtype=torch.float64)
    hann = torch.hann_window(STFT_WINDOW, dtype=torch.float64)
    phase = 2 * torch.pi * torch.outer(frequency, t) / STFT_WINDOW
    parts = torch.stack((hann * phase.cos(), -hann * phase.sin()), 1)
    return parts.flatten(0, 1).unsqueeze(1).float()


def _check(exported: nn.Module, logits: Tensor, expected: Tensor) -> None:
    """Raise for weights that are not finite, and for a layer that computes something of its own."""
    # the weights too: a ReLU may make 0 of NaN
    values = (*exported.state_dict().values(), logits, expected)
    if not all(value.isfinite().all() for value in values):
        raise ValueError(
            "expected a network of finite weights, got NaN or infinite logits or weights; "
            "try an earlier snapshot"
        )

    # a user's subclass of one of our layers may compute something else
    scale = float(expected.abs().max())
    if logits.shape != expected.shape or float((logits - expected).abs().max()) > 1e-3 * scale:
        raise UnknownLayerError(
            "expected layers that compute what their class does, got one with a forward of its own "
            "(the logits of the real form differ from the network's)"
        )


def _proto(exported: Exported, inputs: dict[str, Tensor]) -> onnx.ModelProto:
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of torch to torch
        warnings.filterwarnings("ignore", "# The axis name: batch")  # real's and imag's are one
        try:
            program = torch.onnx.export(
                exported,
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes=(tuple({0: batch} for _ in inputs),),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UnknownLayerError(
                f"expected layers that torch.onnx.export knows, got {error}"
            ) from error
    assert program is not None
    proto = program.model_proto

    proto.ir_version = IR_VERSION
    proto.producer_name = "cplxnet"
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # torch's notes, with lines and paths of the source
    _store_by_what_is_left(graph)
    return proto


def _store_by_what_is_left(graph: onnx.GraphProto) -> None:
    """Store weights that are mostly zero as positions and values, where that is smaller.

    In the graph they are scattered into zeros when a session starts (runtimes fold constants), so
    that running costs nothing. Positions are those of single numbers or of pairs, such as complex
    weights, whichever is smaller.
    """
    kept = []
    nodes = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= _SMALL and not values.size % 2:
            n_bytes, width = min((_stored_bytes(values, width), width) for width in (1, 2))
            if n_bytes < values.nbytes:
                constants, scatter = _scattered(weight.name, values, width)
                kept += constants
                nodes += scatter
                continue
        kept.append(weight)

    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _stored_bytes(values: np.ndarray, width: int) -> int:
    """Bytes of positions (int32) and values (float32) of the rows of `width` that are left."""
    return int(values.reshape(-1, width).any(1).sum()) * 4 * (width + 1)


def _scattered(
    name: str, values: np.ndarray, width: int
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """Constants and nodes that give `values` under `name`."""
    rows = values.reshape(-1, width)
    positions = np.flatnonzero(rows.any(1))
    tensors: dict[str, np.ndarray] = {
        "rows": np.array(rows.shape, np.int64),
        "positions": positions[:, None].astype(np.int32),
        "values": rows[positions],
        "shape": np.array(values.shape, np.int64),
    }
    constants = [numpy_helper.from_array(value, f"{name}.{key}") for key, value in tensors.items()]

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        inputs = [f"{name}.{key}" for key in inputs]
        return helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes)

    nodes = [
        node("ConstantOfShape", ["rows"], f"{name}.zeros"),
        node("Cast", ["positions"], f"{name}.indices", to=TensorProto.INT64),
        node("ScatterND", ["zeros", "indices", "values"], f"{name}.filled"),
        node("Reshape", ["filled", "shape"], name),
    ]
    return constants, nodes


# ---- read back -----------------------------------------------------------------------------------


@functools.cache
def _bound_memory() -> None:
    """Let onnxruntime have so many bytes at most, in this process."""
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    arena = onnxruntime.OrtArenaCfg(MOST_BYTES, -1, -1, -1)
    onnxruntime.create_and_register_allocator(memory, arena)


class OnnxNetwork:
    """What `export_onnx` wrote, as a function of features or of raw windows.

    It runs on as many threads as torch has.

    Attributes:
        heard: what the network hears, `window`, `rate_hz`, `kind`, `cplx` and `shift`.
        raw_audio: whether it takes raw windows; else it takes features.
        inputs: names of the inputs.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX file, not one of this package, or one whose inputs are not what it
            says that it hears.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: expected an ONNX file, got nothing there")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # nothing: what it has to say is in its exceptions
        _bound_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")

        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            metadata = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ValueError(
                f"{path}: expected an ONNX file that onnxruntime can open, got {error}"
            ) from error
        if "cplxnet" not in metadata:
            raise ValueError(
                f"{path}: expected an ONNX file of cplxnet's export_onnx, got another's"
            )

        self.path = path
        self.heard = read_heard(metadata["cplxnet"], f"{path}", raw_audio=bool)
        self.raw_audio = self.heard.pop("raw_audio")
        self.inputs = self._checked_inputs()

    def _checked_inputs(self) -> list[str]:
        """Names of the inputs. Raises ValueError unless they take what the network hears."""
        x = torch.zeros(1, self.heard["window"])
        names = ["signal"]
        if not self.raw_audio:
            x = features(x, self.heard["kind"], self.heard["cplx"])
            names = ["real", "imag"] if x.is_complex() else ["features"]

        expected = dict.fromkeys(names, tuple(x.shape[1:]))
        given = {one.name: tuple(one.shape[1:]) for one in self.session.get_inputs()}
        outputs = [one.name for one in self.session.get_outputs()]
        if given != expected or outputs != ["logits"]:
            raise ValueError(
                f"{self.path}: expected inputs {expected} and the output logits, got inputs "
                f"{given} and outputs {outputs}"
            )
        return names

    def __call__(self, x: Tensor) -> Tensor:
        """Logits float32 (B, 84).

        Args:
            x: raw windows (B, window) or features (B, C, L), whichever the file takes.

        Raises:
            ValueError: complex features for a network of real ones, or the reverse; a network that
                onnxruntime cannot run.
        """
        parts = [x.real, x.imag] if x.is_complex() else [x]
        if len(parts) != len(self.inputs):
            raise ValueError(
                f"expected {' and '.join(self.inputs)}, got {x.dtype} of shape {tuple(x.shape)}"
            )
        values = {
            name: part.contiguous().numpy() for name, part in zip(self.inputs, parts, strict=True)
        }
        try:
            logits: Any = self.session.run(["logits"], values)[0]
        except Exception as error:
            raise ValueError(
                f"{self.path}: expected a network that onnxruntime can run, got {error}"
            ) from error
        return torch.from_numpy(logits)
