"""The plain formulas run where the kernels cannot.

No Triton, an old GPU, a kernel that does not compile, arrays the kernels do not take.
"""

import subprocess
import sys
import warnings

import pytest
import torch
from c_functions import plain
from interpreted import error, interpreted

from cplxnet import nn as cplx
from cplxnet.nn.fast import gpu

layers = interpreted("layers")
launch = interpreted("launch")


@pytest.fixture
def capability(monkeypatch):
    """A GPU of this compute capability is pretended; its kernels run here."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trial = layers.trial

    def set_to(*numbers):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: numbers)
        monkeypatch.setattr(layers, "trial", lambda _, products: trial(device, products))
        gpu._ready.cache_clear()

    yield set_to
    gpu._ready.cache_clear()


def asked_twice():
    """Whether the kernels are ready, and the warnings of two questions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=RuntimeWarning, message="the GPU kernels")
        answers = {gpu._ready(0, "float32"), gpu._ready(0, "float32")}
    (answer,) = answers
    return answer, [str(w.message) for w in caught if "GPU kernels" in str(w.message)]


NUMPYS = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's


@NUMPYS
def test_a_gpu_of_today_is_ready_and_every_kernel_was_tried(capability):
    capability(9, 0)
    launch.STARTED.clear()
    assert asked_twice() == (True, [])
    modules = ("batchnorm", "conv", "kl", "linear", "noise", "weights")
    kernels = {k for m in modules for k in vars(interpreted(m)) if k.endswith("_kernel")}
    assert set(launch.STARTED) == kernels and len(kernels) >= 20


def test_an_old_gpu_is_left_to_the_plain_formulas_without_a_word(capability):
    capability(7, 5)
    assert asked_twice() == (False, [])


@NUMPYS
@pytest.mark.parametrize(
    ("module", "name"), [("noise", "_square_kernel"), ("batchnorm", "_gradient_kernel")]
)
def test_a_kernel_that_does_not_compile_names_itself_once(capability, monkeypatch, module, name):
    class Broken:
        __name__ = name

        def __getitem__(self, grid):
            raise RuntimeError("at 3:5: out of registers")

    monkeypatch.setattr(interpreted(module), name, Broken())
    capability(9, 0)
    ready, (message,) = asked_twice()
    assert not ready
    assert f"at 3:5: out of registers in the GPU kernel {name}; try" in message


def test_each_precision_is_tried(capability, monkeypatch):
    """Kernels are compiled for each: what runs in float32 may fail in bfloat16."""
    capability(9, 0)

    def trial(device, products):
        if products == "bfloat16":
            raise RuntimeError("no bfloat16 here")

    monkeypatch.setattr(layers, "trial", trial)
    assert asked_twice() == (True, [])
    with pytest.warns(RuntimeWarning, match="no bfloat16 here"):
        assert not gpu._ready(0, "bfloat16")
    assert asked_twice() == (True, [])


WITHOUT_TRITON = """
import sys, warnings
sys.modules["triton"] = None
import torch
torch.cuda.get_device_capability = lambda index: (9, 0)
from cplxnet import nn
from cplxnet.nn.fast import gpu
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert not gpu._ready(0, "float32") and not gpu._ready(0, "float32")
(warning,) = caught
assert "triton" in str(warning.message) and "try a Triton that fits" in str(warning.message)
nn.kl_sum(torch.nn.Sequential(nn.CplxLinearVD(3, 2))).backward()
"""


def test_without_triton_one_warning():
    script = WITHOUT_TRITON.replace('gpu.DEVICES.add("cpu")\ngpu._state = None\n', "")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: cplx.CplxConv1d(3, 4, 3).double(), (2, 3, 12)),
        (lambda: cplx.CplxLinear(6, 5).double(), (3, 6)),
        (lambda: cplx.CplxBatchNorm1d(3).double(), (4, 3, 5)),
        (lambda: cplx.CplxConv1d(4, 4, 3, padding=1), (2, 4, 12)),
        (lambda: cplx.CplxConv1d(4, 4, 3, dilation=2), (2, 4, 12)),
        (lambda: cplx.CplxConv1d(4, 4, 3, groups=2), (2, 4, 12)),
        (lambda: cplx.CplxConv2d(2, 3, 3), (2, 2, 6, 7)),
    ],
    ids=["conv64", "linear64", "norm64", "padding", "dilation", "groups", "two axes"],
)
def test_arrays_that_the_kernels_do_not_take(monkeypatch, layer, shape):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(gpu, "DEVICES", {device})
    layer = layer().to(device)
    number = next(layer.parameters())
    dtype = torch.complex128 if number.dtype == torch.float64 else torch.complex64
    x = torch.randn(shape, dtype=dtype, requires_grad=True)

    launch.STARTED.clear()
    y = layer(x)
    found = torch.autograd.grad(y.abs().square().sum(), [x, *layer.parameters()])
    assert not launch.STARTED
    with plain():
        y_plain = layer(x)
        right = torch.autograd.grad(y_plain.abs().square().sum(), [x, *layer.parameters()])
    assert error(y, y_plain) < 1e-6
    assert all(error(a, b) < 2e-5 for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (cplx.CplxConv1d(3, 4, 5), "size"),  # torch's own
        (cplx.CplxConv1d(2, 4, 3), r"expected \(batch, 2, length\), got \(2, 3, 4\)"),
        (cplx.CplxLinear(3, 2), r"expected \(\.\.\., 3\), got \(2, 3, 4\)"),
    ],
)
def test_shapes_that_do_not_fit_have_the_plain_formulas_errors(monkeypatch, layer, said):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(gpu, "DEVICES", {device})
    x = torch.randn(2, 3, 4, dtype=torch.complex64, device=device)
    with pytest.raises((RuntimeError, ValueError), match=said):
        layer.to(device)(x)


def test_the_switch_is_one(monkeypatch):
    monkeypatch.setattr(gpu, "DEVICES", {"cuda" if torch.cuda.is_available() else "cpu"})
    assert gpu.usable(torch.ones(3))
    with plain():
        assert not gpu.usable(torch.ones(3))
