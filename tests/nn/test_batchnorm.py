"""Complex batch norm against numpy whitening: outputs, statistics, gradients, degenerate inputs."""

import gc
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.optim.swa_utils import update_bn

from cplxnet.nn import CplxBatchNorm1d

EPS = 1e-5


def mixed(shape: tuple[int, ...], dtype: torch.dtype = torch.complex128) -> Tensor:
    """Channels (axis 1) of different means, scales and correlations (up to 0.99) of the parts."""
    noise = torch.randn(*shape, 2, dtype=torch.float64).movedim(1, -2)  # (B, ..., C, 2)
    mixing = torch.tensor(
        [[[1.0, 0.0], [0.99, 0.14]], [[3.0, -1.0], [0.0, 0.2]], [[0.1, 0.0], [0.0, 20.0]]]
    )
    shift = torch.tensor([[0.0, 0.0], [5.0, -3.0], [-100.0, 0.5]])
    parts = torch.einsum("...ci,cji->...cj", noise, mixing.double()) + shift
    return torch.view_as_complex(parts.contiguous()).movedim(-1, 1).to(dtype)


def parts_of(z: Tensor, channel: int) -> np.ndarray:
    """(2, N) real and imaginary parts of a channel."""
    row = z.detach().movedim(1, 0)[channel].flatten().resolve_conj().numpy()
    return np.stack((row.real, row.imag))


def whitened(z: Tensor, channel: int, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """W (V + eps I)^(-1/2) (x - m) + b by numpy and scipy's matrix square root."""
    x = parts_of(z, channel)
    root = linalg.inv(linalg.sqrtm(np.cov(x, bias=True) + EPS * np.eye(2)))
    return weight @ root @ (x - x.mean(1, keepdims=True)) + bias[:, None]


def random_layer(**options: Any) -> CplxBatchNorm1d:
    """A float64 layer of 3 channels with full 2x2 weights and shifts that are not zero."""
    layer = CplxBatchNorm1d(3, dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


SHAPES = pytest.mark.parametrize("shape", [(400, 3), (40, 3, 11)], ids=str)


@SHAPES
@pytest.mark.parametrize(
    ("dtype", "eps", "tolerance"),
    [
        (torch.complex64, EPS, 1e-3),
        (torch.complex128, 1e-12, 1e-9),
    ],  # 1/2 less eps over the smallest eigenvalue, 0.01
)
def test_output_covariance_is_half_the_identity(
    shape: tuple[int, ...], dtype: torch.dtype, eps: float, tolerance: float
) -> None:
    y = CplxBatchNorm1d(3, eps=eps, dtype=dtype)(mixed(shape, dtype))
    assert y.shape == shape and y.dtype == dtype
    for channel in range(3):
        out = parts_of(y, channel)
        assert np.cov(out, bias=True) == pytest.approx(np.eye(2) / 2, abs=tolerance)
        assert out.mean(1) == pytest.approx(np.zeros(2), abs=tolerance)
        assert (out**2).sum(0).mean() == pytest.approx(1, abs=2 * tolerance)


@SHAPES
@pytest.mark.parametrize("affine", [True, False])
def test_against_numpy_whitening(shape: tuple[int, ...], affine: bool) -> None:
    layer, x = random_layer(affine=affine), mixed(shape)
    y = layer(x)
    for c in range(3):
        weight = layer.weight[..., c].detach().numpy() if affine else np.eye(2) / np.sqrt(2)
        bias = layer.bias[:, c].detach().numpy() if affine else np.zeros(2)
        np.testing.assert_allclose(
            parts_of(y, c), whitened(x, c, weight, bias), rtol=1e-10, atol=1e-9
        )


def test_memory_layouts_and_conjugates() -> None:
    layer, x = random_layer(), mixed((5, 3, 7))
    wanted = layer(x)
    assert x.transpose(1, 2).is_contiguous()  # channels last in memory
    torch.testing.assert_close(layer(x.contiguous()), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x.repeat(1, 1, 2)[:, :, :7]), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        layer(x.conj().resolve_conj().conj()), wanted, rtol=1e-12, atol=1e-12
    )
    assert wanted.transpose(1, 2).is_contiguous()  # what convolutions take without a copy


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_are_those_of_torch(momentum: float | None) -> None:
    # torch's real batch norm keeps the means and the (unbiased) variances of the parts; the
    # covariance is polarised
    ours = CplxBatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    re, im, both = (
        torch.nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in range(3)
    )
    for k in range(4):
        x = mixed((6 + k, 3, 5))
        ours(x), re(x.real), im(x.imag), both(x.real + x.imag)
    torch.testing.assert_close(
        ours.running_mean, torch.stack((re.running_mean, im.running_mean)), rtol=1e-7, atol=1e-12
    )
    start = {0.1: 0.9**4, 0.7: 0.3**4, None: 0.0}[
        momentum
    ]  # what is left of the initial I/2, of torch's of 1
    rr, ii, sums = (m.running_var - start for m in (re, im, both))
    cov = (sums - rr - ii) / 2
    wanted = torch.stack((torch.stack((rr + start / 2, cov)), torch.stack((cov, ii + start / 2))))
    torch.testing.assert_close(ours.running_var, wanted, rtol=1e-7, atol=1e-12)
    assert ours.num_batches_tracked.item() == 4


def test_cumulative_average_is_the_mean_of_the_batches() -> None:
    layer, batches = (
        CplxBatchNorm1d(3, momentum=None, dtype=torch.float64),
        [mixed((9, 3)) for _ in range(3)],
    )
    for x in batches:
        layer(x)
    for c in range(3):
        wanted = np.mean([np.cov(parts_of(x, c)) for x in batches], 0)  # n - 1
        np.testing.assert_allclose(layer.running_var[..., c].numpy(), wanted, rtol=1e-7, atol=1e-12)
        wanted = np.mean([parts_of(x, c).mean(1) for x in batches], 0)
        np.testing.assert_allclose(layer.running_mean[:, c].numpy(), wanted, rtol=1e-7, atol=1e-12)


def test_running_statistics_converge_to_the_true_ones_and_eval_uses_them() -> None:
    layer = CplxBatchNorm1d(3, momentum=None)
    for _ in range(200):
        layer(mixed((100, 3, 5), torch.complex64))
    true = torch.tensor(
        [[[1.0, 0.99], [0.99, 0.9997]], [[10.0, -0.2], [-0.2, 0.04]], [[0.01, 0.0], [0.0, 400.0]]]
    )
    means = torch.tensor([[0.0, 5.0, -100.0], [0.0, -3.0, 0.5]])
    spread = true.diagonal(dim1=1, dim2=2).sqrt()
    scale = spread[:, :, None] * spread[:, None, :]
    assert ((layer.running_var.permute(2, 0, 1) - true) / scale).abs().max() < 0.02
    assert ((layer.running_mean - means) / spread.t()).abs().max() < 0.02
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    fresh = mixed((4000, 3, 5), torch.complex64)
    y = layer.eval()(fresh)
    for c in range(3):
        assert np.cov(parts_of(y, c)) == pytest.approx(np.eye(2) / 2, abs=0.02)
    torch.testing.assert_close(
        layer(fresh[:1]), y[:1], rtol=1e-4, atol=1e-4
    )  # whatever else is in the batch
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_eval_formula() -> None:
    layer, x = random_layer().eval(), mixed((5, 3, 4))
    half = np.random.default_rng(0).standard_normal((3, 2, 2))
    cov = half @ half.transpose(0, 2, 1)
    layer.running_var.copy_(torch.from_numpy(cov).permute(1, 2, 0))
    layer.running_mean.normal_()
    y = layer(x)
    for c in range(3):
        root = linalg.inv(linalg.sqrtm(cov[c] + EPS * np.eye(2)))
        centred = parts_of(x, c) - layer.running_mean[:, c].numpy()[:, None]
        wanted = (
            layer.weight[..., c].detach().numpy() @ root @ centred
            + layer.bias[:, c].detach().numpy()[:, None]
        )
        np.testing.assert_allclose(parts_of(y, c), wanted, rtol=1e-10, atol=1e-10)


def test_without_running_statistics_eval_uses_the_batch() -> None:
    layer, x = random_layer(track_running_stats=False), mixed((9, 3))
    assert torch.equal(layer.eval()(x), layer.train()(x)) and list(layer.state_dict()) == [
        "weight",
        "bias",
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (3, 3, 2)], ids=str)
def test_gradcheck(shape: tuple[int, ...], affine: bool, training: bool) -> None:
    layer, x = (
        random_layer(affine=affine).train(training),
        torch.randn(shape, dtype=torch.complex128),
    )
    names = [n for n, _ in layer.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x.requires_grad_(), *layer.parameters()))


def test_gradient_goes_through_the_statistics() -> None:
    # the output does not change under a shift, a scale or a mixing of the input: neither may the
    # loss
    x = mixed((50, 3)).requires_grad_()
    layer = CplxBatchNorm1d(3, eps=1e-12, dtype=torch.float64)
    (grad,) = torch.autograd.grad((layer(x) * mixed((50, 3))).real.sum(), x)
    assert grad.abs().max() > 0.1
    assert (grad.sum(0).abs() < 1e-9 * grad.abs().sum(0)).all()
    scale = (grad.abs() * x.detach().abs()).sum(0)
    assert ((grad.conj() * x.detach()).sum(0).real.abs() < 1e-8 * scale).all()


DEGENERATE = {
    "real": lambda n: torch.complex(n, torch.zeros_like(n)),
    "imaginary": lambda n: torch.complex(torch.zeros_like(n), n),
    "equal parts": lambda n: torch.complex(n, n),
    "multiple, far off": lambda n: torch.complex(1000 + n, 3 * n),
    "constant": lambda n: torch.full_like(n, 2.5) * (1 + 3j),
    "zero": lambda n: torch.zeros_like(n) + 0j,
    "tiny": lambda n: 1e-20 * torch.complex(n, n),
    "large": lambda n: 100 * torch.complex(n, -n),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_inputs_stay_finite(case: str, dtype: torch.dtype) -> None:
    x = DEGENERATE[case](torch.randn(64, 3, dtype=dtype)).requires_grad_()
    layer = CplxBatchNorm1d(3, dtype=dtype)
    y = layer(x)
    grads = torch.autograd.grad((y * torch.randn_like(y)).real.sum(), [x, *layer.parameters()])
    assert all(g.isfinite().all() for g in grads) and all(
        v.isfinite().all() for v in layer.state_dict().values()
    )
    power = y.abs().square().mean(0)  # one direction of variance 1/2, or none
    wanted = 0.0 if case in ("constant", "zero", "tiny") else 0.5
    torch.testing.assert_close(power, torch.full_like(power, wanted), rtol=2e-2, atol=1e-6)


def test_one_direction_only_against_numpy() -> None:
    x = DEGENERATE["equal parts"](torch.randn(64, 3, dtype=torch.float64))
    y = CplxBatchNorm1d(3, dtype=torch.float64)(x)
    for c in range(3):
        wanted = whitened(x, c, np.eye(2) / np.sqrt(2), np.zeros(2))
        np.testing.assert_allclose(parts_of(y, c), wanted, rtol=1e-8, atol=1e-8)


def test_no_graph_is_kept_alive() -> None:
    layer = CplxBatchNorm1d(3)
    x = (mixed((8, 3), torch.complex64).requires_grad_() * 2).clone()
    y = layer(x)
    buffers = (layer.running_mean, layer.running_var, layer.num_batches_tracked)
    assert all(b.grad_fn is None and not b.requires_grad for b in buffers)
    held = [weakref.ref(x), weakref.ref(y)]
    del x, y
    gc.collect()
    assert [h() for h in held] == [None, None]


def test_errors() -> None:
    layer = CplxBatchNorm1d(3)
    with pytest.raises(
        ValueError, match="expected more than one value per channel in training, got input rows 1"
    ):
        layer(torch.zeros(1, 3, dtype=torch.complex64))
    assert layer.eval()(torch.zeros(1, 3, dtype=torch.complex64)).shape == (1, 3)
    for shape in ((2, 4), (3,), (2, 3, 4, 5)):
        with pytest.raises(ValueError, match=r"expected complex \(B, 3\) or \(B, 3, L\), got \("):
            layer(torch.zeros(shape, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"expected a complex tensor, got torch\.float32"):
        layer(torch.zeros(2, 3))


def test_start_and_state() -> None:
    layer = random_layer()
    layer(mixed((5, 3)))
    shapes = {k: tuple(v.shape) for k, v in layer.state_dict().items()}
    tracked = {"running_mean": (2, 3), "running_var": (2, 2, 3), "num_batches_tracked": ()}
    assert shapes == {"weight": (2, 2, 3), "bias": (2, 3), **tracked}
    twin = CplxBatchNorm1d(3, dtype=torch.complex128)
    twin.load_state_dict(layer.state_dict())
    x = mixed((4, 3))
    assert torch.equal(twin.eval()(x), layer.eval()(x))
    layer.reset_parameters()
    half = torch.eye(2, dtype=torch.float64)[..., None].expand(2, 2, 3)
    assert (
        torch.equal(layer.running_var, half / 2)
        and not layer.running_mean.any()
        and not layer.bias.any()
    )
    torch.testing.assert_close(layer.weight.detach(), half * 2**-0.5)
    assert layer.num_batches_tracked.item() == 0


def test_a_cast_to_a_complex_type_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own word on complex modules
        with pytest.raises(TypeError, match="expected a float type to cast complex layers to"):
            CplxBatchNorm1d(3).to(torch.complex64)


def test_torch_renews_its_running_statistics() -> None:
    norm = CplxBatchNorm1d(3)
    norm(mixed((50, 3), torch.complex64) + 100)  # what is averaged over must be forgotten
    net = torch.nn.Sequential(norm)
    batches = [mixed((50, 3, 7), torch.complex64) for _ in range(4)]
    update_bn(batches, net)

    for channel in range(3):
        moments = [parts_of(x, channel) for x in batches]
        mean = np.mean([x.mean(1) for x in moments], 0)
        cov = np.mean([np.cov(x) for x in moments], 0)
        np.testing.assert_allclose(norm.running_mean[:, channel], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(norm.running_var[..., channel], cov, rtol=1e-3, atol=1e-4)
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 4


def test_torch_takes_its_running_statistics_away() -> None:
    norm, x = random_layer(), mixed((9, 3))
    wanted = norm(x)
    replace_all_batch_norm_modules_(torch.nn.Sequential(norm))
    assert norm.running_mean is None and not norm.track_running_stats
    torch.testing.assert_close(norm.eval()(x), wanted)


def test_a_synchronised_form_is_refused_when_it_runs() -> None:
    net = torch.nn.Sequential(CplxBatchNorm1d(3))
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(net)
    assert type(converted[0]) is torch.nn.SyncBatchNorm
    for training in (True, False):
        with pytest.raises((ValueError, RuntimeError)):
            converted.train(training)(mixed((9, 3), torch.complex64))


def test_in_training_it_is_exported_for_any_batch():
    """`len` of a traced tensor is a number, which fixed the batch's size."""
    net = CplxBatchNorm1d(3).train()
    x = mixed((5, 3, 4), torch.complex64)
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()

    other = mixed((9, 3, 4), torch.complex64)
    torch.testing.assert_close(exported(other), net(other), rtol=1e-4, atol=1e-4)
