"""Dense, masked and compact networks: size on disk, time of a call, real-time factor of
transcribing.

`python -m extra.benchmarks.compact [--threads 2 1] [--batches 1 32 256] [--rates 10 30 50 100 200]
[--rounds 7] [--runs runs/demo] [--cpu-time] [--no-write]`: the complex DeepConvNet with masks by
magnitude for every rate of compression (one limit for the whole network, on random weights), and
with the masks of every fine-tuned run found. A table on stdout and in README.md. Each number of
threads is a process of its own, since the C functions take theirs from OMP_NUM_THREADS. The
real-time factor counts features and network, a frame every 128 samples. Engines: d dense, c CSR, r
sparse rows in C, by layer.

Times are wall clock, taken in turn, medians; `--cpu-time` gives seconds of the processor instead,
which is what can be compared on a busy machine (with one thread; with two they add up).
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.musicnet.export import OnnxNetwork, export_onnx
from cplxnet.musicnet.features import features
from cplxnet.musicnet.networks import MODELS
from cplxnet.nn.masked import Masked

from .machine import description
from .report import WRITERS, table, write
from .timing import in_turn

NAME = "complex.DeepConvNet"
WINDOW, HOP, RATE_HZ = (
    4096,
    128,
    11_000,
)  # samples a window, from one transcribed frame to the next, a second
TOLERANCE = 1e-5  # of the largest logit


class Case(NamedTuple):
    """A masked network in evaluation, and where its masks are from."""

    source: str
    net: nn.Module


def magnitude_masks(net: nn.Module, rate: float) -> dict[str, Tensor]:
    """Masks that keep the largest weights of the whole network, so many that its compression is
    `rate`.

    Raises ValueError where biases and batch norm alone are too many for it.
    """
    size = {name: layer.weight.detach().abs() for name, layer in _masked(net)}
    parts = 2 if next(iter(_masked(net)))[1].weight.is_complex() else 1
    total = sum(p.numel() for p in net.parameters())
    others = total - parts * sum(w.numel() for w in size.values())
    n_kept = int((total / rate - others) / parts)
    if n_kept < 1:
        raise ValueError(
            f"expected a compression below {total / others:.0f}, got {rate:g}: "
            "the rest is not masked"
        )
    limit = torch.cat([w.flatten() for w in size.values()]).topk(n_kept).values[-1]
    return {name: w >= limit for name, w in size.items()}


def _masked(net: nn.Module) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in net.named_modules() if isinstance(layer, Masked)]


@torch.no_grad()
def cases(rates: list[float], runs: Path) -> Iterator[Case]:
    for rate in rates:
        torch.manual_seed(0)
        net = MODELS[f"{NAME}Masked"]()
        for _ in range(3):
            net(example(8))  # batch norm's statistics
        cplx.deploy_masks(net, magnitude_masks(net, rate))
        yield Case("magnitude", net.eval())
    for snapshot in sorted(runs.glob("*/*-fine-tune.pt")):
        net = MODELS[f"{NAME}Masked"]()
        net.load_state_dict(torch.load(snapshot, weights_only=True)["model"])
        yield Case(snapshot.parent.name, net.eval())


def example(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return features(0.1 * torch.randn(batch, WINDOW, generator=generator), kind="fft")


@torch.inference_mode()
def measure(
    case: Case, batches: list[int], rounds: int, clock: Callable[[], float]
) -> Iterator[list[str]]:
    """A row of the table for each batch size. Raises RuntimeError where the networks disagree."""
    made = cplx.compact(case.net, batch_sizes=batches)
    rate, difference = cplx.compression(case.net, -0.5), disagreement(case.net, made)
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{case.source}: expected the same logits within {TOLERANCE}, got {difference:.1e}"
        )
    dense = MODELS[NAME]().eval()
    dense.load_state_dict(
        {k: v for k, v in case.net.state_dict().items() if not k.endswith(".mask")}
    )
    sizes = [n_bytes(made, dtype) for dtype in ("float32", "float16")]
    checkpoint = 4 * sum(p.numel() for p in dense.parameters())
    nets = {"dense": dense, "masked": case.net, "compact": made}
    onnx = {name: in_onnx(nets[name]) for name in ("dense", "compact")}
    for batch in batches:
        x, signal = example(batch), torch.randn(batch, WINDOW)
        calls: dict[str, Callable[[], object]] = {
            name: functools.partial(net, x) for name, net in nets.items()
        }
        calls |= {f"{name} ONNX": functools.partial(net, x) for name, net in onnx.items()}
        calls["features"] = functools.partial(features, signal, kind="fft")
        found = {
            name: statistics.median(values)
            for name, values in in_turn(calls, rounds, clock).items()
        }
        speed = (
            batch * HOP / RATE_HZ / (found["compact"] + found["features"])
        )  # seconds of music a second
        yield [
            case.source, f"{rate:.3g}", *(f"{checkpoint / size:.0f}" for size in sizes), str(batch),
            *(f"{1000 * found[name]:.3g}" for name in nets),
            f"{found['dense'] / found['compact']:.2f}",
            f"{found['dense ONNX'] / found['compact ONNX']:.2f}",
            f"{speed:.1f}", " ".join(name[0] for name in made.plan[batch]), f"{difference:.0e}",
        ]  # fmt: skip


@torch.inference_mode(False)
def in_onnx(net: nn.Module) -> OnnxNetwork:
    """The network's ONNX form as onnxruntime runs it, with as many threads as torch has."""
    with tempfile.TemporaryDirectory() as folder:
        return OnnxNetwork(export_onnx(net, Path(folder) / "net.onnx"))


def disagreement(net: nn.Module, made: nn.Module) -> float:
    x = example(16)
    expected = net(x)
    return float((made(x) - expected).abs().max() / expected.abs().max())


def n_bytes(made: cplx.Compact, dtype: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        cplx.save_compact(made, Path(folder) / "net", dtype=dtype)
        return (Path(folder) / "net").stat().st_size


HEAD = [
    "masks", "compression", "file, times smaller", "float16", "batch",
    "dense, ms", "masked, ms", "compact, ms", "dense/compact", "the same in onnxruntime",
    "times real time", "engines", "difference",
]  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    kind = "seconds of the processor" if arguments.cpu_time else "wall clock"
    print(
        f"\n{description()}; load average {os.getloadavg()[0]:.1f}; {kind}\n\n{table(HEAD, [])}",
        flush=True,
    )
    for case in cases(arguments.rates, arguments.runs):
        for row in measure(case, arguments.batches, arguments.rounds, clock):
            print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extra.benchmarks.compact", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="*", default=[10, 30, 50, 100, 200])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument(
        "--no-write", action="store_true", help="print, and leave README.md as it is"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        run(arguments)
        return
    said = [f"`{' '.join([WRITERS['compact'], *sys.argv[1:]])}`, {time.strftime('%Y-%m-%d')}.\n"]
    for threads in arguments.threads:
        command = [sys.executable, "-m", __spec__.name, *sys.argv[1:], "--here"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                said.append(line)
        if process.returncode:
            raise SystemExit(process.returncode)
    if not arguments.no_write:
        write("".join(said).strip(), section="compact")


if __name__ == "__main__":
    main()
