"""Everything there is to see on a GPU, in one command of a few minutes: `python -m extra.benchmarks.gpu [OUT]`.

Needs torch, Triton, numpy, h5py, pydantic and this checkout; cplxmodule and complextorch are timed too where they are
installed. Parts: the kernels' tests; whole networks against float64; bits again, by graph and after a kill; a step in
every form and precision; scoring; the hours of both grids. Each part can fail without the others. Prints as it goes,
writes gpu.json and gpu.md into OUT (default: the working directory).
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.auto.train.graph import Graphed
from cplxnet.musicnet import MusicNet, features
from cplxnet.musicnet.networks import MODELS
from cplxnet.nn.fast import gpu

from .noise import write_corpus

KINDS = {"dense": "", "masked": "Masked", "VD": "VD", "ARD": "ARD"}
PRODUCTS = ("float32", "tf32", "bfloat16")
C, CLIP, WINDOW = 0.01 * 1e-5, 0.05, 4096
GRIDS = {"experiment-1": (17, 5), "experiment-2": (6, 5)}  # values of C, replicates
EPOCHS = {"dense": 50, "VD": 75, "masked": 50}  # of each stage, 1000 batches each


# ---- what is trained -------------------------------------------------------------------------------------------------


class Training:
    """A whole step as the trainer makes it: draw, features, forward, loss, backward, KL, clip, Adam."""

    def __init__(self, dataset: MusicNet, kind: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.dataset = dataset
        self.network = network(kind)
        rate = torch.tensor(1e-3, device="cuda")
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=rate, fused=True, capturable=True
        )
        self.generator = torch.Generator("cuda").manual_seed(seed)
        self.scale = torch.tensor(C, device="cuda") if kind in ("VD", "ARD") else None

    def step(self) -> Tensor:
        signal, notes = self.dataset.draw(self.generator)
        x = features(signal, "fft", cplx=True, shift=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(self.network(x), notes)
        loss.backward()
        squares: dict[Any, Tensor] = {}
        kl = torch.zeros_like(loss)
        if self.scale is not None:
            kl = cplx.kl_backward(self.network, self.scale, "sum", squares)
        norm = cplx.clip_grad_norm_(self.network.parameters(), CLIP, squares)
        self.optimizer.step()
        return torch.stack((loss.detach(), kl, norm))

    def graphed(self) -> Graphed:
        return Graphed(self.step, torch.device("cuda"), [self.generator])


def network(kind: str) -> torch.nn.Module:
    """The complex DeepConvNet on the GPU; a masked one with a tenth of its weights."""
    net = MODELS[f"complex.DeepConvNet{KINDS[kind]}"]().cuda()
    for layer in net.modules():
        if kind == "masked" and hasattr(layer, "mask"):
            layer.mask = torch.rand_like(layer.mask, dtype=torch.float32) < 0.1
    return net


@contextmanager
def set_to(products: str, *, fused: bool = True) -> Iterator[None]:
    """Products of this precision, by the package's kernels or by the plain formulas."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = products == "tf32"
    gpu.use(fused)
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=products == "bfloat16"):
            yield
    finally:
        gpu.use(True)
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


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


# ---- parts -----------------------------------------------------------------------------------------------------------


def kernels() -> dict[str, Any]:
    """The tests of the kernels, on this GPU, and those marked cuda."""
    folders = ["tests/nn/fast/gpu", "tests/auto/train"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "--maxfail=20",
        "-m",
        "not slow",
        *folders,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    return {"passed": done.returncode == 0, "end": done.stdout[-1500:] + done.stderr[-500:]}


def error(value: Tensor, right: Tensor) -> float:
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    return ((wide - right).norm() / right.norm().clamp_min(1e-300)).item()


def networks(batch: int = 16) -> list[dict[str, Any]]:
    """Logits and gradients of whole networks against float64, beside those of the plain formulas in float32."""
    rows = []
    for kind in ("dense", "masked"):
        torch.manual_seed(0)
        net = network(kind)
        x = torch.randn(batch, 1, WINDOW, dtype=torch.complex64, device="cuda")
        notes = (torch.rand(batch, 84, device="cuda") < 0.05).float()

        def gradients(
            model: torch.nn.Module, x: Tensor = x, notes: Tensor = notes
        ) -> tuple[Tensor, dict[str, Tensor]]:
            model.zero_grad()
            y = model(
                x.to(
                    torch.complex128 if next(model.parameters()).dtype == torch.float64 else x.dtype
                )
            )
            F.binary_cross_entropy_with_logits(y.double(), notes.double()).backward()
            return y.detach(), {k: p.grad.clone() for k, p in model.named_parameters()}

        wide = network(kind)
        wide.load_state_dict(net.state_dict())
        right, right_grads = gradients(wide.double())
        for products, fused in [("float32", False), *((p, True) for p in PRODUCTS)]:
            with set_to(products, fused=fused):
                y, grads = gradients(net)
            errors = {k: error(g, right_grads[k]) for k, g in grads.items()}
            worst = max(errors, key=errors.__getitem__)
            row = {"kind": kind, "form": "fused" if fused else "plain", "products": products}
            row |= {"logits": error(y, right), "worst gradient": errors[worst], "of": worst}
            rows.append(row)
    return rows


def bits(dataset: MusicNet) -> dict[str, Any]:
    """A VD training of ten steps: again, by graph, from another seed."""

    def trained(seed: int, graph: bool) -> list[Any]:
        training = Training(dataset, "VD", seed)
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


def resumed(folder: Path) -> dict[str, Any]:
    """A run of two stages killed in the second and gone on with, against one that was not."""
    from extra.benchmarks.gpu_resume import compare

    return compare(folder)


def steps(dataset: MusicNet, forms: dict[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Milliseconds and memory of a step; forms: which precisions of which form."""
    rows = []
    for kind in KINDS:
        for form, precisions in forms.items():
            for products in precisions:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                row = {"batch": dataset.n_recordings, "kind": kind, "form": form}
                row["products"] = products
                try:
                    with set_to(products, fused=form != "plain"):
                        training = Training(dataset, kind)
                        step = training.graphed() if form == "graph" else training.step
                        row["ms"] = milliseconds(step)
                    row["GiB"] = torch.cuda.max_memory_allocated() / 2**30
                except Exception as fault:
                    row["failed"] = f"{type(fault).__name__}: {fault}"[:300]
                rows.append(row)
                print(row, flush=True)
    return rows


def peers(batch: int) -> list[dict[str, Any]]:
    """The same step by the other libraries, in float32."""
    them = importlib.import_module("extra.benchmarks.peers")
    rows = []
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
                        loss = loss + C * sum(peer.penalties(net))
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
                    adam.step()

                row["ms"] = milliseconds(step)
            except Exception as fault:
                row["failed"] = f"{type(fault).__name__}: {fault}"[:300]
            rows.append(row)
            print(row, flush=True)
    return rows


def scoring(dataset: MusicNet) -> list[dict[str, Any]]:
    """Windows a second through a network in eval mode, features included."""
    net = network("dense").eval()
    rows = []
    for batch in (768, 4096):
        signal, _ = dataset.windows(torch.arange(batch) % len(dataset))

        def score(signal: Tensor = signal) -> Tensor:
            return net(features(signal, "fft"))

        with torch.no_grad():
            ms = milliseconds(score)
        rows.append({"batch": batch, "ms": ms, "windows a second": batch / ms * 1e3})
    return rows


def bandwidth() -> float:
    """Gigabytes a second of a large copy, read and written."""
    source = torch.empty(1 << 28, device="cuda").normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) / 1e6


def hours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both grids with 1000 batches an epoch on one such card, dense stages trained once for each seed."""
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


# ---- the page --------------------------------------------------------------------------------------------------------


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


def corpus(folder: Path, n_recordings: int) -> MusicNet:
    """Recordings of noise, of some six seconds each, on the GPU."""
    path = folder / f"{n_recordings}.h5"
    write_corpus(path, seconds=6, n_recordings=n_recordings)
    return MusicNet(path, window=WINDOW, device="cuda")


def main(out: Path) -> None:
    torch.backends.cudnn.deterministic = True
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    folder = Path(tempfile.mkdtemp())
    large, small = (corpus(folder, n) for n in (321, 32))
    every = {"plain": ("float32", "tf32"), "fused": ("float32",), "graph": PRODUCTS}
    parts: dict[str, Callable[[], Any]] = {
        "copy": lambda: {"GB a second": bandwidth()},
        "steps": lambda: steps(large, every),
        "bits": lambda: bits(small),
        "networks": networks,
        "resumed": lambda: resumed(folder),
        "kernels": kernels,
        "small steps": lambda: steps(small, {"graph": PRODUCTS}),
        "scoring": lambda: scoring(large),
        "hours": lambda: hours(results["steps"]),
        "peers": lambda: peers(321),
    }
    for name, part in parts.items():
        began = time.time()
        try:
            results[name] = part()
        except Exception as fault:
            traceback.print_exc()
            results[name] = {"failed": f"{type(fault).__name__}: {fault}"[:500]}
        torch.cuda.empty_cache()
        print(f"== {name}, {time.time() - began:.0f} s: {results[name]}", flush=True)
        (out / "gpu.json").write_text(json.dumps(results, indent=1))
        (out / "gpu.md").write_text(page(results))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
