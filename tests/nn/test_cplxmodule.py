"""Weights to and from cplxmodule, held to cplxmodule itself."""

import pytest
import torch
from torch import Tensor

from cplxnet import nn
from cplxnet.musicnet.networks import deep_conv_net

cplxmodule = pytest.importorskip("cplxmodule")
from cplxmodule import nn as theirs  # noqa: E402
from cplxmodule.nn import relevance  # noqa: E402
from cplxmodule.nn.masked import CplxConv1dMasked, CplxLinearMasked, LinearMasked  # noqa: E402

KINDS = {
    "": (theirs.CplxConv1d, theirs.CplxLinear, torch.nn.Linear),
    "VD": (relevance.CplxConv1dVD, relevance.CplxLinearVD, relevance.LinearVD),
    "ARD": (relevance.CplxConv1dARD, relevance.CplxLinearARD, relevance.LinearARD),
    "Masked": (CplxConv1dMasked, CplxLinearMasked, LinearMasked),
}
LENGTH = 40


def their_network(kind: str) -> torch.nn.Sequential:
    """Every kind of layer with weights: convolutions (one grouped), batch norm, linear layers."""
    conv, linear, real = KINDS[kind]
    return torch.nn.Sequential(
        conv(2, 6, 5, stride=2, bias=False),
        theirs.CplxBatchNorm1d(6),
        theirs.CplxToCplx[torch.nn.ReLU](),
        conv(6, 4, 3, padding=1, groups=2),
        theirs.CplxToCplx[torch.nn.AvgPool1d](2),
        theirs.CplxToCplx[torch.nn.Flatten](),
        linear(4 * 9, 8),
        theirs.CplxReal(),
        real(8, 3),
    )


def our_network(kind: str) -> torch.nn.Sequential:
    conv, linear = getattr(nn, f"CplxConv1d{kind}"), getattr(nn, f"CplxLinear{kind}")
    return torch.nn.Sequential(
        conv(2, 6, 5, stride=2, bias=False),
        nn.CplxBatchNorm1d(6),
        nn.Split(torch.nn.ReLU()),
        conv(6, 4, 3, padding=1, groups=2),
        nn.Split(torch.nn.AvgPool1d(2)),
        nn.CplxFlatten(),
        linear(4 * 9, 8),
        nn.CplxToReal(),
        getattr(nn, f"Linear{kind}", torch.nn.Linear)(8, 3),
    )


def cplx(x: Tensor) -> "cplxmodule.Cplx":
    return cplxmodule.Cplx(x.real.contiguous(), x.imag.contiguous())


def made(kind: str) -> torch.nn.Sequential:
    """Theirs with weights, masks and statistics that are all different, in evaluation mode."""
    network = their_network(kind)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(-3 if name.endswith("log_sigma2") else 0, 0.3)
        for layer in network:
            if hasattr(layer, "mask_"):
                layer.mask = (torch.rand(layer.weight.shape) < 0.5).float()
        network(
            cplx(torch.randn(16, 2, LENGTH, dtype=torch.complex64) * 3 + (1 + 2j))
        )  # batch norm's statistics
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_theirs_load_into_ours_and_compute_the_same(kind: str) -> None:
    network, ours = made(kind), our_network(kind).eval()
    nn.load_cplxmodule(ours, network.state_dict())
    x = torch.randn(5, 2, LENGTH, dtype=torch.complex64)
    torch.testing.assert_close(ours(x), network(cplx(x)), rtol=1e-5, atol=1e-6)
    if kind in ("VD", "ARD"):
        theirs_kl = dict(relevance.named_penalties(network, reduction="sum"))
        for name, value in nn.named_penalties(ours, reduction="sum").items():
            torch.testing.assert_close(value, theirs_kl[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_ours_load_into_theirs_and_compute_the_same(kind: str) -> None:
    ours = our_network(kind)
    nn.load_cplxmodule(ours, made(kind).state_dict())
    ours.train()(torch.randn(16, 2, LENGTH, dtype=torch.complex64) * 2)  # statistics of our own
    network = their_network(kind)
    network.load_state_dict(nn.cplxmodule_state(ours))
    x = torch.randn(5, 2, LENGTH, dtype=torch.complex64)
    torch.testing.assert_close(network.eval()(cplx(x)), ours.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ours", "kind"), [("L0", ""), ("GroupVD", ""), ("BothVD", "VD")])
def test_what_they_have_no_layer_for_is_written_as_it_computes(ours: str, kind: str) -> None:
    model = our_network(ours)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate_logit"):
                parameter.uniform_(-3, 2)  # shut, open, and in between
    network = their_network(kind)
    network.load_state_dict(nn.cplxmodule_state(model))
    x = torch.randn(5, 2, LENGTH, dtype=torch.complex64)
    torch.testing.assert_close(network.eval()(cplx(x)), model.eval()(x), rtol=1e-5, atol=1e-6)


def test_batch_norm_counts_its_eps_once() -> None:
    """Where the variance is as small as eps the two conventions differ by a factor of sqrt(2)."""
    network, ours = made(""), our_network("").eval()
    network[1].running_var.copy_(2e-5 * torch.eye(2).unsqueeze(-1))
    nn.load_cplxmodule(ours, network.state_dict())
    torch.testing.assert_close(ours[1].running_var[0, 0], torch.full((6,), 1e-5))
    x = torch.randn(5, 6, 7, dtype=torch.complex64)
    want = network[1](cplx(x))
    torch.testing.assert_close(
        ours[1](x), torch.complex(want.real, want.imag), rtol=1e-4, atol=1e-3
    )


def test_the_deep_network_under_the_older_systems_names() -> None:
    """A state dict with the layers of complex_paper's DeepConvNet, by names_in_order."""
    ours = deep_conv_net("complex", "Masked", length=512, kernel_size=3).eval()
    names = [
        f"bk{k:02d}.{part}"
        for k in range(6)
        for part in (("conv",) if k == 4 else ("conv", "btch"))
    ]
    layers = dict.fromkeys(key.rpartition(".")[0] for key in ours.state_dict())
    old = dict(zip(layers, [*names, "lin1", "lin2"], strict=True))
    state = nn.cplxmodule_state(ours, names=old)
    assert {
        "bk00.conv.weight.imag",
        "bk05.btch.running_var",
        "bk04.conv.bias.real",
        "lin1.mask",
    } <= state.keys()
    other = deep_conv_net("complex", "Masked", length=512, kernel_size=3).eval()
    nn.load_cplxmodule(other, state, names=nn.names_in_order(other, state))
    x = torch.randn(2, 1, 512, dtype=torch.complex64)
    torch.testing.assert_close(other(x), ours(x))
    with pytest.raises(ValueError, match=r"13 .conv1, norm1, .*got 12 .bk00.btch, "):
        nn.names_in_order(
            other, {key: value for key, value in state.items() if "bk00.conv" not in key}
        )


def test_every_fault_is_named_and_nothing_changed() -> None:
    ours = our_network("Masked")
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    state = dict(made("Masked").state_dict())
    del state["6.weight.imag"], state["1.running_var"]
    state["3.weight.real"] = state["3.weight.real"][1:]
    state["3.weight.imag"] = state["3.weight.imag"][1:]
    state["8.mask"] = state["8.mask"] * 0.5
    state["9.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        nn.load_cplxmodule(ours, state)
    faults = str(caught.value).split("; ")[1:]
    for fault in (
        "6.weight.real and 6.weight.imag: missing",
        "1.running_var: missing",
        "3.weight.real and 3.weight.imag: expected shape (4, 3, 3, 2), got (3, 3, 3, 2)",
        "8.mask: expected zeros and ones, got others",
        "9.weight: not in Sequential",
    ):
        assert fault in faults
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_two_parts_of_different_shape_are_a_fault() -> None:
    state = dict(made("").state_dict())
    state["6.weight.real"] = state["6.weight.real"][:, :3]
    with pytest.raises(
        ValueError, match=r"6.weight.real and 6.weight.imag: parts of different shape"
    ):
        nn.load_cplxmodule(our_network(""), state)
