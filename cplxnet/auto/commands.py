"""Commands beside the running of experiments: old manifests translated, networks exported and used, and more."""

import argparse
import sys
from pathlib import Path
from typing import Any

from .report import page, remask

_EXPORTS = (
    "compact",
    "compact-float16",
    "onnx",
    "onnx-compact",
    "cplxmodule",
)  # of `models.export`


def add(commands: Any) -> None:
    """Add the parsers of these commands to those of `python -m cplxnet.auto`."""
    out = commands.add_parser("export", help="the network of a run as a file for use elsewhere")
    out.add_argument("run", type=Path, help="a run's folder, runs/demo/c2e-02-r0 say")
    out.add_argument("file", type=Path, help="the file to write")
    out.add_argument(
        "--as", dest="kind", choices=_EXPORTS, default="compact", help="default: compact"
    )
    out.add_argument("--stage", help="of the manifest (default: the last)")
    out.add_argument(
        "--raw-audio", action="store_true", help="ONNX that takes samples: the features are inside"
    )
    out.set_defaults(command=_export)

    hear = commands.add_parser(
        "transcribe",
        help="a recording (WAV, FLAC, OGG, MP3, AIFF) into a piano roll (CSV) and notes (MIDI)",
    )
    hear.add_argument("audio", type=Path, help="any rate, any number of channels")
    hear.add_argument(
        "--model",
        type=Path,
        required=True,
        help="a run's folder, snapshot, compact file or ONNX file",
    )
    hear.add_argument("--stage", help="of a run's folder (default: the last)")
    hear.add_argument(
        "--out",
        type=Path,
        help="the files' name without .csv and .mid (default: X.transcribed for X.wav)",
    )
    hear.add_argument(
        "--overwrite",
        action="store_true",
        help="also replace files that are no earlier transcription of the same recording",
    )
    hear.add_argument(
        "--hop", type=int, default=1024, metavar="N", help="samples at 11 kHz between frames (1024)"
    )
    hear.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="probability of a note (default 0.5)",
    )
    hear.set_defaults(command=_transcribe)

    old = commands.add_parser(
        "translate", help="manifests of the older complex_paper system into those of this one"
    )
    old.add_argument("old", type=Path, help="a manifest, or a folder of them")
    old.add_argument("new", type=Path, help="the file, or the folder, to write")
    old.set_defaults(command=_translate)

    same = commands.add_parser(
        "equalise",
        help="begin runs at equal compression from those of a folder under sum and under mean (legacy/)",
    )
    same.add_argument("folder", type=Path, help="a folder of finished runs with their snapshots")
    same.add_argument("into", type=Path, help="the folder to write; `run` goes on with it")
    same.add_argument(
        "--at", nargs="+", type=float, default=[4, 20], metavar="TIMES", help="default: 4 20"
    )
    same.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data files (default: data)"
    )
    same.set_defaults(command=_equalise)

    new = commands.add_parser(
        "page", help="a grid's results in Markdown: a table of groups, then numbered readings"
    )
    new.add_argument("folder", type=Path, help="a folder of manifests")
    new.add_argument(
        "--into", type=Path, metavar="FILE", help="put them between the marks in this file"
    )
    new.set_defaults(command=_page)


def _export(options: argparse.Namespace) -> int:
    from . import models

    written = models.export(
        options.run,
        options.file,
        kind=options.kind,
        stage=options.stage,
        raw_audio=options.raw_audio,
    )
    print(f"{options.kind}: {written}, {written.stat().st_size:,} bytes")
    return 0


def _transcribe(options: argparse.Namespace) -> int:
    from cplxnet.musicnet.transcription import audio

    from . import models

    network, heard = models.load_deployed(options.model, stage=options.stage)
    made = audio.transcribe_audio(
        network, options.audio, hop=options.hop, threshold=options.threshold, **heard
    )
    for notice in made.notices:
        print(notice, file=sys.stderr)
    stem = options.out or audio.default_stem(options.audio)
    table, score = audio.write_transcription(made, stem, overwrite=options.overwrite)
    print(f"piano roll: {table}, {len(made.times)} frames")
    print(f"MIDI: {score}, {len(made.notes)} notes")
    return 0


def _translate(options: argparse.Namespace) -> int:
    try:
        from legacy import translate  # beside the package, not in it
    except ModuleNotFoundError as error:
        raise ValueError(
            "translate: expected the folder legacy/ of a checkout, got none; run it from there"
        ) from error
    if options.old.is_dir():
        made = translate.translate_folder(options.old, options.new)
        print(f"{len(made)} manifests in {options.new}")
        notes = dict.fromkeys(note for found in made.values() for note in found)
    else:
        notes = dict.fromkeys(translate.translate_file(options.old, options.new)[1])
        print(f"manifest: {options.new}")
    print(*notes, sep="\n")
    return 0


def _page(options: argparse.Namespace) -> int:
    if options.into:
        page.insert(options.into, options.folder)
    else:
        print(page.markdown(options.folder), end="")
    return 0


def _equalise(options: argparse.Namespace) -> int:
    made = remask.equalise(options.folder, options.into, at=options.at, data=options.data)
    for name, manifest in made.items():
        print(f"{options.into / name}: threshold {manifest.threshold:.4g}")
    print(f"next: python -m cplxnet.auto run {options.into}")
    return 0
