"""Everything there is to see on a GPU, in one command of at most seven minutes: \
`python -m extra.benchmarks.gpu [OUT]`.

Needs torch, Triton, numpy, h5py, tqdm, safetensors, pytest and this checkout; on a bare machine
carry pydantic and what it needs, the wheels of pydantic, pydantic_core, annotated_types and
typing_inspection (`pip download --only-binary :all: pydantic`, for that machine's Python).
cplxmodule and complextorch are timed too where they are installed. Each part runs in a process of
its own for so many seconds at most, what nobody has seen yet first: a run resumed after a kill;
tests that need a GPU; a step in every form and precision, with its memory; where its time goes,
kernel by kernel; bits; a whole step against float64; scoring; the kernels' own tests; other
libraries. After each part gpu.json and gpu.md are written into OUT (default: the working
directory). A part that fails, or is cut off, keeps the rows it had and stops no other.
"""

import argparse
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from cplxnet import files
from cplxnet.auto.manifest.schema import Optimizer, Term
from cplxnet.auto.train import precision
from cplxnet.auto.train.graph import Graphed
from cplxnet.auto.train.loop import make_step
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.optim import make_optimizer
from cplxnet.auto.train.state import Feed
from cplxnet.musicnet import SAMPLERS, MusicNet, features
from cplxnet.musicnet.networks import MODELS
from cplxnet.nn import gaussian
from cplxnet.nn.fast import native

from . import gpu_resume
from .noise import write_corpus

KINDS = {"dense": "", "masked": "Masked", "VD": "VD", "ARD": "ARD"}
PRODUCTS = ("float32", "tf32", "bfloat16")
DEVICE = "cuda"
C, CLIP, WINDOW = 0.01, 0.05, 4096
TERMS = {"loss": Term(name="bce_with_logits"), "kl": Term(name="kl", coef=1e-5)}
GRIDS = {"experiment-1": (17, 5), "experiment-2": (6, 5)}  # values of C, replicates
# a step of 321 windows: what it moves (`extra.benchmarks.launches --whole`), and must move
MOVED_GB = {"dense": 3.90, "masked": 4.04, "VD": 6.86, "ARD": 6.86}
FLOOR_GB = {"dense": 3.0, "masked": 3.0, "VD": 4.0, "ARD": 4.0}
EPOCHS = {"dense": 50, "VD": 75, "masked": 50}  # of each stage, 1000 batches each


# ---- what is trained -----------------------------------------------------------------------------


class Training:
    """The trainer's own step: draw, features, forward, loss, backward, KL, clip, Adam.

    Args:
        kind: of `KINDS`.
        dataset: on the device of the network.
        seed: of weights, windows and noise.
    """

    def __init__(self, kind: str, dataset: MusicNet | None = None, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = network(kind).train()
        device = next(self.network.parameters()).device

        self.generator = torch.Generator(device).manual_seed(seed)
        sampler = SAMPLERS["one-per-recording"](dataset, self.generator)
        self.feed = Feed(sampler, functools.partial(features, kind="fft", cplx=True, shift=True))

        weights = {"loss": 1.0} | ({"kl": C} if kind in ("VD", "ARD") else {})
        objective = Objective(TERMS, weights, device=device)
        optimizer = make_optimizer(self.network, Optimizer(lr=1e-3))
        self.step_on = make_step(self.network, objective, optimizer, CLIP)

    def step(self) -> Tensor:
        """One step on a batch of its own: (loss, KL, norm of the gradient)."""
        return self.step_on(*self.feed.draw())

    def graphed(self) -> Graphed:
        return Graphed(self.step, torch.device(DEVICE), [self.generator])


def network(kind: str) -> torch.nn.Module:
    """The complex DeepConvNet on the GPU; a masked one with a tenth of its weights."""
    net = MODELS[f"complex.DeepConvNet{KINDS[kind]}"]().to(DEVICE)
    for layer in net.modules():
        if kind == "masked" and hasattr(layer, "mask"):
            layer.mask = torch.rand_like(layer.mask, dtype=torch.float32) < 0.1
    return net


@contextmanager
def set_to(products: str, *, fused: bool = True) -> Iterator[None]:
    """Products of this precision, by the package's kernels or by the plain formulas."""
    native.use(fused)
    try:
        with (
            precision.tf32(products == "tf32"),
            torch.autocast("cuda", torch.bfloat16, enabled=products == "bfloat16"),
        ):
            yield
    finally:
        native.use(True)


def milliseconds(step: Callable[[], Any], seconds: float = 0.3) -> float:
    """Median of five queues of calls, each timed by CUDA events."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    n = max(1, min(50, int(seconds / 5 / max(time.perf_counter() - began, 1e-5))))
    times = []
    for _ in range(5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(n):
            step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / n)
    return sorted(times)[2]


# ---- parts ---------------------------------------------------------------------------------------


def tests(*chosen: str) -> dict[str, Any]:
    """What pytest says of some tests on this GPU."""
    command = [sys.executable, "-m", "pytest", "--maxfail=20", "--continue-on-collection-errors"]
    command += chosen
    done = subprocess.run(command, capture_output=True, text=True)
    return {"passed": done.returncode == 0, "end": done.stdout[-1500:] + done.stderr[-500:]}


def error(value: Tensor, right: Tensor) -> float:
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    return ((wide - right).norm() / right.norm().clamp_min(1e-300)).item()


@contextmanager
def noise_kept(kept: list[Tensor]) -> Iterator[None]:
    """Append to `kept` the noise of each layer in turn, e ~ N(0, 1), (..., 2)."""
    from cplxnet.nn.fast.gpu import layers

    drawn_by_formula = gaussian._normal_like
    drawn_by_kernel = layers.noise_pairs

    def by_formula(parts: Tensor) -> Tensor:
        kept.append(drawn_by_formula(parts))
        return kept[-1]

    def by_kernel(mean: Tensor, variance: Tensor, key: Tensor) -> Tensor:
        # of mean 0 and variance 2: a deviation of 1 in each part
        e = drawn_by_kernel(torch.zeros_like(mean), torch.full_like(variance, 2.0), key)
        kept.append(e.movedim(-2, 1))  # kernels have channels last
        return drawn_by_kernel(mean, variance, key)

    with (
        mock.patch.object(gaussian, "_normal_like", by_formula),
        mock.patch.object(layers, "noise_pairs", by_kernel),
    ):
        yield


def noise_given(kept: list[Tensor]) -> Any:
    """Have the plain formulas take this noise, in this order."""
    noise = iter(kept)
    return mock.patch.object(gaussian, "_normal_like", lambda like: next(noise).to(like))


def whole_step(
    training: Training, x: Tensor, notes: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The numbers of a step on a batch, and by parameter the gradient (clipped) that it used."""
    before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
    loss, kl, norm = training.step_on(x, notes)

    after = dict(training.network.named_parameters())
    changes = [(p.detach() - before[name]).flatten() for name, p in after.items()]
    numbers = {"loss": loss, "KL": kl, "norm": norm, "change": torch.cat(changes)}
    return numbers, {name: p.grad for name, p in after.items()}


def against_float64(batch: int = 16) -> Iterator[dict[str, Any]]:
    """A whole step, from the network's input to Adam's change of the weights, against float64.

    That is the same step by the plain formulas, on the same noise. Beside our kernels' errors are
    those of the plain formulas in float32. Errors are relative: loss, KL and norm of the gradient;
    the change of all weights, where Adam's first step makes a number of any gradient one of the
    learning rate; and the gradient of the parameter that is furthest off.
    """
    for kind in KINDS:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(batch, 1, WINDOW, dtype=torch.complex64, generator=generator).to(DEVICE)
        notes = (torch.rand(batch, 84, generator=generator) < 0.05).float().to(DEVICE)

        for products, fused in [("float32", False), *((p, True) for p in PRODUCTS)]:
            training = Training(kind)
            wide = Training(kind)
            wide.network.double()

            noise: list[Tensor] = []
            with set_to(products, fused=fused), noise_kept(noise):
                numbers, gradients = whole_step(training, x, notes)
            with set_to("float32", fused=False), noise_given(noise):
                right, right_gradients = whole_step(wide, x.to(torch.complex128), notes.double())

            errors = {name: error(g, right_gradients[name]) for name, g in gradients.items()}
            worst = max(errors, key=errors.__getitem__)
            row = {"kind": kind, "form": "fused" if fused else "plain", "products": products}
            row |= {name: error(value, right[name]) for name, value in numbers.items()}
            yield row | {"worst gradient": errors[worst], "of": worst}


def bits(dataset: MusicNet) -> dict[str, Any]:
    """A VD training of ten steps: again, by graph, from another seed."""

    def trained(seed: int, graph: bool) -> list[Any]:
        training = Training("VD", dataset, seed)
        step = training.graphed() if graph else training.step
        values = [step().tolist() for _ in range(10)]
        return [values, *(p.detach().clone() for p in training.network.parameters())]

    def same(a: list[Any], b: list[Any]) -> bool:
        return a[0] == b[0] and all(torch.equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))

    first = trained(0, False)
    return {
        "again": same(first, trained(0, False)),
        "by graph": same(first, trained(0, True)),
        "another seed differs": not same(first, trained(1, True)),
        "loss, KL, norm": first[0][-1],
    }


def steps(
    dataset: MusicNet, forms: dict[str, tuple[str, ...]], kinds: tuple[str, ...] = tuple(KINDS)
) -> Iterator[dict[str, Any]]:
    """Milliseconds and memory of a step; forms: which precisions of which form."""
    for form, precisions in forms.items():
        for products in precisions:
            for kind in kinds:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                row = {"batch": dataset.n_recordings, "kind": kind, "form": form}
                row["products"] = products
                try:
                    with set_to(products, fused=form != "plain"):
                        training = Training(kind, dataset)
                        step = training.graphed() if form == "graph" else training.step
                        row["ms"] = milliseconds(step)
                    row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
                except Exception as fault:
                    row["failed"] = f"{type(fault).__name__}: {fault}"[:300]
                yield row


def kernel_times(
    step: Callable[[], Any], ms: float, n_steps: int = 10, most: int = 20
) -> list[dict[str, Any]]:
    """Launches and microseconds a step of each kernel, as torch's profiler sees them.

    Those of the `most` that take longest, then of all others together, and of the gaps: what a step
    takes without the profiler, `ms`, beyond its kernels.
    """
    on_gpu = DEVICE == "cuda"
    activity = (
        torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    )
    with torch.profiler.profile(activities=[activity], acc_events=True) as seen:
        for _ in range(n_steps):
            step()

    rows = []
    for event in seen.key_averages():
        us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if us > 0:
            launches = event.count / n_steps
            rows.append({"kernel": event.key[:60], "launches": launches, "us": us / n_steps})
    rows.sort(key=lambda row: -row["us"])

    others = {name: sum(row[name] for row in rows[most:]) for name in ("launches", "us")}
    gaps = 1e3 * ms - sum(row["us"] for row in rows)
    return [*rows[:most], {"kernel": "others"} | others, {"kernel": "gaps", "us": gaps}]


def profiled(dataset: MusicNet) -> Iterator[dict[str, Any]]:
    """Where the time of a captured step goes, dense and VD, in float32 and TF32."""
    for products in ("float32", "tf32"):
        for kind in ("dense", "VD"):
            with set_to(products):
                step = Training(kind, dataset).graphed()
                for row in kernel_times(step, milliseconds(step)):
                    yield {"kind": kind, "products": products} | row


def peers(batch: int) -> Iterator[dict[str, Any]]:
    """The same step by the other libraries, in float32."""
    them = importlib.import_module("extra.benchmarks.peers")
    signal = torch.randn(batch, WINDOW, device="cuda")
    notes = (torch.rand(batch, 84, device="cuda") < 0.05).float()
    for name in them.PEERS:
        for kind in ("", "VD", "ARD"):
            row = {"batch": batch, "kind": kind or "dense", "form": name, "products": "float32"}
            try:
                net = them.theirs(name, kind, them.ours(kind)).cuda().train()
                fused = not any(p.is_complex() for p in net.parameters())
                adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=fused or None)
                peer = them.PEERS[name]

                def step(net=net, adam=adam, peer=peer, kind=kind) -> None:
                    adam.zero_grad(set_to_none=True)
                    loss = F.binary_cross_entropy_with_logits(
                        net(peer.inputs(features(signal, "fft"))), notes
                    )
                    if kind:
                        loss = loss + 1e-5 * C * sum(peer.penalties(net))
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                    adam.step()

                row["ms"] = milliseconds(step)
            except Exception as fault:
                row["failed"] = f"{type(fault).__name__}: {fault}"[:300]
            yield row


def scoring(dataset: MusicNet) -> Iterator[dict[str, Any]]:
    """Windows a second through a network in eval mode, features included."""
    net = network("dense").eval()
    for batch in (768, 4096):
        signal, _ = dataset.windows(torch.arange(batch) % len(dataset))

        def score(signal: Tensor = signal) -> Tensor:
            return net(features(signal, "fft"))

        with torch.no_grad():
            ms = milliseconds(score)
        yield {"batch": batch, "ms": ms, "windows a second": batch / ms * 1e3}


def bandwidth() -> float:
    """Gigabytes a second of a large copy, read and written."""
    source = torch.empty(1 << 28, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) / 1e6


def hours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both grids with 1000 batches an epoch on one such card.

    Dense stages are trained once for each seed.
    """
    found = []
    for form in ("plain", "graph"):
        for products in PRODUCTS:
            ms = {
                row["kind"]: row["ms"]
                for row in rows
                if (row["form"], row["products"]) == (form, products) and "ms" in row
            }
            if not EPOCHS.keys() <= ms.keys():
                continue
            row = {"form": form, "products": products}
            for name, (values, seeds) in GRIDS.items():
                batches = {
                    k: 1000 * n * seeds * (1 if k == "dense" else values) for k, n in EPOCHS.items()
                }
                row[f"hours, {name}"] = sum(n * ms[k] for k, n in batches.items()) / 3.6e6
            found.append(row)
    return found


def rates(rows: list[dict[str, Any]], copied: float) -> list[dict[str, Any]]:
    """Rows of steps with the bytes a second of the kernels' forms, and the share of the floor.

    That is the time in which a copy (`copied` gigabytes a second) would move what must be moved.
    """
    found = []
    for row in rows:
        if "ms" in row and row["batch"] == 321:
            row = row | {"share of the floor": FLOOR_GB[row["kind"]] / copied * 1e3 / row["ms"]}
            if row["form"] != "plain":
                row |= {"GB a second": MOVED_GB[row["kind"]] / row["ms"] * 1e3}
        found.append(row)
    return found


# ---- the page ------------------------------------------------------------------------------------


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of rows with the same keys, three digits."""
    keys = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(cell(row.get(key, "")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def page(results: dict[str, Any]) -> str:
    text = [
        f"# On {results['card']}",
        "",
        f"torch {results['torch']}, `python -m extra.benchmarks.gpu`",
        "",
    ]
    for name, value in results.items():
        if isinstance(value, list):
            text += [f"## {name}", "", markdown(value), ""]
        elif isinstance(value, dict):
            text += [f"## {name}", "", *(f"- {key}: {item}" for key, item in value.items()), ""]
    return "\n".join(text)


# ---- parts, each in a process of its own ---------------------------------------------------------


def corpus(folder: Path, n_recordings: int) -> MusicNet:
    """Recordings of noise, of some six seconds each, on the GPU; made once."""
    path = folder / f"{n_recordings}.h5"
    if not path.exists():
        write_corpus(path, seconds=6, n_recordings=n_recordings)
    return MusicNet(path, window=WINDOW, device=DEVICE)


class Part(NamedTuple):
    """What a part gives, from a folder for its files, and its seconds at most.

    It gives a dict, or rows one by one.
    """

    limit_s: float
    results: Callable[[Path], Any]


TOTAL_S = 405
MARKED = ("tests/nn/fast/gpu", "tests/auto/train", "tests/musicnet/test_dataset.py")
EVERY = {"graph": PRODUCTS, "fused": ("float32",), "plain": ("float32", "tf32")}
PARTS = {
    "resumed": Part(90, gpu_resume.compare),
    "tests": Part(60, lambda _: tests("-m", "cuda", *MARKED)),
    "steps": Part(110, lambda folder: steps(corpus(folder, 321), EVERY)),
    "kernel by kernel": Part(25, lambda folder: profiled(corpus(folder, 321))),
    "bits": Part(30, lambda folder: bits(corpus(folder, 32))),
    "against float64": Part(30, lambda _: against_float64()),
    "scoring": Part(20, lambda folder: scoring(corpus(folder, 321))),
    "small steps": Part(40, lambda folder: steps(corpus(folder, 32), {"graph": PRODUCTS})),
    "copy": Part(15, lambda _: {"GB a second": bandwidth()}),
    "kernels": Part(60, lambda _: tests("-m", "not slow and not cuda", "tests/nn/fast/gpu")),
    "peers": Part(120, lambda _: peers(321)),
}


def keep_results(results: Any, target: Path) -> None:
    """Write a part's results as JSON, after every row where it gives rows."""
    if isinstance(results, dict):
        write(target, results)
        return

    rows: list[dict[str, Any]] = []
    for row in results:
        print(row, flush=True)
        rows.append(row)
        write(target, rows)


def write(target: Path, results: Any) -> None:
    files.write_text(target, json.dumps(results, indent=1))  # a NaN is a result here


def supervised(command: list[str], target: Path, limit_s: float) -> tuple[Any, str]:
    """Run a command for so many seconds at most.

    Returns:
        What it left in `target`, and what it said or how it failed.
    """
    if limit_s < 5:
        return None, "no time left"

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=limit_s)
            remark = (f"exit code {process.returncode}: " if process.returncode else "") + said[
                -800:
            ]
        except subprocess.TimeoutExpired:
            remark = f"cut off after {limit_s:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started

    return json.loads(target.read_text()) if target.exists() else None, remark


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _measure(out, Path(folder))


def _measure(out: Path, folder: Path) -> None:
    """Every part in turn, its rows by way of `folder`."""
    began = time.monotonic()
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    command = [sys.executable, "-m", "extra.benchmarks.gpu", str(folder), "--part"]
    for name, part in PARTS.items():
        started = time.monotonic()
        left = TOTAL_S - (started - began)
        target = folder / f"{name}.json"
        found, remark = supervised([*command, name], target, min(part.limit_s, left))
        if found is not None:
            results[name] = found
        if remark:
            results[f"{name}, remark"] = {"remark": remark}
        if name == "steps" and found:
            results["hours"] = hours(found)
        if name == "copy" and found:
            results["steps"] = rates(results.get("steps", []), found["GB a second"])
        seconds = time.monotonic() - started
        print(f"== {name}, {seconds:.0f} s: {remark or 'done'}", flush=True)
        write(out / "gpu.json", results)
        files.write_text(out / "gpu.md", page(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path())
    parser.add_argument("--part", choices=PARTS, help="this alone, its results into OUT")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("expected a CUDA GPU, got none; try a machine that has one")
    if given.part:
        with precision.deterministic():  # as runs are trained
            keep_results(PARTS[given.part].results(given.out), given.out / f"{given.part}.json")
    else:
        main(given.out)
