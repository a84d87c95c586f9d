"""Command line: `python -m cplxnet.auto run|status|report PATH`."""

import argparse
import sys
from pathlib import Path

import pandas as pd

from . import report
from .epoch import Diverged
from .manifest import load
from .many import Outcome, run_many
from .runner import run


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 if a run failed, 2 if what was asked for cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cplxnet.auto", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="run|status|report")

    one = commands.add_parser("run", help="run one manifest, or every manifest of a folder that is not done")
    one.add_argument("path", type=Path, help="a manifest, or a folder of manifests")
    one.add_argument("--devices", default="cpu", metavar="DEVICE", help="cpu (default), cuda:0, ...")
    one.add_argument("--data", type=Path, default=Path("data"), help="folder of the data files (default: data)")
    one.add_argument("--no-reuse", action="store_true", help="train stages that runs share once for each run")
    one.set_defaults(command=_run)

    two = commands.add_parser("status", help="how far each run of a folder is")
    two.add_argument("path", type=Path, help="a folder of manifests")
    two.set_defaults(command=_status)

    three = commands.add_parser("report", help="a table of scores and compression, a row per run, stage and scorer")
    three.add_argument("path", type=Path, help="a folder of manifests")
    three.add_argument("--csv", type=Path, help="also write the table to this file")
    three.set_defaults(command=_report)
    return parser


def _run(options: argparse.Namespace) -> int:
    if not options.path.exists():
        raise FileNotFoundError(f"{options.path}: expected a manifest or a folder of manifests, got nothing there")
    if options.path.is_dir():
        return _summary(run_many(options.path, device=options.devices, data=options.data, reuse=not options.no_reuse))
    folder = options.path.with_suffix("")
    run(load(options.path), folder, device=options.devices, data=options.data)
    print(f"done: {folder / 'scores.json'}")
    return 0


def _summary(outcomes: list[Outcome]) -> int:
    for outcome in outcomes:
        print(f"{outcome.name}: {outcome.state}" + (f" ({outcome.reason})" if outcome.reason else ""))
    bad = [outcome.name for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        print(f"{len(bad)} of {len(outcomes)} runs did not finish; see traceback.txt in their folders", file=sys.stderr)
    return 1 if bad else 0


def _status(options: argparse.Namespace) -> int:
    print(report.status(options.path).to_string())
    return 0


def _report(options: argparse.Namespace) -> int:
    table = report.collect(options.path)
    print(report.summary(table).to_string(index=False))
    print(*report.readings(table), sep="\n")
    if options.csv:
        table.to_csv(options.csv, index=False)
    return 0


if __name__ == "__main__":
    pd.set_option("display.width", 160)
    sys.exit(main())
