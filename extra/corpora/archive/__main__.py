"""Build MusicNet's files for this package, from the published archive or from what there is of it.

Writes musicnet_11khz_{train,valid,test}.h5 and musicnet.h5 (44.1 kHz). What would poison an
experiment is refused with every fault named; what was put right on the way is told. Interrupted at
any moment, the same command goes on.
"""

import argparse
import sys
from collections.abc import Sequence

from cplxnet.progress import show
from extra.corpora import parser

from .build import build
from .published import obtain, obtain_metadata

EXAMPLES = """examples:
  python -m extra.corpora.archive                            download 11 GB from Zenodo, and build
  python -m extra.corpora.archive musicnet.tar.gz            build from the archive, as it is
  python -m extra.corpora.archive musicnet/ --workers 8      build from the unpacked folder
  python -m extra.corpora.archive musicnet.npz --no-full     build only the 11 kHz files

While it builds it takes 70 GB of disk, after that 27 GB."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, say what there is and what was put right; returns the exit code, 1 if it could not be
    built.
    """
    options = _parser().parse_args(arguments)
    try:
        source = obtain(options.source, options.data, check=not options.no_check)
        metadata_csv = obtain_metadata(
            source, options.metadata, options.data, check=not options.no_check
        )
        built = build(
            source,
            options.data,
            metadata_csv=metadata_csv,
            full=not options.no_full,
            n_workers=options.workers,
            force=options.force,
        )
    except (OSError, ValueError, RuntimeError) as error:
        show(f"{type(error).__name__}: {error}", sys.stderr)
        return 1

    for row in built.rows():
        show(
            f"{row['file']}: {row['recordings']} recordings "
            f"(MusicNet has {row['expected for MusicNet']}), {row['hours']:.2f} hours, "
            f"{row['notes']} notes, md5 {row['md5']}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    options = parser("archive", __doc__, EXAMPLES)
    options.add_argument(
        "source",
        nargs="?",
        help="the archive (.tar.gz), its unpacked folder, an older musicnet.h5 or musicnet.npz, or "
        "the address of a mirror (default: download from Zenodo)",
    )
    options.add_argument(
        "--metadata",
        metavar="FILE",
        help="musicnet_metadata.csv, which names composers: a path or an address (default: beside "
        "the source, else from Zenodo; without a connection composers stay empty)",
    )
    options.add_argument(
        "--no-check",
        action="store_true",
        help="for an archive of your own: it may differ from the published one",
    )
    options.add_argument(
        "--no-full", action="store_true", help="only the 11 kHz files, not musicnet.h5"
    )
    options.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes (default: 2)"
    )
    return options


if __name__ == "__main__":
    raise SystemExit(main())
