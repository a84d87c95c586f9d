"""What a network holds, layer by layer, for `view_model.ipynb`: tables and figures.

A weight is kept where its layer's mask says so, in a variational layer where
log_alpha <= threshold, in a compact network where it is not 0; any other layer keeps every weight.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from cplxnet import files
from cplxnet.auto import models
from cplxnet.auto.report import style
from cplxnet.musicnet import trained
from cplxnet.nn import (
    Compact,
    CplxConv1d,
    CplxConv2d,
    CplxLinear,
    GaussianWeight,
    load_compact,
)
from cplxnet.nn.compaction.block import Stage
from cplxnet.nn.masked import Masked
from cplxnet.nn.sparsity import variational_layers

Layer = Any  # a module of WEIGHTED: it has a weight (out, in, ...), but no common base
# Variational and masked layers derive from these.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, CplxLinear, CplxConv1d, CplxConv2d)
KEPT = style.COLOURS[0]
DROPPED = style.COLOURS[4]
_COLUMNS = 4  # panels in a row
_MOST_POINTS = 5000  # of each kind in the complex plane
_LEAST_SHARE = 1e-4  # where the grey scale of masks begins


def contents(path: str | Path) -> pd.DataFrame:
    """What a snapshot holds of the network: a row a tensor, with its type, shape and megabytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or no snapshot.
    """
    snapshot = files.read_tensors(path)
    if not isinstance(snapshot.get("model"), dict):
        raise ValueError(
            f"{path}: expected a snapshot with a model, got keys {', '.join(map(str, snapshot))}"
        )

    rows = {
        name: {
            "type": str(tensor.dtype).removeprefix("torch."),
            "shape": tuple(tensor.shape),
            "MB": tensor.nbytes / 1e6,
        }
        for name, tensor in snapshot["model"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def networks(run: str | Path, otherwise: str | Path) -> tuple[dict[str, nn.Module], float]:
    """The networks of a run by stage, and its threshold on log alpha.

    Args:
        run: its folder.
        otherwise: a compact file, whose network alone is returned where there is no such folder;
            its name in `cplxnet.musicnet.trained` will do.
    """
    if Path(run).is_dir():
        manifest = models.read_manifest(run)
        stages = {stage: models.load_model(run, stage)[0] for stage in manifest.stage_order}
        return stages, manifest.threshold
    return {str(otherwise): load_compact(trained.find(str(otherwise)))}, 0.0  # what is left is kept


def weighted_layers(model: nn.Module) -> dict[str, Layer]:
    """{name: layer} of every linear and convolutional layer, from the input on.

    Of a compact network these are its stages: what was dead or unread is no longer there.

    Raises:
        ValueError: there is none.
    """
    if isinstance(model, Compact):
        return {stage.name: stage for stage in model.stages}

    layers: dict[str, Layer] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)
    }
    if not layers:
        raise ValueError(
            f"expected linear or convolutional layers in {type(model).__name__}, got none"
        )
    return layers


@torch.no_grad()
def kept_weights(layer: Layer, threshold: float) -> Tensor:
    """The weights that the compressed network has: bool, shape of the weight."""
    if isinstance(layer, Stage):
        return layer.weight != 0
    if isinstance(layer, Masked):
        return layer.mask.clone()
    if isinstance(layer, GaussianWeight):
        return layer.relevance(threshold)
    return torch.ones(layer.weight.shape, dtype=torch.bool)


def dead_outputs(mask: Tensor) -> Tensor:
    """bool (out,): no weight that leads to this output is kept, so it ignores the input.

    Args:
        mask: bool (out, in, ...).
    """
    return ~mask.flatten(1).any(1)


def unread_inputs(mask: Tensor) -> Tensor:
    """bool (in,): no weight of this input is kept, so the layer ignores it.

    Args:
        mask: bool (out, in, ...).
    """
    return ~mask.transpose(0, 1).flatten(1).any(1)


@torch.no_grad()
def layer_table(model: nn.Module, threshold: float) -> pd.DataFrame:
    """A row a layer, from the input on.

    Columns: `kind`, `shape` of the weight, `weights` and `kept` (a complex weight counts one),
    `kept_percent`, `median` of |w| of the kept weights, `dead_outputs` and `unread_inputs`
    (channels, or units of a linear layer).
    """
    rows = {}
    for name, layer in weighted_layers(model).items():
        mask = kept_weights(layer, threshold)
        weight = layer.weight.detach()
        n_kept = int(mask.sum())
        rows[name] = {
            "kind": type(layer).__name__,
            "shape": tuple(weight.shape),
            "weights": mask.numel(),
            "kept": n_kept,
            "kept_percent": 100 * n_kept / mask.numel(),
            "median": float(weight[mask].abs().median()) if n_kept else float("nan"),
            "dead_outputs": int(dead_outputs(mask).sum()),
            "unread_inputs": int(unread_inputs(mask).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def density(mask: Tensor, *, most: int = 256) -> Tensor:
    """A mask as a picture: float32 (rows, columns), outputs down, inputs and taps across.

    Args:
        mask: bool (out, in, ...).
        most: pixels a side. A pixel is a weight where that suffices, else the share that is kept in
            a block; blocks are of about equal size.
    """
    picture = mask.flatten(1).float()[None, None]
    size = (min(most, picture.shape[2]), min(most, picture.shape[3]))
    return torch.nn.functional.adaptive_avg_pool2d(picture, size)[0, 0]


@style.styled
def plot_weights(model: nn.Module, *, threshold: float) -> Figure:
    """Histograms of log10 |w| of kept and of irrelevant weights; zeros have no logarithm."""
    layers = weighted_layers(model)
    figure, panels = _panels(list(layers))

    for axes, layer in zip(panels, layers.values(), strict=True):
        modulus = layer.weight.detach().abs()
        mask = kept_weights(layer, threshold)
        _histogram(axes, [_log10(modulus[mask]), _log10(modulus[~mask])])

    figure.supxlabel("log10 |w|", fontsize=10)
    figure.supylabel("weights", fontsize=10)
    _legend(figure, {"kept": KEPT, "irrelevant": DROPPED})
    return figure


@style.styled
def plot_log_alphas(model: nn.Module, *, threshold: float) -> Figure:
    """Histograms of log alpha of every variational layer: kept at or below the threshold.

    Raises:
        ValueError: the network has no such layer; only the stage that sparsifies has them.
    """
    layers = variational_layers(model)
    figure, panels = _panels(list(layers))

    for axes, layer in zip(panels, layers.values(), strict=True):
        log_alpha = layer.log_alpha.detach()
        values = log_alpha[log_alpha.isfinite()].numpy()  # +inf where mu is 0
        _histogram(axes, [values[values <= threshold], values[values > threshold]])
        axes.axvline(threshold, color=style.GUIDE, lw=1, ls=":")

    figure.supxlabel("log alpha", fontsize=10)
    figure.supylabel("weights", fontsize=10)
    _legend(figure, {f"kept: log alpha <= {threshold:g}": KEPT, "irrelevant": DROPPED})
    return figure


@style.styled
def plot_masks(model: nn.Module, *, threshold: float) -> Figure:
    """The mask of every layer: outputs down, inputs (and taps) across; black is kept, white is not.

    A pixel of a large layer is the share of a block of weights, on a logarithmic scale, since few
    are kept there.
    """
    layers = weighted_layers(model)
    figure, panels = _panels(list(layers))

    for axes, layer in zip(panels, layers.values(), strict=True):
        mask = kept_weights(layer, threshold)
        axes.imshow(
            np.maximum(density(mask).numpy(), _LEAST_SHARE),
            cmap="Greys",
            norm=LogNorm(_LEAST_SHARE, 1, clip=True),
            aspect="auto",
            interpolation="nearest",
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_xlabel(" x ".join(map(str, mask.shape)), fontsize=8)
    return figure


@style.styled
def plot_channels(model: nn.Module, *, threshold: float) -> Figure:
    """The share of its weights that each output channel keeps, in falling order; 0 is dead."""
    layers = weighted_layers(model)
    figure, panels = _panels(list(layers))

    for axes, layer in zip(panels, layers.values(), strict=True):
        mask = kept_weights(layer, threshold).flatten(1)
        percent = np.sort(100 * mask.float().mean(1).numpy())[::-1]
        n_channels = len(percent)
        n_dead = int((percent == 0).sum())

        axes.step(np.arange(1, n_channels + 1), percent, where="mid", color=KEPT)
        if n_dead:
            first_dead = n_channels - n_dead + 0.5
            axes.axvspan(first_dead, n_channels + 0.5, color=DROPPED, alpha=0.5, lw=0)
        title = f"{axes.get_title('left')}: {n_dead} of {n_channels} dead"
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_ylim(0, max(percent.max() * 1.05, 1e-6))

    figure.supxlabel("output channel, by what it keeps", fontsize=10)
    figure.supylabel("weights kept, percent", fontsize=10)
    return figure


@style.styled
def plot_complex_plane(model: nn.Module, layer: str, *, threshold: float) -> Figure:
    """The weights of one complex layer in the plane, the kept ones over the others.

    At most 5000 of each are shown, in a square that leaves out the largest half percent of the kept
    ones.

    Raises:
        ValueError: no such layer, or not a complex one.
    """
    layers = {
        name: module
        for name, module in weighted_layers(model).items()
        if module.weight.is_complex()
    }
    if layer not in layers:
        raise ValueError(
            f"expected a complex layer of {', '.join(layers) or 'none'}, got {layer!r}"
        )
    weight = layers[layer].weight.detach()
    mask = kept_weights(layers[layer], threshold)

    figure, axes = plt.subplots(figsize=(4.5, 5))
    _points(axes, weight[~mask], name="irrelevant", colour=DROPPED, zorder=1)
    _points(axes, weight[mask], name="kept", colour=KEPT, zorder=2)

    side = 1.05 * float(np.quantile(weight[mask].abs().numpy(), 0.995)) if mask.any() else 1.0
    axes.set(
        xlabel="real part",
        ylabel="imaginary part",
        aspect="equal",
        xlim=(-side, side),
        ylim=(-side, side),
    )
    axes.set_title(f"weights of {layer}", loc="left", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, markerscale=2)
    return figure


def _points(axes: Axes, weights: Tensor, *, name: str, colour: str, zorder: int) -> None:
    """A part of the weights (points,) as points, their number in the legend."""
    step = -(-len(weights) // _MOST_POINTS) or 1
    shown = weights[::step]
    label = f"{name}: {len(weights)}"
    if len(shown) < len(weights):
        label += f", {len(shown)} shown"
    look = {"color": colour, "ms": 6, "alpha": 0.6, "mew": 0, "zorder": zorder}
    axes.plot(shown.real, shown.imag, ".", label=label, **look)


def _panels(names: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a layer, its name above it, four in a row."""
    n_rows = -(-len(names) // _COLUMNS)
    n_columns = min(len(names), _COLUMNS)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.6 * n_columns, 2.3 * n_rows + 0.4),
        squeeze=False,
    )

    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_title(name, loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    return figure, list(grid.flat[: len(names)])


def _histogram(axes: Axes, groups: list[np.ndarray]) -> None:
    """Counts of kept and irrelevant weights on the same 60 bins, stacked."""
    values = np.concatenate(groups)
    if len(values):
        edges = np.linspace(values.min(), values.max() + 1e-6, 61)
        axes.hist(groups, bins=edges.tolist(), stacked=True, color=[KEPT, DROPPED], lw=0)
    axes.grid(False)
    axes.locator_params(axis="x", nbins=5)  # numbers such as -1.75 would touch
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set_fontsize(8)


def _log10(modulus: Tensor) -> np.ndarray:
    return torch.log10(modulus[modulus > 0]).numpy()


def _legend(figure: Figure, colours: dict[str, str]) -> None:
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
