"""Experiments from the command line: run them, see how far they are, report what they reached.

Each command is a pair of functions in `COMMANDS`. One adds its arguments to a parser. The other
does it: it takes them by name and returns the exit code, and its docstring is the help. A command
imports what it uses: `--help` and `status` never load torch.

The parser is argparse. Cyclopts, whose typed signatures take all these command lines but shortened
options, was tried: the commands came out 26 lines longer (an option stands in signature, docstring
and call), a help text's long commands were broken at the terminal's width, and it needs seven more
packages.
"""

import argparse
import contextlib
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import cplxnet
from cplxnet import files
from cplxnet.extras import MissingExtraError, extra
from cplxnet.progress import show

from .runner.lock import TIMEOUT_S
from .runner.stop import GRACE_S, Interrupted, on_signals

EPILOG = """\
exit codes:
  0   done
  1   a run failed, diverged, is damaged or is another process's
  2   refused, or ended by an error of the system, which is said
  75  ended by SIGTERM or SIGUSR1; the same command goes on from there
  130 ended by Ctrl-C; the same command goes on from there
"""

DATA = "folder of the data files (default: data)"
WATCH_EVERY_S = 2.0
# states that stay until somebody does something
SETTLED = {"done", "failed", "diverged", "changed", "broken", "damaged"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one command.

    Args:
        arguments: the words of the command line; None: those of this process.

    Returns:
        The exit code, as --help says.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = vars(_parser(words).parse_args(words))
        _, action = COMMANDS[options.pop("command")]
        return action(**options)
    except (ValueError, OSError, MemoryError, MissingExtraError) as error:
        show(f"error: {_in_words(error)}", sys.stderr)
        return 2
    except Interrupted:
        show("stopped as asked; the same command goes on from here", sys.stderr)
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        show("interrupted; the same command goes on from here", sys.stderr)
        return 130


def _in_words(error: Exception) -> str:
    """What went wrong; of a file that the system does not find, as of all that is missing."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        here = f"(working directory: {Path.cwd()})"
        return f"{error.filename}: expected a file, got nothing there {here}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"  # without its number
    return str(error) or type(error).__name__


def console() -> None:
    """The script `cplxnet`: `main`, with signals handled and the process ended by its exit code."""
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)
    sys.exit(main())


def _on_signal(number: int, _: FrameType | None) -> None:
    """Stop in order, with everything written, the first time; at once the second time."""
    is_ctrl_c = number == signal.SIGINT
    error, code = (KeyboardInterrupt, 130) if is_ctrl_c else (Interrupted, os.EX_TEMPFAIL)
    signal.signal(number, lambda *_: os._exit(code))
    raise error(signal.Signals(number).name)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these words: only the command that is asked for gets its arguments.

    Adding the arguments of `export` and `transcribe` imports torch, for what the task offers.
    """
    is_script = Path(sys.argv[0]).stem == "cplxnet"
    formatted = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="cplxnet" if is_script else "python -m cplxnet.auto",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"`%(prog)s COMMAND --help` describes one command, with examples.\n\n{EPILOG}",
        formatter_class=formatted,
    )
    parser.add_argument("--version", action="version", version=f"cplxnet {cplxnet.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    asked = next((word for word in words if word in COMMANDS), None)
    for name, (add_arguments, action) in COMMANDS.items():
        about = inspect.getdoc(action) or ""
        own = commands.add_parser(
            name, help=about.partition("\n")[0], description=about, formatter_class=formatted
        )
        if name == asked:
            own.epilog = EPILOG
            add_arguments(own)

    return parser


# -- what a path leads to --------------------------------------------------------------------------

NOTHING, FILE, EMPTY = "nothing there", "a file", "no manifests in this folder"
MANIFEST, GRID, RUN = "a manifest", "a folder of manifests", "a run's folder"


def _kind(path: Path) -> str:
    """What there is at `path`, in words."""
    if not path.is_dir():
        return (MANIFEST if path.suffix == ".json" else FILE) if path.exists() else NOTHING
    results = [path / "status.json", path / "scores.json", *path.glob("[0-9]*-*.pt")]
    if (path / "config.json").exists() and any(file.exists() for file in results):
        return RUN
    return GRID if any(path.glob("*.json")) else EMPTY


def _grids_in(path: Path) -> list[Path]:
    """The folders of manifests in a folder."""
    return [folder for folder in sorted(path.glob("*")) if _kind(folder) == GRID]


def _expect(path: Path, *kinds: str) -> str:
    """What there is at `path`, which is one of `kinds`.

    Raises:
        FileNotFoundError: it is something else; the text says what was meant, or where we are.
    """
    kind = _kind(path)
    if kind in kinds:
        return kind

    # a run's name may have other dots
    manifest = path if path.suffix == ".json" else Path(f"{path}.json")
    beside = {GRID: path.parent, MANIFEST: manifest, RUN: manifest.with_suffix("")}
    meant = [beside[wanted] for wanted in kinds if _kind(beside[wanted]) == wanted]
    if meant and (kind != NOTHING or meant[0] != Path(".")):
        hint = f"; try {meant[0]}"
    elif RUN in kinds and _kind(manifest) == MANIFEST:
        hint = f"; try run {manifest} first"
    else:
        grids = ", ".join(map(str, _grids_in(Path("runs"))))
        there = f"; folders of manifests: {grids}" if grids and GRID in kinds else ""
        hint = f" (working directory: {Path.cwd()}{there})"
    got = FILE if kind == MANIFEST else kind
    raise FileNotFoundError(f"{path}: expected {' or '.join(kinds)}, got {got}{hint}")


# -- generate --------------------------------------------------------------------------------------


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", help="a preset (demo, say), or a manifest that is the template")
    values = "PATH=V1,V2: what a dotted path takes, each value as JSON or a word"
    add("--set", dest="axes", nargs="+", action="extend", default=[], metavar="P=V", help=values)
    add("--replicates", type=int, metavar="N", help="seeds 0 to N - 1 (default: the preset's)")
    into = "default: runs/SOURCE, with --set or --replicates -varied"
    add("--into", type=Path, metavar="FOLDER", help=into)
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
    """Write a grid of manifests: a preset's, or a template with some values varied.

    examples:
      %(prog)s demo --dry-run
      %(prog)s demo --set stages.sparsify.objective.kl_div=0.01,0.05 --into runs/finer
      %(prog)s runs/demo/c2e-02-r0.json --set stages.fine-tune.n_epochs=5,10 --into runs/longer
    """
    from . import generate

    varied = dict(map(generate.axis, axes))
    if len(varied) < len(axes):
        raise ValueError(f"expected each path of --set once, got {' '.join(axes)}; try P=V1,V2")
    manifests = generate.manifests(source, varied, replicates=replicates)
    folder = into or generate.folder_of(source, varied, replicates)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder or nothing there, got a file")
    preview = generate.Preview(folder, manifests, data=data)

    cost = preview.cost(measure=dry_run).dropna(axis="columns", how="all")
    for table in (preview.files(), preview.varied(), cost):
        if not table.empty:
            show(table.to_string(float_format=_three_digits) + "\n")
    for sentence in preview.sentences():
        show(sentence)
    if dry_run:
        return 0

    written = preview.write(**options)
    show(f"{len(written)} manifests written; next: python -m cplxnet.auto run {preview.folder}")
    return 0


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


# -- run -------------------------------------------------------------------------------------------


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", type=Path, help="a manifest, or a folder of manifests")
    add("--devices", nargs="+", default=["cpu"], metavar="D", help="cpu, cuda:0 ...; cuda: all")
    add("--per-device", type=int, default=1, metavar="N", help="runs at a time on each (default 1)")
    add("--cluster", dest="address", help="of a Dask scheduler: its workers do the runs")
    add("--data", type=Path, default=Path("data"), help=DATA)
    add("--retry-failed", action="store_true", help="also run what failed or diverged before")
    again = (
        "also what is missing or damaged in done runs: these of the folder, or all; with "
        "--retry-failed, failed ones too"
    )
    add("--again", nargs="*", default=False, metavar="NAME", help=again)
    add("--no-reuse", dest="reuse", action="store_false", help="train shared stages in each run")
    changed = "run on with manifests that have changed, or on other data, device or torch"
    add("--accept-changes", action="store_true", help=changed)

    timeout = f"silence after which a run's process counts as gone (default {TIMEOUT_S:.0f} s)"
    add("--timeout", dest="timeout_s", type=float, default=TIMEOUT_S, metavar="S", help=timeout)
    grace = f"from SIGTERM or SIGUSR1 to the kill that follows (default {GRACE_S:.0f} s)"
    add("--grace", dest="grace_s", type=float, default=GRACE_S, metavar="S", help=grace)


def _run(path: Path, grace_s: float, again: bool | list[str], **options: Any) -> int:
    """Run one manifest, or every manifest of a folder that is not done.

    examples:
      %(prog)s runs/demo
      %(prog)s runs/demo/c2e-02-r0.json --devices cuda:0
      %(prog)s runs/demo --devices cuda:0 cuda:1 --per-device 2

    A batch system's SIGTERM or SIGUSR1 ends a run after its epoch, with a checkpoint, or, shortly
    before --grace is over, at its next batch with what is saved: status "interrupted", exit code
    75. With SLURM, for one run or a grid:
      #SBATCH --signal=B:USR1@300
      exec %(prog)s runs/demo --grace 300

    Workers on several hosts, which share the folders of runs and data. Whoever reaches a Dask
    scheduler can have it run code, so let it ask for a certificate; the first two lines make one,
    the exports are for every process:
      openssl req -x509 -newkey rsa:4096 -nodes -days 365 -subj /CN=cplxnet \\
        -keyout tls.pem -out ca.pem && cat ca.pem >> tls.pem
      export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
      export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$PWD/ca.pem
      export DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT=$PWD/tls.pem
      export DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT=$PWD/tls.pem
      export DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=$PWD/tls.pem
      dask scheduler --protocol tls
      dask worker tls://HOST:8786 --nthreads 1 --memory-limit 0 --preload cplxnet.auto.sweep.worker
      %(prog)s runs/demo --cluster tls://HOST:8786
    """
    kind = _expect(path, MANIFEST, GRID)
    run = _run_manifest if kind == MANIFEST else _run_folder
    with on_signals(grace_s) as stop:
        everything = again == []  # --again without names
        return run(path, stop=stop, again=everything or again, **options)


def _run_folder(path: Path, **options: Any) -> int:
    from .sweep.queue import failed
    from .sweep.run_many import run_many

    outcomes = run_many(path, **options)
    for outcome in outcomes:
        reason = f" ({outcome.reason})" if outcome.reason else ""
        show(f"{outcome.name}: {outcome.state}{reason}")

    bad = [outcome.name for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        show(f"{len(bad)} of {len(outcomes)} runs did not finish", sys.stderr)
    marked = failed(path, bad)  # by what their folders say
    if marked:
        advice = "run again with --retry-failed only, see traceback.txt in their folders"
        show(f"{advice}: {', '.join(marked)}", sys.stderr)
    if len(marked) < len(bad):
        show("the same command tries the others again", sys.stderr)
    return 1 if bad else 0


def _run_manifest(
    path: Path,
    *,
    devices: list[str],
    per_device: int,
    address: str | None,
    reuse: bool,
    retry_failed: bool,
    again: bool | list[str],
    **options: Any,
) -> int:
    """Run one manifest; asking for it tries again what failed."""
    if isinstance(again, list) and again != [path.stem]:
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
        run(load(path), folder, device=devices[0], reuse=others, again=bool(again), **options)
    except Diverged as error:
        show(f"diverged: {error}", sys.stderr)
        return 1
    except (lock.Held, lock.ClaimLost) as error:
        show(f"not run: {error}", sys.stderr)
        return 1
    except RuntimeError as error:
        show(f"failed: {error}\nsee {folder / 'traceback.txt'}", sys.stderr)
        return 1

    show(f"done: {folder / 'scores.json'}")
    return 0


# -- status ----------------------------------------------------------------------------------------


def _status_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "path", type=Path, nargs="?", default=Path("runs"), help="a folder of manifests, or of such"
    )
    add("--watch", action="store_true", help="refresh it until all is done, or Ctrl-C")
    add("--verify", action="store_true", help="read every file of the runs, name what is damaged")


def _status(path: Path, watch: bool, verify: bool) -> int:
    """Show how far each run of a folder is; of a folder of such folders, how far each of them is.

    examples:
      %(prog)s                     the grids in runs/
      %(prog)s runs/demo           the runs of one
      %(prog)s runs/demo --watch
      %(prog)s runs/demo --verify
    """
    shown = ""
    with contextlib.suppress(*[KeyboardInterrupt] if watch else []):
        while True:
            text, is_settled = _state_of(path)
            if text != shown:
                # a terminal is cleared; a log gets one table after another
                show(text, clear=watch and sys.stdout.isatty())
                shown = text
            if is_settled or not watch:
                break
            time.sleep(WATCH_EVERY_S)
    return max(map(_verify, _grids(path))) if verify else 0


def _verify(folder: Path) -> int:
    """Name what is damaged or lost of a grid's runs, and the command that makes it again."""
    from .runner.folder import RunFolder

    damaged = []
    mended = []  # by that command
    for name in [path.stem for path in sorted(folder.glob("*.json"))]:
        run = RunFolder(folder / name)
        faults = run.verify()
        for fault in faults:
            show(f"{run.path}: {fault}")
        if faults:
            damaged.append(name)
            with contextlib.suppress(ValueError):  # a damaged config.json stops the command
                _ = run.config
                mended.append(name)
        elif run.status["state"] == "done" and not run.snapshots():
            show(f"{run.path}: its snapshots are not here")

    if mended:
        again = f"run {folder} --again {' '.join(mended)}"
        show(f"`{again}` makes again what is damaged", sys.stderr)
    return 1 if damaged else 0


def _grids(path: Path) -> list[Path]:
    """The folders of manifests in a folder; itself if it has manifests."""
    if _kind(path) == EMPTY and (grids := _grids_in(path)):
        return grids
    _expect(path, GRID)
    return [path]


def _state_of(path: Path) -> tuple[str, bool]:
    """The status of a folder's runs or of its grids as text, and whether nothing is left to do."""
    import pandas as pd

    from .report import tables

    grids = _grids(path)
    if grids == [path]:
        table = tables.status(path)
        known = table.dropna(axis="columns", how="all")
        shown = known.astype(object).where(known.notna(), "")  # pandas 2 has no other blanks
        return shown.to_string(), set(table["state"]) <= SETTLED

    states = {str(grid): tables.status(grid)["state"] for grid in grids}
    counts = {grid: {"runs": len(own), **own.value_counts()} for grid, own in states.items()}
    table = pd.DataFrame.from_dict(counts, orient="index").fillna(0).astype(int)
    return table.to_string(), all(set(own) <= SETTLED for own in states.values())


# -- report, page ----------------------------------------------------------------------------------


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    from .report.kinds import KINDS

    kinds = "\n".join(f"  {name:<11} {kind.about}" for name, kind in KINDS.items())
    parser.description = f"{parser.description}\n\nkinds:\n{kinds}"
    parser.usage = f"{parser.prog} [KIND] FOLDER [FOLDER ...] [options]"

    add = parser.add_argument
    add("words", nargs="+", metavar="[KIND] FOLDER", help="of manifests (./layers, if so named)")
    add("--csv", type=Path, help="without a kind: also write the table to this file")
    add("--out", type=Path, metavar="DIR", help="for the files (default: FIRST FOLDER/figures)")
    add("--scorer", default="test", help="whose scores, as manifests name it (default: test)")
    add("--data", type=Path, default=Path("data"), help=DATA)
    add("--device", default="cpu", help="threshold: what scores and trains (default: cpu)")
    add("--runs", nargs="+", metavar="RUN", help="threshold: of these alone (default: all)")
    at = "threshold: on log alpha (default: -6 ... 6)"
    add("--at", nargs="+", type=float, metavar="T", help=at)
    add("--tune", action="store_true", help="threshold: also fine-tune again at each, in DIR")


def _report(words: list[str], csv: Path | None, scorer: str, **options: Any) -> int:
    """Report what runs have reached: a table, or a kind of figure with its data.

    report FOLDER            the table: a row per run and stage, then readings in words
    report KIND FOLDER...    a figure (PDF and PNG) with its data (CSV), of one folder or several

    A folder that is still running is reported as far as it is; what is missing is named.

    examples:
      %(prog)s runs/demo --csv demo.csv
      %(prog)s trade-off runs/demo runs/reference --out figures
    """
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
    for folder in folders:
        _expect(Path(folder), GRID)

    with extra("report"):
        import matplotlib

    matplotlib.use("Agg")  # files only, wherever this runs
    report = make(kind, folders, scorer=scorer, **options)
    for line in [*report.sentences, *report.paths]:
        show(str(line))
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

    _expect(Path(folder), GRID)
    table = tables.collect(folder)
    short = tables.summary(table, scorer)
    if len(short):
        show(short.to_string(index=False))
    for sentence in text.readings(table, scorer):
        show(sentence)
    for sentence in text.missing([folder]):
        show(sentence, sys.stderr)
    if csv:
        files.write_text(csv, table.to_csv(index=False))
    return 0


def _page_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="a folder of manifests")
    add("--into", type=Path, metavar="FILE", help="put the page between the marks in this file")
    add("--scorer", default="test", help="whose scores, as manifests name it (default: test)")


def _page(folder: Path, into: Path | None, scorer: str) -> int:
    """Write a grid's results in Markdown: a table of groups, then numbered readings.

    examples:
      %(prog)s runs/demo > demo.md
      %(prog)s runs/reference --into extra/reference.md
    """
    from .report import text

    _expect(folder, GRID)
    if into:
        text.insert(into, folder, scorer)
    else:
        show(text.markdown(folder, scorer).rstrip("\n"))
    return 0


# -- networks: export, and what the task does with them --------------------------------------------

SUFFIXES = {".onnx": "onnx-compact", ".pt": "cplxmodule", ".pth": "cplxmodule"}


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    from .models import EXPORTS

    add = parser.add_argument
    add("run", type=Path, help="a run's folder")
    add("file", type=Path, help="the file to write")
    kinds = "default: by the suffix, .onnx onnx-compact, .pt cplxmodule, else compact"
    add("--as", dest="kind", choices=EXPORTS, help=kinds)
    add("--stage", help="of the manifest (default: the last)")
    _task().export_arguments(parser)


def _export(run: Path, file: Path, kind: str | None, **options: Any) -> int:
    """Write the network of a run to a file for use elsewhere.

    examples:
      %(prog)s runs/demo/c2e-02-r0 net.safetensors
      %(prog)s runs/demo/c2e-02-r0 net.onnx
      %(prog)s runs/demo/c2e-02-r0 dense.onnx --as onnx --stage dense
    """
    from . import models

    kind = kind or SUFFIXES.get(file.suffix, "compact")
    if kind.startswith("onnx") != (file.suffix == ".onnx"):
        raise ValueError(
            f"{file}: expected a name that ends in .onnx for ONNX alone, got one for {kind}; "
            "try another name, or leave out --as"
        )
    _expect(run, RUN)
    written = models.export(run, file, kind=kind, **options)
    show(f"{kind}: {written}, {written.stat().st_size:,} bytes")
    return 0


def _task() -> Any:
    """The default task, which brings arguments of its own, and transcribes."""
    from cplxnet import DEFAULT_TASK

    from .tasks import TASKS

    return TASKS[DEFAULT_TASK]


def _transcribe(model: Path, stage: str | None, **options: Any) -> int:
    """Write down what is played in a WAV, FLAC, OGG, MP3 or AIFF file: a roll (CSV) and a score.

    examples:
      %(prog)s piece.wav --model runs/demo/c2e-02-r0
      %(prog)s piece.flac --model net.onnx --out piece
    """
    from . import models

    if _kind(model) in (MANIFEST, GRID):
        _expect(model, RUN)
    network, heard = models.load_deployed(model, stage=stage)
    return _task().transcribe_recording(network, heard, **options)


# -- what older systems left: legacy/, beside the package ------------------------------------------


def _legacy() -> ModuleType:
    try:
        from legacy import commands
    except ModuleNotFoundError as error:
        if error.name != "legacy":
            raise
        raise ValueError(
            "expected the folder legacy/ of a checkout, got none; run the command from there"
        ) from error
    return commands


def _translate(**options: Any) -> int:
    """Translate manifests of the older complex_paper system into those of this one.

    examples:
      %(prog)s old/101.json runs/old/101.json
      %(prog)s old runs/old
    """
    return _legacy().translate(**options)


def _equalise(**options: Any) -> int:
    """Begin runs at equal compression from those of a folder under sum and mean (legacy/).

    examples:
      %(prog)s legacy/study legacy/equal --at 4 20
    """
    return _legacy().equalise(**options)


COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[..., int]]] = {
    "generate": (_generate_arguments, _generate),
    "run": (_run_arguments, _run),
    "status": (_status_arguments, _status),
    "report": (_report_arguments, _report),
    "page": (_page_arguments, _page),
    "export": (_export_arguments, _export),
    "transcribe": (lambda parser: _task().transcribe_arguments(parser), _transcribe),
    "translate": (lambda parser: _legacy().translate_arguments(parser), _translate),
    "equalise": (lambda parser: _legacy().equalise_arguments(parser), _equalise),
}


if __name__ == "__main__":
    console()
