"""Kernels launched and bytes moved by a training step, counted on a device that is not there.

    python -m extra.benchmarks.launches [--json] [--whole] [--list KIND]

The device is torch's spare one (PrivateUse1) under FakeTensorMode: shapes and devices are followed,
nothing is computed. Every dispatched operation that is no view and no bare allocation counts as one
launch, an operation of cplxnet as many as it starts. Its bytes are those of its inputs and outputs,
each once, and of a gather what it takes. Two steps are counted, of 321 windows of 4096: from the
signal (features, forward, loss, backward and KL), and the trainer's whole one (draw and labels
before these, clipping and Adam after them). A value read back by the host would raise.
"""

import argparse
import collections
import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Optimizer, Term
from cplxnet.auto.train.loop import make_step
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.optim import make_optimizer
from cplxnet.auto.train.state import Feed
from cplxnet.musicnet import SAMPLERS, MusicNet
from cplxnet.musicnet.features import features
from cplxnet.musicnet.networks import MODELS
from cplxnet.nn.compaction import shrunk as of_shrunk
from cplxnet.nn.fast import gpu
from cplxnet.nn.fast.gpu.launch import STARTED

from .noise import write_corpus
from .shrunk import READ, masked

DEVICE = "ghost"
KINDS = {"dense": "", "masked": "Masked", "VD": "VD", "ARD": "ARD"}
SHRUNK = {f"shrunk {compression}": compression for compression in READ}
BATCH, WINDOW = 321, 4096
ALLOCATIONS = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")
GATHERS = ("index_select", "index", "gather")


class Counter(TorchDispatchMode):
    """Notes name, launches and bytes of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = STARTED.total()
        # torch has no fake of Adam with a rate that is a tensor
        adam = func is torch.ops.aten._fused_adam_.tensor_lr
        out = None if adam else func(*args, **(kwargs or {}))
        launches = STARTED.total() - started if func.namespace == "cplxnet" else 1
        name = func._schema.name.split("::")[1]
        before = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        after = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        # A view shares its input's memory, and so does a change in place, which counts.
        shared = {t.untyped_storage()._cdata for t in before}
        new = [t for t in after if t.untyped_storage()._cdata not in shared]
        changes = func._schema.is_mutable
        if not (new or changes) or name in ALLOCATIONS or func.namespace == "prim":
            return out

        read = [] if name in GATHERS else before
        unique = {t.untyped_storage()._cdata: t for t in (*read, *new)}
        n_bytes = sum(t.nbytes for t in unique.values())
        n_bytes += sum(t.nbytes for t in new) if name in GATHERS else 0
        n_bytes += sum(t.nbytes for t in _written(func, args, kwargs)) if changes else 0
        self.operations.append((name, launches, n_bytes))
        return out


def _written(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The arguments that an operation writes into."""
    given = dict(zip([a.name for a in func._schema.arguments], args, strict=False)) | (kwargs or {})
    for argument in func._schema.arguments:
        if argument.name == "grads":  # of Adam, which writes them only where it unscales them
            continue
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from (t for t in tree_leaves(given.get(argument.name)) if isinstance(t, Tensor))


def placed(name: str, **options: int) -> nn.Module:
    """The network of this name and these options, with empty parameters on the device."""
    with _disable_current_modes(), torch.device("meta"):
        network = MODELS[name](**options)
    return moved(network)


def shrunk(compression: int) -> nn.Module:
    """The shrunk network of masks of this compression, on the device."""
    with _disable_current_modes(), mock.patch.object(of_shrunk, "is_sparse", return_value=False):
        network = cplx.Shrunk(masked(compression)).network  # as on a GPU: dense
    flatten: Any = network.get_submodule("flatten")
    flatten.columns = torch.empty(flatten.columns.shape, dtype=torch.int64, device=DEVICE)
    return moved(network)


def moved(network: nn.Module) -> nn.Module:
    """The network with empty parameters on the device."""
    for layer in network.modules():
        tensors: tuple[dict[str, Any], ...] = (layer._parameters, layer._buffers)
        for kept in tensors:
            for key, value in kept.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                    kept[key] = nn.Parameter(empty) if kept is layer._parameters else empty
    return network


def count(kind: str, batch: int = BATCH) -> list[tuple[str, int, int]]:
    """The operations of one step."""
    gpu.DEVICES.add(DEVICE)
    with FakeTensorMode():
        if kind in SHRUNK:
            network = shrunk(SHRUNK[kind])
        else:
            network = placed(f"complex.DeepConvNet{KINDS[kind]}")
        signal = torch.empty(batch, WINDOW, device=DEVICE)
        notes = torch.empty(batch, 84, device=DEVICE)
        scale = torch.empty((), device=DEVICE)
        with Counter() as counter:
            x = features(signal, "fft", cplx=True, shift=True)
            loss = F.binary_cross_entropy_with_logits(network(x), notes)
            loss.backward()
            if kind in ("VD", "ARD"):
                cplx.kl_backward(network, scale)
    return counter.operations


def move(dataset: MusicNet, mode: FakeTensorMode) -> None:
    """Have the dataset as it would be on the device."""
    for holder in (dataset, dataset.notes):
        for name, value in vars(holder).items():
            if isinstance(value, Tensor) and name != "samples":  # the one that stays on the host
                setattr(holder, name, mode.from_tensor(value).to(DEVICE))
    dataset.device = torch.device(DEVICE)


def count_whole(kind: str, batch: int = BATCH) -> list[tuple[str, int, int]]:
    """The operations of a step of the trainer, from its draw to its optimiser."""
    gpu.DEVICES.add(DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "noise.h5", seconds=1, n_recordings=batch)
        dataset = MusicNet(Path(folder) / "noise.h5", window=WINDOW)

    with FakeTensorMode() as mode:
        move(dataset, mode)
        network = placed(f"complex.DeepConvNet{KINDS[kind]}").train()
        terms = {"loss": Term(name="bce_with_logits"), "kl": Term(name="kl", coef=1e-5)}
        variational = kind in ("VD", "ARD")
        weights = {"loss": 1.0} | ({"kl": 0.1} if variational else {})
        objective = Objective(terms, weights, device=DEVICE)
        optimizer = make_optimizer(network, Optimizer(lr=1e-3))
        inputs = functools.partial(features, kind="fft", cplx=True, shift=True)
        feed = Feed(SAMPLERS["one-per-recording"](dataset), inputs)
        step = make_step(network, objective, optimizer, 0.05)
        for _ in range(2):  # Adam makes its state in the first
            with Counter() as counter:
                step(*feed.draw())
    return counter.operations


def table(of_kind: Callable[[str], list[tuple[str, int, int]]]) -> dict[str, dict[str, int]]:
    """{kind: launches and bytes of a step}."""
    totals = {}
    for kind in KINDS if of_kind is count_whole else (*KINDS, *SHRUNK):
        operations = of_kind(kind)
        totals[kind] = {
            "launches": sum(n for _, n, _ in operations),
            "bytes": sum(size for _, _, size in operations),
        }
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--whole", action="store_true", help="count whole steps of the trainer")
    parser.add_argument(
        "--list", choices=(*KINDS, *SHRUNK), help="print the operations of one kind's step"
    )
    arguments = parser.parse_args()
    _setup_privateuseone_for_python_backend(DEVICE)
    of_kind = count_whole if arguments.whole else count
    if arguments.list:
        launches, sizes = collections.Counter[str](), collections.Counter[str]()
        for name, n, size in of_kind(arguments.list):
            launches[name] += n
            sizes[name] += size
        for name, n in launches.most_common():
            print(f"{n:5} launches {sizes[name] / 1e6:10.1f} MB  {name}")
        return
    totals = table(of_kind)
    if arguments.json:
        print(json.dumps(totals))
        return
    print("| step | kernels launched | gigabytes read and written |\n|---|---|---|")
    for kind, total in totals.items():
        print(f"| {kind} | {total['launches']} | {total['bytes'] / 1e9:.2f} |")


if __name__ == "__main__":
    main()
    # autograd's thread for the spare device has no orderly end: on a busy machine the interpreter's
    # own end aborted ("terminate called without an active exception") after all was printed
    sys.stdout.flush()
    os._exit(0)
