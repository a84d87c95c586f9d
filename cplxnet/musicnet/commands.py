"""The command `transcribe` of `python -m cplxnet.auto`: a recording into a piano roll and notes."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from . import trained


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
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


def _transcribe(
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
        print(notice, file=sys.stderr)

    stem = out or default_stem(audio)
    roll, midi = write_transcription(transcription, stem, overwrite=overwrite)
    print(f"piano roll: {roll}, {len(transcription.times)} frames")
    print(f"MIDI: {midi}, {len(transcription.notes)} notes")
    return 0


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `export_network` takes beside what every task's does to the command `export`."""
    raw_audio = "ONNX that takes samples: the features are inside"
    parser.add_argument("--raw-audio", action="store_true", help=raw_audio)
    bits = "compact: about N for each number kept, or auto, as the posterior asks (default: 32)"
    parser.add_argument("--bits", type=number_or_auto, metavar="N", help=bits)


def number_or_auto(text: str) -> float | str:
    """What `--bits` takes; argparse names this function where it is something else."""
    return text if text == "auto" else float(text)


COMMANDS = {"transcribe": (_transcribe_arguments, _transcribe)}
