"""What each form of a network costs, for `deploy.ipynb`: bytes on disk, milliseconds a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from cplxnet.auto import tasks
from cplxnet.auto.models import export, heard, load_deployed, load_model, read_manifest
from cplxnet.auto.report import style
from cplxnet.auto.runner.folder import RunFolder

Network = Callable[[Tensor], Tensor]

FORMS: dict[str, tuple[str, dict[str, str]]] = {  # form: (its file, options of `export`)
    "compact": ("compact.safetensors", {"kind": "compact"}),
    "compact, float16": ("compact-float16.safetensors", {"kind": "compact-float16"}),
    "compact, bits auto": ("compact-bits.safetensors", {"kind": "compact", "bits": "auto"}),
    "ONNX, masked": ("masked.onnx", {"kind": "onnx"}),
    "ONNX, compact": ("compact.onnx", {"kind": "onnx-compact"}),
}


def footprint(
    folder: str | Path,
    into: str | Path,
    *,
    batch_sizes: tuple[int, ...] = (1, 32),
    rounds: int = 10,
) -> pd.DataFrame:
    """Every form of a run's network, written to files and timed; a row a form.

    Args:
        folder: the run's.
        into: the folder for the files.
        batch_sizes: windows a call.
        rounds: calls, of which the fastest counts, with the threads that torch has.

    Returns:
        The columns `form`, `file`, `kilobytes`, `difference` (the largest of a logit from the
        masked network's, on windows of noise), and for each batch size B `ms_B`, the least time of
        a call in milliseconds. The row `dense` is the snapshot of the first stage, weights alone:
        it computes something else.
    """
    manifest = read_manifest(folder)
    options = heard(manifest)
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(max(batch_sizes), options.pop("window"), generator=generator)
    x = tasks.TASKS[manifest.task].features(signal, **options)

    networks: dict[str, tuple[Path, Network]] = {}
    for form, stage in (("dense", manifest.stage_order[0]), ("masked", manifest.stage_order[-1])):
        snapshot = RunFolder(folder).snapshot(manifest.stage_order.index(stage), stage)
        networks[form] = (snapshot, load_model(folder, stage)[0])
    for form, (name, how) in FORMS.items():
        path = export(folder, Path(into) / name, **how)
        networks[form] = (path, load_deployed(path).network)

    rows = []
    with torch.inference_mode():
        expected = networks["masked"][1](x)
        for form, (path, network) in networks.items():
            gap = float("nan") if form == "dense" else float((network(x) - expected).abs().max())
            row = {"form": form, "file": path.name, "kilobytes": _bytes(form, path, network) / 1e3}
            times = {f"ms_{n}": _least_ms(network, x[:n], rounds) for n in batch_sizes}
            rows.append({**row, "difference": gap, **times})
    return pd.DataFrame(rows)


def _bytes(form: str, path: Path, network: object) -> int:
    """A file's size; of a snapshot, that of weights and masks: it may hold the optimiser too."""
    if not isinstance(network, torch.nn.Module) or form not in ("dense", "masked"):
        return path.stat().st_size
    return sum(value.nbytes for value in network.state_dict().values())


def _least_ms(network: Network, x: Tensor, rounds: int) -> float:
    """The time of the fastest of `rounds` calls, after one that warms up."""
    network(x)

    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        network(x)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


@style.styled
def plot_footprint(table: pd.DataFrame) -> Figure:
    """Size and latency of each form, with their values, on logarithmic axes.

    A bar has no length there, since the axis has no zero: each value is a point.

    Args:
        table: of `footprint`.
    """
    titles = {"kilobytes": "size, kilobytes"}
    for name in table.columns[table.columns.str.startswith("ms_")]:
        n = name.removeprefix("ms_")
        titles[name] = f"time for {n} window{'' if n == '1' else 's'}, ms"

    figure, panels = plt.subplots(1, len(titles), figsize=(11, 3), sharey=True)
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        axes.plot(table[name], table["form"], "o")
        for form, value in zip(table["form"], table[name], strict=True):
            text = f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
            axes.annotate(text, (value, form), (7, 0), textcoords="offset points", va="center")

        low = table[name].min() / 2
        high = table[name].max() * 6
        axes.set(xlabel=title, xscale="log", xlim=(low, high))
        style.plain_log(axes)

    panels[0].invert_yaxis()
    panels[0].margins(y=0.1)
    return figure
