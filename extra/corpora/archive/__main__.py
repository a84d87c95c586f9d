"""`python -m extra.corpora.archive [SOURCE] [--data data]`: MusicNet's files, downloaded or from what is there."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .build import build
from .obtain import obtain, obtain_metadata


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, say what there is and what was put right; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m extra.corpora.archive", description=__doc__)
    parser.add_argument(
        "source", nargs="?", help="archive, folder, .h5, .npz or address (default: Zenodo)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="where the files go (default: data)"
    )
    parser.add_argument(
        "--metadata", help="musicnet_metadata.csv (default: beside the source, or Zenodo)"
    )
    parser.add_argument(
        "--no-check", action="store_true", help="use an archive unlike the published one"
    )
    parser.add_argument(
        "--no-full", action="store_true", help="only the 11 kHz files, not musicnet.h5"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--force", action="store_true", help="build again what is built")
    options = parser.parse_args(arguments)
    try:
        source = obtain(options.source, options.data, check=not options.no_check)
        texts = obtain_metadata(source, options.metadata, options.data, check=not options.no_check)
        built = build(
            source,
            options.data,
            metadata_csv=texts,
            full=not options.no_full,
            n_workers=options.workers,
            force=options.force,
        )
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for row in built.rows():
        print(
            f"{row['file']}: {row['recordings']} recordings (MusicNet has {row['expected for MusicNet']}), "
            f"{row['hours']:.2f} hours, {row['notes']} notes, md5 {row['md5']}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
