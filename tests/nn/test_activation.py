"""Split, ModReLU, dropout and the ways between complex and real.

Values are written out, gradients checked, dropout's mean and variance held to their formulas.
"""

from typing import Any

import pytest
import torch
from scipy import signal
from torch import Tensor, nn

from cplxnet.nn import (
    CplxDropout,
    CplxFlatten,
    CplxModReLU,
    CplxModulus,
    CplxToReal,
    RealToCplx,
    Split,
)
from cplxnet.nn.activation import ELEMENTWISE


def layouts(z: Tensor) -> dict[str, Tensor]:
    """Tensors of several memory layouts made of z (B, C, L)."""
    return {
        "contiguous": z,
        "channels last": z.transpose(1, 2).contiguous().transpose(1, 2),
        "conjugate": z.conj(),
        "sliced": z[:, :, ::2],
        "expanded": z[:, :1].expand(-1, 3, -1),
        "short": z[:, :1, :4],
    }


def by_parts(module: nn.Module, z: Tensor) -> Tensor:
    z = z.resolve_conj()
    return torch.complex(module(z.real.contiguous()), module(z.imag.contiguous()))


@pytest.mark.parametrize("module", [*ELEMENTWISE, nn.Mish, nn.Softshrink], ids=lambda m: m.__name__)
def test_split_elementwise(module: Any) -> None:
    for name, z in layouts(torch.randn(2, 3, 10, dtype=torch.complex128)).items():
        torch.testing.assert_close(
            Split(module())(z), by_parts(module(), z), msg=lambda m, name=name: f"{name}: {m}"
        )
    for z in (
        torch.randn((), dtype=torch.complex64),
        torch.randn(5, dtype=torch.complex64),
        torch.zeros(0, 2) + 0j,
    ):
        torch.testing.assert_close(Split(module())(z), by_parts(module(), z))


def test_split_relu_values() -> None:
    z = torch.tensor([1 + 2j, -1 + 2j, 1 - 2j, -1 - 2j])
    assert Split(nn.ReLU())(z).tolist() == [1 + 2j, 2j, 1, 0]


POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 4, "stride": 2},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": 3, "stride": 3, "padding": 1, "count_include_pad": False},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_split_average_pooling(options: dict[str, Any]) -> None:
    pool = nn.AvgPool1d(**options)
    for name, z in layouts(torch.randn(2, 3, 10, dtype=torch.complex128)).items():
        torch.testing.assert_close(
            Split(pool)(z), by_parts(pool, z), msg=lambda m, name=name: f"{name}: {m}"
        )


def test_split_average_pooling_by_scipy_and_unbatched() -> None:
    z = torch.randn(1, 1, 9, dtype=torch.complex128)
    wanted = signal.convolve(z[0, 0].numpy(), [1 / 3] * 3, "valid")[::2]
    y = Split(nn.AvgPool1d(3, 2))(z)
    assert y[0, 0].tolist() == pytest.approx(wanted.tolist())
    torch.testing.assert_close(Split(nn.AvgPool1d(3, 2))(z[0]), y[0])


def test_split_calls_other_modules_on_each_part() -> None:
    z = torch.randn(2, 3, 8, dtype=torch.complex128)
    y = Split(nn.MaxPool1d(4))(z)
    assert torch.equal(y.real, z.real.unflatten(-1, (2, 4)).amax(-1))
    assert torch.equal(y.imag, z.imag.unflatten(-1, (2, 4)).amax(-1))
    linear = nn.Linear(8, 2, dtype=torch.float64)
    wanted = z @ linear.weight.t().to(z.dtype) + linear.bias * (1 + 1j)
    torch.testing.assert_close(Split(linear)(z), wanted)
    assert [n for n, _ in Split(linear).named_parameters()] == ["module.weight", "module.bias"]


def test_split_pooling_stays_channels_last() -> None:
    z = torch.randn(2, 8, 3, dtype=torch.complex64).transpose(1, 2)
    assert Split(nn.AvgPool1d(2))(Split(nn.ReLU())(z)).transpose(1, 2).is_contiguous()


SMOOTH = [
    nn.ReLU(),
    nn.GELU(),
    nn.Tanh(),
    nn.AvgPool1d(3, 2, 1, ceil_mode=True),
    nn.AvgPool1d(2),
    nn.MaxPool1d(2),
]


@pytest.mark.parametrize("module", SMOOTH, ids=str)
def test_split_gradcheck(module: nn.Module) -> None:
    z = torch.randn(2, 2, 6, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(Split(module), (z,))


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.7])
def test_modrelu_formula(threshold: float) -> None:
    z = torch.polar(torch.linspace(0.01, 3, 300).double(), torch.linspace(-3, 3, 300).double())
    y = CplxModReLU(threshold).double()(z)
    wanted = (z.abs() + float(torch.tensor(threshold))).clamp(min=0)
    torch.testing.assert_close(y, torch.polar(wanted, z.angle()), rtol=1e-12, atol=1e-12)
    assert (y == 0).any() == (threshold < 0)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)], ids=str)
def test_modrelu_thresholds_per_channel(shape: tuple[int, ...]) -> None:
    layer = CplxModReLU(0.0, channels=3).double()
    assert layer.threshold.shape == (3,)
    with torch.no_grad():
        layer.threshold.copy_(torch.tensor([-1.0, 0.25, 2.0]))
    z = torch.randn(shape, dtype=torch.complex128)
    y = layer(z)
    for c, b in enumerate((-1.0, 0.25, 2.0)):
        wanted = torch.polar((z[:, c].abs() + b).clamp(min=0), z[:, c].angle())
        torch.testing.assert_close(y[:, c], wanted)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.7])
def test_modrelu_at_zero(threshold: float, dtype: torch.dtype) -> None:
    layer = CplxModReLU(threshold).to(dtype.to_real())
    z = torch.tensor([0, 1e-30, 2j], dtype=dtype, requires_grad=True)
    y = layer(z)
    assert y[0] == 0 and y[2].imag.item() == pytest.approx(2 + threshold)
    by_z, by_threshold = torch.autograd.grad(y.real.sum() + y.imag.sum(), (z, layer.threshold))
    assert by_z[0] == 0 and by_z.isfinite().all() and by_threshold.isfinite()


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("threshold", [-0.5, 0.4])
def test_modrelu_gradcheck(threshold: float, channels: int | None) -> None:
    layer = CplxModReLU(threshold, channels).double()
    z = torch.randn(3, 2, 4, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, _: layer(z), (z, layer.threshold))


def test_to_real_and_modulus() -> None:
    z = torch.tensor([[3 + 4j, -5 + 12j, 0]], dtype=torch.complex128, requires_grad=True)
    assert CplxToReal()(z).tolist() == [[3, -5, 0]] and CplxToReal()(z.conj()).tolist() == [
        [3, -5, 0]
    ]
    modulus = CplxModulus()(z)
    assert modulus.tolist() == [[5, 13, 0]]
    (grad,) = torch.autograd.grad(modulus.sum(), z)
    assert grad.tolist()[0] == pytest.approx([0.6 + 0.8j, -5 / 13 + 12j / 13, 0])
    for module in (CplxModulus(), CplxToReal()):
        probe = torch.randn(3, 4, dtype=torch.complex128, requires_grad=True)
        assert torch.autograd.gradcheck(module, (probe,))
    with pytest.raises(TypeError, match=r"expected a complex tensor, got torch\.float32"):
        CplxToReal()(torch.zeros(2))


def test_real_to_complex() -> None:
    x = torch.randn(2, 4, 3)
    plain, halves = RealToCplx()(x), RealToCplx(halves=True)(x)
    assert torch.equal(plain.real, x) and not plain.imag.any() and plain.dtype == torch.complex64
    assert torch.equal(halves, x[:, :2] + 1j * x[:, 2:])
    with pytest.raises(
        ValueError, match=r"expected an even number of channels, .* got \(2, 3, 3\)"
    ):
        RealToCplx(halves=True)(x[:, :3])
    assert repr(RealToCplx(True)) == "RealToCplx(halves=True)"


def test_flatten() -> None:
    z = torch.arange(24).view(2, 3, 4) * (1 + 1j)
    for given in (z, z.transpose(1, 2).contiguous().transpose(1, 2)):
        assert torch.equal(CplxFlatten()(given), torch.arange(24).view(2, 12) * (1 + 1j))
    assert CplxFlatten(0, 1)(z).shape == (6, 4)


# -- dropout of whole complex numbers --------------------------------------------------------------


def test_parts_go_together_and_what_stays_is_scaled() -> None:
    z, p = torch.randn(40, 500, dtype=torch.complex64), 0.3
    y = CplxDropout(p)(z)
    dropped = y == 0
    assert torch.equal(dropped, y.real == 0) and torch.equal(dropped, y.imag == 0)
    torch.testing.assert_close(y[~dropped], z[~dropped] / 0.7)
    # 20 000 draws: five deviations of the share are 5 sqrt(0.3 0.7/20000) = 0.016
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.016)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_mean_and_variance(p: float) -> None:
    z = torch.full((400_000,), 1 - 2j, dtype=torch.complex128)
    y = CplxDropout(p)(z)
    variance = 5 * p / (1 - p)  # |z|^2 p/(1 - p)
    error = (variance / len(z)) ** 0.5
    assert abs(y.mean().item() - (1 - 2j)) < 5 * error
    assert (y - z).abs().square().mean().item() == pytest.approx(variance, rel=0.02)
    # both parts carry one and the same draw: their noises are proportional
    torch.testing.assert_close((y - z).imag, -2 * (y - z).real)


def test_draws_differ_between_calls_and_positions() -> None:
    layer, z = CplxDropout(0.5), torch.ones(64, 64, dtype=torch.complex64)
    first, second = layer(z) != 0, layer(z) != 0
    assert (first & second).float().mean().item() == pytest.approx(0.25, abs=0.035)
    assert (first[0] != first[1]).any() and (first[:, 0] != first[:, 1]).any()


def test_ends_and_eval() -> None:
    z = torch.randn(5, 6, dtype=torch.complex64)
    assert torch.equal(CplxDropout(0.0)(z), z)
    assert not CplxDropout(1.0)(z).any()
    assert torch.equal(CplxDropout(0.9).eval()(z), z)


def test_gradient_is_the_mask() -> None:
    z = torch.randn(50, 6, dtype=torch.complex128, requires_grad=True)
    y = CplxDropout(0.4)(z)
    (grad,) = torch.autograd.grad(y.real.sum(), z)
    torch.testing.assert_close(grad, torch.where(y == 0, 0, 1 / 0.6).to(torch.complex128))


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_bad_probability(p: float) -> None:
    with pytest.raises(ValueError, match=rf"expected a probability p in \[0, 1\], got {p}"):
        CplxDropout(p)
