"""Every form of layer used as torch's own: replicas, layers built without memory, frozen parts."""

import sys

import pytest
import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.nn.gaussian import OWN

FORMS = ("VD", "ARD", "GroupVD", "BothVD", "L0", "Masked")
every_form = pytest.mark.parametrize("form", FORMS)


def net(form: str) -> nn.Sequential:
    """A complex layer and a real one."""
    layers = [getattr(cplx, f"CplxConv1d{form}")(2, 3, 3), cplx.CplxToReal(), nn.Flatten()]
    return nn.Sequential(*layers, getattr(cplx, f"Linear{form}")(15, 4))


def signal() -> torch.Tensor:
    return torch.randn(5, 2, 7, dtype=torch.complex64)


@every_form
def test_replicas_compute_and_are_trained_as_the_network_is(form, monkeypatch):
    """As `DataParallel` makes them; the copies between GPUs stay on the CPU here."""
    replicate = sys.modules["torch.nn.parallel.replicate"]
    monkeypatch.setattr(
        replicate,
        "_broadcast_coalesced_reshape",
        lambda tensors, devices, detach=False: [[t.clone() for t in tensors] for _ in devices],
    )
    model, x = net(form), signal()
    if form == "Masked":
        model[0].mask = torch.rand(model[0].mask.shape) > 0.5
    for replica in replicate.replicate(model, [0, 1]):
        outputs, gradients = [], []
        for network in (model, replica):
            torch.manual_seed(3)
            outputs.append(network(x))
            model.zero_grad()
            outputs[-1].square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        torch.testing.assert_close(outputs[0], outputs[1])
        torch.testing.assert_close(gradients[0], gradients[1])

        if form == "Masked":
            replica[0].mask = torch.zeros(replica[0].mask.shape)
            assert not replica[0].mask.any() and model[0].mask.any()  # its memory is its own


@every_form
@pytest.mark.parametrize("assign", [True, False])
def test_a_network_built_without_memory_takes_a_state_or_starts_anew(form, assign, monkeypatch):
    saved = net(form)
    if form == "Masked":
        saved[0].mask = torch.rand(saved[0].mask.shape) > 0.5
    with torch.device("meta"):
        model = net(form)

    if assign:
        model.load_state_dict(saved.state_dict(), assign=True)
        x = signal()
        assert torch.equal(model.eval()(x), saved.eval()(x))
        return

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty_like", torch.zeros_like)  # what memory holds is left to chance
        model.to_empty(device="cpu")
    for layer in (model[0], model[3]):
        layer.reset_parameters()
    for name, value in model.state_dict().items():
        assert not value.is_meta and torch.isfinite(value).all(), name
        if name.endswith("mask"):
            assert value.all()
        if name.endswith(("log_sigma2", "log_sigma2_out")):
            assert (value == -10).all()


VARIATIONAL = FORMS[:-1]


@pytest.mark.parametrize("form", VARIATIONAL)
@pytest.mark.parametrize("frozen", ["weight", "own", "all", "none"])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_kl_moves_what_is_trained_and_nothing_else(form, frozen, enabled):
    """Against autograd of the sum; a frozen parameter keeps the gradient that it has."""
    model = net(form)
    model(signal()).square().sum().backward()
    model.zero_grad(set_to_none=False)
    for name, parameter in model.named_parameters():
        is_own = name.endswith(OWN)
        is_weight = name.endswith(("weight", "weight_ri"))
        if frozen == "all" or (frozen == "own" and is_own) or (frozen == "weight" and is_weight):
            parameter.requires_grad_(False)

    trained = [p for p in model.parameters() if p.requires_grad]
    expected = [torch.zeros_like(p) for p in trained]
    value = cplx.kl_sum(model)
    if value.requires_grad:
        found = torch.autograd.grad(0.3 * value, trained, allow_unused=True)
        expected = [zero if g is None else g for zero, g in zip(expected, found, strict=True)]

    with torch.set_grad_enabled(enabled):
        torch.testing.assert_close(cplx.kl_backward(model, 0.3), value.detach())
    torch.testing.assert_close([p.grad for p in trained], expected)
    assert not any(p.grad.any() for p in model.parameters() if not p.requires_grad)


@every_form
@pytest.mark.parametrize("training", [True, False])
def test_gradients_by_torch_func_are_those_of_autograd(form, training):
    model, x = net(form).double().train(training), signal().to(torch.complex128)
    parameters = dict(model.named_parameters())

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(3)
        return torch.func.functional_call(model, values, (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    loss(parameters).backward()
    for name, parameter in parameters.items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, msg=name)
