"""What each form of a run's network costs: bytes on disk, milliseconds a call."""

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

_BARS = tuple(style.COLOURS[k] for k in (0, 2, 1, 3))
FORMS = {  # what is exported under each name
    "compact": ("compact.safetensors", "compact"),
    "compact, float16": ("compact-float16.safetensors", "compact-float16"),
    "ONNX, masked": ("masked.onnx", "onnx"),
    "ONNX, compact": ("compact.onnx", "onnx-compact"),
}


def footprint(
    folder: str | Path,
    into: str | Path,
    *,
    batch_sizes: tuple[int, ...] = (1, 32),
    rounds: int = 10,
) -> pd.DataFrame:
    """Every form of the network of the run in `folder`, written to `into`; a row a form.

    The columns: `form`, `file`, `kilobytes`, `difference` (the largest of a logit from the snapshot's network, on
    windows of noise), and for each batch size B `ms_B`, the least time of `rounds` calls in milliseconds, with the
    threads torch has. The dense row is the snapshot of the first stage, weights alone: it computes something else.
    """
    manifest, files = read_manifest(folder), RunFolder(folder)
    options = heard(manifest)
    signal = torch.randn(
        max(batch_sizes), options.pop("window"), generator=torch.Generator().manual_seed(0)
    )
    x = tasks.TASKS[manifest.task].features(signal, **options)
    networks: dict[str, tuple[Path, Callable[[Tensor], Tensor]]] = {}
    for form, stage in (("dense", manifest.stage_order[0]), ("masked", manifest.stage_order[-1])):
        networks[form] = (
            files.snapshot(manifest.stage_order.index(stage), stage),
            load_model(folder, stage)[0],
        )
    for form, (name, kind) in FORMS.items():
        path = export(folder, Path(into) / name, kind=kind)
        networks[form] = (path, load_deployed(path).network)
    rows = []
    with torch.inference_mode():
        want = networks["masked"][1](x)
        for form, (path, network) in networks.items():
            differs = float("nan") if form == "dense" else float((network(x) - want).abs().max())
            row = {"form": form, "file": path.name, "kilobytes": _bytes(form, path, network) / 1e3}
            times = {f"ms_{n}": _least_ms(network, x[:n], rounds) for n in batch_sizes}
            rows.append({**row, "difference": differs, **times})
    return pd.DataFrame(rows)


def _bytes(form: str, path: Path, network: object) -> int:
    """A file's size; of a snapshot, that of its weights and masks: it may hold the optimiser's state too."""
    if not isinstance(network, torch.nn.Module) or form not in ("dense", "masked"):
        return path.stat().st_size
    return sum(value.nbytes for value in network.state_dict().values())


def _least_ms(network: Callable[[Tensor], Tensor], x: Tensor, rounds: int) -> float:
    network(x)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        network(x)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


@style.styled
def plot_footprint(table: pd.DataFrame) -> Figure:
    """Bars of size and of latency, a row a form, each with its value, on logarithmic axes."""
    columns = {"kilobytes": "size, kilobytes"}
    for name in table.columns[table.columns.str.startswith("ms_")]:
        n = name.removeprefix("ms_")
        columns[name] = f"time for {n} window{'' if n == '1' else 's'}, ms"
    figure, axes = plt.subplots(1, len(columns), figsize=(11, 3.4), sharey=True)
    for axis, (name, title), colour in zip(axes, columns.items(), _BARS, strict=False):
        bars = axis.barh(table["form"], table[name], color=colour)
        axis.bar_label(
            bars,
            labels=[f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in table[name]],
            padding=3,
        )
        low, high = table[name].min() / 3, table[name].max() * 6
        axis.set(xlabel=title, xscale="log", xlim=(low, high))
        if high < 1000 * low:  # matplotlib would label every tick, one over the other
            style.plain_log(axis)
        axis.grid(False)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return figure
