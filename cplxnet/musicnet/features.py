"""What a network hears: the raw window, its Fourier or its short-time Fourier transform."""

import json
import math
import reprlib
from collections.abc import Callable
from typing import Any

import torch

LONGEST_WINDOW = 1 << 20  # samples, a minute and a half: what a file states beyond is a fault
STFT_WINDOW = 120  # samples of the Hann window
STFT_HOP = 60  # samples between two of them, 5.5 ms at 11 kHz


def _raw(signal: torch.Tensor, shift: bool) -> torch.Tensor:
    return torch.complex(signal, torch.zeros_like(signal)).unsqueeze(1)


def _fft(signal: torch.Tensor, shift: bool) -> torch.Tensor:
    n = signal.shape[-1]
    if shift and n % 2 == 0:
        # times (-1)^t moves every frequency by n/2. For 32 x 4096 on one core this takes 0.23 ms,
        # an fftshift of the result 0.38, an rfft mirrored by hand 0.27
        return torch.fft.fft(_alternated(signal)).unsqueeze(1)

    spectrum = torch.fft.fft(signal).unsqueeze(1)
    return torch.fft.fftshift(spectrum, dim=-1) if shift else spectrum


def _alternated(signal: torch.Tensor) -> torch.Tensor:
    """The signal times 1, -1, 1, ...; on a GPU in two kernels in place of three."""
    if signal.device.type == "cpu":
        signs = signal.new_ones(signal.shape[-1])
        signs[1::2].neg_()
        return signal * signs
    return torch.stack((signal[..., ::2], -signal[..., 1::2]), -1).flatten(-2)


def _stft(signal: torch.Tensor, shift: bool) -> torch.Tensor:
    # zeros up to a whole number of hops, so that no sample is left out
    signal = torch.nn.functional.pad(signal, (0, -signal.shape[-1] % STFT_HOP))
    hann = torch.hann_window(STFT_WINDOW, device=signal.device, dtype=signal.dtype)  # periodic

    # centred on multiples of the hop
    return torch.stft(
        signal, STFT_WINDOW, STFT_HOP, window=hann, pad_mode="constant", return_complex=True
    )


def _fft_random_phase(signal: torch.Tensor, shift: bool) -> torch.Tensor:
    return _fft(surrogate(signal), shift)


def surrogate(signal: torch.Tensor) -> torch.Tensor:
    """Signals (B, window) whose spectra have the moduli of the given ones, and random phases.

    What a network learns from them it learns from moduli. The phases of a window follow from its
    samples, so that it has the same ones whenever and wherever it is scored.

    Reference: Theiler et al. (1992), "Testing for nonlinearity in time series: the method of
    surrogate data", section 2.4.1.
    """
    n = signal.shape[-1]
    moduli = torch.fft.rfft(signal).abs()

    phase = 2 * math.pi * _uniform_from(signal, moduli.shape[-1]).to(moduli.dtype)
    phase[:, 0] = 0  # real, as at the last frequency where n is even
    if n % 2 == 0:
        phase[:, -1] = 0
    return torch.fft.irfft(torch.polar(moduli, phase), n)


def _uniform_from(signal: torch.Tensor, n: int) -> torch.Tensor:
    """(B, n) numbers in [0, 1), float64, from the bits of each float32 signal (B, window).

    Whole numbers wrap at 64 bits, so every device has the same. A sum of the samples' bits, with
    another odd factor each, starts SplitMix64 (Steele, Lea and Flood 2014).
    """
    bits = signal.float().view(torch.int32).long()
    odd = 2 * torch.arange(signal.shape[-1], device=signal.device) + 1
    start = (bits * odd).sum(-1, keepdim=True)

    x = start + torch.arange(1, n + 1, device=signal.device) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((x >> 11) & ((1 << 53) - 1)).double() / 2**53


# name -> function of (signal (B, window), shift) to a complex (B, C, L)
FEATURE_KINDS: dict[str, Callable[[torch.Tensor, bool], torch.Tensor]] = {
    "raw": _raw,
    "fft": _fft,
    "stft": _stft,
    "fft-random-phase": _fft_random_phase,
}


def features(
    signal: torch.Tensor, kind: str = "fft", cplx: bool = True, shift: bool = True
) -> torch.Tensor:
    """Features (B, C, L) of windows, on the signal's device and in its precision.

    - `raw`: the signal with imaginary part 0, (B, 1, window).
    - `fft`: X_k = sum_t x_t exp(-2 pi i k t / window), unnormalised, (B, 1, window). With `shift`
      frequency zero is at `window // 2`, otherwise at 0.
    - `stft`: a periodic Hann window of 120 samples, 60 overlapping, zeros beyond both ends. The
      frequencies are the channels: (B, 61, ceil(window / 60) + 1). It is 60 times (the sum of the
      Hann window) what `scipy.signal.stft` gives.
    - `fft-random-phase`: `fft` of the `surrogate`, which keeps the moduli alone.

    Args:
        signal: (B, window), float32 (complex64 results) or float64 (complex128).
        kind: one of `FEATURE_KINDS`.
        cplx: False for real networks: magnitudes, and for `raw` the signal itself, float. For real
            and imaginary parts as two channels take `as_channels(features(signal, kind))`.
        shift: for `fft` only.

    Raises:
        ValueError: an unknown kind, or a signal not of shape (B, window).
    """
    if kind not in FEATURE_KINDS:
        raise ValueError(
            f"expected a feature kind of {', '.join(sorted(FEATURE_KINDS))}, got {kind!r}"
        )

    if signal.ndim != 2 or not signal.is_floating_point():
        raise ValueError(
            f"expected a float signal of shape (B, window), got {signal.dtype} of shape "
            f"{tuple(signal.shape)}"
        )

    if not cplx and kind == "raw":
        return signal.unsqueeze(1)
    result = FEATURE_KINDS[kind](signal, shift)
    return result if cplx else result.abs()


def read_heard(text: str, where: str, **more: type) -> dict[str, Any]:
    """What a network hears, as a file says it.

    Args:
        text: JSON of `window` (samples), `rate_hz`, and `kind`, `cplx` and `shift` of the features.
        where: the file, for errors.
        more: further keys, each with its type.

    Raises:
        ValueError: no JSON; another key, type, kind or size.
    """
    types = {"window": int, "rate_hz": int, "kind": str, "cplx": bool, "shift": bool} | more
    try:
        heard = json.loads(text)
    except (ValueError, RecursionError):
        heard = text

    fits = isinstance(heard, dict) and {key: type(value) for key, value in heard.items()} == types
    fits = fits and heard["kind"] in FEATURE_KINDS
    fits = fits and 1 <= heard["window"] <= LONGEST_WINDOW and 1 <= heard["rate_hz"] <= 1_000_000
    if not fits:
        raise ValueError(
            f"{where}: expected what the network hears in its metadata ({', '.join(types)}), got "
            f"{reprlib.repr(heard)}; try `python -m cplxnet.auto export`"
        )

    return dict(heard)


def as_channels(z: torch.Tensor) -> torch.Tensor:
    """Complex (B, C, L) as real (B, 2C, L): the C real parts, then the C imaginary parts."""
    return torch.cat([z.real, z.imag], dim=1)
