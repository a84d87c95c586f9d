"""The C functions against the plain formulas, float64 and Philox's published vectors; and how they are switched."""

import contextlib
import ctypes
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from test_kl import TERMS, at, every_term, log_fraction
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn.fast import native
from cplxnet.nn.gaussian import _VARIANCE_FLOOR, _PairNoise, with_noise
from cplxnet.nn.kl import Term, penalty, penalty_backward, penalty_sum
from cplxnet.nn.variational import with_square

has_compiler = (
    shutil.which(os.environ.get("CC", "cc")) is not None and os.environ.get("CPLXNET_NATIVE") != "0"
)
in_c = pytest.mark.skipif(not has_compiler, reason="no C compiler, or CPLXNET_NATIVE=0")

SHAPES = pytest.mark.parametrize(
    "n", [1, 63, 4095, 4096, 4097, 3 * 4096 + 17]
)  # blocks are of 4096


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """The plain formulas within."""
    native.use(False)
    try:
        yield
    finally:
        native.use(True)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """n threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summed(
    weight: Tensor, log_sigma2: Tensor, term: Term, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """`scale` times the KL sum, and its two gradients."""
    weight, log_sigma2 = weight.detach().requires_grad_(), log_sigma2.detach().requires_grad_()
    value = scale * penalty_sum(weight, log_sigma2, term)
    return value.detach(), *torch.autograd.grad(value, (weight, log_sigma2))


def in_double(weight: Tensor, log_sigma2: Tensor, term: Term) -> tuple[Tensor, Tensor, Tensor]:
    """The KL of every weight in float64 (test_kl holds it against mpmath), and the gradients of their sum."""
    weight, log_sigma2 = weight.double().requires_grad_(), log_sigma2.double().requires_grad_()
    values = penalty(weight, log_sigma2, term)
    return values.detach(), *torch.autograd.grad(values.sum(), (weight, log_sigma2))


# -- KL terms ----------------------------------------------------------------------------------------------------------


@in_c
@pytest.mark.parametrize("repeat", [1, 64])  # the loop's tail, and its vectors
@pytest.mark.parametrize("log_sigma2", [-20.0, 0.0, 3.0])
@pytest.mark.parametrize("name", TERMS)
def test_kl_value_and_gradients(name: str, log_sigma2: float, repeat: int) -> None:
    term, n = TERMS[name], torch.linspace(-30, 30, 121)
    weight, spread = at(n, term, log_sigma2)
    assert native.usable(weight, spread)
    values = [
        penalty_sum(w.repeat(repeat, 1), s.repeat(repeat), term)
        for w, s in zip(weight, spread, strict=True)
    ]
    wanted, by_weight, by_spread = in_double(weight, spread, term)
    torch.testing.assert_close(torch.stack(values).double() / repeat, wanted, rtol=1e-5, atol=0)
    _, *grads = summed(
        weight.repeat_interleave(repeat, 0), spread.repeat_interleave(repeat), term, 3.0
    )
    for grad, exact in zip(grads, (by_weight, by_spread), strict=True):
        torch.testing.assert_close(
            grad.double(), 3 * exact.repeat_interleave(repeat, 0), rtol=1e-6, atol=0
        )


@in_c
@pytest.mark.parametrize("name", TERMS)
def test_kl_value_against_mpmath(name: str) -> None:
    weight, spread = at(torch.linspace(-30, 30, 21), TERMS[name], 0.0)
    square = weight.double().square()
    for w, s, q in zip(weight, spread, square.sum(-1) if TERMS[name].cplx else square, strict=True):
        value = penalty_sum(w.repeat(16, 1), s.repeat(16), TERMS[name]).item() / 16
        assert value == pytest.approx(float(log_fraction(mpmath.mpf(float(q)), name)), rel=1e-5)


@in_c
@SHAPES
@every_term
def test_kl_sum_over_any_number_of_weights(term: Term, n: int) -> None:
    weight, spread = torch.randn((n, 2) if term.cplx else (n,)), torch.randn(n) * 3
    values, by_weight, by_spread = in_double(weight, spread, term)
    value, *grads = summed(weight, spread, term)
    assert value.item() == pytest.approx(values.sum().item(), rel=1e-6)
    torch.testing.assert_close(
        [g.double() for g in grads], [by_weight, by_spread], rtol=1e-5, atol=1e-12
    )


@in_c
@pytest.mark.parametrize("n", [1, 71, 2 * native.BLOCK + 5])
@pytest.mark.parametrize("scale", [1.0, -2.5e-5])
@every_term
def test_one_pass_adds_what_two_give(term: Term, scale: float, n: int) -> None:
    weight, spread = torch.randn((n, 2) if term.cplx else (n,)), torch.randn(n) * 3
    for place, extreme in enumerate((-1000.0, -69.0, 1000.0, math.inf, math.nan)[: n // 8]):
        spread[7 * place] = extreme
    value, *grads = summed(weight, spread, term)
    parameters = nn.Parameter(weight), nn.Parameter(spread)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    got = penalty_backward(*parameters, term, torch.tensor(scale))
    torch.testing.assert_close(got, value, rtol=1e-6, atol=0, equal_nan=True)
    for parameter, grad in zip(parameters, grads, strict=True):
        torch.testing.assert_close(
            parameter.grad, 1 + scale * grad, rtol=2e-6, atol=1e-6, equal_nan=True
        )


@in_c
@pytest.mark.parametrize("n", [1, 71, 513, 2 * native.BLOCK + 5])
@every_term
def test_one_pass_gives_the_sums_of_squares_of_the_gradients_it_leaves(term: Term, n: int) -> None:
    parameters = (
        nn.Parameter(torch.randn((n, 2) if term.cplx else (n,))),
        nn.Parameter(torch.randn(n) * 3),
    )
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    squares: dict[nn.Parameter, Tensor] = {}
    penalty_backward(*parameters, term, torch.tensor(0.3), squares)
    assert list(squares) == list(parameters)
    for parameter, found in squares.items():
        assert parameter.grad is not None and found.dtype == torch.float64
        assert found.item() == pytest.approx(
            parameter.grad.double().square().sum().item(), rel=1e-6
        )
    squares.clear()
    with plain():
        penalty_backward(*parameters, term, torch.tensor(0.3), squares)
    assert not squares  # that would be a pass of its own


@in_c
@every_term
def test_without_gradients_to_add_to_one_pass_makes_them(term: Term) -> None:
    weight, spread = torch.randn((71, 2) if term.cplx else (71,)), torch.randn(71)
    value, *grads = summed(weight, spread, term)
    parameters = nn.Parameter(weight), nn.Parameter(spread)
    assert torch.equal(penalty_backward(*parameters, term, torch.tensor(1.0)), value)
    assert all(
        torch.equal(parameter.grad, grad) for parameter, grad in zip(parameters, grads, strict=True)
    )


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


@in_c
def test_kl_sum_of_many_small_terms_is_accurate() -> None:
    # equal terms of about 1e-3 round alike: a float32 sum over a whole block is off by 3e-6
    weight, spread = at(torch.full((1 << 21,), -7.0), TERMS["complex-vd"])
    one = penalty(weight[:1].double(), spread[:1].double(), TERMS["complex-vd"]).item()
    assert penalty_sum(weight, spread, TERMS["complex-vd"]).item() == pytest.approx(
        one * 2**21, rel=1e-6
    )


@in_c
@every_term
def test_kl_of_no_weights(term: Term) -> None:
    value, *grads = summed(torch.empty((0, 2) if term.cplx else (0,)), torch.empty(0), term)
    assert value.item() == 0.0 and [g.numel() for g in grads] == [0, 0]


@in_c
@every_term
@pytest.mark.parametrize("log_sigma2", [-1000.0, -100.0, -69.0, -30.0, 0.0, 60.0, 1000.0])
@pytest.mark.parametrize("modulus", [0.0, 1e-3, 1.0, 1e3])
def test_kl_at_the_ends(term: Term, log_sigma2: float, modulus: float) -> None:
    weight, spread = (
        torch.full((19, 2) if term.cplx else (19,), modulus),
        torch.full((19,), log_sigma2),
    )
    value, *grads = summed(weight, spread, term)
    with plain():
        wanted, *by_plain = summed(weight, spread, term)
    torch.testing.assert_close(value, wanted, rtol=2e-6, atol=0)
    torch.testing.assert_close(grads, by_plain, rtol=2e-6, atol=1e-29)
    values, *by_double = in_double(weight, spread.clamp(-200), term)  # float64 counts down to -300
    values += (-200 - spread.double()).clamp_min(0) * term.far * (modulus > 0)
    assert value.item() == pytest.approx(values.sum().item(), rel=2e-6)
    torch.testing.assert_close([g.double() for g in grads], by_double, rtol=2e-6, atol=1e-29)
    assert modulus or (value == 0 and not grads[0].any())


@in_c
@every_term
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "log_sigma2"])
@pytest.mark.parametrize("place", [5, 70])  # of 71: in a vector, and in the tail
def test_nan_and_infinity_show(term: Term, bad: float, where: str, place: int) -> None:
    weight, spread = torch.randn((71, 2) if term.cplx else (71,)), torch.randn(71)
    clean = summed(weight, spread, term)
    (weight if where == "weight" else spread)[place] = bad
    got = summed(weight, spread, term)
    with plain():
        wanted = summed(weight, spread, term)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=0, equal_nan=True)
    if math.isnan(bad):
        assert got[0].isnan() and all(g[place].isnan().all() for g in got[1:])
    others = torch.arange(71) != place
    assert all(torch.equal(g[others], c[others]) for g, c in zip(got[1:], clean[1:], strict=True))


@in_c
def test_nan_in_one_part_only_shows_in_both() -> None:
    weight, spread = torch.randn(71, 2), torch.randn(71)
    weight[3, 0], weight[70, 1] = math.nan, math.nan
    for term in (TERMS["complex-vd"], TERMS["complex-ard"]):
        value, by_weight, by_spread = summed(weight, spread, term)
        assert (
            value.isnan() and by_weight[[3, 70]].isnan().all() and by_spread[[3, 70]].isnan().all()
        )
        assert by_weight.isnan().sum() == 4 and by_spread.isnan().sum() == 2


@in_c
@every_term
@pytest.mark.parametrize("scale", [0.0, -2.5, math.nan, math.inf])
def test_the_upstream_gradient_is_a_factor(term: Term, scale: float) -> None:
    weight, spread = torch.randn((37, 2) if term.cplx else (37,)), torch.randn(37)
    one, times = summed(weight, spread, term)[1:], summed(weight, spread, term, scale)[1:]
    torch.testing.assert_close(
        times, tuple(scale * g for g in one), rtol=1e-6, atol=0, equal_nan=True
    )


@in_c
@every_term
def test_other_layouts_and_types_take_the_plain_formula(term: Term) -> None:
    weight, spread = torch.randn((6, 8, 2) if term.cplx else (6, 8)), torch.randn(6, 8)
    wanted = summed(weight, spread, term)
    turned = weight.transpose(0, 1).contiguous().transpose(0, 1)
    assert (
        not native.usable(turned)
        and not native.usable(spread.double())
        and not native.usable(spread.to("meta"))
    )
    torch.testing.assert_close(summed(turned, spread, term), wanted, rtol=2e-6, atol=0)


@in_c
def test_kl_sum_without_gradients() -> None:
    net = nn.Sequential(
        cplx.CplxLinearVD(40, 30),
        cplx.CplxConv1dARD(3, 5, 4),
        cplx.LinearVD(20, 9),
        cplx.Conv1dARD(2, 3, 4),
    )
    with torch.no_grad():
        for layer in net:
            layer.log_sigma2.normal_(-2, 2)
    wanted = cplx.kl_sum(net)
    exact = sum(p.double().sum() for p in cplx.named_penalties(net).values())
    assert wanted.requires_grad and wanted.item() == pytest.approx(exact.item(), rel=1e-6)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value = cplx.kl_sum(net)
        assert not value.requires_grad and torch.equal(value, wanted.detach())


# -- threads -----------------------------------------------------------------------------------------------------------


@in_c
def test_torchs_number_of_threads_reaches_the_c_functions() -> None:
    library: ctypes.CDLL = native.library()
    for n in (1, 2):
        with threads(n):  # both run on one OpenMP library, or there would be two pools of threads
            assert library.omp_get_max_threads() == n


@in_c
def test_no_result_depends_on_the_number_of_threads() -> None:
    n = 40 * 4096 + 5
    weight, spread, mean = torch.randn(n, 2), torch.randn(n), torch.randn(n // 8, 8, 2)
    upstream, variance = torch.randn_like(mean), torch.rand(n // 8, 8)

    def everything() -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        layer, inputs = cplx.CplxBatchNorm1d(8), torch.view_as_complex(mean).requires_grad_()
        means, spreads = mean.clone().requires_grad_(), variance.clone().requires_grad_()
        noisy, normed = _PairNoise.apply(means, spreads)[0], torch.view_as_real(layer(inputs))
        noise = torch.autograd.grad(noisy, (means, spreads), upstream)
        norm = torch.autograd.grad(normed, (inputs, *layer.parameters()), upstream)
        kls = (
            v
            for term in (TERMS["complex-vd"], TERMS["complex-ard"])
            for v in summed(weight, spread, term)
        )
        kls_real = (
            v
            for term in (TERMS["real-vd"], TERMS["real-ard"])
            for v in summed(weight[:, 0] + 0, spread, term)
        )
        return noisy.detach(), normed.detach(), *noise, *norm, *kls, *kls_real, *layer.buffers()

    with threads(1):
        one = everything()
    with threads(2):
        two = everything()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# -- noise -------------------------------------------------------------------------------------------------------------


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of uint32 counters (..., 4) (Salmon, Moraes, Dror and Shaw 2011, section 3.3)."""
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
        _VARIANCE_FLOOR,
        words,
        out,
        torch.empty(n, 2),
    )
    return out.double().numpy()


@in_c
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_philox_in_c(key: tuple[int, int]) -> None:
    counters = np.random.default_rng(0).integers(0, 1 << 32, (1000, 4), np.uint32)
    words = torch.from_numpy(counters.view(np.int32).copy())
    native.call(
        "philox_words", len(words), words, torch.from_numpy(np.array(key, np.uint32).view(np.int32))
    )
    assert np.array_equal(words.numpy().view(np.uint32), philox4x32(counters, key))


def xoshiro128pp(state: np.ndarray, n: int) -> np.ndarray:
    """n words (n, ...) of xoshiro128++ generators of states (4, ...) (Blackman and Vigna 2021, figure 4)."""
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
def test_xoshiro_in_c() -> None:
    states = np.random.default_rng(1).integers(0, 1 << 32, (4, 8), np.uint32)
    words = torch.empty(50, 8, dtype=torch.int32)
    native.call("xoshiro_words", 50, torch.from_numpy(states.view(np.int32)), words)
    assert np.array_equal(words.numpy().view(np.uint32), xoshiro128pp(states, 50))


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


def noise_of(mean: Tensor, variance: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return _PairNoise.apply(mean, variance)[0]


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
    first, second = (_PairNoise.apply(mean, variance)[0] for _ in range(2))
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


# -- the switch, and machines without a compiler -----------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own and nothing compiled yet; all as before afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    native.library.cache_clear()
    native.use(True)
    yield tmp_path
    native.library.cache_clear()
    native.use(os.environ.get("CPLXNET_NATIVE", "1") != "0")


def warned() -> list[str]:
    """Use the KL three times, check its value, and give the warnings."""
    weight, spread = at(torch.zeros(100), TERMS["complex-ard"], 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert penalty_sum(weight, spread, TERMS["complex-ard"]).item() == pytest.approx(
                100 * math.log(2), rel=1e-5
            )
    return [str(w.message) for w in caught]


WITHOUT = "the C functions of cplxnet cannot be compiled, training will be slower: "


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CC", "/nonexistent/cc", "no C compiler found"),
        ("PATH", "", "no C compiler found"),
        ("CC", "false", "returned non-zero exit status 1"),
        ("CC", "true", "No such file"),  # says it worked, makes nothing
    ],
)
def test_without_a_working_compiler_one_warning(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "PATH":
        monkeypatch.delenv("CC", raising=False)
    (message,) = warned()
    assert message.startswith(WITHOUT) and reason in message and "CPLXNET_NATIVE=0" in message
    assert not native.usable(torch.ones(1))
    assert not list(fresh.rglob("*.so"))


@in_c
def test_a_compiler_that_complains_is_quoted(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", [*native.FLAGS, "-fno-such-flag"])
    (message,) = warned()
    assert message.startswith(WITHOUT) and "-fno-such-flag" in message


@in_c
def test_made_once_and_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned() == [] and native.usable(torch.ones(1))
    (made,) = (p for p in (fresh / "cache").rglob("*") if p.is_file())
    before = made.stat().st_mtime_ns
    native.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)  # not called again
    assert warned() == [] and made.stat().st_mtime_ns == before
    assert [p.name for p in made.parent.iterdir()] == [made.name]


@in_c
def test_a_cache_that_cannot_be_made(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "file").touch()
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(fresh / "file")
    )  # a folder cannot be made in it, not even by root
    assert warned() == [] and native.usable(torch.ones(1))


@in_c
def test_a_cache_that_cannot_be_written(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access  # root may write anywhere, whatever chmod says
    monkeypatch.setattr(
        os, "access", lambda path, mode, **rest: not mode & os.W_OK and access(path, mode, **rest)
    )
    assert warned() == [] and native.usable(torch.ones(1))
    assert not list((fresh / "cache").rglob("*.so")) and len(list(fresh.rglob("*.so"))) == 1


@in_c
def test_no_home_folder(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib says it

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    assert warned() == [] and native.usable(torch.ones(1))


@in_c
def test_torch_compile_takes_the_plain_formulas() -> None:
    layer = cplx.CplxLinearVD(7, 5)
    x = torch.randn(3, 7, dtype=torch.complex64)

    def step(x: Tensor) -> Tensor:
        return layer(x).abs().square().sum() + cplx.kl_sum(layer)

    compiled = torch.compile(step, backend="eager")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        got = torch.autograd.grad(compiled(x), list(layer.parameters()))
    with plain():
        torch.manual_seed(1)
        wanted = torch.autograd.grad(step(x), list(layer.parameters()))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


SCRIPT = """
import sys, warnings, torch
warnings.simplefilter("error")
from cplxnet.nn import kl
from cplxnet.nn.fast import native
x = torch.ones(10000, 2)
value = kl.penalty_sum(x, torch.zeros(10000), kl.COMPLEX_ARD)
print(native.usable(x), native.library.cache_info().currsize, value.item())
"""


def started(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_environment_switches_them_off(tmp_path: Path) -> None:
    out, error = started(CPLXNET_NATIVE="0", XDG_CACHE_HOME=str(tmp_path)).communicate(timeout=120)
    off, tried, value = out.split()
    assert (off, tried, error) == ("False", "0", "") and not list(tmp_path.iterdir())
    assert float(value) == pytest.approx(10000 * math.log(3), rel=1e-6)


@in_c
def test_processes_that_compile_at_once_do_not_clash(tmp_path: Path) -> None:
    both = [started(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    for process in both:
        out, error = process.communicate(timeout=120)
        on, _, value = out.split()
        assert (on, error) == ("True", "") and float(value) == pytest.approx(
            10000 * math.log(3), rel=1e-6
        )
    assert len(list((tmp_path / "cplxnet").iterdir())) == 1
