"""Build a corpus of rendered scores, with exact labels, in MusicNet's layout.

The scores are music21's (Beethoven, Mozart, Haydn, Schumann and others), played by the General MIDI
sound font that pretty_midi ships. Nothing is downloaded. The same command always writes the same
bytes.
"""

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from cplxnet.musicnet import recordings
from cplxnet.progress import show
from extra.corpora import FULL, SPLITS, file_11khz, parser

from .build import IncompleteCorpusWarning, build, build_reference

EXAMPLES = """examples:
  python -m extra.corpora.demo                     data/demo, which `make demo` needs
  python -m extra.corpora.demo --size reference    data/reference, for runs/reference
  python -m extra.corpora.demo --data /scratch     the same in /scratch/demo

What is built already is left as it is, and the command says what there is."""
SIZES = {"demo": build, "reference": build_reference}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the corpus and say what there is; returns the exit code, 1 if it could not be built."""
    options = parser("demo", __doc__, EXAMPLES)
    options.add_argument(
        "--size",
        choices=SIZES,
        default="demo",
        help="demo: 47 minutes of training music (default); reference: over two hours",
    )
    given = options.parse_args(arguments)

    start = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", IncompleteCorpusWarning)
        try:
            folder = SIZES[given.size](given.data, force=given.force)
        except (OSError, RuntimeError, IncompleteCorpusWarning) as error:
            show(f"error: {error}", sys.stderr)
            return 1

    show(_summary(folder))
    show(f"ready after {time.monotonic() - start:.0f} s")
    for warning in caught:
        show(f"warning: {warning.message}", sys.stderr)
    return 0


def _summary(folder: Path) -> str:
    """A line a file: recordings and minutes."""
    lines = []
    for split in SPLITS:
        path = folder / file_11khz(split)
        samples = [len(recording) for recording in recordings.recordings(path)]
        minutes = sum(samples) / recordings.rate_hz(path) / 60
        lines.append(f"{path}: {len(samples)} recordings, {minutes:.1f} minutes")

    if (folder / FULL).is_file():
        lines.append(f"{folder / FULL}: the same at 44.1 kHz")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
