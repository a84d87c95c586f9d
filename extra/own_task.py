"""A task of one's own, for `extra/own_task.ipynb`: two spectral lines with a clue in them.

A task is a module with the names of `cplxnet.auto.tasks.Task`; what a run needs of them is here:
with imports some sixty lines for data, feature, networks and score, then the planted signals and
three manifests.
What tells class 1 from class 0, the clue, lies only in the relative phase of the lines, or only in
their amplitudes: a network that hears magnitudes can find the second alone.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cplxnet.musicnet.dataset import InOrder, OnePerRecording
from cplxnet.musicnet.features import surrogate
from cplxnet.musicnet.networks import FIELDS, KINDS, Network
from cplxnet.musicnet.scores import pooled_average_precision

WINDOW = 64  # samples of a signal
LINES = (9, 14)  # periods in a window: whole, so that neither line leaks into the other's magnitude
BATCH = 64  # signals that a training step draws


# -- data: replace `plant` by whatever writes your signals, float32 or complex64, and targets


def plant(path: Path, *, clue: str, n: int, seed: int, noise: float = 0.3) -> None:
    """Write n signals and their class; clue: "phase" or "amplitude"."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    phase = rng.uniform(0, 2 * np.pi, (n, 2))
    amplitude = rng.uniform(0.6, 1.4, (n, 2))
    if clue == "phase":
        phase[:, 1] = phase[:, 0] + np.pi * label + 0.3 * rng.standard_normal(n)
    else:
        amplitude.sort(axis=1)
        amplitude[label == 0] = amplitude[label == 0, ::-1]

    t = np.arange(WINDOW) / WINDOW
    waves = amplitude[..., None] * np.cos(2 * np.pi * np.outer(LINES, t) + phase[..., None])
    signal = waves.sum(1) + noise * rng.standard_normal((n, WINDOW))
    np.savez(path, signal=signal.astype(np.float32), target=label[:, None].astype(np.float32))


class Signals:
    """The signals (N, window) and targets (N, 1) of a file, in memory."""

    def __init__(self, path: Path, device: Any) -> None:
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        with np.load(path) as arrays:
            self.signal = torch.from_numpy(arrays["signal"]).to(device)
            self.target = torch.from_numpy(arrays["target"]).to(device)

    def __len__(self) -> int:
        return len(self.signal)

    def windows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[index], self.target[index]

    def targets(self, index: Tensor) -> Tensor:
        return self.target[index]

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        device = self.signal.device
        return self.windows(torch.randint(len(self), (BATCH,), generator=generator, device=device))

    def draws(self, n: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.draw(generator) for _ in range(n))


def open_dataset(path: Path, *, device: Any, **unused: Any) -> Signals:
    return Signals(path, device)


SAMPLERS = {"random": OnePerRecording, "in-order": InOrder}


# -- features: what a network hears of a signal

FEATURE_KINDS = {"spectrum": lambda signal: signal, "spectrum-random-phase": surrogate}


def features(signal: Tensor, kind: str, *, cplx: bool, shift: bool) -> Tensor:
    """(B, window), real or complex -> (B, 1, window), complex or the modulus."""
    spectrum = torch.fft.fft(FEATURE_KINDS[kind](signal), norm="ortho").unsqueeze(1)
    return spectrum if cplx else spectrum.abs()


# -- networks: each in every field and form, so that a manifest can train, sparsify and mask it


def lines_net(field: str, kind: str, *, length: int, in_channels: int, hidden: int = 32) -> Network:
    parts = FIELDS[field](kind)
    layers = {
        "flatten": nn.Flatten(),
        "fc1": parts.linear(in_channels * length, hidden),
        "relu": parts.relu(),
        "fc2": parts.linear(hidden, 1),
        "head": parts.head(),
    }
    return Network(layers, is_complex=field == "complex")


MODELS = {f"{f}.Lines{k}": functools.partial(lines_net, f, k) for f in FIELDS for k in KINDS}


def build(name: str, example: Tensor, **options: Any) -> Network:
    # a real network hears real and imaginary parts as two channels
    channels = example.shape[1] * (2 if example.is_complex() and name.startswith("real.") else 1)
    return MODELS[name](length=example.shape[2], in_channels=channels, **options)


# -- scores


def score_dataset(target: Tensor, logit: Tensor, dataset: Any, *, curves: bool) -> dict[str, Any]:
    return {
        "average_precision": pooled_average_precision(target, logit),
        "positive_share": float(target.mean()),
        "n_windows": len(target),
    }


# -- experiments: three networks, each dense, sparsified and masked

FILES = ("train", "valid", "test")


def lines(clue: str = "phase", *, n_batches: int = 40) -> dict[str, Any]:
    """A complex network, a real one on real and imaginary parts, and a real one on moduli."""
    template = {
        "schema": 1,
        "task": "lines",
        "name": f"lines, {clue}",
        "datasets": {name: {"file": f"{clue}-{name}.npz", "window": WINDOW} for name in FILES},
        "features": {"kind": "spectrum"},
        "feeds": {
            "train": {"dataset": "train", "sampler": "random", "n_batches": n_batches},
            "valid": {"dataset": "valid", "sampler": "in-order", "batch_size": 1000},
            "test": {"dataset": "test", "sampler": "in-order", "batch_size": 1000},
        },
        "scorers": {"validation": {"feed": "valid"}, "test": {"feed": "test"}},
        "objective_terms": {
            "loss": {"name": "bce_with_logits"},
            "kl_div": {"name": "kl", "coef": 1e-3},
        },
        "model": {"name": "complex.Lines"},
        "stages": {
            "dense": {
                "feed": "train",
                "n_epochs": 10,
                "objective": {"loss": 1.0},
                "optimizer": {"lr": 1e-2, "lr_log_sigma2": 5e-2},
                "lr_scheduler": {"name": "cosine"},
            },
            "sparsify": {
                "n_epochs": 10,
                "model": {"name": "complex.LinesVD"},
                "objective": {"loss": 1.0, "kl_div": 1.0},
            },
            "fine-tune": {
                "n_epochs": 5,
                "model": {"name": "complex.LinesMasked"},
                "objective": {"loss": 1.0},
            },
        },
        "stage_order": ["dense", "sparsify", "fine-tune"],
    }
    heard = {
        ("complex.Lines", True): "complex",
        ("real.Lines", True): "two-channel",
        ("real.Lines", False): "magnitudes",
    }
    models = ("model.name", "stages.sparsify.model.name", "stages.fine-tune.model.name")
    together = [(name, f"{name}VD", f"{name}Masked", cplx) for name, cplx in heard]
    return {
        "template": template,
        "grid": {(*models, "features.cplx"): together},
        "label": lambda varied: heard[varied["model.name"], varied["features.cplx"]],
    }


PRESETS = {"lines": lines}
