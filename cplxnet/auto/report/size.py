"""Average precision against bytes of each run's network, in compact files of several precisions."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from cplxnet.auto.models import export, load_deployed
from cplxnet.auto.runner.components import Components
from cplxnet.auto.train.loop import predict
from cplxnet.nn.compaction.quantisation import NoPosterior
from cplxnet.progress import bar

from . import style, tables, threshold
from .style import Report, Request

BITS = (32, 8, 6, 5, 4, 3)
AUTO = "auto"


def report(request: Request) -> Report:
    """The report of the kind "size"."""
    files = rows(request)
    sentences = [
        f"{file.run}: {file.bytes:,} bytes with bits auto, {file.times:.3g} times fewer than dense "
        f"in float32, average precision {file.average_precision:.4f} (masked: {file.masked:.4f}, "
        f"dense: {file.dense:.4f}), {file.bits_kept:.2f} bits a number kept, positions included."
        for file in files[files["bits"] == AUTO].itertuples()
    ]
    figure = draw(files, scorer=request.scorer)
    return Report(figure, files, sentences + threshold.left_out(request, _fault))


def rows(request: Request, *, bits: Sequence[int | str] = (*BITS, AUTO)) -> pd.DataFrame:
    """Write the runs that have snapshots to compact files, read them back, and score them.

    Args:
        request: of its folders' runs; those without a snapshot of the last stage are left out, and
            those whose snapshots cannot be read are named.
        bits: of `export --bits`; 32: float32.

    Returns:
        Columns folder, run, method, C, setting, seed, own (the threshold), dense and masked (the
        scores of these networks), bits, bytes, times (fewer than the dense network's numbers in
        float32), bits_kept (of the whole file, for each real number left) and average_precision.

    Raises:
        Lacking: no run has a snapshot or this scorer, or their scores do not compare.
        FileNotFoundError: the data is not there.
    """
    runs = threshold.chosen(request, _fault, expected="of their last stage")
    files: list[dict[str, Any]] = []
    with bar(total=len(runs) * len(bits), desc="sizes", unit="file") as shown:
        for run in runs:
            components = Components(run.manifest, device="cpu", data=request.data)
            with tables.or_left_out(run):
                for file in _files(run, components, request.scorer, bits):
                    files.append(file)
                    shown.update()
    if not files:
        raise tables.Lacking("expected runs whose snapshots can be read, got none")
    return pd.DataFrame(files).astype({"dense": float})


def _fault(run: tables.Run) -> str:
    """Why a run's files cannot be written; empty if they can."""
    last = run.manifest.stage_order[-1]
    is_there = last in run.stages and run.has_snapshot(last)
    return "" if is_there else "No snapshot of the last stage"


def _files(
    run: tables.Run, components: Components, scorer: str, bits: Sequence[int | str]
) -> Iterator[dict[str, Any]]:
    """The rows of one run."""
    feed = components.feed(run.manifest.scorers[scorer].feed)
    last = run.stages[run.manifest.stage_order[-1]]
    masked = last["scores"][scorer]["end"]["average_precision"]
    about = threshold.about(run, scorer) | {"masked": masked}

    with tempfile.TemporaryDirectory() as folder:
        for n in bits:
            own: Any = None if n == 32 else n
            try:
                path = export(run.files.path, Path(folder) / "net", kind="compact", bits=own)
            except NoPosterior:  # as of L0: bits auto have nothing to go by
                continue
            network: Any = load_deployed(path).network
            target, logit = predict(network, feed)
            size = path.stat().st_size
            yield about | {
                "bits": str(n),
                "bytes": size,
                "times": 4 * last["n_par"] / size,
                "bits_kept": 8 * size / (last["n_par"] - last["n_zero"]),
                "average_precision": float(components.task.pooled_average_precision(target, logit)),
            }


@style.styled
def draw(files: pd.DataFrame, *, scorer: str = "test") -> Figure:
    """A line a run of `rows`, from few bits to many; filled: as its posterior asks."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    style.dense(axes, files)
    colour_of = style.colours(files)
    looks = style.looks(files)

    for (method, setting, _, run), group in files.groupby(["method", "setting", "folder", "run"]):
        colour = colour_of[setting]
        marker = looks[method][1]
        is_auto = group["bits"] == AUTO
        fixed_bits = group[~is_auto].sort_values("bytes")
        look = {"color": colour, "mfc": "white", "label": run}
        axes.plot(fixed_bits["bytes"], fixed_bits["average_precision"], f"{marker}-", **look)
        for file in fixed_bits.itertuples():
            place = (file.bytes, file.average_precision)
            axes.annotate(file.bits, place, (0, 4), textcoords="offset points", size=6, ha="center")
        auto_bits = group[is_auto]
        axes.plot(auto_bits["bytes"], auto_bits["average_precision"], marker, color=colour, ms=8)

    axes.plot([], [], "o", color=style.GUIDE, ms=8, label="bits as the posterior asks")
    axes.plot([], [], "o-", color=style.GUIDE, mfc="white", label="the same bits for all (number)")
    axes.set(xscale="log", xlabel="bytes", ylabel=f"{style.PRECISION}, {scorer}")
    style.plain_log(axes)
    axes.margins(x=0.08, y=0.1)
    style.legend(axes)
    return figure
