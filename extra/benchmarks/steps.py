"""What is timed of the networks in each library: a training step, an evaluation, the KL alone."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.musicnet import features
from cplxnet.nn.fast import native

from .peers import PEERS, ours, theirs

COEF = 1e-5 * 2.5e-3  # of the KL: the objective's scale times a C of the first grid
GRAD_CLIP = 0.05
OURS, PLAIN, BOGUS = "cplxnet", "cplxnet without C", "cplxmodule, gradient only"
DENSE = "cplxnet, dense"  # own dense step in the same turns: the host is not as fast a minute later

# contestants by the kind of layers: name -> (library, kind of its layers)
CONTESTANTS: dict[str, dict[str, tuple[str, str]]] = {
    "": {OURS: ("cplxnet", ""), PLAIN: ("cplxnet", ""), "cplxmodule": ("cplxmodule", "")},
    "VD": {
        OURS: ("cplxnet", "VD"),
        PLAIN: ("cplxnet", "VD"),
        "cplxmodule": ("cplxmodule", "VD"),
        BOGUS: ("cplxmodule", "bogus"),
    },
    "ARD": {
        OURS: ("cplxnet", "ARD"),
        PLAIN: ("cplxnet", "ARD"),
        "cplxmodule": ("cplxmodule", "ARD"),
    },
}
for _kind, _entrants in CONTESTANTS.items():
    _entrants["complextorch"] = ("complextorch", _kind)


class Entrant(NamedTuple):
    """A network ready to train, its input in the form it takes, and what adds the gradient of a
    multiple of its KL.
    """

    net: nn.Sequential
    x: object
    kl_backward: Callable[..., object] | None
    adam: torch.optim.Optimizer
    parameters: list[nn.Parameter]


def example(batch: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features complex64 (B, 1, 4096) of noise, and labels (B, 84), one in twenty positive."""
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(batch, 4096, generator=generator)
    return features(signal, kind="fft"), (torch.rand(batch, 84, generator=generator) < 0.05).float()


def entrant(library: str, kind: str, x: Tensor) -> Entrant:
    """The network of `library` and layers `kind`, the same weights for all, with Adam as the
    library can have it.
    """
    own_kind = "VD" if kind == "bogus" else kind
    net = ours(own_kind)
    if library == "cplxnet":
        kl_backward = functools.partial(cplx.kl_backward, net)  # as the runner's objective does
        inputs, fused = x, True
    else:
        net = theirs(library, kind, net)
        kl_backward = functools.partial(_backward_of_penalties, library, net)
        inputs, fused = (
            PEERS[library].inputs(x),
            None,
        )  # fused Adam refuses complex parameters; None is torch's default
    parameters = list(net.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-3, fused=fused)
    return Entrant(net, inputs, kl_backward if own_kind else None, adam, parameters)


def _backward_of_penalties(library: str, net: nn.Module, scale: float, norm: object = None) -> None:
    (scale * torch.stack(list(PEERS[library].penalties(net))).sum()).backward()


def train(entrant: Entrant, target: Tensor) -> None:
    """One step: forward, BCE, backward, KL and its gradient, clip, Adam."""
    entrant.adam.zero_grad(set_to_none=True)
    F.binary_cross_entropy_with_logits(entrant.net(entrant.x), target).backward()
    norm = cplx.GradientNorm()
    if entrant.kl_backward is not None:
        entrant.kl_backward(COEF, norm=norm)
    if norm.squares:
        norm.clip(entrant.parameters, GRAD_CLIP)
    else:
        nn.utils.clip_grad_norm_(entrant.parameters, GRAD_CLIP)
    entrant.adam.step()


@torch.inference_mode()
def evaluate(entrant: Entrant) -> None:
    entrant.net.eval()
    entrant.net(entrant.x)


def kl_alone(entrant: Entrant) -> None:
    """Value and gradient of the KL."""
    entrant.adam.zero_grad(set_to_none=True)
    assert entrant.kl_backward is not None
    entrant.kl_backward(1.0)


def without_c(work: Callable[[], None]) -> None:
    """`work` on torch's operations alone, as on a machine without a C compiler."""
    native.use(False)
    try:
        work()
    finally:
        native.use(True)


def with_memory_kept(work: Callable[[], None]) -> None:
    """`work` as cplxnet's runner has it; other libraries' turns find the C library as it comes."""
    cplx.keep_freed()
    try:
        work()
    finally:
        cplx.keep_freed(False)


def contest(kind: str, batch: int, work: str) -> dict[str, Callable[[], None]]:
    """{contestant: one call of `work`, "train", "evaluate" or "kl"} for layers `kind`; networks are
    built here.
    """
    x, target = example(batch)
    tasks: dict[str, Callable[[Entrant], None]] = {
        "train": functools.partial(train, target=target),
        "evaluate": evaluate,
        "kl": kl_alone,
    }
    calls: dict[str, Callable[[], None]] = {}
    entrants = CONTESTANTS[kind] | ({DENSE: ("cplxnet", "")} if kind and work == "train" else {})
    for name, (library, own_kind) in entrants.items():
        call = functools.partial(tasks[work], entrant(library, own_kind, x))
        if library == "cplxnet":
            call = functools.partial(with_memory_kept, call)
        calls[name] = functools.partial(without_c, call) if name == PLAIN else call
    return calls
