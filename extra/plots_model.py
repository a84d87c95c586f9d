"""Figures of one network, a panel a layer from the input on: weights, log alpha, masks, what each channel keeps."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor, nn

from cplxnet.auto.report import style
from cplxnet.nn.sparsity import variational_layers

from .anatomy import density, kept, weighted_layers

KEPT = style.COLOURS[0]
DROPPED = style.COLOURS[4]
_COLUMNS = 4
_MOST_POINTS = 5000


@style.styled
def weights(model: nn.Module, *, threshold: float) -> Figure:
    """Histograms of log10 |w| of the weights that are kept and of those that are not; zeros have no logarithm."""
    figure, panels = _panels(list(weighted_layers(model)))
    for axes, layer in zip(panels, weighted_layers(model).values(), strict=True):
        modulus, mask = layer.weight.detach().abs(), kept(layer, threshold)
        _histogram(axes, [_log10(modulus[mask]), _log10(modulus[~mask])])
    figure.supxlabel("log10 |w|", fontsize=10)
    figure.supylabel("weights", fontsize=10)
    _legend(figure, {"kept": KEPT, "irrelevant": DROPPED})
    return figure


@style.styled
def log_alphas(model: nn.Module, *, threshold: float) -> Figure:
    """Histograms of log alpha of every variational layer: kept at or below the threshold, irrelevant above.

    Raises ValueError for a network without such layers: only the stage that sparsifies has them.
    """
    layers = variational_layers(model)
    figure, panels = _panels(list(layers))
    for axes, layer in zip(panels, layers.values(), strict=True):
        found = layer.log_alpha.detach()
        values = found[found.isfinite()].numpy()  # +inf where mu is 0
        _histogram(axes, [values[values <= threshold], values[values > threshold]])
        axes.axvline(threshold, color="0.2", lw=1, ls=":")
    figure.supxlabel("log alpha", fontsize=10)
    figure.supylabel("weights", fontsize=10)
    _legend(figure, {f"kept: log alpha <= {threshold:g}": KEPT, "irrelevant": DROPPED})
    return figure


@style.styled
def masks(model: nn.Module, *, threshold: float) -> Figure:
    """The mask of every layer as a picture: outputs down, inputs (and taps) across; black is kept, white is not.

    A large layer's pixels are shares of blocks of weights, darkened by a logarithmic scale, since few are kept there.
    """
    layers = weighted_layers(model)
    figure, panels = _panels(list(layers))
    for axes, layer in zip(panels, layers.values(), strict=True):
        mask = kept(layer, threshold)
        share = density(mask).numpy()
        norm = LogNorm(1e-4, 1, clip=True)
        axes.imshow(
            np.maximum(share, 1e-4), cmap="Greys", norm=norm, aspect="auto", interpolation="nearest"
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_xlabel(" x ".join(map(str, mask.shape)), fontsize=8)
    return figure


@style.styled
def channels(model: nn.Module, *, threshold: float) -> Figure:
    """The share of its weights that every output channel keeps, in falling order; where it is 0 the channel is dead."""
    layers = weighted_layers(model)
    figure, panels = _panels(list(layers))
    for axes, layer in zip(panels, layers.values(), strict=True):
        mask = kept(layer, threshold).flatten(1)
        share = np.sort(100 * mask.float().mean(1).numpy())[::-1]
        axes.step(np.arange(1, len(share) + 1), share, where="mid", color=KEPT)
        n_dead = int((share == 0).sum())
        if n_dead:
            axes.axvspan(
                len(share) - n_dead + 0.5, len(share) + 0.5, color=DROPPED, alpha=0.5, lw=0
            )
        axes.set_title(
            f"{axes.get_title('left')}: {n_dead} of {len(share)} dead", loc="left", fontsize=9
        )
        axes.set_ylim(0, max(share.max() * 1.05, 1e-6))
    figure.supxlabel("output channel, by what it keeps", fontsize=10)
    figure.supylabel("weights kept, percent", fontsize=10)
    return figure


@style.styled
def complex_plane(model: nn.Module, layer: str, *, threshold: float) -> Figure:
    """The weights of one complex layer in the plane, those kept over the others.

    At most 5000 of each are shown, in a square that the largest half percent of the kept ones may lie outside of.

    Raises ValueError for a layer that is not there or not complex.
    """
    layers = {
        name: found for name, found in weighted_layers(model).items() if found.weight.is_complex()
    }
    if layer not in layers:
        raise ValueError(
            f"expected a complex layer of {', '.join(layers) or 'none'}, got {layer!r}"
        )
    weight, mask = layers[layer].weight.detach(), kept(layers[layer], threshold)
    figure, axes = plt.subplots(figsize=(4.5, 5))
    for name, values, colour, zorder in (
        ("irrelevant", weight[~mask], DROPPED, 1),
        ("kept", weight[mask], KEPT, 2),
    ):
        shown = values[:: -(-len(values) // _MOST_POINTS) or 1]
        label = f"{name}: {len(values)}" + (
            f", {len(shown)} shown" if len(shown) < len(values) else ""
        )
        axes.plot(
            shown.real,
            shown.imag,
            ".",
            color=colour,
            ms=6,
            alpha=0.6,
            mew=0,
            label=label,
            zorder=zorder,
        )
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


def _panels(names: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a layer, its name above it, four in a row."""
    rows = -(-len(names) // _COLUMNS)
    columns = min(len(names), _COLUMNS)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(2.6 * columns, 2.3 * rows + 0.4),
        squeeze=False,
    )
    for axes, name in zip(grid.flat, names, strict=False):
        axes.set_title(name, loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    return figure, list(grid.flat[: len(names)])


def _histogram(axes: Axes, groups: list[np.ndarray]) -> None:
    """Counts of both groups on the same 60 bins, stacked."""
    values = np.concatenate(groups)
    if len(values):
        edges = np.linspace(values.min(), values.max() + 1e-6, 61)
        axes.hist(groups, bins=edges.tolist(), stacked=True, color=[KEPT, DROPPED], lw=0)
    axes.grid(False)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(8)


def _log10(modulus: Tensor) -> np.ndarray:
    return torch.log10(modulus[modulus > 0]).numpy()


def _legend(figure: Figure, colours: dict[str, str]) -> None:
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
