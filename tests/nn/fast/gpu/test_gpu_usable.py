"""Layers where the GPU's kernels may take them, and where they must not.

Both give the values and errors of the plain layer.
"""

import subprocess
import sys

import pytest
import torch
from c_functions import plain
from interpreted import error, interpreted

from cplxnet import nn as cplx
from cplxnet.nn.fast import gpu

interpreted("layers")


@pytest.fixture(autouse=True)
def _kernels_on(monkeypatch):
    """The CPU counts as a device of the kernels, which run in the interpreter there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(gpu, "DEVICES", {device})


def plainly(function):
    """What the plain formulas give."""
    with plain():
        return function()


def test_layers_run_by_the_kernels(monkeypatch):
    asked = []
    usable = gpu.usable
    monkeypatch.setattr(gpu, "usable", lambda *t: asked.append(usable(*t)) or asked[-1])
    x = torch.randn(2, 3, 12, dtype=torch.complex64)
    layer = cplx.CplxConv1d(3, 4, 3, stride=2)
    assert error(layer(x), plainly(lambda: layer(x))) < 1e-6
    assert True in asked


def test_a_wrong_number_of_channels_or_features_is_the_plain_layers_error():
    with pytest.raises(ValueError, match=r"expected \(batch, 4, length\), got \(2, 2, 9\)"):
        cplx.CplxConv1d(4, 2, 3)(torch.randn(2, 2, 9, dtype=torch.complex64))
    for form in (cplx.CplxLinear, cplx.CplxLinearVD):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., 4\), got \(2, 9\)"):
            form(4, 2)(torch.randn(2, 9, dtype=torch.complex64))


@pytest.mark.parametrize(
    "layer", [cplx.CplxLinear(6, 5), cplx.CplxConv1d(6, 5, 1), cplx.CplxLinearMasked(6, 5)]
)
def test_parameters_out_of_order_are_left_to_the_plain_formula(layer):
    layer = layer.to(torch.get_default_device())
    stored = layer.weight_ri.detach().movedim(-1, 0).contiguous().movedim(0, -1)
    layer.weight_ri = torch.nn.Parameter(stored)
    x = torch.randn(3, 6, dtype=torch.complex64)
    x = x.unsqueeze(-1) if layer.weight_ri.dim() == 4 else x
    assert error(layer(x), plainly(lambda: layer(x))) < 1e-6


def test_kl_of_parameters_out_of_order():
    layer = cplx.CplxLinearVD(6, 5)
    stored = layer.weight_ri.detach().movedim(-1, 0).contiguous().movedim(0, -1)
    layer.weight_ri = torch.nn.Parameter(stored)
    value = cplx.kl_backward(layer, 0.5)
    found = layer.weight_ri.grad.clone()
    layer.zero_grad()
    assert plainly(lambda: cplx.kl_backward(layer, 0.5)).item() == pytest.approx(value.item())
    assert error(found, layer.weight_ri.grad) < 1e-6


def test_frozen_parameters_get_no_gradient():
    layer = cplx.CplxLinearVD(6, 5)
    layer.log_sigma2.requires_grad_(False)
    norm = cplx.GradientNorm()
    cplx.kl_backward(layer, 0.5, "sum", norm)
    assert layer.log_sigma2.grad is None and layer.log_sigma2 not in norm.squares
    assert layer.weight_ri.grad.abs().sum() > 0


@pytest.mark.parametrize("layer", [cplx.CplxLinear(6, 5), cplx.CplxBatchNorm1d(6).eval()])
def test_an_empty_batch(layer):
    layer = layer.to(torch.get_default_device())
    y = layer(torch.empty(0, 6, dtype=torch.complex64))
    assert len(y) == 0
    y.abs().sum().backward()


def test_a_result_may_be_changed_in_place():
    layer = cplx.CplxConv1d(3, 4, 3)
    x = torch.randn(2, 3, 12, dtype=torch.complex64)
    y = layer(x)
    right = 2 * y.detach().clone()
    y.mul_(2)
    assert torch.equal(y, right)
    y.abs().sum().backward()


@pytest.mark.parametrize(("dtype", "able"), [(torch.bfloat16, True), (torch.float16, False)])
def test_autocast_to_what_the_kernels_cannot_multiply_is_left_to_torch(monkeypatch, dtype, able):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: dtype)
    assert gpu.usable(torch.ones(3)) == able


NEWER_NAME = """
import torch
from cplxnet.auto.train import precision
from cplxnet.nn.fast.gpu import layers
torch.backends.cuda.matmul.fp32_precision = "tf32"
assert layers.precision() == "tf32"
with precision.tf32(False):
    assert layers.precision() == "float32"
    with layers._matrix_units():
        assert layers.precision() == "tf32"
assert layers.precision() == "tf32"
"""


def test_torchs_newer_name_for_tf32():
    """In a process of its own: torch does not forget that both names were used."""
    subprocess.run([sys.executable, "-c", NEWER_NAME], check=True, timeout=120)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_clipping_where_every_square_is_known(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    layer = torch.nn.Sequential(cplx.CplxLinearVD(6, 5, bias=False)).to(device)
    norm = cplx.GradientNorm()
    cplx.kl_backward(layer, 3.0, "sum", norm)
    right = torch.stack([p.grad.norm() for p in layer.parameters()]).norm()
    assert norm.clip(layer.parameters(), 0.05).item() == pytest.approx(right.item(), rel=1e-6)
