"""Everything there is to see on a GPU, in one command of a few minutes: `python -m extra.benchmarks.gpu [OUT]`.

Needs torch, Triton, numpy, h5py and this checkout. Parts, each on its own and each able to fail without the others:
kernels against float64, whole networks against float64, steps in every form and precision, scoring. Prints as it goes;
writes gpu.json and gpu.md into OUT (default: the working directory).
"""

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.auto.train.graph import Graphed
from cplxnet.musicnet import MusicNet, features, recordings
from cplxnet.musicnet.networks import MODELS
from cplxnet.nn.fast import gpu

KINDS = {"dense": "", "masked": "Masked", "VD": "VD", "ARD": "ARD"}
C, CLIP, SAMPLES, WINDOW = 0.01 * 1e-5, 0.05, 11000 * 60, 4096


def corpus(folder: Path, n_recordings: int) -> Path:
    """A file of noise, a note in each recording."""
    path, rng = folder / f"{n_recordings}.h5", np.random.default_rng(0)
    labels = np.array([(10, SAMPLES // 2, 1, 60, 0.0, 1.0, b"Quarter")], recordings.LABELS)
    about = {"composer": "Noise", "composition": "Noise", "movement": "", "ensemble": "None"}
    every = [
        recordings.Recording(
            f"id_{1000 + k}",
            rng.standard_normal(SAMPLES // 10 + k).astype(np.float32),
            labels,
            **about,
        )
        for k in range(n_recordings)
    ]
    recordings.write(path, every, rate_hz=11000)
    return path


class Training:
    """A whole step as the trainer makes it: draw, features, forward, loss, backward, KL, clip, Adam."""

    def __init__(self, dataset: MusicNet, kind: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.dataset = dataset
        self.network = MODELS[f"complex.DeepConvNet{KINDS[kind]}"]().cuda()
        if kind == "masked":
            for layer in self.network.modules():
                if hasattr(layer, "mask"):
                    layer.mask = torch.rand_like(layer.mask, dtype=torch.float32) < 0.1
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
            kl = cplx.kl_backward(
                self.network, self.scale if gpu._state["on"] else C, "sum", squares
            )
        norm = cplx.clip_grad_norm_(self.network.parameters(), CLIP, squares)
        self.optimizer.step()
        return torch.stack((loss.detach(), kl, norm))


def milliseconds(step: Callable[[], Any], seconds: float = 0.4) -> float:
    """Median of repeated calls, each queue of them timed by CUDA events."""
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    torch.cuda.synchronize()
    n = max(3, min(50, int(seconds / 5 / max(time.perf_counter() - began, 1e-5))))
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


def set_products(products: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = products == "tf32"


def steps(dataset: MusicNet, label: str) -> list[dict[str, Any]]:
    rows = []
    for kind in KINDS:
        for form in ("plain", "fused", "graph"):
            for products in ("float32", "tf32", "bfloat16"):
                if form == "plain" and (products == "bfloat16" or label != "321"):
                    continue
                gpu.use(form != "plain")
                set_products(products)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                row = {"batch": label, "kind": kind, "form": form, "products": products}
                try:
                    with torch.autocast("cuda", torch.bfloat16, enabled=products == "bfloat16"):
                        training = Training(dataset, kind)
                        step = training.step
                        if form == "graph":
                            graphed = Graphed(step, torch.device("cuda"), [training.generator])
                            step = graphed
                        row["ms"] = milliseconds(step)
                        row["captured"] = form == "graph" and graphed._graph is not None
                    row["gib"] = torch.cuda.max_memory_allocated() / 2**30
                except Exception as error:
                    row["failed"] = f"{type(error).__name__}: {error}"[:300]
                    traceback.print_exc()
                rows.append(row)
                print(row, flush=True)
    gpu.use(True)
    set_products("float32")
    return rows


def error(value: Tensor, reference: Tensor) -> float:
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    return ((wide - reference).norm() / reference.norm().clamp_min(1e-300)).item()


def networks() -> list[dict[str, Any]]:
    """Logits and gradients of whole networks against float64 with the plain formulas, on the GPU."""
    rows = []
    for kind in ("dense", "masked"):
        for products in ("float32", "tf32", "bfloat16"):
            set_products(products)
            torch.manual_seed(0)
            net = MODELS[f"complex.DeepConvNet{KINDS[kind]}"]().cuda()
            if kind == "masked":
                for layer in net.modules():
                    if hasattr(layer, "mask"):
                        layer.mask = torch.rand_like(layer.mask, dtype=torch.float32) < 0.5
            reference = MODELS[f"complex.DeepConvNet{KINDS[kind]}"]().cuda()
            reference.load_state_dict(net.state_dict())
            reference.double()
            x = torch.randn(64, 1, 4096, dtype=torch.complex64, device="cuda")
            notes = (torch.rand(64, 84, device="cuda") < 0.05).float()
            with torch.autocast("cuda", torch.bfloat16, enabled=products == "bfloat16"):
                y = net(x)
            F.binary_cross_entropy_with_logits(y.float(), notes).backward()
            right = reference(x.to(torch.complex128))
            F.binary_cross_entropy_with_logits(right, notes.double()).backward()
            pairs = zip(net.named_parameters(), reference.parameters(), strict=True)
            grads = {key: error(p.grad, q.grad) for (key, p), q in pairs}
            worst = max(grads, key=grads.__getitem__)
            row = {
                "kind": kind,
                "products": products,
                "logits": error(y, right),
                "worst gradient": grads[worst],
                "of": worst,
            }
            rows.append(row)
            print(row, flush=True)
    set_products("float32")
    return rows


def noise() -> dict[str, Any]:
    """A VD step twice from one seed, fused and by graph: the same bits; another seed: others."""
    folder = tempfile.TemporaryDirectory()
    dataset = MusicNet(corpus(Path(folder.name), 8), window=WINDOW, device="cuda")

    def trained(seed: int, graph: bool) -> tuple[list[float], Tensor]:
        training = Training(dataset, "VD", seed)
        step = training.step
        if graph:
            step = Graphed(step, torch.device("cuda"), [training.generator])
        values = [step().clone() for _ in range(8)]
        weights = torch.cat([p.detach().flatten() for p in training.network.parameters()])
        return [v.tolist() for v in values], weights.clone()

    first, weights = trained(0, False)
    again, weights_again = trained(0, False)
    graphed, weights_graph = trained(0, True)
    other, _ = trained(1, True)
    return {
        "same bits again": first == again and bool((weights == weights_again).all()),
        "same bits by graph": first == graphed and bool((weights == weights_graph).all()),
        "other seed differs": first != other,
        "values": first[-1],
        "graph values": graphed[-1],
    }


def scoring(dataset: MusicNet) -> list[dict[str, Any]]:
    rows = []
    for batch in (768, 4096):
        net = MODELS["complex.DeepConvNet"]().cuda().eval()
        index = torch.arange(batch)
        signal, _ = dataset.windows(index % len(dataset))
        with torch.no_grad():
            ms = milliseconds(lambda: net(features(signal, "fft")))
        rows.append({"batch": batch, "ms": ms, "windows/s": batch / ms * 1e3})
        print(rows[-1], flush=True)
    return rows


def main(out: Path) -> None:
    torch.backends.cudnn.deterministic = True
    results: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }
    print(results, flush=True)
    folder = tempfile.TemporaryDirectory()
    datasets = {
        n: MusicNet(corpus(Path(folder.name), n), window=WINDOW, device="cuda") for n in (321, 32)
    }
    parts: dict[str, Callable[[], Any]] = {
        "networks": networks,
        "noise": noise,
        "steps": lambda: steps(datasets[321], "321"),
        "small": lambda: steps(datasets[32], "32"),
        "scoring": lambda: scoring(datasets[321]),
    }
    for name, part in parts.items():
        began = time.time()
        try:
            results[name] = part()
        except Exception as fault:
            traceback.print_exc()
            results[name] = {"failed": f"{type(fault).__name__}: {fault}"[:500]}
        print(
            f"{name}: {time.time() - began:.0f} s",
            results[name] if name == "noise" else "",
            flush=True,
        )
        (out / "gpu.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
