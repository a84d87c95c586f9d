"""The command `report`: the table of a folder, or one kind of report of one folder or several."""

import argparse
from pathlib import Path
from typing import Any

from .report import tables

WHICH = (
    "trade-off",
    "threshold",
    "layers",
    "c-profile",
    "stopping",
    "curves",
    "compare",
)  # report.KINDS, not imported

_ABOUT = """\
report FOLDER            the table: a row per run and stage, then readings in words
report KIND FOLDER...    a figure (PDF and PNG) with its data (CSV), of one folder or several together

  trade-off   average precision against compression, before and after fine-tuning, with the Pareto front
  threshold   every run masked at thresholds on log alpha from -6 to 6, from its snapshot; --tune: fine-tuned again
  layers      sparsity of every layer, a line for each C
  c-profile   score and sparsity against C: means over replicates, 95 percent bands (Student's t)
  stopping    the epoch at which fine-tuning stopped, against compression
  curves      precision-recall, pooled and note by note
  compare     two methods (VD and ARD, real and complex, k=3 and k=6): paired differences at equal compression

A folder that is still running is reported as far as it is; what is missing is named.
"""


def add(commands: Any) -> None:
    """Add the parser of this command to those of `python -m cplxnet.auto`."""
    parser = commands.add_parser(
        "report",
        help="what runs have reached: a table, or one of seven kinds of figure with its data",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m cplxnet.auto report [KIND] FOLDER [FOLDER ...] [options]",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[KIND] FOLDER",
        help="folders of manifests (./layers, if so named)",
    )
    parser.add_argument(
        "--csv", type=Path, help="without a kind: also write the table to this file"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the files (default: FIRST FOLDER/figures)"
    )
    parser.add_argument(
        "--scorer", default="test", help="whose scores, as manifests name it (default: test)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data files (default: data)"
    )
    parser.add_argument(
        "--device", default="cpu", help="threshold: what scores and trains (default: cpu)"
    )
    parser.add_argument(
        "--runs", nargs="+", metavar="RUN", help="threshold: of these alone (default: all)"
    )
    parser.add_argument(
        "--at",
        nargs="+",
        type=float,
        metavar="T",
        help="threshold: on log alpha (default: -6 -5 ... 6)",
    )
    parser.add_argument(
        "--tune", action="store_true", help="threshold: also fine-tune again at each, in DIR"
    )
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    first, *rest = options.words
    if first in WHICH:
        return _kind(first, rest, options)
    if rest:
        raise ValueError(
            f"expected a kind of report ({', '.join(WHICH)}) before several folders, got {first!r}"
        )
    if not Path(first).exists() and "/" not in first:
        raise ValueError(
            f"{first}: expected a folder of manifests, or a kind ({', '.join(WHICH)}) and folders"
        )
    table = tables.collect(first)
    print(tables.summary(table).to_string(index=False))
    print(*tables.readings(table), sep="\n")
    if options.csv:
        table.to_csv(options.csv, index=False)
    return 0


def _kind(kind: str, folders: list[str], options: argparse.Namespace) -> int:
    if not folders:
        raise ValueError(
            f"expected folders of manifests after {kind!r}, got none; try report {kind} runs/demo"
        )
    if options.csv:
        raise ValueError(
            "expected --csv without a kind only: a kind writes its data beside its figure; try --out"
        )
    if kind != "threshold" and (options.tune or options.at or options.runs):
        raise ValueError(f"expected --at, --runs and --tune with the kind threshold, got {kind!r}")
    import matplotlib

    matplotlib.use("Agg")  # files only, wherever this runs
    from . import report

    chosen = {"at": options.at} if options.at else {}
    made = report.make(
        kind,
        folders,
        out=options.out,
        scorer=options.scorer,
        data=options.data,
        device=options.device,
        runs=options.runs,
        tune=options.tune,
        **chosen,
    )
    print(*made.sentences, sep="\n", end="\n" if made.sentences else "")
    print(*made.paths, sep="\n")
    return 0
