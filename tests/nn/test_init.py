"""Initialisations: variances by criterion, Rayleigh modulus and uniform phase, unitary filters."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from cplxnet.nn import CplxConv1d, CplxConv2d, CplxLinear, trabelsi_independent_, trabelsi_standard_

SHAPES = {"linear": (300, 200), "conv1d": (64, 40, 5), "conv2d": (32, 24, 5, 3)}
FANS = {
    "linear": (200, 300),
    "conv1d": (200, 320),
    "conv2d": (360, 480),
}  # in channels * taps, out channels * taps


def filled(fill: Any, shape: tuple[int, ...], criterion: str, seed: int = 1) -> Tensor:
    weight = torch.zeros(shape, dtype=torch.complex64)
    assert fill(weight, criterion, generator=torch.Generator().manual_seed(seed)) is weight
    return weight


@pytest.mark.parametrize("fill", [trabelsi_standard_, trabelsi_independent_])
@pytest.mark.parametrize("criterion", ["glorot", "he"])
@pytest.mark.parametrize("kind", SHAPES)
def test_variance(fill: Any, criterion: str, kind: str) -> None:
    fan_in, fan_out = FANS[kind]
    wanted = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in}[criterion]
    weight = filled(fill, SHAPES[kind], criterion)
    n = weight.numel()
    # |w|^2 is exponential: five deviations of its mean are 5/sqrt(n), 0.05 here
    assert weight.abs().square().mean().item() == pytest.approx(wanted, rel=5 / n**0.5)
    for part in (weight.real, weight.imag):
        assert part.square().mean().item() == pytest.approx(wanted / 2, rel=5 * (2 / n) ** 0.5)
        assert abs(part.mean().item()) < 5 * (wanted / 2 / n) ** 0.5
    assert abs((weight.real * weight.imag).mean().item()) < 5 * wanted / 2 / n**0.5


def test_standard_is_rayleigh_with_uniform_phase() -> None:
    weight = filled(trabelsi_standard_, (120, 80), "glorot").flatten().numpy()
    sigma = 1 / np.sqrt(80 + 120)
    assert stats.kstest(np.abs(weight), stats.rayleigh(scale=sigma).cdf).pvalue > 0.01
    assert stats.kstest(np.angle(weight), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 0.01
    assert abs(stats.spearmanr(np.abs(weight), np.angle(weight)).statistic) < 0.05
    # the test has the power to tell a scale 5 per cent off
    assert stats.kstest(np.abs(weight), stats.rayleigh(scale=1.05 * sigma).cdf).pvalue < 1e-6


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (6, 4, 5), (30, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("criterion", ["glorot", "he"])
def test_independent_filters_are_unitary(shape: tuple[int, ...], criterion: str) -> None:
    matrix = filled(trabelsi_independent_, shape, criterion).flatten(1).to(torch.complex128)
    rows, cols = matrix.shape
    taps = int(np.prod(shape[2:]))
    variance = 2 / (cols + rows * taps) if criterion == "glorot" else 2 / cols
    gram = matrix @ matrix.mH if rows <= cols else matrix.mH @ matrix
    wanted = torch.eye(min(rows, cols), dtype=torch.complex128) * variance * max(rows, cols)
    torch.testing.assert_close(gram, wanted, rtol=1e-5, atol=1e-6)
    # exactly the variance asked for, not only on average
    assert matrix.abs().square().mean().item() == pytest.approx(variance, rel=1e-5)


@pytest.mark.parametrize("fill", [trabelsi_standard_, trabelsi_independent_])
def test_generator_decides(fill: Any) -> None:
    one, two, other = (filled(fill, (5, 4), "he", seed) for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("cls", "args", "options", "fans"),
    [
        (CplxLinear, (200, 300), {}, (200, 300)),
        (CplxConv1d, (40, 64, 5), {}, (200, 320)),
        (CplxConv2d, (24, 32, (5, 3)), {}, (360, 480)),
        (
            CplxConv1d,
            (40, 60, 10),
            {"groups": 2},
            (200, 600),
        ),  # 20 channels reach each filter; out as in torch
    ],
)
def test_layers_start_by_glorot(cls: Any, args: Any, options: Any, fans: tuple[int, int]) -> None:
    weight = cls(*args, **options).weight
    assert weight.abs().square().mean().item() == pytest.approx(
        2 / sum(fans), rel=5 / weight.numel() ** 0.5
    )


@pytest.mark.parametrize("fill", [trabelsi_standard_, trabelsi_independent_])
def test_layers_can_be_filled_in_place(fill: Any) -> None:
    layer = CplxConv1d(3, 4, 2, dtype=torch.float64)
    before = layer.weight_ri.detach().clone()
    fill(layer.weight, "he")
    assert (
        (layer.weight_ri != before).all()
        and layer.weight_ri.is_leaf
        and layer.weight_ri.grad_fn is None
    )


@pytest.mark.parametrize("fill", [trabelsi_standard_, trabelsi_independent_])
def test_errors(fill: Any) -> None:
    with pytest.raises(ValueError, match="expected criterion 'glorot' or 'he', got 'lecun'"):
        fill(torch.zeros(2, 3, dtype=torch.complex64), "lecun")
    with pytest.raises(
        ValueError,
        match=r"expected a complex weight of two or more axes, got torch\.float32 \(2, 3\)",
    ):
        fill(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"two or more axes, got torch\.complex64 \(3,\)"):
        fill(torch.zeros(3, dtype=torch.complex64))
