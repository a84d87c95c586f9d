"""Batch norm in float32, in C and by the formula, against the formula in float64."""

from collections.abc import Iterator

import pytest
import torch
from c_functions import in_c, plain
from torch import Tensor

from cplxnet.nn import CplxBatchNorm1d, whitening
from cplxnet.nn.fast import batchnorm, native
from cplxnet.nn.fast.batchnorm import NO_TAIL

EPS = 1e-5


@pytest.fixture(params=[pytest.param("c", marks=in_c), "formula"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """How batch norm is computed: by the C functions or by the formula."""
    if request.param == "c":
        yield "c"
    else:
        with plain():
            yield "formula"


def normalise(
    way: str, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean and covariance."""
    if way == "c":
        return batchnorm.Normalise.apply(x, weight, bias, EPS, NO_TAIL)
    return whitening.normalise(x, weight, bias, EPS)


def activations(n: int, c: int, offset: float = 0.0) -> Tensor:
    """(n, c, 2) float32: parts of unlike scales that are correlated, around `offset`."""
    noise = torch.randn(n, c, 2)
    skew = torch.stack((noise[..., 0], 0.8 * noise[..., 0] + 0.3 * noise[..., 1]), -1)
    return skew * torch.linspace(0.5, 2, c)[:, None] + offset * torch.tensor([1.0, -0.5])


def results(
    way: str, x: Tensor, affine: tuple[Tensor, ...], upstream: Tensor
) -> tuple[Tensor, ...]:
    """y, mean, covariance, and the gradients by x, weight and bias."""
    leaves = [t.detach().clone().requires_grad_() for t in (x, *affine)]
    weight, bias = leaves[1:] if affine else (None, None)
    y, mean, cov = normalise(way, leaves[0], weight, bias)
    return y.detach(), mean.detach(), cov.detach(), *torch.autograd.grad(y, leaves, upstream)


def compare(way: str, x: Tensor, *, affine: bool, offset: float) -> None:
    """float32 against the formula in float64, each tensor on the scale of its own values."""
    n, c, _ = x.shape
    scales = (torch.randn(2, 2, c), torch.randn(2, c)) if affine else ()
    upstream = torch.randn(n, c, 2)
    got = results(way, x, scales, upstream)
    double = results("formula", x.double(), tuple(t.double() for t in scales), upstream.double())
    rounding = 1e-6 * (1 + offset)  # of x itself, in units of its deviation
    names = ("y", "mean", "covariance", "dx", "dweight", "dbias")
    for name, one, exact in zip(names, got, double, strict=False):
        assert one.dtype == torch.float32 and one.shape == exact.shape
        # deviations of x and whitened values are near 1; the determinant loses a digit to the
        # correlation
        error = (one.double() - exact).abs().max().item() / max(
            exact.abs().max().item(), 1e-3 if name == "dx" else 1.0
        )
        limit = 2 * offset * 6e-8 + 1e-5 if name in ("mean", "covariance") else 20 * rounding
        assert error < limit, f"{name}: {error:.1e}"


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(
    "shape", [(30, 2), (1001, 1), (20011, 3), (5000, 16), (601, 128), (37, 1000)], ids=str
)
def test_against_the_formula_in_double(
    way: str, shape: tuple[int, int], offset: float, affine: bool
) -> None:
    compare(way, activations(*shape, offset), affine=affine, offset=offset)


@in_c
@pytest.mark.parametrize("block", [1, 64, 1000])  # complex numbers; rows do not divide
@pytest.mark.parametrize("n", [2, 63, 64, 65, 1009])
def test_any_cut_into_blocks(block: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, upstream = activations(n, 5), torch.randn(n, 5, 2)
    scales = torch.randn(2, 2, 5), torch.randn(2, 5)
    whole = results("c", x, scales, upstream)
    monkeypatch.setattr(batchnorm, "BLOCK", block)
    cut = results("c", x, scales, upstream)
    if n > 2:  # two points lie on a line, whose covariance has no inverse but for eps
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=2e-4)
    double = results("formula", x.double(), tuple(t.double() for t in scales), upstream.double())
    torch.testing.assert_close(
        [t.double() for t in cut[1:3]], list(double[1:3]), rtol=1e-5, atol=1e-5
    )


@in_c
@pytest.mark.parametrize("affine", [True, False])
def test_two_by_two_algebra_in_c_where_rounding_spoilt_the_covariance(
    affine: bool,
) -> None:
    re_re, im_im = torch.tensor([1.0, 2.0, 1.0, 2.0]), torch.tensor([2.0, 1.2, 1.0, 0.5])
    re_im = torch.tensor(
        [0.3, -0.5, 1 + 2e-5, -1.001]
    )  # in the last two the determinant would be below 0
    cov, n = torch.stack((re_re, re_im, re_im, im_im)).view(2, 2, 4), 1000
    mean, sums = torch.randn(4, 2), torch.randn(3, 4, 2, dtype=torch.float64)
    weight, bias = (torch.randn(2, 2, 4), torch.randn(2, 4)) if affine else (None, None)
    matrix, shift = batchnorm.forward_map(mean, cov, weight, bias, EPS)
    outputs = [
        torch.empty(2, 2, 4),
        torch.empty(2, 4),
        torch.empty(2, 4, 2),
        torch.empty(2, 4, 2),
        torch.empty(4, 2),
    ]
    given = (sums, mean, cov, weight, EPS)
    native.call("whitening_gradient", 4, n, *given, *outputs)
    by_weight, by_bias, back, around, t = outputs

    def pairs(m: Tensor) -> Tensor:
        """(2, 2, C) as the C functions have it."""
        return torch.stack((m.diagonal(), m.flip(1).diagonal()))

    (by_00, by_11), (by_01, by_10) = sums[1].T, sums[2].T
    by_matrix = torch.stack((by_00, by_01, by_10, by_11)).view(2, 2, 4)
    leaves = [t.double().requires_grad_() for t in (cov, weight) if t is not None]
    m = whitening.matrix_of(leaves[0], leaves[1] if affine else None, EPS)
    by_cov, *by_wide = torch.autograd.grad(m, leaves, by_matrix)
    m = m.detach()
    a = (by_cov + by_cov.transpose(0, 1)) / n
    b = torch.zeros(2, 4) if bias is None else bias
    torch.testing.assert_close(matrix.double(), pairs(m), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(shift.double(), (b - (m * mean.T).sum(1)).T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(back.double(), pairs(m.transpose(0, 1)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(around.double(), pairs(a), rtol=1e-6, atol=0)
    torch.testing.assert_close(by_bias.double(), sums[0].T, rtol=1e-6, atol=0)
    expected = -(m.transpose(0, 1) * sums[0].T).sum(1) / n - (a * mean.T).sum(1)
    torch.testing.assert_close(
        t.double(), expected.T, rtol=1e-5, atol=1e-5 * expected.abs().max().item()
    )
    for wanted in by_wide:
        torch.testing.assert_close(
            by_weight.double(), wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item()
        )


def test_output_is_white_whatever_the_mean(way: str) -> None:
    y, _, _ = normalise(way, activations(50_000, 4, 1e3))
    mean, cov = whitening.moments(y.double())
    assert mean.abs().max() < 1e-3  # x has steps of 6e-5 there
    assert (cov - torch.eye(2)[..., None] / 2).abs().max() < 1e-3


def test_nan_stays_in_its_channel(way: str) -> None:
    x = activations(1000, 3)
    clean = normalise(way, x)
    x[500, 1, 0] = float("nan")
    for spoilt, before in zip(normalise(way, x), clean, strict=True):
        per_channel = spoilt.movedim(1, 0) if spoilt.shape[0] == 1000 else spoilt.movedim(-1, 0)
        before = before.movedim(1, 0) if before.shape[0] == 1000 else before.movedim(-1, 0)
        assert per_channel[1].isnan().any()
        assert torch.equal(per_channel[[0, 2]], before[[0, 2]])


LAYOUTS = {
    "channels first": lambda x: x.contiguous(),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other": lambda x: torch.stack((x, x), -1).flatten(-2)[..., ::2],
    "expanded": lambda x: x[:1].expand(x.shape),
    "conjugated": lambda x: x.conj(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_takes_any_layout(way: str, layout: str) -> None:
    rows = torch.view_as_complex(activations(6 * 31, 4).contiguous()).view(6, 31, 4)
    x = LAYOUTS[layout](rows.movedim(-1, 1)).requires_grad_()
    layer, exact = CplxBatchNorm1d(4), CplxBatchNorm1d(4, dtype=torch.complex128)
    upstream = torch.randn(6, 4, 31, dtype=torch.complex64)
    y = layer(x)
    (grad,) = torch.autograd.grad(y, x, upstream)
    double = x.detach().to(torch.complex128).resolve_conj().contiguous().requires_grad_()
    flat = torch.view_as_real(double.movedim(1, -1).contiguous()).view(-1, 4, 2)
    plain, mean, cov = whitening.normalise(flat, exact.weight, exact.bias, EPS)
    wanted = torch.view_as_complex(plain.view(6, 31, 4, 2)).movedim(-1, 1)
    (by_plain,) = torch.autograd.grad(wanted, double, upstream.to(torch.complex128))
    torch.testing.assert_close(y.to(torch.complex128), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad.to(torch.complex128), by_plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.running_mean.double(), 0.1 * mean, rtol=1e-4, atol=1e-6)
    n = 6 * 31
    half = torch.eye(2, dtype=torch.float64)[..., None] / 2
    torch.testing.assert_close(
        layer.running_var.double(), 0.9 * half + 0.1 * cov * n / (n - 1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 7), (2, 3, 0), (1, 3), (1, 3, 1)], ids=str)
def test_too_few_values_are_an_error(way: str, shape: tuple[int, ...]) -> None:
    layer = CplxBatchNorm1d(3)
    rows = 1 if 0 not in shape else 0
    with pytest.raises(
        ValueError,
        match=f"expected more than one value per channel in training, got input rows {rows}",
    ):
        layer(torch.zeros(shape, dtype=torch.complex64))
    assert layer.num_batches_tracked == 0
    assert layer.eval()(torch.zeros(shape, dtype=torch.complex64)).shape == shape


def test_second_backward_and_no_grad(way: str) -> None:
    x = activations(200, 3)
    leaf = x.clone().requires_grad_()
    y, *_ = normalise(way, leaf)
    first, second = (
        torch.autograd.grad(y.square().sum(), leaf, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(normalise(way, x)[0], y.detach())
