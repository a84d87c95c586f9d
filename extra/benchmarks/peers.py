"""The same complex DeepConvNet, weights included, from the layers of each library.

Every peer's network is made by walking through ours and giving each layer's counterpart the same
values, so that all compute the same function; `agreement` checks that they do.

cplxmodule 2022.6 works under torch 2.13 and numpy 2 as it is. Its tensors are pairs of real ones
(`Cplx`). complextorch 2.1.1 works on native complex tensors; `AvgPool1d` and `BatchNorm1d` (2x2
whitening) are ours. Its `CReLU` works in place on both parts of its input, which torch 2.13 refuses
in backward; the same library's `GeneralizedSplitActivation` over two ReLUs computes the same and
can be trained.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import complextorch.nn as complextorch
import cplxmodule
import cplxmodule.nn as cplxmodule_nn
import torch
from complextorch.nn import relevance as complextorch_relevance
from cplxmodule.nn import CplxToCplx
from cplxmodule.nn import relevance as cplxmodule_relevance
from cplxmodule.nn.relevance import extensions as cplxmodule_extensions
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.musicnet.networks import deep_conv_net

Layers = tuple[Callable[..., nn.Module], Callable[..., nn.Module]]  # convolution, linear

CPLXMODULE: dict[str, Layers] = {
    "": (cplxmodule_nn.CplxConv1d, cplxmodule_nn.CplxLinear),
    "VD": (cplxmodule_relevance.CplxConv1dVD, cplxmodule_relevance.CplxLinearVD),
    "ARD": (cplxmodule_relevance.CplxConv1dARD, cplxmodule_relevance.CplxLinearARD),
    # the KL's value is faked, its gradient is right: the original system's way around scipy
    "bogus": (cplxmodule_extensions.CplxConv1dVDBogus, cplxmodule_extensions.CplxLinearVDBogus),
}
COMPLEXTORCH: dict[str, Layers] = {
    "": (complextorch.Conv1d, complextorch.Linear),
    "VD": (complextorch_relevance.Conv1dVD, complextorch_relevance.LinearVD),
    "ARD": (complextorch_relevance.Conv1dARD, complextorch_relevance.LinearARD),
}


class RealPart(nn.Module):
    """complextorch has no layer for it."""

    def forward(self, z: Tensor) -> Tensor:
        return z.real


class Peer(NamedTuple):
    """One library: how its layers are made, what its networks take, and its KL terms."""

    layers: dict[str, Layers]
    norm: Callable[[int], nn.Module]
    relu: Callable[[], nn.Module]
    pool: Callable[[int, int], nn.Module]
    flatten: Callable[[], nn.Module]
    head: Callable[[], nn.Module]
    inputs: Callable[[Tensor], Any]
    penalties: Callable[
        [nn.Module], Iterable[Tensor]
    ]  # the KL of each layer, summed over its weights
    parts: Callable[
        [nn.Module, str], tuple[Tensor, Tensor]
    ]  # real and imaginary part of `weight` or `bias`
    eps_in_running_var: float  # what its running covariance holds beyond the covariance


def _complextorch_parts(layer: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    owner = getattr(layer, "conv", getattr(layer, "linear", layer))  # the dense layers wrap torch's
    return getattr(owner, name).real, getattr(owner, name).imag


def _cplxmodule_parts(layer: nn.Module, name: str) -> tuple[Tensor, Tensor]:
    return getattr(layer, name).real, getattr(layer, name).imag


PEERS = {
    "cplxmodule": Peer(
        CPLXMODULE,
        cplxmodule_nn.CplxBatchNorm1d,
        CplxToCplx[nn.ReLU],
        CplxToCplx[nn.AvgPool1d],
        CplxToCplx[nn.Flatten],
        cplxmodule_nn.CplxReal,
        lambda x: cplxmodule.Cplx(x.real.contiguous(), x.imag.contiguous()),
        cplxmodule_relevance.penalties,
        _cplxmodule_parts,
        1e-5,
    ),
    "complextorch": Peer(
        COMPLEXTORCH,
        complextorch.BatchNorm1d,
        lambda: complextorch.GeneralizedSplitActivation(nn.ReLU(), nn.ReLU()),
        complextorch.AvgPool1d,
        nn.Flatten,
        RealPart,
        lambda x: x,
        complextorch_relevance.penalties,
        _complextorch_parts,
        1e-5,
    ),
}


def ours(kind: str, *, length: int = 4096, seed: int = 0) -> nn.Sequential:
    """cplxnet's network of layers `kind`, "" (dense), "VD" or "ARD", with seeded weights, in
    training mode.
    """
    torch.manual_seed(seed)
    return deep_conv_net("complex", kind, length=length)


@torch.no_grad()
def theirs(name: str, kind: str, model: nn.Sequential) -> nn.Sequential:
    """The network of library `name` and layers `kind` that computes what `model`, one of ours,
    computes.
    """
    return nn.Sequential(*(_counterpart(PEERS[name], kind, layer) for layer in model)).train(
        model.training
    )


def _counterpart(peer: Peer, kind: str, layer: Any) -> nn.Module:
    convolution, linear = peer.layers[kind]
    match layer:
        case cplx.CplxConv1d():
            shape = (layer.in_channels, layer.out_channels, layer.kernel_size[0])
            made = convolution(*shape, stride=layer.stride[0], bias=layer.bias is not None)
            return _with_weights(peer, made, layer)
        case cplx.CplxLinear():
            return _with_weights(peer, linear(*reversed(layer.weight.shape)), layer)
        case cplx.CplxBatchNorm1d():
            return _with_statistics(peer, layer)
        case cplx.Split(module=nn.ReLU()):
            return peer.relu()
        case cplx.Split(module=nn.AvgPool1d()):
            pool: Any = layer.module
            return peer.pool(pool.kernel_size, pool.stride)
        case nn.Flatten():
            return peer.flatten()
        case cplx.CplxToReal():
            return peer.head()
    raise TypeError(
        f"expected a layer of the complex DeepConvNet, got {type(layer).__name__}; "
        "add its counterpart"
    )


def _with_weights(peer: Peer, made: Any, layer: Any) -> nn.Module:
    for name in ("weight", "bias"):
        value = getattr(layer, name)
        if value is not None:
            real, imag = peer.parts(made, name)
            real.copy_(value.real)
            imag.copy_(value.imag)
    if isinstance(layer, cplx.GaussianWeight):
        made.log_sigma2.copy_(layer.log_sigma2)
    return made


def _with_statistics(peer: Peer, layer: cplx.CplxBatchNorm1d) -> nn.Module:
    made: Any = peer.norm(layer.num_features)
    made.load_state_dict(layer.state_dict())
    made.running_var += peer.eps_in_running_var * torch.eye(2).unsqueeze(-1)
    return made
