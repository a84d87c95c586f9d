"""Weights as whole numbers of steps, each step as coarse as its weight's posterior allows.

A kept weight w is stored as a whole number q of steps, a complex one as two, one for each part:

    w' = q s 2^-k    with |w' - w| <= sigma

s is the coarsest step of its stage, and k >= 0, the weight's class, the least for which half a step
(in both parts, of a complex one) is at most sigma. What is within a standard deviation of the
posterior is as good, so a weight gets the bits that its posterior leaves, log2 |w|/sigma or so.

Classes, numbers of steps, and distances from one kept weight to the next are coded by LZMA: an
adaptive range coder over bytes. It computes with whole numbers alone, and q s 2^-k is exact in
float32, so a file gives the same bits on every machine.

Reference: Louizos, Ullrich and Welling (2017), "Bayesian Compression for Deep Learning".
"""

import copy
import lzma
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cplxnet.nn.gaussian import GaussianWeight
from cplxnet.nn.masked import Masked

from .block import Stage
from .network import Compact, compact
from .read import WEIGHTED

SIGNIFICANT = 17  # bits of a weight's larger part, at most
FIXED = 10  # bits of the largest bias of a stage, and of the largest number of its mix
# Limits against hostile headers: of all numbers, and, where there are more than a few, of how many
# come to a byte. Zeros come 7000 to a byte, weights of 2 bits 4 or so.
MOST_KEPT = 2**23
MOST_A_BYTE = 64
FEW = 2**18
STREAMS = ("gaps", "classes", "values", "others")
WIDTHS = (1, 2, 4)  # bytes of a number
_LZMA = [  # short repetitions alone: longer ones are chance, and take time to look for
    {"id": lzma.FILTER_LZMA1, "dict_size": 2**20, "lc": 0, "pb": 0, "mf": lzma.MF_BT2, "depth": 1}
]


class NoPosterior(ValueError):
    """Bits as the posterior asks, of a network whose weights have none."""


# ---- how far a weight may be off ----------------------------------------------------------------


@torch.no_grad()
def posterior_sigma(
    model: nn.Module, posterior: nn.Module, *, threshold: float = -0.5
) -> list[Tensor]:
    """sigma of every weight of `compact(model, threshold=threshold)`.

    The network whose weights are the deviations is made compact under the same masks, so batch norm
    that is folded into a real weight scales its deviation too.

    Args:
        model: masked or variational.
        posterior: the variational network that `model` was made from, or `model` itself.
        threshold: of log_alpha, as in `compact`.

    Returns:
        For each stage a real tensor of its weight's shape, 0 where there is no weight.

    Raises:
        NoPosterior: a layer with weights has none.
    """
    layers = dict(posterior.named_modules())
    deviations = copy.deepcopy(model)
    masks = {}
    for name, layer in deviations.named_modules():
        if not isinstance(layer, WEIGHTED):
            continue
        gaussian = layers.get(name)
        if not isinstance(gaussian, GaussianWeight):
            raise NoPosterior(
                f"{name}: expected a posterior of every layer with weights, got none; "
                "try a number of bits"
            )

        kept = layer.weight != 0
        if isinstance(layer, Masked):
            kept &= layer.mask
        elif isinstance(layer, GaussianWeight):
            kept &= layer.relevance(threshold)
        masks[name] = kept
        layer.weight.copy_((gaussian.log_sigma2 / 2).exp().clamp_min(1e-30))  # not 0: it is kept

    small = compact(deviations, masks=masks, measure=False)
    return [stage.weight.abs() for stage in small.stages]


def sigma_for_bits(model: Compact, bits: float) -> list[Tensor]:
    """One sigma for all weights of a stage, so that a real number takes about `bits` bits.

    Normal numbers of standard deviation r in steps of s have the entropy

        log2(r/s) + log2(2 pi e)/2

    Args:
        model: what `compact` gives.
        bits: 2 to 16.

    Returns:
        For each stage a real tensor without axes.

    Raises:
        ValueError: another number of bits.
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"expected 2 to 16 bits for a number, got {bits}")

    sigmas = []
    for stage in model.stages:
        kept = real_numbers(stage.weight[stage.weight != 0])
        deviation = kept.square().mean().sqrt() if len(kept) else torch.ones(())
        step = deviation * math.sqrt(2 * math.pi * math.e) / 2**bits
        sigmas.append(step / _steps_of_sigma(stage.weight))
    return sigmas


def _steps_of_sigma(weight: Tensor) -> float:
    """The coarsest step, in sigmas, with which rounding is off by a sigma at most."""
    return math.sqrt(2) if weight.is_complex() else 2.0


# ---- weights as whole numbers -------------------------------------------------------------------


def quantise(weight: Tensor, sigma: Tensor) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """A stage's weight (out, in, k), off by sigma or 2^-SIGNIFICANT of itself at most.

    Of the steps s the one that takes the fewest bytes: with a fine one there are few classes to
    tell, with a coarse one numbers are small.

    Returns:
        s, of six significant bits, so that products with it are exact. Of each weight that does
        not come to 0 the dropped ones before it, in the order (in, k, out), and its class. The
        numbers of steps of the first class, then of the next, ..., without signs.
    """
    flat = weight.movedim(0, -1).flatten()
    position = flat.nonzero().flatten()
    parts = real_numbers(flat[position]).double().numpy().reshape(-1, 1 + weight.is_complex())
    size = np.abs(parts).max(1, initial=0)
    deviation = sigma.expand(weight.shape).movedim(0, -1).flatten()[position].double().numpy()
    allowed = (deviation * _steps_of_sigma(weight)).clip(size * 2.0**-SIGNIFICANT, 4 * size)

    def in_steps_of(step: float) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        classes = np.ceil(np.log2(step / allowed)).clip(0).astype(int)
        classes += np.ldexp(step, -classes) > allowed  # where the logarithm was rounded down
        values = np.rint(parts / np.ldexp(step, -classes)[:, None]).astype(int)

        kept = values.any(1)
        gaps = np.diff(position.numpy()[kept], prepend=-1) - 1
        by_class = np.argsort(classes[kept], kind="stable")
        return step, gaps, classes[kept], _signless(values[kept][by_class])

    if not len(position):
        return in_steps_of(1.0)
    quantiles = np.quantile(allowed, np.linspace(0, 1, 9) ** 3)  # most of them low: a few halved
    fraction, exponent = np.frexp(quantiles.clip(size.max() * 2.0**-SIGNIFICANT))
    steps = set(np.ldexp(np.floor(64 * fraction), exponent - 6).tolist())
    candidates = map(in_steps_of, sorted(steps))
    return min(candidates, key=lambda each: len(pack(each[2:3])) + len(pack(each[3:])))


def _fixed_point(x: Tensor) -> tuple[float, np.ndarray]:
    """A power of two and whole numbers of it, off by half of 2^-FIXED of the largest at most."""
    numbers = real_numbers(x).double().numpy().flatten()
    step = float(np.ldexp(1.0, np.frexp(np.abs(numbers).max(initial=0))[1] - FIXED))
    return step, np.rint(numbers / step).astype(int)


def real_numbers(z: Tensor) -> Tensor:
    """z itself, or a complex one as pairs (..., 2)."""
    return torch.view_as_real(z).contiguous() if z.is_complex() else z


# ---- a chain of stages as tensors of bytes, and back --------------------------------------------


def to_whole_numbers(
    stages: Sequence[Stage], sigmas: Sequence[Tensor]
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What a file has to say of each stage, and its tensors (see `file`)."""
    descriptions: list[dict[str, Any]] = []
    streams: dict[str, list[np.ndarray]] = {key: [] for key in STREAMS}
    for stage, sigma in zip(stages, sigmas, strict=True):
        step, *numbers = quantise(stage.weight, sigma)
        for key, part in zip(STREAMS, numbers, strict=False):
            streams[key].append(part)
        descriptions.append({"kept": len(numbers[0]), "step": step})

        for key, floats in (("bias", stage.bias), ("mix", stage.mix)):
            descriptions[-1][key] = None
            if floats is not None:
                descriptions[-1][key], others = _fixed_point(floats)
                streams["others"].append(_signless(others))

    n_kept = sum(stage["kept"] for stage in descriptions)
    if n_kept > MOST_KEPT:
        raise ValueError(f"expected {MOST_KEPT} kept weights at most, got {n_kept}")
    tensors = {key: pack(numbers) for key, numbers in streams.items()}
    check_claim(sum(map(np.size, streams["values"])), tensors["values"])
    return descriptions, tensors


def from_whole_numbers(
    descriptions: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> list[dict[str, Tensor | None]]:
    """The way back: of each stage positions (int64), values, bias, and mix or None (float32).

    ValueError: the tensors do not hold what is said of the stages.
    """
    kept = [stage["kept"] for stage in descriptions]
    sizes = {"gaps": kept, "classes": kept, "values": [], "others": []}
    for stage in descriptions:
        n_parts = 2 if stage["complex"] else 1
        n_units = stage["shape"][0]
        sizes["values"].append(n_parts * stage["kept"])
        sizes["others"] += [n_parts * n_units, 0 if stage["mix"] is None else 4 * n_units]

    if not 0 <= sum(kept) <= MOST_KEPT:
        raise ValueError(f"expected {MOST_KEPT} kept weights at most, got {kept}")
    check_claim(sum(sizes["values"]), tensors["values"])
    streams = {key: iter(unpack(tensors[key], sizes[key])) for key in STREAMS}
    return [_stage_numbers(stage, streams) for stage in descriptions]


def _stage_numbers(
    stage: Mapping[str, Any], streams: Mapping[str, Iterator[np.ndarray]]
) -> dict[str, Tensor | None]:
    n_parts = 2 if stage["complex"] else 1
    n_units = stage["shape"][0]
    size = math.prod(stage["shape"])
    position = (next(streams["gaps"]) + 1).cumsum() - 1
    if len(position) and position[-1] >= size:
        raise ValueError(f"expected positions below {size}, got {position[-1]}")

    classes = next(streams["classes"])
    values = _signed(next(streams["values"])).reshape(-1, n_parts)
    in_order = np.empty_like(values)
    in_order[np.argsort(classes, kind="stable")] = values
    scaled = np.ldexp(in_order.astype(np.float32), -classes[:, None])

    bias = _signed(next(streams["others"])).astype(np.float32).reshape(-1, n_parts)
    mix = _signed(next(streams["others"])).astype(np.float32).reshape(-1, 2, 2)
    as_stored = slice(None) if stage["complex"] else (slice(None), 0)
    return {
        "positions": torch.from_numpy(position % n_units * (size // n_units) + position // n_units),
        "values": _times(scaled, stage["step"])[as_stored],
        "bias": _times(bias, stage["bias"])[as_stored],
        "mix": None if stage["mix"] is None else _times(mix, stage["mix"]),
    }


def _times(numbers: np.ndarray, unit: Any) -> Tensor:
    if type(unit) is not float:
        raise ValueError(f"expected a unit of numbers, got {unit!r}")
    return torch.from_numpy(numbers) * unit


# ---- whole numbers as bytes ---------------------------------------------------------------------


def pack(numbers: Sequence[np.ndarray]) -> Tensor:
    """Whole numbers >= 0 as bytes (uint8): a width, then by LZMA all low bytes, all next, ..."""
    joined = np.concatenate([part.flatten() for part in numbers])
    width = next(w for w in WIDTHS if joined.max(initial=0) < 256**w)
    planes = joined.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    coded = lzma.compress(planes.tobytes(), lzma.FORMAT_RAW, filters=_LZMA)
    return torch.frombuffer(bytearray([width, *coded]), dtype=torch.uint8)


def check_claim(n: int, stored: Tensor) -> None:
    """Raise ValueError where so few bytes cannot be `n` numbers that anybody has packed."""
    most = FEW + MOST_A_BYTE * len(stored)
    if n > most:
        raise ValueError(f"expected {most} numbers at most in {len(stored)} bytes, got {n}")


def unpack(stored: Tensor, sizes: Sequence[int]) -> list[np.ndarray]:
    """The numbers that were packed, int64, in parts of these sizes; no more are decoded.

    ValueError: there are more, or fewer, or it is something else.
    """
    n = sum(sizes)
    width = int(stored[0])
    coded = stored[1:].numpy().tobytes()
    if width not in WIDTHS:
        raise ValueError(f"expected numbers of {WIDTHS} bytes, got {width}")

    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_LZMA)
    try:
        planes = decoder.decompress(coded, n * width + 1)
    except lzma.LZMAError as error:
        raise ValueError(f"expected {n} numbers, got {error}") from error
    if len(planes) != n * width or not decoder.eof:
        raise ValueError(f"expected {n} numbers, got {len(planes) / width:g}")

    by_number = np.frombuffer(planes, np.uint8).reshape(width, n).T
    numbers = np.ascontiguousarray(by_number).view(f"<u{width}").flatten().astype(np.int64)
    return np.split(numbers, np.cumsum(sizes)[:-1])


def _signless(numbers: np.ndarray) -> np.ndarray:
    """0, -1, 1, -2, 2, ... as 0, 1, 2, 3, 4, ..."""
    return np.where(numbers < 0, -2 * numbers - 1, 2 * numbers)


def _signed(numbers: np.ndarray) -> np.ndarray:
    """The way back."""
    return np.where(numbers % 2, -(numbers + 1) // 2, numbers // 2)
