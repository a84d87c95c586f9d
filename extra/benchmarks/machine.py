"""What the machine can do, measured, and the time that a step could not go below at that rate."""

import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cplxnet import nn as cplx

from .peers import ours

FLOP_PER_MAC = 8  # of complex numbers: four products and four sums
# a real number, float32: reads value, gradient and both moments, writes value and both moments
ADAM_BYTES = 28


class Limits(NamedTuple):
    matmul: float  # FLOP/s of a large float32 matrix product, the best of several
    copy: float  # bytes/s read and written by a large memory copy, the best of several


def limits(size: int = 3072, copy_mib: int = 512, *, repeats: int = 5) -> Limits:
    a, b = torch.randn(size, size), torch.randn(size, size)
    source = torch.ones(copy_mib << 18)
    out, target = torch.empty(size, size), torch.empty_like(source)
    product = _best(lambda: torch.mm(a, b, out=out), repeats)
    copied = _best(lambda: target.copy_(source), repeats)
    return Limits(2 * size**3 / product, 2 * source.nbytes / copied)


def _best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def complex_macs() -> int:
    """Complex multiply-adds of one window's forward pass, counted in the network itself."""
    model, counts = ours("").eval(), []

    def count(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        counts.append(
            output.numel() * layer.weight[0].numel()
        )  # a window's outputs times what each is a sum of

    for layer in model:
        if isinstance(layer, (cplx.CplxConv1d, cplx.CplxLinear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 1, 4096, dtype=torch.complex64))
    return sum(counts)


def floors(found: Limits, batch: int) -> dict[str, float]:
    """{work: seconds} at the full rate of products plus one pass of Adam; "train", "train VD",
    "train ARD", "evaluate".

    Backward takes twice the forward's products; the variance path, one real product where the mean
    has four, a quarter more.
    """
    forward = FLOP_PER_MAC * complex_macs() * batch / found.matmul
    numbers = {kind: sum(p.numel() for p in ours(kind).parameters()) for kind in ("", "VD")}
    dense = 3 * forward + ADAM_BYTES * numbers[""] / found.copy
    variational = 3 * 1.25 * forward + ADAM_BYTES * numbers["VD"] / found.copy
    return {"train": dense, "train VD": variational, "train ARD": variational, "evaluate": forward}


def description() -> str:
    """Processor, cores, threads and system."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
    except OSError:
        names = []
    name = names[0] if names else platform.processor()
    features = torch.backends.cpu.get_cpu_capability()
    return (
        f"{name} ({features}), {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{platform.system()}"
    )
