"""The commands `translate` and `equalise` of `python -m cplxnet.auto`."""

import argparse
from pathlib import Path
from typing import Any

from cplxnet.progress import show

from .equalise import equalise as begin_equal_runs
from .translate import translate_file, translate_folder


def translate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `translate` takes."""
    parser.add_argument("old", type=Path, help="a manifest, or a folder of them")
    parser.add_argument("new", type=Path, help="the file, or the folder, to write")


def translate(old: Path, new: Path) -> int:
    """Translate one manifest or a folder of them, and say what has changed on the way."""
    if old.is_dir():
        translated = translate_folder(old, new)
        notes = [note for own in translated.values() for note in own]
        show(f"{len(translated)} manifests in {new}")
    else:
        _, notes = translate_file(old, new)
        show(f"manifest: {new}")

    for note in dict.fromkeys(notes):
        show(note)
    return 0


def equalise_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `equalise` takes."""
    add = parser.add_argument
    add("folder", type=Path, help="a folder of finished runs with their snapshots")
    add("into", type=Path, help="the folder to write; `run` goes on with it")
    add("--at", nargs="+", type=float, default=[4, 20], metavar="TIMES", help="default: 4 20")
    add("--data", type=Path, default=Path("data"), help="of the data files (default: data)")


def equalise(folder: Path, into: Path, **options: Any) -> int:
    """Begin runs at equal compression, and name them with their thresholds."""
    for name, manifest in begin_equal_runs(folder, into, **options).items():
        show(f"{into / name}: threshold {manifest.threshold:.4g}")
    show(f"next: python -m cplxnet.auto run {into}")
    return 0
