"""Experiments from the command line: run them, see how far they are, report what they reached.

Each command is a pair of functions, one that adds its arguments to a parser and one that does it,
and `COMMANDS` names them. A command imports what it uses: `--help` and `status` never load torch.

The parser is argparse. Click and typer have no option that takes several values, as `--devices`,
`--at` and `--runs` do, so with them every command line written so far would have to change.
"""

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import cplxnet
from cplxnet.extras import MissingExtraError

EPILOG = """\
examples:
  python -m cplxnet.auto run runs/demo --devices cuda:0 cuda:1 --per-device 2
  python -m cplxnet.auto status runs/demo
  python -m cplxnet.auto report trade-off runs/demo

`python -m cplxnet.auto COMMAND --help` describes one command.
"""


DATA = "folder of the data files (default: data)"


class Command(NamedTuple):
    """A command: what adds its arguments to a parser, and what does it.

    `action` takes the arguments by name and returns the exit code; its docstring is the help.
    """

    add_arguments: Callable[[argparse.ArgumentParser], None]
    action: Callable[..., int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command.

    Args:
        arguments: the words of the command line; None: those of this process.

    Returns:
        The exit code: 0, 1 if a run failed, 2 if what was asked for cannot be done.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = vars(_parser(words).parse_args(words))
        command = COMMANDS[options.pop("command")]
        return command.action(**options)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does: no fault of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, MissingExtraError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def console() -> None:
    """The script `cplxnet`: `main`, with signals handled and the process ended by its exit code."""
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)  # what batch systems send before they kill
    sys.exit(main())


def _on_signal(number: int, _: FrameType | None) -> None:
    """Stop in order, with everything written, the first time; at once the second time."""
    signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt(signal.Signals(number).name)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words: only the command that is asked for gets its arguments.

    Adding the arguments of `report` and `export` imports the kinds that they offer.
    """
    is_script = Path(sys.argv[0]).stem == "cplxnet"
    parser = argparse.ArgumentParser(
        prog="cplxnet" if is_script else "python -m cplxnet.auto",
        description=(__doc__ or "").partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cplxnet {cplxnet.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    asked = next((word for word in words if word in COMMANDS), None)
    for name, command in COMMANDS.items():
        about = command.action.__doc__
        own = commands.add_parser(name, help=about, description=about)
        own.formatter_class = argparse.RawDescriptionHelpFormatter
        if name == asked:
            command.add_arguments(own)

    return parser


# ---------------------------------------------------------------------------------------------
# generate

GENERATE = """\
examples:
  generate demo --dry-run
  generate demo --set stages.sparsify.objective.kl_div=0.01,0.05 --replicates 3 --into runs/finer
  generate runs/demo/c2e-02-r0.json --set stages.fine-tune.n_epochs=5,10 --into runs/longer
"""


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = GENERATE
    add = parser.add_argument
    add("source", help="a preset (demo, say), or a manifest that is the template")
    add(
        "--set",
        dest="axes",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=V1,V2",
        help="values that a dotted path takes, each as JSON or a word",
    )
    add("--replicates", type=int, metavar="N", help="seeds 0 to N - 1 (default: the preset's)")
    add(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="default: runs/SOURCE, with --set runs/SOURCE-varied",
    )
    add("--data", type=Path, default=Path("data"), help=DATA)
    add("--dry-run", action="store_true", help="only show it, with hours by steps timed here")
    add("--overwrite", action="store_true", help="also replace manifests that differ")
    add("--remove", action="store_true", help="also remove manifests that are left over")


def _generate(
    source: str,
    axes: list[str],
    replicates: int | None,
    into: Path | None,
    data: Path,
    dry_run: bool,
    **options: bool,
) -> int:
    """Write a grid of manifests: a preset's, or a template with some values varied."""
    from . import generate

    varied = dict(generate.axis(text) for text in axes)
    manifests = generate.manifests(source, varied, replicates=replicates)
    folder = into or generate.folder_of(source, varied)
    preview = generate.Preview(folder, manifests, data=data)

    cost = preview.cost(measure=dry_run).dropna(axis="columns", how="all")
    for table in (preview.files(), preview.varied(), cost):
        print(table.to_string(float_format="{:.3g}".format), end="\n\n")
    for sentence in preview.sentences():
        print(sentence)
    if dry_run:
        return 0

    written = preview.write(**options)
    print(f"{len(written)} manifests written; next: python -m cplxnet.auto run {preview.folder}")
    return 0


# ---------------------------------------------------------------------------------------------
# run


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    from .runner.lock import TIMEOUT_S

    add = parser.add_argument
    add("path", type=Path, help="a manifest, or a folder of manifests")
    add(
        "--devices",
        nargs="+",
        default=["cpu"],
        metavar="DEVICE",
        help="cpu (default), cuda:0 ...; cuda: every GPU",
    )
    add("--per-device", type=int, default=1, metavar="N", help="runs at a time on each (default 1)")
    add("--cluster", dest="address", help="of a Dask scheduler: its workers do the runs")
    add("--data", type=Path, default=Path("data"), help=DATA)
    add("--retry-failed", action="store_true", help="also run what failed or diverged before")
    add(
        "--again",
        nargs="*",
        metavar="NAME",
        help="also look at these runs of the folder if they are done (no name: at all), and train "
        "what is missing or damaged",
    )
    add(
        "--no-reuse",
        dest="reuse",
        action="store_false",
        help="train stages that runs share once for each run",
    )
    add(
        "--accept-changes",
        action="store_true",
        help="run on where a manifest has changed since its run was started",
    )
    add(
        "--timeout",
        dest="timeout_s",
        type=_seconds,
        default=TIMEOUT_S,
        metavar="SECONDS",
        help=f"silence after which a run's process counts as gone (default {TIMEOUT_S:.0f})",
    )


def _seconds(text: str) -> float:
    """A finite number of at least one second. With less, two commands would train one run."""
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 1):
        raise argparse.ArgumentTypeError(f"expected at least 1 second, got {text}; try 60")
    return seconds


def _run(path: Path, **options: Any) -> int:
    """Run one manifest, or every manifest of a folder that is not done."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected a manifest or a folder of manifests, got nothing there"
        )
    if not path.is_dir():
        return _run_manifest(path, **options)

    from .sweep.queue import failed
    from .sweep.run_many import run_many

    outcomes = run_many(path, **options)
    for outcome in outcomes:
        reason = f" ({outcome.reason})" if outcome.reason else ""
        print(f"{outcome.name}: {outcome.state}{reason}")

    bad = [outcome for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        print(f"{len(bad)} of {len(outcomes)} runs did not finish", file=sys.stderr)
    marked = failed(path, [outcome.name for outcome in bad])  # by what their folders say
    if marked:
        print(
            "run again with --retry-failed only, see traceback.txt in their folders: "
            + ", ".join(marked),
            file=sys.stderr,
        )
    if len(marked) < len(bad):
        print("the same command tries the others again", file=sys.stderr)
    return 1 if bad else 0


def _run_manifest(
    path: Path,
    *,
    devices: list[str],
    per_device: int,
    address: str | None,
    reuse: bool,
    retry_failed: bool,
    again: list[str] | None,
    **options: Any,
) -> int:
    """Run one manifest; asking for it tries again what failed."""
    if again not in (None, [], [path.stem]):
        raise ValueError(f"{path}: expected --again of this manifest, got {', '.join(again)}")
    if len(devices) > 1 or per_device > 1 or address:
        raise ValueError(f"{path}: expected one device for one manifest; try a folder of manifests")

    from .manifest.read import load
    from .runner import lock
    from .runner.run import run
    from .runner.stages import neighbours
    from .train.loop import Diverged

    folder = path.with_suffix("")
    others = neighbours(path) if reuse else None
    try:
        run(
            load(path),
            folder,
            device=devices[0],
            reuse=others,
            again=again is not None,
            **options,
        )
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except (lock.Held, lock.ClaimLost) as error:
        print(f"not run: {error}", file=sys.stderr)
        return 1

    print(f"done: {folder / 'scores.json'}")
    return 0


# ---------------------------------------------------------------------------------------------
# status


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="a folder of manifests")
    parser.add_argument(
        "--verify", action="store_true", help="read every file of the runs and name what is damaged"
    )


def _status(path: Path, verify: bool) -> int:
    """Show how far each run of a folder is."""
    from .report import tables

    table = tables.status(path)
    print(table.to_string())
    return _verify(path, table.index) if verify else 0


def _verify(folder: Path, names: Iterable[str]) -> int:
    """Name what is damaged or lost of the runs, and the command that makes it again."""
    from .runner.folder import RunFolder

    damaged = []
    for name in names:
        run = RunFolder(folder / name)
        faults = run.verify()
        for fault in faults:
            print(f"{name}: {fault}")
        if faults:
            damaged.append(name)
        elif run.status["state"] == "done" and not run.snapshots():
            print(f"{name}: its snapshots are not here")

    if damaged:
        again = f"run {folder} --again {' '.join(damaged)}"
        print(f"`{again}` makes again what is damaged", file=sys.stderr)
    return 1 if damaged else 0


# ---------------------------------------------------------------------------------------------
# report

REPORT = """\
report FOLDER            the table: a row per run and stage, then readings in words
report KIND FOLDER...    a figure (PDF and PNG) with its data (CSV), of one folder or several

{kinds}

A folder that is still running is reported as far as it is; what is missing is named.
"""


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    from .report.kinds import KINDS

    kinds = [f"  {name:<11} {kind.__doc__}" for name, kind in KINDS.items()]
    parser.description = REPORT.format(kinds="\n".join(kinds))
    parser.usage = f"{parser.prog} [KIND] FOLDER [FOLDER ...] [options]"

    add = parser.add_argument
    add("words", nargs="+", metavar="[KIND] FOLDER", help="of manifests (./layers, if so named)")
    add("--csv", type=Path, help="without a kind: also write the table to this file")
    add("--out", type=Path, metavar="DIR", help="for the files (default: FIRST FOLDER/figures)")
    add("--scorer", default="test", help="whose scores, as manifests name it (default: test)")
    add("--data", type=Path, default=Path("data"), help=DATA)
    add("--device", default="cpu", help="threshold: what scores and trains (default: cpu)")
    add("--runs", nargs="+", metavar="RUN", help="threshold: of these alone (default: all)")
    add(
        "--at",
        nargs="+",
        type=float,
        metavar="T",
        help="threshold: on log alpha (default: -6 ... 6)",
    )
    add("--tune", action="store_true", help="threshold: also fine-tune again at each, in DIR")


def _report(words: list[str], csv: Path | None, scorer: str, **options: Any) -> int:
    """Report what runs have reached: a table, or a kind of figure with its data."""
    from .report.kinds import KINDS, make

    kind, *folders = words
    if kind not in KINDS:
        return _report_table(words, csv, scorer, ", ".join(KINDS))
    if not folders:
        raise ValueError(
            f"expected folders of manifests after {kind!r}, got none; try report {kind} runs/demo"
        )
    if csv:
        raise ValueError(
            "expected --csv without a kind only: a kind writes its data beside its figure; "
            "try --out"
        )
    if kind != "threshold" and (options["tune"] or options["at"] or options["runs"]):
        raise ValueError(f"expected --at, --runs and --tune with the kind threshold, got {kind!r}")

    import matplotlib

    matplotlib.use("Agg")  # files only, wherever this runs
    report = make(kind, folders, scorer=scorer, **options)
    for line in [*report.sentences, *report.paths]:
        print(line)
    return 0


def _report_table(words: list[str], csv: Path | None, scorer: str, kinds: str) -> int:
    from .report import tables, text

    folder, *others = words
    if others:
        raise ValueError(
            f"expected a kind of report ({kinds}) before several folders, got {folder!r}"
        )
    if not Path(folder).exists() and "/" not in folder:
        raise ValueError(
            f"{folder}: expected a folder of manifests, or a kind ({kinds}) and folders"
        )

    table = tables.collect(folder)
    print(tables.summary(table, scorer).to_string(index=False))
    for sentence in text.readings(table, scorer):
        print(sentence)
    if csv:
        table.to_csv(csv, index=False)
    return 0


# ---------------------------------------------------------------------------------------------
# page


def _page_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="a folder of manifests")
    add("--into", type=Path, metavar="FILE", help="put the page between the marks in this file")
    add("--scorer", default="test", help="whose scores, as manifests name it (default: test)")


def _page(folder: Path, into: Path | None, scorer: str) -> int:
    """Write a grid's results in Markdown: a table of groups, then numbered readings."""
    from .report import text

    if into:
        text.insert(into, folder, scorer)
    else:
        print(text.markdown(folder, scorer), end="")
    return 0


# ---------------------------------------------------------------------------------------------
# export, transcribe


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    from .models import EXPORTS

    add = parser.add_argument
    add("run", type=Path, help="a run's folder, runs/demo/c2e-02-r0 say")
    add("file", type=Path, help="the file to write")
    add("--as", dest="kind", choices=EXPORTS, default="compact", help="default: compact")
    add("--stage", help="of the manifest (default: the last)")
    add("--raw-audio", action="store_true", help="ONNX that takes samples: the features are inside")


def _export(run: Path, file: Path, **options: Any) -> int:
    """Write the network of a run to a file for use elsewhere."""
    from . import models

    written = models.export(run, file, **options)
    print(f"{options['kind']}: {written}, {written.stat().st_size:,} bytes")
    return 0


def _transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("audio", type=Path, help="any rate, any number of channels")
    add(
        "--model",
        type=Path,
        required=True,
        help="a run's folder, snapshot, compact file or ONNX file",
    )
    add("--stage", help="of a run's folder (default: the last)")
    add(
        "--out",
        type=Path,
        help="the files' name without .csv and .mid (default: X.transcribed for X.wav)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="also replace files that are no earlier transcription of the same recording",
    )
    add(
        "--hop",
        type=int,
        default=1024,
        metavar="N",
        help="samples at 11 kHz a frame (default 1024)",
    )
    add("--threshold", type=float, default=0.5, metavar="P", help="of a note (default 0.5)")


def _transcribe(
    audio: Path,
    model: Path,
    stage: str | None,
    out: Path | None,
    overwrite: bool,
    **options: Any,
) -> int:
    """Turn a recording (WAV, FLAC, OGG, MP3, AIFF) into a piano roll (CSV) and notes (MIDI)."""
    from cplxnet.musicnet.transcription.audio import (
        default_stem,
        transcribe_audio,
        write_transcription,
    )

    from . import models

    network, heard = models.load_deployed(model, stage=stage)
    transcription = transcribe_audio(network, audio, **options, **heard)
    for notice in transcription.notices:
        print(notice, file=sys.stderr)

    stem = out or default_stem(audio)
    roll, midi = write_transcription(transcription, stem, overwrite=overwrite)
    print(f"piano roll: {roll}, {len(transcription.times)} frames")
    print(f"MIDI: {midi}, {len(transcription.notes)} notes")
    return 0


# ---------------------------------------------------------------------------------------------
# translate, equalise: what older systems left, kept beside the package


@contextlib.contextmanager
def _from_checkout() -> Iterator[None]:
    """Say what to do if an import in the block finds no folder legacy/."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "legacy":
            raise
        raise ValueError(
            "expected the folder legacy/ of a checkout, got none; run the command from there"
        ) from error


def _translate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", type=Path, help="a manifest, or a folder of them")
    parser.add_argument("new", type=Path, help="the file, or the folder, to write")


def _translate(old: Path, new: Path) -> int:
    """Translate manifests of the older complex_paper system into those of this one."""
    with _from_checkout():
        from legacy import translate

    if old.is_dir():
        translated = translate.translate_folder(old, new)
        notes = [note for own in translated.values() for note in own]
        print(f"{len(translated)} manifests in {new}")
    else:
        _, notes = translate.translate_file(old, new)
        print(f"manifest: {new}")

    for note in dict.fromkeys(notes):
        print(note)
    return 0


def _equalise_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="a folder of finished runs with their snapshots")
    add("into", type=Path, help="the folder to write; `run` goes on with it")
    add("--at", nargs="+", type=float, default=[4, 20], metavar="TIMES", help="default: 4 20")
    add("--data", type=Path, default=Path("data"), help=DATA)


def _equalise(folder: Path, into: Path, **options: Any) -> int:
    """Begin runs at equal compression from those of a folder under sum and mean (legacy/)."""
    with _from_checkout():
        from legacy.equalise import equalise

    for name, manifest in equalise(folder, into, **options).items():
        print(f"{into / name}: threshold {manifest.threshold:.4g}")
    print(f"next: python -m cplxnet.auto run {into}")
    return 0


COMMANDS = {
    "generate": Command(_generate_arguments, _generate),
    "run": Command(_run_arguments, _run),
    "status": Command(_status_arguments, _status),
    "report": Command(_report_arguments, _report),
    "page": Command(_page_arguments, _page),
    "export": Command(_export_arguments, _export),
    "transcribe": Command(_transcribe_arguments, _transcribe),
    "translate": Command(_translate_arguments, _translate),
    "equalise": Command(_equalise_arguments, _equalise),
}


if __name__ == "__main__":
    console()
