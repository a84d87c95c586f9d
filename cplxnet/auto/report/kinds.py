"""The kinds of report by name, and the one call that makes a report.

A new kind is a function from a `Request` to a `Report` in a file here, and a line in `KINDS`. What
makes it loads when it is first used: matplotlib and torch take seconds, too long for `--help`.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from cplxnet.auto.runner.folder import RunFolder
from cplxnet.extras import extra

from . import text
from .tables import Lacking

if TYPE_CHECKING:
    from .style import Report, Request


def _drawing() -> SimpleNamespace:
    """The modules that make reports."""
    with extra("report"):
        from . import compare, curves, profile, size, style, threshold, trade_off

    return SimpleNamespace(
        compare=compare,
        curves=curves,
        profile=profile,
        size=size,
        style=style,
        threshold=threshold,
        trade_off=trade_off,
    )


class Kind(NamedTuple):
    """A kind of report."""

    about: str  # what `report --help` says of it
    maker: Callable[[], "Callable[[Request], Report]"]  # loads what makes it


KINDS: dict[str, Kind] = {
    "trade-off": Kind(
        "average precision against compression, before and after fine-tuning, "
        "with the Pareto front",
        lambda: _drawing().trade_off.report,
    ),
    "threshold": Kind(
        "every run masked at other thresholds, from its snapshot; --tune: fine-tuned again",
        lambda: _drawing().threshold.report,
    ),
    "layers": Kind(
        "sparsity of every layer, a line for each C (or sparsity of a pruner)",
        lambda: _drawing().profile.layers_report,
    ),
    "c-profile": Kind(
        "score and sparsity against C: means over replicates, 95 percent bands (Student's t)",
        lambda: _drawing().profile.report,
    ),
    "stopping": Kind(
        "the epoch at which fine-tuning stopped, against compression",
        lambda: _drawing().curves.stopping_report,
    ),
    "curves": Kind("precision-recall, pooled and class by class", lambda: _drawing().curves.report),
    "compare": Kind(
        "two methods (VD and ARD, real and complex): paired differences at equal compression",
        lambda: _drawing().compare.report,
    ),
    "size": Kind(
        "average precision against bytes: networks as files of several bits a number",
        lambda: _drawing().size.report,
    ),
}


def make(
    kind: str,
    folders: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    data: str | Path = "data",
    strict: bool = True,
    **options: Any,
) -> "Report":
    """A report of one kind, written to `out` as PDF, PNG and CSV under the kind's name.

    Args:
        kind: a name in `KINDS`.
        folders: of manifests and runs, one or several; runs without scores are named.
        out: the folder for the files; None: `figures` in the first folder.
        data: the folder of the data files.
        strict: raise if no run has what the kind needs. False: say it in the sentences, and make
            no figure.
        options: scorer, device, runs, at and tune, as of `Request`.

    Raises:
        ValueError: no such kind, or no run has what it needs, and the text says what.
        FileNotFoundError, ManifestError: not a folder of manifests.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a kind of report ({', '.join(KINDS)}), got {kind!r}")

    paths = [Path(f) for f in ([folders] if isinstance(folders, str | Path) else folders)]
    for folder in paths:
        if folder.is_dir() and RunFolder(folder).config:
            raise ValueError(
                f"{folder}: expected a folder of manifests, got the folder of one run; "
                f"try {folder.parent}"
            )

    report_of = KINDS[kind].maker()
    style = _drawing().style

    into = paths[0] / "figures" if out is None else Path(out)
    try:
        report = report_of(style.Request(folders=paths, out=into, data=Path(data), **options))
    except Lacking as lacking:
        if strict:
            raise
        sentences = [f"No {kind} here: {lacking}.", *text.missing(paths)]
        return style.Report(None, pd.DataFrame(), sentences)

    written = style.write(into / kind, report.figure, report.rows)
    for name, rows in report.more.items():
        written += style.write(into / f"{kind}-{name}", None, rows)
    return replace(report, sentences=[*report.sentences, *text.missing(paths)], paths=written)
