"""The kinds of report by name, and the one call that makes a report.

A new kind is a file here with a function from a `Request` to a `Report`, and a line in `KINDS`; the
function's docstring is what `report --help` says of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cplxnet.extras import extra

from . import text
from .tables import Lacking

with extra("report"):
    from . import by_layer, compare, curves, profile, stopping, style, threshold, trade_off
    from .request import Report, Request

KINDS: dict[str, Callable[[Request], Report]] = {
    "trade-off": trade_off.report,
    "threshold": threshold.report,
    "layers": by_layer.report,
    "c-profile": profile.report,
    "stopping": stopping.report,
    "curves": curves.report,
    "compare": compare.report,
}


def make(
    kind: str,
    folders: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    scorer: str = "test",
    data: str | Path = "data",
    device: str = "cpu",
    runs: Sequence[str] | None = None,
    at: Sequence[float] | None = None,
    tune: bool = False,
    strict: bool = True,
) -> Report:
    """A report of one kind, written to `out` as PDF, PNG and CSV under the kind's name.

    Args:
        kind: a name in `KINDS`.
        folders: of manifests and runs, one or several; runs without scores are named.
        out: the folder for the files; None: `figures` in the first folder.
        scorer, data, device, runs, at, tune: as of `Request`.
        strict: raise if no run has what the kind needs. False: say it in the sentences, and make
            no figure.

    Raises:
        ValueError: no such kind, or no run has what it needs, and the text says what.
        FileNotFoundError, ManifestError: not a folder of manifests.
    """
    if kind not in KINDS:
        raise ValueError(f"expected a kind of report ({', '.join(KINDS)}), got {kind!r}")

    several = [folders] if isinstance(folders, str | Path) else folders
    paths = [Path(folder) for folder in several]
    request = Request(
        folders=paths,
        out=paths[0] / "figures" if out is None else Path(out),
        scorer=scorer,
        data=Path(data),
        device=device,
        runs=runs,
        at=at,
        tune=tune,
    )
    request.check()

    try:
        report = KINDS[kind](request)
    except Lacking as lacking:
        if strict:
            raise
        sentences = [f"No {kind} here: {lacking}.", *text.missing(paths)]
        return Report(None, pd.DataFrame(), sentences)

    written = style.write(request.out / kind, report.figure, report.rows)
    for name, rows in report.more.items():
        written += style.write(request.out / f"{kind}-{name}", None, rows)
    return replace(report, sentences=[*report.sentences, *text.missing(paths)], paths=written)
