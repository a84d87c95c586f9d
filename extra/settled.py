"""The tables and the figure of settled.md: contestants by name, at equal size and at equal work.

    python -m extra.settled

writes between the marks of extra/settled.md, and extra/figures/settled-trade-off.png.

A network has two sizes: the real numbers that it keeps, and the real multiply-adds of a window's
forward pass with the weights that it keeps. Both follow from the runs' own counts of each layer.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cplxnet import files
from cplxnet.auto import tasks
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.report import compare, style, tables, text
from cplxnet.nn.sparsity import masked_layers

RUNS = Path("runs/settled")
PAGE = Path("extra/settled.md")
FIGURE = Path("extra/figures/settled-trade-off.png")
BEGIN, END = "<!-- begin: python -m extra.settled -->", "<!-- end -->"

# what reports call a method -> what the page calls it, in its order
LONGER = "dense for as long"  # "one-shot pruning" to a sparsity of 0
NAMES = {
    LONGER: LONGER,
    "complex VD": "VD",
    "complex ARD": "ARD",
    "complex L0": "L0",
    "complex gradual": "gradual",
    "complex one-shot": "one-shot",
    "complex gradual by layer": "gradual by layer",
    "complex random": "random masks",
    "real one-shot width=1.257": "real, same size, dense for as long",
    "real VD width=1.257": "real, same size",
    "real VD width=1.38": "real, same cost",
    "real VD features.cplx=False width=1.257": "real on moduli",
    "complex VD features.kind=fft-random-phase": "random phases",
}
PANELS = {
    "pruners of the complex network": ["VD", "ARD", "L0", "gradual", "one-shot", "random masks"],
    "complex and real, by VD": ["VD", "real, same size", "real, same cost"],
}
# whose dense networks are drawn, and which of those that were trained for as long
DENSE = {"VD": LONGER, "real, same size": "real, same size, dense for as long"}

# a size's column -> its unit, its axis and what that counts in, and the levels at which methods
# are ranked
SIZES = {
    "kept": ("real numbers", "thousand real numbers kept", 1e3, (280e3, 150e3, 80e3, 40e3)),
    "work": ("multiply-adds", "million real multiply-adds a window", 1e6, (16e6, 12e6, 8e6, 6e6)),
}
LOWEST = 0.965  # of the figure's average precision


def collected(folder: Path = RUNS, scorer: str = "test") -> pd.DataFrame:
    """What each finished run reached, a row a run.

    Returns:
        Columns of `tables.by_run` with the page's names of methods, and work (real multiply-adds of
        a window's forward pass with the weights kept).
    """
    runs = tables.by_run(tables.of_scorer(tables.collect(folder), scorer))
    runs = runs.dropna(subset=["after"])
    is_longer = (runs["method"] == "complex one-shot") & (runs["setting"] == "sparsity = 0")
    runs["method"] = runs["method"].mask(is_longer, LONGER).map(NAMES)
    return runs.assign(work=[work(folder / run) for run in runs["run"]])


def work(run: Path) -> float:
    """Real multiply-adds of a window's forward pass with the weights that fine-tuning kept.

    A complex weight has four wherever it is applied, a real one has one. Batch norm, biases and the
    features are not counted.
    """
    scores = json.loads((run / "scores.json").read_bytes())
    manifest = Manifest.model_validate(scores["manifest"])
    layers = scores["stages"]["fine-tune"]["layers"]

    total = 0.0
    for name, (n_numbers, per_number) in _applied(manifest).items():
        total += per_number * (n_numbers - layers[name]["n_zero"])
    return total


def _applied(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Of each layer: real numbers in its weight, and multiply-adds a window for each of them."""
    features = manifest.features
    model = manifest.stage("fine-tune").model
    network = tasks.network(manifest.task, model, features, manifest.window)
    applied: dict[str, tuple[int, int]] = {}

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        numbers = 2 if layer.weight.is_complex() else 1
        positions = output[0, 0].numel()  # 1 of a linear layer
        applied[names[layer]] = (numbers * layer.weight.numel(), numbers * positions)

    names = {layer: name for name, layer in masked_layers(network).items()}
    hooks = [layer.register_forward_hook(count) for layer in names]
    with torch.no_grad(), torch.device("meta"):
        network(tasks.features_of(manifest.task, torch.zeros(1, manifest.window), features))
    for hook in hooks:
        hook.remove()
    return applied


def contestants(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method and setting: means over seeds, and the range of the difference from dense."""
    rows = runs.assign(more=runs["after"] - runs["dense"], number=tables.numbers(runs["setting"]))
    order = pd.Categorical(rows["method"], [*NAMES.values()], ordered=True)
    grouped = rows.assign(method=order).groupby(["method", "number", "setting"], observed=True)
    means = grouped[["kept", "work", "compression", "before", "after", "more"]].mean()
    spread = grouped["more"].agg(n="size", least="min", greatest="max")
    return means.join(spread).reset_index()


def ranks(runs: pd.DataFrame, size: str) -> pd.DataFrame:
    """`compare.ranking` at equal sizes, with the size in the column times.

    Args:
        runs: of `collected`.
        size: a key of `SIZES`.
    """
    largest = runs[size].max()
    rows = runs[~runs["method"].isin(DENSE.values())].assign(
        compression=largest / runs[size],
        average_precision=runs["after"],
        stage="fine-tune",
        scorer="test",
        scored_on="the same windows",
    )
    levels = SIZES[size][-1]
    ranked = compare.ranking(rows, times=[largest / level for level in levels])
    return ranked.assign(times=(largest / ranked["times"]).round())


def page(runs: pd.DataFrame) -> str:
    """The page's tables and sentences, in Markdown."""
    lines = [*_dense(runs), "", *_contestants_table(contestants(runs))]
    for size, (unit, *_) in SIZES.items():
        ranked = ranks(runs, size)
        sentences = compare.winners(ranked, unit=unit)
        lines += [
            "",
            *text.ranking_table(ranked, unit=unit),
            "",
            *(f"- {sentence}" for sentence in sentences),
        ]

    unfinished = sorted({path.stem for path in RUNS.glob("*.json")} - set(runs["run"]))
    if unfinished:
        lines += ["", f"Not finished: {len(unfinished)} ({', '.join(unfinished)})."]
    return "\n".join(lines)


def _dense(runs: pd.DataFrame) -> Iterator[str]:
    for methods, scores in tables.dense_scores(runs):
        numbers = runs.loc[scores.index[0], "n_par"]
        values = " and ".join(f"{score:.4f}" for score in sorted(scores))
        yield f"- Dense ({'; '.join(methods)}): {numbers:,.0f} real numbers, AP {values}."


def _contestants_table(rows: pd.DataFrame) -> Iterator[str]:
    heads = (
        "contestant | C or sparsity | seeds | real numbers kept | times fewer | million "
        "multiply-adds | AP before fine-tuning | AP | minus dense | range over seeds"
    )
    yield f"| {heads} |"
    yield "|---|---|" + "---:|" * (heads.count("|") - 1)
    for _, row in rows.iterrows():
        cells = (
            row["method"],
            row["setting"],
            f"{row['n']}",
            f"{row['kept']:,.0f}",
            f"{row['compression']:.3g}",
            f"{row['work'] / 1e6:.1f}",
            f"{row['before']:.4f}",
            f"{row['after']:.4f}",
            f"{row['more']:+z.4f}",
            f"{row['least']:+z.4f} to {row['greatest']:+z.4f}" if row["n"] > 1 else "one only",
        )
        yield f"| {' | '.join(cells)} |"


@style.styled
def draw(runs: pd.DataFrame) -> Figure:
    """Average precision against both sizes: pruners above, complex and real networks below.

    Every run is a point, and lines go through the means over seeds.
    """
    figure, panels = plt.subplots(2, 2, figsize=(9, 7.5), sharey=True, sharex="col")
    looks = style.looks(pd.DataFrame({"method": sorted(set(itertools.chain(*PANELS.values())))}))
    for row, (title, methods) in zip(panels, PANELS.items(), strict=True):
        for axes, size in zip(row, SIZES, strict=True):
            _panel(axes, runs, {method: looks[method] for method in methods}, size)
        row[0].set(ylabel=f"{style.PRECISION}, test", title=title)
        row[0].legend(loc="lower left")

    for axes, (_, label, _, _) in zip(panels[-1], SIZES.values(), strict=True):
        axes.set(
            xscale="log",
            ylim=(LOWEST, runs["after"].max() + 0.001),
            xlabel=f"{label} (fewer to the right)",
        )
        axes.invert_xaxis()
        style.plain_log(axes)
    return figure


def _panel(axes: Axes, runs: pd.DataFrame, looks: dict[str, tuple[str, str]], size: str) -> None:
    for method, (colour, marker) in looks.items():
        own = runs[runs["method"] == method]
        own = own.assign(**{size: own[size] / SIZES[size][2]})
        means = own.groupby("setting")[[size, "after"]].mean().sort_values(size)
        line = "--" if method.startswith("real") else "-"
        axes.plot(means[size], means["after"], line, color=colour, lw=1)
        axes.plot(own[size], own["after"], marker, color=colour, label=method)

    for method in (method for method in DENSE if method in looks):
        colour = looks[method][0]
        dense = runs.loc[runs["method"] == method, "dense"]
        name = "dense" if method == "VD" else f"{method}, dense"
        style.band(axes, None, dense.min(), dense.max(), colour=colour, label=name)
        longer = runs.loc[runs["method"] == DENSE[method], "after"]
        if len(longer):
            axes.axhline(longer.mean(), color=colour, lw=1, ls=":", label=DENSE[method])


def main() -> None:
    """Write the page and the figure."""
    runs = collected()
    text.put(PAGE, BEGIN, END, page(runs))
    figure = draw(runs)
    files.write(FIGURE, lambda file: figure.savefig(file, format="png"))


if __name__ == "__main__":
    main()
