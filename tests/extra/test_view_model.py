"""What a network holds, against masks and weights written by hand; and the figures of it."""

import itertools
from collections import OrderedDict
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from cplxnet import nn
from extra import view_model

matplotlib.use("Agg")


@pytest.fixture
def net() -> torch.nn.Module:
    """A masked complex convolution, batch norm, a variational real layer, an ordinary one."""
    torch.manual_seed(2)
    layers = OrderedDict(
        conv=nn.CplxConv1dMasked(3, 4, 2),
        norm=nn.CplxBatchNorm1d(4),
        vd=nn.LinearVD(5, 6),
        plain=torch.nn.Linear(6, 2),
    )
    mask = torch.ones(4, 3, 2, dtype=torch.bool)
    mask[1] = False  # output 1 is dead
    mask[:, 2] = False  # input 2 is unread
    layers["conv"].mask = mask
    with torch.no_grad():
        layers["vd"].weight.fill_(1.0)
        layers["vd"].weight[0, 0] = 0.0  # log alpha infinite
        layers["vd"].log_sigma2.fill_(-3.0)
        layers["vd"].log_sigma2[4:, :] = 1.0  # outputs 4 and 5 are dead
        layers["vd"].log_sigma2[3, 0] = -0.5  # at the threshold: kept
    return torch.nn.Sequential(layers)


def test_layer_table(net: torch.nn.Module) -> None:
    table = view_model.layer_table(net, -0.5)
    assert table.index.tolist() == [
        "conv",
        "vd",
        "plain",
    ]  # batch norm has no weights between channels
    assert table["kind"].tolist() == ["CplxConv1dMasked", "LinearVD", "Linear"]
    assert table["weights"].tolist() == [24, 30, 12] and table["kept"].tolist() == [12, 19, 12]
    assert table["kept_percent"].tolist() == pytest.approx([50, 100 * 19 / 30, 100])
    assert table["dead_outputs"].tolist() == [1, 2, 0] and table["unread_inputs"].tolist() == [
        1,
        0,
        0,
    ]
    kept = sorted(
        abs(net.conv.weight[o, i, t].item()) for o in (0, 2, 3) for i in (0, 1) for t in (0, 1)
    )
    assert table.loc["conv", "median"] == pytest.approx(
        kept[5]
    )  # of 12, torch takes the lower middle
    assert table.loc["vd", "median"] == 1 and table.loc["conv", "shape"] == (4, 3, 2)


def test_a_layer_with_nothing_left_and_a_network_without_layers(net: torch.nn.Module) -> None:
    net.conv.mask = torch.zeros(4, 3, 2)
    row = view_model.layer_table(net, -0.5).loc["conv"]
    assert (
        row["kept"] == 0
        and np.isnan(row["median"])
        and row["dead_outputs"] == 4
        and row["unread_inputs"] == 3
    )
    with pytest.raises(
        ValueError, match="expected linear or convolutional layers in BatchNorm1d, got none"
    ):
        view_model.layer_table(torch.nn.BatchNorm1d(3), -0.5)


def test_contents_lists_every_tensor(done: Path, tmp_path: Path) -> None:
    table = view_model.contents(done / "1-sparsify.pt")
    saved = torch.load(done / "1-sparsify.pt", weights_only=True)["model"]
    assert table.index.tolist() == list(saved)
    assert table.loc["fc1.weight_ri"].tolist() == [
        "float32",
        (2048, 256, 2),
        2048 * 256 * 2 * 4 / 1e6,
    ]
    torch.save({"weights": 1}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt: expected a snapshot with a model, got keys weights"
    ):
        view_model.contents(tmp_path / "a.pt")


def test_density_is_the_share_kept_in_blocks() -> None:
    mask = torch.rand(8, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.3
    flat = mask.reshape(8, 20).numpy()
    assert (view_model.density(mask).numpy() == flat).all()
    blocks = flat.reshape(4, 2, 4, 5).mean((1, 3))  # blocks of 2 x 5
    np.testing.assert_allclose(view_model.density(mask, most=4).numpy(), blocks, atol=1e-6)
    assert view_model.density(mask, most=7).shape == (7, 7)  # blocks that cannot be equal


def heights(axes: matplotlib.axes.Axes, colour: str) -> float:
    return sum(
        patch.get_height()
        for patch in axes.patches
        if to_hex(patch.get_facecolor()) == colour.lower()
    )


def test_histograms_count_every_weight_once(net: torch.nn.Module) -> None:
    conv, vd, plain = view_model.plot_weights(net, threshold=-0.5).axes[:3]
    with_zero = int((net.conv.weight.abs() > 0).sum())
    assert (
        heights(conv, view_model.KEPT) == 12 and heights(conv, view_model.DROPPED) == with_zero - 12
    )
    assert (
        heights(vd, view_model.KEPT) == 19 and heights(vd, view_model.DROPPED) == 10
    )  # the zero has no logarithm
    assert heights(plain, view_model.KEPT) == 12 and plain.get_title("left") == "plain"
    (axes,) = view_model.plot_log_alphas(net, threshold=-0.5).axes
    assert heights(axes, view_model.KEPT) == 19 and heights(axes, view_model.DROPPED) == 10
    assert axes.get_lines()[0].get_xdata()[0] == -0.5
    with pytest.raises(ValueError, match="expected variational layers"):
        view_model.plot_log_alphas(net.plain, threshold=-0.5)


def test_masks_and_channels_are_drawn_as_they_are(net: torch.nn.Module) -> None:
    axes = view_model.plot_masks(net, threshold=-0.5).axes[0]
    drawn = axes.images[0]
    colours = drawn.cmap(drawn.norm(drawn.get_array()))[..., 0]
    expected = np.where(net.conv.mask.reshape(4, 6).numpy(), 0.0, 1.0)  # black is kept
    np.testing.assert_allclose(colours, expected)
    conv, vd, _ = view_model.plot_channels(net, threshold=-0.5).axes[:3]
    assert conv.get_lines()[0].get_ydata() == pytest.approx([200 / 3, 200 / 3, 200 / 3, 0])
    assert (
        conv.get_title("left") == "conv: 1 of 4 dead" and vd.get_title("left") == "vd: 2 of 6 dead"
    )


def test_the_plane_shows_the_weights_of_a_complex_layer(net: torch.nn.Module) -> None:
    (axes,) = view_model.plot_complex_plane(net, "conv", threshold=-0.5).axes
    dropped, kept = axes.get_lines()
    inside = net.conv.weight.detach()[net.conv.mask]
    np.testing.assert_allclose(kept.get_xdata(), inside.real.numpy())
    np.testing.assert_allclose(kept.get_ydata(), inside.imag.numpy())
    assert len(dropped.get_xdata()) == 12 and kept.get_label() == "kept: 12"
    with pytest.raises(ValueError, match="expected a complex layer of conv, got 'vd'"):
        view_model.plot_complex_plane(net, "vd", threshold=-0.5)


def test_numbers_beside_a_histogram_are_numbers_and_do_not_touch() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [nn.CplxLinearMasked(16, 6) for _ in range(8)]
    for layer in layers:  # |w| from 10^-1.8 to 10^-0.5, as of the first convolution
        layer.weight = 10 ** (-1.8 + 1.3 * torch.rand(6, 16, generator=generator))
    figure = view_model.plot_weights(torch.nn.Sequential(*layers), threshold=-0.5)
    figure.canvas.draw()
    for axes in figure.axes:
        counts = [label.get_text() for label in axes.get_yticklabels()]
        assert counts[0] == "0" and not any("$" in count for count in counts)

        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        spans = [label.get_window_extent() for place, label in ticks if low <= place <= high]
        assert len(spans) >= 2
        gaps = [right.x0 - left.x1 for left, right in itertools.pairwise(spans)]
        assert min(gaps) > 4
