"""Command line: `python -m cplxnet.auto run|status|report PATH`."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import pandas as pd

from cplxnet.extras import MissingExtraError

from . import commands, report_command
from .manifest.read import load
from .report import tables
from .runner import lock
from .runner.reuse import neighbours
from .runner.run import run
from .sweep import savings
from .sweep.run_many import run_many
from .sweep.run_one import Outcome
from .train.loop import Diverged


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, 1 if a run failed, 2 if what was asked for cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except (lock.Held, lock.ClaimLost) as error:
        print(f"not run: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cplxnet.auto", description=__doc__)
    kinds = parser.add_subparsers(required=True, metavar="COMMAND")

    one = kinds.add_parser(
        "run", help="run one manifest, or every manifest of a folder that is not done"
    )
    one.add_argument("path", type=Path, help="a manifest, or a folder of manifests")
    one.add_argument(
        "--devices",
        nargs="+",
        default=["cpu"],
        metavar="DEVICE",
        help="cpu (default), cuda:0 cuda:1, ...",
    )
    one.add_argument(
        "--per-device",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time on each device (default 1)",
    )
    one.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="of a Dask scheduler: its workers do it, each with --devices",
    )
    one.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data files (default: data)"
    )
    one.add_argument(
        "--retry-failed", action="store_true", help="also run what failed or diverged before"
    )
    one.add_argument(
        "--no-reuse", action="store_true", help="train stages that runs share once for each run"
    )
    one.add_argument(
        "--accept-changes",
        action="store_true",
        help="run on where a manifest has changed since its run was started",
    )
    one.add_argument(
        "--timeout",
        type=float,
        default=lock.TIMEOUT_S,
        metavar="SECONDS",
        help=f"silence after which a run's process counts as gone (default {lock.TIMEOUT_S:.0f})",
    )
    one.set_defaults(command=_run)

    two = kinds.add_parser("status", help="how far each run of a folder is")
    two.add_argument("path", type=Path, help="a folder of manifests")
    two.set_defaults(command=_status)

    report_command.add(kinds)
    commands.add(kinds)
    return parser


def _run(options: argparse.Namespace) -> int:
    if not options.path.exists():
        raise FileNotFoundError(
            f"{options.path}: expected a manifest or a folder of manifests, got nothing there"
        )
    if options.path.is_dir():
        return _run_folder(options)
    if len(options.devices) > 1 or options.per_device > 1 or options.cluster:
        raise ValueError(
            f"{options.path}: expected one device for one manifest; try a folder of manifests"
        )
    folder = options.path.with_suffix("")
    run(
        load(options.path),
        folder,
        device=options.devices[0],
        data=options.data,
        reuse=() if options.no_reuse else neighbours(options.path),
        accept_changes=options.accept_changes,
        timeout_s=options.timeout,
    )
    print(f"done: {folder / 'scores.json'}")
    return 0


def _run_folder(options: argparse.Namespace) -> int:
    outcomes = run_many(
        options.path,
        devices=options.devices,
        per_device=options.per_device,
        address=options.cluster,
        data=options.data,
        retry_failed=options.retry_failed,
        reuse=not options.no_reuse,
        accept_changes=options.accept_changes,
        timeout_s=options.timeout,
    )
    return _summary(options.path, outcomes)


def _summary(folder: Path, outcomes: list[Outcome]) -> int:
    for outcome in outcomes:
        print(
            f"{outcome.name}: {outcome.state}" + (f" ({outcome.reason})" if outcome.reason else "")
        )
    saved = savings.saved(folder, [outcome.name for outcome in outcomes])
    if saved:
        print(saved)
    bad = [outcome for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        print(
            f"{len(bad)} of {len(outcomes)} runs did not finish; see traceback.txt in their folders",
            file=sys.stderr,
        )
    if any(outcome.state in ("failed", "diverged") for outcome in bad):
        print("what failed is run again with --retry-failed only", file=sys.stderr)
    return 1 if bad else 0


def _status(options: argparse.Namespace) -> int:
    print(tables.status(options.path).to_string())
    return 0


def _on_signal(number: int, _: FrameType | None) -> None:
    """Stop in order, with everything written, the first time; at once the second time."""
    signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt(signal.Signals(number).name)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)  # what batch systems send before they kill
    pd.set_option("display.width", 160)
    sys.exit(main())
