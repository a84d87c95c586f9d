"""`python -m extra.corpora.demo [--size reference] [--data data] [--force]`: build a corpus, or find it built."""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from cplxnet.musicnet import recordings

from . import corpus, reference
from .corpus import FULL, IncompleteCorpusWarning, file_11khz
from .pieces import SPLITS

SIZES = {"demo": corpus.build, "reference": reference.build}


def _summary(folder: Path) -> str:
    lines = []
    for split in SPLITS:
        path = folder / file_11khz(split)
        rate_hz, samples = (
            recordings.rate_hz(path),
            [len(recording) for recording in recordings.recordings(path)],
        )
        lines.append(
            f"{path}: {len(samples)} recordings, {sum(samples) / rate_hz / 60:.1f} minutes"
        )
    if (folder / FULL).is_file():
        lines.append(f"{folder / FULL}: the same at 44.1 kHz")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the corpus and say what there is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m extra.corpora.demo", description=__doc__)
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="demo",
        help="demo: 47 minutes of training music (default); reference: over two hours, for runs/reference",
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="where to build its folder (default: data)"
    )
    parser.add_argument("--force", action="store_true", help="build again what is built")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", IncompleteCorpusWarning)
        folder = SIZES[options.size](options.data, force=options.force)
    print(_summary(folder))
    print(f"ready after {time.monotonic() - start:.0f} s")
    for warning in caught:
        print(f"warning: {warning.message}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
