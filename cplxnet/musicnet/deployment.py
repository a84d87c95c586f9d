"""Networks in files for use elsewhere: written in several kinds, read again, and the command that
has one transcribe a recording.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.nn.compaction.quantisation import NoPosterior
from cplxnet.progress import show

from . import trained
from .features import read_heard
from .resample import TARGET_HZ

EXPORTS = ("compact", "compact-float16", "onnx", "onnx-compact", "cplxmodule")
HEARD = {"rate_hz": TARGET_HZ}  # by every network, beside what its manifest says
_KEY = "cplxnet"  # in a compact file's metadata: what its network hears, as JSON


def export_network(
    model: torch.nn.Module,
    path: str | Path,
    *,
    kind: str,
    threshold: float,
    heard: dict[str, Any],
    posterior: Callable[[], torch.nn.Module | None] = lambda: None,
    raw_audio: bool = False,
    bits: float | str | None = None,
) -> Path:
    """Write a network to the file `path`.

    Args:
        model: the network, in evaluation mode on the CPU.
        kind: "compact" (`nn.save_compact`), "compact-float16", "onnx", "onnx-compact", or
            "cplxmodule": a state dict in that library's layout, which `torch.load(path,
            weights_only=True)` reads.
        threshold: of the compact kinds: weights with a greater log_alpha are left out.
        heard: what the network hears: `rate_hz`, `window` (samples), and `kind`, `cplx` and `shift`
            of its features.
        posterior: gives the variational network that the masks come from, or None.
        raw_audio: of ONNX, the features inside.
        bits: of "compact", for each number kept: about so many, or "auto", as many as the posterior
            asks for.

    Raises:
        ValueError: another kind, raw_audio of a kind that is not ONNX, bits of one that is not
            "compact", or "auto" without a posterior.
    """
    if kind not in EXPORTS or (raw_audio and not kind.startswith("onnx")):
        raise ValueError(
            f"expected a kind of {', '.join(EXPORTS)}, raw_audio with ONNX only, got {kind!r}"
        )

    if bits is not None and kind != "compact":
        raise ValueError(f"expected bits with compact only, got {kind!r}")

    if kind == "cplxmodule":
        files.write_tensors(path, dict(cplx.cplxmodule_state(model)))
        return Path(path)

    # what runs a compact network fastest is not in a file, so nothing is measured
    compact = functools.partial(cplx.compact, model, threshold=threshold, measure=False)
    if kind.startswith("onnx"):
        from .export import export_onnx

        network = model if kind == "onnx" else compact()
        return export_onnx(network, path, raw_audio=raw_audio, **heard)

    small = compact()
    sigma = None
    if bits == "auto":
        variational = posterior()
        if variational is None:
            raise NoPosterior("expected a variational stage for bits auto, got none; try bits 5")
        sigma = cplx.posterior_sigma(model, variational, threshold=threshold)
    elif bits is not None:
        sigma = cplx.sigma_for_bits(small, float(bits))

    dtype: Literal["float16", "float32"] = "float16" if kind == "compact-float16" else "float32"
    metadata = {_KEY: json.dumps(heard)}
    cplx.save_compact(small, path, dtype=dtype, sigma=sigma, metadata=metadata)
    return Path(path)


def load_network(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The network in a compact or an ONNX file, and what it hears (see `export_network`).

    Raises:
        FileNotFoundError: nothing there.
        ValueError: unreadable, or a file that does not say what its network hears.
    """
    if path.suffix == ".onnx":
        from .export import OnnxNetwork

        network = OnnxNetwork(path)
        if not network.raw_audio:
            return network, network.heard

        # the graph makes its own features: it is given the raw window
        raw = {"kind": "raw", "cplx": False, "shift": False}
        return lambda x: network(x[:, 0]), network.heard | raw

    small = cplx.load_compact(path)
    return small, read_heard(small.metadata.get(_KEY, ""), f"{path}")


# ---- on the command line -------------------------------------------------------------------------


def transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command `transcribe` takes."""
    add = parser.add_argument
    add("audio", type=Path, help="any rate, any number of channels")
    model = (
        "a run's folder, snapshot, compact file or ONNX file, or one that comes with the package: "
        f"{', '.join(trained.NETWORKS)} (default: {trained.DEFAULT})"
    )
    add("--model", type=trained.find, default=trained.DEFAULT, help=model)
    add("--stage", help="of a run's folder (default: the last)")
    add("--out", type=Path, help="files' name without suffix (default: X.transcribed for X.wav)")
    add("--overwrite", action="store_true", help="also replace what no transcription has written")
    hop = "samples at 11 kHz a frame (default 1024)"
    add("--hop", type=int, default=1024, metavar="N", help=hop)
    add("--threshold", type=float, default=0.5, metavar="P", help="of a note (default 0.5)")


def transcribe_recording(
    network: Callable[[Tensor], Tensor],
    heard: dict[str, Any],
    *,
    audio: Path,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> int:
    """Write the recording's piano roll (CSV) and notes (MIDI), and name them.

    network, heard: of `auto.models.load_deployed`. options: as of `transcribe_audio`.
    """
    from .transcription.audio import default_stem, transcribe_audio, write_transcription

    transcription = transcribe_audio(network, audio, **options, **heard)
    for notice in transcription.notices:
        show(notice, sys.stderr)

    stem = out or default_stem(audio)
    roll, midi = write_transcription(transcription, stem, overwrite=overwrite)
    show(f"piano roll: {roll}, {len(transcription.times)} frames")
    show(f"MIDI: {midi}, {len(transcription.notes)} notes")
    return 0


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `export_network` takes beside what every task's does to the command `export`."""
    raw_audio = "ONNX that takes samples: the features are inside"
    parser.add_argument("--raw-audio", action="store_true", help=raw_audio)
    bits = (
        "compact: about N (2 to 16) for each number kept, or auto, as the posterior asks "
        "(default: 32)"
    )
    parser.add_argument("--bits", type=number_or_auto, metavar="N", help=bits)


def number_or_auto(text: str) -> float | str:
    """What `--bits` takes; argparse names this function where it is something else."""
    return text if text == "auto" else float(text)
