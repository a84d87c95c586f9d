"""Training steps on a device that is not there, every dispatched operation noted: run by
test_loop_no_sync.py.

The device is torch's spare one (PrivateUse1) under FakeTensorMode: shapes and devices are followed,
nothing computed. A value read back (`.item()`, `if tensor:`), a shape that depends on values, a
mixture of host and device tensors and a pointer into memory (the C functions) all raise. The
device's name holds for a whole process, hence a script. Prints JSON: {case: {"few" or "many"
recordings: {"steps": [[operation, ...], ...], "numbers": of each step those that the host gave with
its operations, "raised": text}}}.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from cplxnet.auto.manifest.schema import Optimizer, Term
from cplxnet.auto.train.loop import make_step
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.optim import make_optimizer, set_rate
from cplxnet.auto.train.state import Feed
from cplxnet.musicnet import SAMPLERS, MusicNet, features
from cplxnet.musicnet import recordings as layout
from cplxnet.nn.fast import gpu
from extra.benchmarks.launches import DEVICE, move, placed
from extra.corpora import hdf5

WINDOW = 4096
TERMS = {"loss": Term(name="bce_with_logits"), "kl": Term(name="kl", coef=1e-5)}


class Recorder(TorchDispatchMode):
    """Notes each operation as "name: devices in -> devices out", step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[str]] = [[]]  # before the first step, each step, after the last
        self.numbers: list[list[str]] = [[]]  # of each, those that lie in the host's memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # a look at where a tensor is
            return func(*args)
        step, noted = self.steps[-1], f"{func}: {_devices((args, kwargs))} -> "
        step.append(noted + "raised")
        numbers = [x for x in tree_leaves((args, kwargs)) if isinstance(x, int | float)]
        self.numbers[-1].append(f"{func}: {numbers}")
        if func is torch.ops.aten._fused_adam_.tensor_lr:  # torch forgot its fake
            out = None
        else:
            out = func(*args, **(kwargs or {}))
        step[-1] = noted + _devices(out)
        return out

    def marking(self, batches: Any) -> Iterator[Any]:
        """The batches; each opens a new step, its own drawing included. What comes after the last
        is apart again.
        """
        every = iter(batches)
        for _ in range(len(batches)):
            self.open()
            yield next(every)
        self.open()

    def open(self) -> None:
        """Note apart what comes from here on."""
        self.steps.append([])
        self.numbers.append([])


def _devices(value: Any) -> str:
    """Where the tensors in `value` are; "scalar" for one number on the host, which goes along with
    a kernel's call.
    """
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    kinds = {
        "scalar" if leaf.device.type == "cpu" and leaf.dim() == 0 else leaf.device.type
        for leaf in leaves
    }
    return "+".join(sorted(kinds)) or "none"


def corpus(folder: Path, n_recordings: int) -> Path:
    """Noise and a note each, of different lengths."""
    path, rng = folder / f"{n_recordings}.h5", np.random.default_rng(0)
    labels = np.array([(10, 900, 1, 60, 0.0, 1.0, b"Quarter")], layout.LABELS)
    about = {"composer": "Noise", "composition": "Noise", "movement": "", "ensemble": "None"}
    signals = [rng.standard_normal(WINDOW + k).astype(np.float32) for k in range(n_recordings)]
    recordings = [
        layout.Recording(f"id_{1000 + k}", signal, labels, **about)
        for k, signal in enumerate(signals)
    ]
    hdf5.write(path, recordings, rate_hz=11000)
    return path


def trained(
    path: Path,
    model: str,
    kind: str = "fft",
    *,
    n_steps: int = 1,
    wrap: Callable[[Any], Any] = lambda inputs: inputs,
    factors: Sequence[float] = (1.0,),
    frozen: bool = False,
    kernels: bool = False,
) -> dict[str, Any]:
    """Epochs of `n_steps` of the trainer's step.

    wrap: changes what turns a signal into the network's input.
    factors: of the learning rate and of the KL's weight, an epoch each.
    frozen: a fault on purpose: both are numbers on the host.
    kernels: our GPU kernels run there, in place of the plain formulas.
    """
    gpu.DEVICES -= {DEVICE}
    gpu.DEVICES |= {DEVICE} if kernels else set()
    dataset = MusicNet(path, window=WINDOW)  # opening may read values; a step may not
    with FakeTensorMode() as mode:
        move(dataset, mode)
        cplx = model.startswith("complex")

        def inputs(signal: Tensor) -> Tensor:
            return features(signal, kind, cplx=cplx)

        example = inputs(torch.empty(1, WINDOW, device=DEVICE))
        network = placed(model, in_channels=example.shape[1], length=example.shape[2])
        variational = model.endswith(("VD", "ARD"))
        weights = {"loss": 1.0} | ({"kl": 0.1} if variational else {})
        objective = Objective(TERMS, weights, device="cpu" if frozen else DEVICE)
        spec = Optimizer(lr=1e-3, lr_log_sigma2=1e-2 if variational else None)
        optimizer = make_optimizer(network, spec)
        if frozen:
            for group in optimizer.param_groups:
                group["lr"] = 1e-3
        sampler = SAMPLERS["one-per-recording"](dataset, n_batches=n_steps)
        feed, recorder = Feed(sampler, wrap(inputs)), Recorder()
        step = make_step(network.train(), objective, optimizer, 0.05)
        try:
            with recorder:  # an epoch as in `train_stage`
                for factor in factors:
                    set_rate(optimizer, factor)
                    objective.scale_kl(factor)
                    sums = torch.zeros(3, device=DEVICE)
                    for x, notes in recorder.marking(feed):
                        sums += step(x, notes)
                (sums / n_steps).tolist()
            raised = ""
        except Exception as error:  # reported, not hidden: the test says which is right
            raised = f"{type(error).__name__}: {error}"
    return {"steps": recorder.steps, "numbers": recorder.numbers, "raised": raised}


def reading(inputs: Any) -> Any:
    """A fault on purpose: a value read back in the step."""
    return lambda signal: inputs(signal) * signal.abs().max().item()


def uploading(inputs: Any) -> Any:
    """A fault on purpose: a table made on the host in the step."""
    return lambda signal: inputs(
        signal * torch.hann_window(signal.shape[-1], device="cpu").to(signal.device)
    )


def counting(inputs: Any) -> Any:
    """A fault on purpose: a shape that depends on values."""
    return lambda signal: inputs(signal[signal[:, 0] > 0])


def main(models: list[str]) -> dict[str, Any]:
    """Every model at 3 and 30 recordings, and the faults on purpose."""
    _setup_privateuseone_for_python_backend(DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        few, many = (corpus(Path(folder), n) for n in (3, 30))
        results = {m: {"few": trained(few, m, n_steps=2), "many": trained(many, m)} for m in models}
        small = "complex.TwoLayerDense"
        epochs: dict[str, Any] = {"n_steps": 2, "factors": (1.0, 0.1)}
        results["two epochs"] = {"few": trained(few, small + "VD", **epochs)}
        results["kernels"] = {"few": trained(few, small + "VD", **epochs, kernels=True)}
        results["frozen"] = {"few": trained(few, small + "VD", **epochs, frozen=True)}
        results |= {kind: {"few": trained(few, small, kind)} for kind in ("raw", "stft")}
        results |= {
            f.__name__: {"few": trained(few, small, wrap=f)} for f in (reading, uploading, counting)
        }
    return results


if __name__ == "__main__":
    json.dump(main(sys.argv[1:]), sys.stdout)
