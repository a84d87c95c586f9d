"""From a run to a network that is put to use: written to a file, and read again from whatever holds one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from .. import nn as cplx
from ..musicnet.deploy import OnnxNetwork, export_onnx
from ..musicnet.resample import TARGET_HZ
from . import atomic
from .trained import heard, load_model

HEARD = "cplxnet"  # the key under which a compact file's metadata has what its network hears, as JSON
EXPORTS = ("compact", "compact-float16", "onnx", "onnx-compact", "cplxmodule")


class Deployed(NamedTuple):
    """A network as a function of features, and what it hears: `window`, `rate_hz`, `kind`, `cplx`, `shift`."""

    network: Callable[[Tensor], Tensor]
    heard: dict[str, Any]


def load_deployed(path: str | Path, *, stage: str | None = None) -> Deployed:
    """The network in a run's folder (its stage `stage`, None: the last), a snapshot in one, a compact or an ONNX file.

    Raises:
        FileNotFoundError: nothing there. ValueError: unreadable, or a file that does not say what its network hears.
    """
    path = Path(path)
    snapshot = re.fullmatch(r"\d+-(.+)", path.stem) if path.suffix == ".pt" else None
    if path.is_dir() or snapshot:
        model, manifest = load_model(path.parent if snapshot else path, snapshot[1] if snapshot else stage)
        return Deployed(model, {"rate_hz": TARGET_HZ, **heard(manifest)})
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a run's folder, a snapshot, a compact or an ONNX file, got nothing")
    if path.suffix == ".onnx":
        return _from_onnx(OnnxNetwork(path))
    small = cplx.load_compact(path)
    if HEARD not in small.metadata:
        raise ValueError(
            f"{path}: expected what the network hears in its metadata, got none; try `python -m cplxnet.auto export`"
        )
    return Deployed(small, json.loads(small.metadata[HEARD]))


def _from_onnx(network: OnnxNetwork) -> Deployed:
    if not network.raw_audio:
        return Deployed(network, network.heard)
    # the graph makes its own features: it is given the raw window
    return Deployed(lambda x: network(x[:, 0]), {**network.heard, "kind": "raw", "cplx": False, "shift": False})


def export(
    folder: str | Path, path: str | Path, *, kind: str, stage: str | None = None, raw_audio: bool = False
) -> Path:
    """Write the network of a run's folder to the file `path`.

    Args:
        kind: "compact" (`nn.save_compact`), "compact-float16", "onnx", "onnx-compact", or "cplxmodule": a state dict in
            that library's layout, which `torch.load(path, weights_only=True)` reads.
        stage: its name; None: the last. raw_audio: of ONNX, the features inside.

    Raises:
        As `load_model`; ValueError for another kind, and for raw_audio of a kind that is not ONNX.
    """
    if kind not in EXPORTS or (raw_audio and not kind.startswith("onnx")):
        raise ValueError(f"expected a kind of {', '.join(EXPORTS)}, raw_audio with ONNX only, got {kind!r}")
    model, manifest = load_model(folder, stage)
    how: dict[str, Any] = {"rate_hz": TARGET_HZ, **heard(manifest)}
    if kind == "cplxmodule":
        atomic.write_tensors(path, dict(cplx.cplxmodule_state(model)))
    elif kind == "onnx":
        export_onnx(model, path, raw_audio=raw_audio, **how)
    else:
        small = cplx.compact(model, threshold=manifest.threshold, measure=False)  # what runs it is not in the file
        if kind == "onnx-compact":
            export_onnx(small, path, raw_audio=raw_audio, **how)
        else:
            half = kind.endswith("float16")
            cplx.save_compact(small, path, dtype="float16" if half else "float32", metadata={HEARD: json.dumps(how)})
    return Path(path)
