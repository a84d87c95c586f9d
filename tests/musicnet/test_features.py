"""Features against numpy.fft and scipy.signal in float64."""

import numpy as np
import pytest
import scipy.signal
import torch

from cplxnet.musicnet.features import FEATURE_KINDS, as_channels, features


@pytest.fixture
def signal() -> torch.Tensor:
    return torch.randn(5, 4096, dtype=torch.float64)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("n", [4096, 6, 7, 1])
def test_fft_against_numpy(shift, n):
    x = torch.randn(3, n, dtype=torch.float64)
    expected = np.fft.fft(x.numpy())
    expected = np.fft.fftshift(expected, axes=-1) if shift else expected
    got = features(x, "fft", shift=shift)
    assert got.shape == (3, 1, n) and got.is_contiguous()
    np.testing.assert_allclose(got[:, 0].numpy(), expected, rtol=0, atol=1e-11)
    magnitude = features(x, "fft", cplx=False, shift=shift)
    np.testing.assert_allclose(magnitude[:, 0].numpy(), np.abs(expected), rtol=0, atol=1e-11)


def test_fft_in_float32_is_as_exact_as_float32_allows(signal):
    got = features(signal.float(), "fft")
    expected = np.fft.fftshift(np.fft.fft(signal.float().numpy().astype(float)), axes=-1)
    assert got.dtype == torch.complex64
    assert np.abs(got[:, 0].numpy() - expected).max() < 1e-6 * np.abs(expected).max()


def test_shift_puts_frequency_zero_in_the_middle():
    assert features(torch.ones(1, 8), "fft").abs().flatten().tolist() == [0, 0, 0, 0, 8, 0, 0, 0]
    assert features(torch.ones(1, 8), "fft", shift=False).abs().flatten().tolist() == [
        8,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("n", [4096, 600, 121])
def test_stft_against_scipy(n):
    x = torch.randn(3, n, dtype=torch.float64)
    _, _, expected = scipy.signal.stft(x.numpy(), window="hann", nperseg=120, noverlap=60)
    got = features(x, "stft")
    assert got.shape == (3, 61, -(-n // 60) + 1)
    np.testing.assert_allclose(got.numpy(), 60 * expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        features(x, "stft", cplx=False).numpy(), 60 * np.abs(expected), rtol=0, atol=1e-11
    )


def test_stft_of_a_tone_is_loudest_in_its_channel():
    t = torch.arange(4096) / 11000
    loudest = features(torch.sin(2 * torch.pi * 917 * t)[None], "stft", cplx=False)[
        0, :, 1:-2
    ].argmax(0)
    assert (loudest == 10).all()  # 917 Hz of 11 000 / 120 = 91.7 Hz a channel


def test_raw(signal):
    got = features(signal.float(), "raw")
    assert got.shape == (5, 1, 4096) and got.dtype == torch.complex64
    assert torch.equal(got.real[:, 0], signal.float()) and not got.imag.any()
    assert torch.equal(features(signal, "raw", cplx=False)[:, 0], signal)


def splitmix64(start: int, n: int) -> list[float]:
    """The published generator, in Python's whole numbers."""
    mask, numbers = 2**64 - 1, []
    for k in range(1, n + 1):
        x = (start + k * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(((x ^ (x >> 31)) >> 11) / 2**53)
    return numbers


@pytest.mark.parametrize("n", [256, 255])
def test_random_phases_keep_the_moduli_alone(n):
    x = torch.randn(400, n, dtype=torch.float64).float().double()
    z, plain = features(x, "fft-random-phase", shift=False), features(x, "fft", shift=False)
    np.testing.assert_allclose(z.abs().numpy(), plain.abs().numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        z[..., 1:].numpy(), z[..., 1:].flip(-1).conj().resolve_conj().numpy(), atol=1e-9
    )  # of a real signal
    # the phase of each window and frequency is uniform, and tells nothing of the one that was
    turn = (z / plain)[:, 0, 1 : (n + 1) // 2]
    assert abs(turn.mean()) < 4 / np.sqrt(turn.numel())
    assert turn.mean(0).abs().max() < 4 / np.sqrt(400)
    assert turn.mean(1).abs().max() < 4.5 / np.sqrt(n / 2)
    # what two frequencies had in common is gone
    assert (turn[:, 0] * turn[:, 1].conj()).mean().abs() < 4 / np.sqrt(400)


def test_random_phases_are_those_of_the_window_wherever_it_is():
    x = torch.randn(6, 64)
    z = features(x, "fft-random-phase")
    assert torch.equal(z[2:3], features(x[2:3].clone(), "fft-random-phase"))
    bits = x[4].numpy().view(np.int32).astype(object)
    start = int(sum(int(b) * (2 * t + 1) for t, b in enumerate(bits)))
    expected = np.exp(2j * np.pi * np.array(splitmix64(start, 33)))
    alone = features(x[4:5], "fft-random-phase", shift=False)[0, 0, 1:32]
    np.testing.assert_allclose((alone / alone.abs()).numpy(), expected[1:32], atol=1e-4)


@pytest.mark.parametrize("kind", sorted(FEATURE_KINDS))
def test_precision_follows_the_signal(signal, kind):
    assert features(signal, kind).dtype == torch.complex128
    assert features(signal.float(), kind).dtype == torch.complex64
    assert features(signal.float(), kind, cplx=False).dtype == torch.float32


def test_as_channels(signal):
    z = features(signal, "stft")
    parts = as_channels(z)
    assert parts.shape == (5, 122, z.shape[-1])
    assert torch.equal(torch.complex(parts[:, :61], parts[:, 61:]), z)


def test_faults_are_named(signal):
    with pytest.raises(
        ValueError, match="expected a feature kind of fft, fft-random-phase, raw, stft, got 'cqt'"
    ):
        features(signal, "cqt")
    with pytest.raises(
        ValueError, match=r"shape \(B, window\), got torch.float64 of shape \(4096,\)"
    ):
        features(signal[0])
    with pytest.raises(ValueError, match=r"expected a float signal of shape .* got torch\.int64"):
        features(signal.long())
