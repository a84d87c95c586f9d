"""Noise and |x|^2 in C: published vectors, moments, distribution, gradients."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from c_functions import in_c
from scipy import stats
from torch import Tensor

from cplxnet.nn.fast import native
from cplxnet.nn.fast.noise import PairNoise
from cplxnet.nn.gaussian import VARIANCE_FLOOR, with_noise
from cplxnet.nn.variational import with_square


@in_c
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 7), (2, 3, 4, 5)])
def test_squares_in_one_pass(shape: tuple[int, ...]) -> None:
    z = (
        torch.randn(shape, dtype=torch.complex64).movedim(-1, 1).requires_grad_()
    )  # channels last in memory
    upstream, by_same = torch.randn(z.shape), torch.randn(z.shape, dtype=torch.complex64)
    same, out = with_square(z)
    gradients = [
        torch.autograd.grad(y, z, g, retain_graph=True)[0]
        for y, g in ((out, upstream), (same, by_same))
    ]
    (together,) = torch.autograd.grad((same, out), z, (by_same, upstream))
    exact = z.detach().to(torch.complex128).requires_grad_()
    wanted = exact.real.square() + exact.imag.square()
    torch.testing.assert_close(out.double(), wanted.detach(), rtol=1e-6, atol=0)
    (by_exact,) = torch.autograd.grad(wanted, exact, upstream.double())
    torch.testing.assert_close(gradients[0].to(torch.complex128), by_exact, rtol=1e-6, atol=0)
    assert (
        torch.equal(same, z) and same.stride() == z.stride() and torch.equal(gradients[1], by_same)
    )
    torch.testing.assert_close(
        together.to(torch.complex128), by_exact + by_same, rtol=1e-6, atol=1e-6
    )
    assert out.stride() == tuple(step for step in torch.empty(shape).movedim(-1, 1).stride())


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of uint32 counters (..., 4) (Salmon et al. 2011, section 3.3)."""
    x0, x1, x2, x3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1, low = np.uint64(key[0]), np.uint64(key[1]), np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * x0, np.uint64(0xCD9E8D57) * x2
        x0, x1, x2, x3 = (
            (p1 >> np.uint64(32)) ^ x1 ^ k0,
            p1 & low,
            (p0 >> np.uint64(32)) ^ x3 ^ k1,
            p0 & low,
        )
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack((x0, x1, x2, x3), -1).astype(np.uint32)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [  # kat_vectors of Random123
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_of_this_test(counter: list[int], key: tuple[int, int], wanted: list[int]) -> None:
    assert philox4x32(np.array(counter, np.uint32), key).tolist() == wanted


KEYS = [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0xA4093822, 0x299F31D0)]


def drawn(n: int, key: tuple[int, int]) -> np.ndarray:
    """The standard normals (n, 2) of noise_pairs: mean 0, variance 2."""
    words, out = torch.from_numpy(np.array(key, np.uint32).view(np.int32)), torch.empty(n, 2)
    native.call(
        "noise_pairs",
        n,
        torch.zeros(n, 2),
        torch.full((n,), 2.0),
        VARIANCE_FLOOR,
        words,
        out,
        torch.empty(n, 2),
    )
    return out.double().numpy()


def xoshiro128pp(state: np.ndarray, n: int) -> np.ndarray:
    """n words (n, ...) of xoshiro128++, states (4, ...) (Blackman and Vigna 2021, figure 4)."""
    s0, s1, s2, s3 = state.astype(np.uint32)

    def rotated(x: np.ndarray, by: int) -> np.ndarray:
        return (x << np.uint32(by)) | (x >> np.uint32(32 - by))

    words = []
    with np.errstate(over="ignore"):
        for _ in range(n):
            words.append(rotated(s0 + s3, 7) + s0)
            shifted = s1 << np.uint32(9)
            s2, s3 = s2 ^ s0, s3 ^ s1
            s1, s0 = s1 ^ s2, s0 ^ s3
            s2, s3 = s2 ^ shifted, rotated(s3, 11)
    return np.stack(words)


def test_xoshiro_of_this_test() -> None:
    wanted = [
        641,
        1573767,
        3222811527,
        3517856514,
        836907274,
        4247214768,
        3867114732,
        1355841295,
        495546011,
        621204420,
    ]
    assert (
        xoshiro128pp(np.arange(1, 5), 10).tolist() == wanted
    )  # the vector that rand_xoshiro is tested with


@in_c
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_noise_is_philox_xoshiro_and_box_muller(key: tuple[int, int]) -> None:
    n_blocks, n = 4, 3 * native.BLOCK + 77
    number, block = np.meshgrid(np.arange(16), np.arange(n_blocks))  # sixteen generators a block
    states = np.moveaxis(
        philox4x32(np.stack((number, block, 0 * block, 0 * block), -1).astype(np.uint32), key),
        -1,
        0,
    )
    states[0] |= 1  # never all zero
    words = xoshiro128pp(
        states, native.BLOCK // 8
    )  # (512, blocks, 16): eight for radii, eight for angles
    first, second = (
        np.swapaxes(part, 0, 1).reshape(-1)[:n] for part in (words[..., :8], words[..., 8:])
    )
    radius = np.sqrt(-2 * np.log(((first >> 8) + 1) * 2.0**-24))
    angle = 2 * np.pi * ((second >> 8) * 2.0**-24 - 0.5)
    wanted = radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), -1)
    np.testing.assert_allclose(drawn(n, key), wanted, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """(2^20, 2) standard normals."""
    return drawn(1 << 20, (2020, 7))


@in_c
def test_noise_moments(sample: np.ndarray) -> None:
    n, (x, y) = len(sample), sample.T
    for part in (x, y):
        assert abs(part.mean()) < 4 / math.sqrt(n)
        assert abs(part.var() - 1) < 4 * math.sqrt(2 / n)
        assert abs((part**3).mean()) < 4 * math.sqrt(15 / n)
        assert abs((part**4).mean() - 3) < 4 * math.sqrt(96 / n)
        assert abs((part**6).mean() - 15) < 4 * math.sqrt((10395 - 225) / n)
    # circular: E z^2 = 0, E |z|^2 = 2, |z|^2/2 exponential
    assert abs((x * y).mean()) < 4 / math.sqrt(n) and abs(
        (x * x - y * y).mean()
    ) < 4 * 2 / math.sqrt(n)
    assert 5 < np.abs(sample).max() < 5.77  # sqrt(2 log 2^24) at most


@in_c
def test_noise_distribution(sample: np.ndarray) -> None:
    x, y = sample.T
    for part in (x, y):
        assert stats.kstest(part, "norm").pvalue > 0.01
        below = np.array([(part < -3).mean(), (part > 3).mean()])
        assert np.abs(below - stats.norm.sf(3)).max() < 4 * math.sqrt(stats.norm.sf(3) / len(part))
    assert (
        stats.kstest(np.exp(-(x * x + y * y) / 2), "uniform").pvalue > 0.01
    )  # the two uniforms that it is made of
    assert stats.kstest(np.arctan2(y, x) / (2 * np.pi) % 1, "uniform").pvalue > 0.01


@in_c
@pytest.mark.parametrize("lag", [0, 1, 2, 3, 4, 7, 8, 16, 64, 512, 4095, 4096, 4097, 3 * 4096])
def test_noise_is_independent_of_its_neighbours(sample: np.ndarray, lag: int) -> None:
    head, tail = sample[: len(sample) - lag], sample[lag:]
    for f, variance in ((lambda z: z, 1.0), (lambda z: z * z - 1, 2.0), (np.abs, 0.0)):
        a, b = f(head), f(tail)
        a, b = a - a.mean(0), b - b.mean(0)
        correlation = a.T @ b / len(a) / (variance or 1 - 2 / math.pi)
        if lag == 0:
            correlation -= np.diag(np.diag(correlation))
        assert np.abs(correlation).max() < 5 / math.sqrt(len(a))


@in_c
@pytest.mark.parametrize(
    "other", [(2021, 7), (2020, 8), (7, 2020), (2020 ^ 0x80000000, 7)], ids=str
)
def test_noise_of_other_keys_is_independent(sample: np.ndarray, other: tuple[int, int]) -> None:
    few = sample[: 1 << 16]
    assert np.abs(few.T @ drawn(len(few), other) / len(few)).max() < 5 / math.sqrt(len(few))


def noisy(mean: Tensor, variance: Tensor) -> Tensor:
    """mean + sqrt(variance) eps by the C function."""
    y, _ = PairNoise.apply(mean, variance)
    return y


def noise_of(mean: Tensor, variance: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return noisy(mean, variance)


@in_c
def test_gradients_of_the_noise_by_finite_differences() -> None:
    n = 4096 + 37
    mean, variance, upstream = torch.randn(n, 2), torch.rand(n) + 0.1, torch.randn(n, 2)
    leaves = mean.clone().requires_grad_(), variance.clone().requires_grad_()
    y = noise_of(*leaves, seed=5)
    by_mean, by_variance = torch.autograd.grad(y, leaves, upstream)
    assert torch.equal(by_mean, upstream)
    h = 0.02 * variance
    up, down = (noise_of(mean, variance + sign * h, seed=5).double() for sign in (1, -1))
    slope = ((up - down) * upstream).sum(-1) / (2 * h)
    torch.testing.assert_close(by_variance.double(), slope, rtol=1e-3, atol=1e-3)
    # exactly: by the noise of the forward pass
    eps = (y.detach().double() - mean) / variance.double().sqrt()[:, None]
    wanted = (upstream * eps).sum(-1) / (2 * variance.double().sqrt())
    torch.testing.assert_close(by_variance.double(), wanted, rtol=1e-4, atol=1e-5)


@in_c
def test_the_backward_pass_does_not_draw_from_the_generator() -> None:
    variance = torch.rand(100).requires_grad_()
    y = noise_of(torch.zeros(100, 2), variance, seed=1)
    state = torch.get_rng_state()
    first = torch.autograd.grad(y.square().sum(), variance, retain_graph=True)[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)  # whatever is drawn in between
    second = torch.autograd.grad(y.square().sum(), variance)[0]
    assert torch.equal(first, second)
    torch.testing.assert_close(
        first, y.detach().square().sum(-1) / variance.detach(), rtol=1e-5, atol=0
    )  # y = sqrt(v) e


@in_c
def test_seeds_hold_and_calls_differ() -> None:
    mean, variance = torch.zeros(5000, 2), torch.ones(5000)
    torch.manual_seed(4)
    first, second = (noisy(mean, variance) for _ in range(2))
    assert torch.equal(noise_of(mean, variance, seed=4), first)
    assert not (first == second).any(-1).any()
    assert abs((first * second).sum(-1).mean().item()) < 5 / math.sqrt(2 * 5000)
    assert not torch.equal(noise_of(mean, variance, seed=5), first)


@in_c
@pytest.mark.parametrize("place", [3, 70])
def test_variance_floor_and_nan(place: int) -> None:
    variance = torch.ones(71)
    variance[place], variance[place - 1], variance[place - 2] = math.nan, -1.0, 1e-12
    variance.requires_grad_()
    y = noise_of(torch.zeros(71, 2), variance, seed=0)
    y.sum().backward()
    eps = noise_of(torch.zeros(71, 2), torch.full((71,), 1.0), seed=0)
    assert y[place].isnan().all() and variance.grad[place].isnan()
    for floored in (place - 1, place - 2):
        torch.testing.assert_close(y[floored].detach(), eps[floored] * 1e-4, rtol=1e-6, atol=0)
        assert variance.grad[floored] == 0
    assert y.isnan().sum() == 2 and variance.grad.isnan().sum() == 1


@in_c
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (2, 3, 4, 5)], ids=str)
def test_with_noise_takes_the_c_functions_where_channels_are_last(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    call: Callable[..., None] = native.call
    monkeypatch.setattr(
        native, "call", lambda name, *rest: (called.append(name), call(name, *rest))[1]
    )
    rows = (shape[0], *shape[2:], shape[1])
    mean = torch.randn(rows, dtype=torch.complex64).movedim(-1, 1).requires_grad_()
    variance = torch.rand(rows).movedim(-1, 1).requires_grad_()
    torch.manual_seed(9)
    y = with_noise(mean, variance)
    by_mean, by_variance = torch.autograd.grad(y.real.sum() + 2 * y.imag.sum(), (mean, variance))
    assert called == ["noise_pairs", "dot_pairs"] and y.stride() == mean.stride()
    eps = (y - mean).detach() / variance.detach().sqrt()
    torch.testing.assert_close(by_mean, torch.full_like(mean, 1 + 2j))
    wanted = (eps.real + 2 * eps.imag) / (2 * variance.detach().sqrt())
    torch.testing.assert_close(by_variance, wanted, rtol=1e-4, atol=1e-4)
    called.clear()
    with_noise(
        mean.detach().contiguous(), variance.detach()
    )  # channels first in memory: plain, but for two axes
    assert called == (["noise_pairs"] if len(shape) == 2 else [])
