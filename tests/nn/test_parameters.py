"""How complex parameters are stored: views, values copied in, casts, snapshots, optimisers."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cplxnet.nn import CplxConv1d, CplxConv2d, CplxLinear
from cplxnet.nn.parameters import as_ri

LAYERS = [
    (CplxLinear, (3, 2), (4, 3)),
    (CplxConv1d, (3, 2, 2), (4, 3, 5)),
    (CplxConv2d, (3, 2, (2, 1)), (4, 3, 5, 4)),
]
every_layer = pytest.mark.parametrize(
    ("cls", "args", "shape"), LAYERS, ids=lambda v: getattr(v, "__name__", None)
)


def values(layer: Any) -> Tensor:
    """Random complex numbers of the weight's shape and type."""
    return torch.randn(layer.weight.shape, dtype=layer.weight.dtype)


@every_layer
def test_weight_is_a_view_of_one_real_parameter(cls: Any, args: Any, shape: Any) -> None:
    layer = cls(*args)
    assert {n: (p.dtype, p.shape[-1]) for n, p in layer.named_parameters()} == {
        "weight_ri": (torch.float32, 2),
        "bias_ri": (torch.float32, 2),
    }
    assert layer.weight.dtype == layer.bias.dtype == torch.complex64
    assert (
        layer.weight.data_ptr() == layer.weight_ri.data_ptr()
        and layer.bias.data_ptr() == layer.bias_ri.data_ptr()
    )
    assert layer.weight.shape == layer.weight_ri.shape[:-1]


def write_whole(w: Tensor, v: Tensor) -> None:
    w.copy_(v)


def write_slice(w: Tensor, v: Tensor) -> None:
    w[1, 1:] = v[1, 1:]


def write_data(w: Tensor, v: Tensor) -> None:
    w.data.mul_(v)


def write_real(w: Tensor, v: Tensor) -> None:
    w.real.copy_(v.real)


def write_imag(w: Tensor, v: Tensor) -> None:
    w.imag[..., :1] -= v.imag[..., :1]


@every_layer
@pytest.mark.parametrize("write", [write_whole, write_slice, write_data, write_real, write_imag])
def test_in_place_writes_reach_parameter_and_output(
    write: Any, cls: Any, args: Any, shape: Any
) -> None:
    layer, twin = cls(*args), cls(*args)
    wanted, value = layer.weight.detach().clone(), values(layer)
    write(wanted, value)
    with torch.no_grad():
        write(layer.weight, value)
        twin.weight_ri.copy_(torch.stack((wanted.real, wanted.imag), -1))
    assert torch.equal(layer.weight_ri, twin.weight_ri)
    x = torch.randn(shape, dtype=torch.complex64)
    assert torch.equal(layer(x), twin(x))


def test_an_in_place_write_with_gradients_on_is_refused() -> None:
    layer = CplxLinear(3, 2)
    with pytest.raises(
        RuntimeError,
        match="leaf Variable that requires grad is being used in an in-place operation",
    ):
        layer.weight.mul_(2)


@every_layer
def test_assignment_copies_values_in(cls: Any, args: Any, shape: Any) -> None:
    layer = cls(*args)
    stored, value = layer.weight_ri, values(layer)
    for given in (
        value,
        value.numpy(),
        nn.Parameter(value),
        value.to(torch.complex128),
        value.conj().conj(),
    ):
        layer.weight = torch.zeros(value.shape)
        layer.weight = given
        assert torch.equal(layer.weight, value)
    layer.weight = value.conj()  # a lazy conjugate
    assert torch.equal(layer.weight_ri[..., 1], -value.imag)
    layer.weight = np.ones(value.shape)  # real numbers
    assert torch.equal(layer.weight, torch.ones_like(value))
    layer.bias = 1j * torch.arange(2)
    assert layer.bias_ri.tolist() == [[0, 0], [0, 1]]
    assert layer.weight_ri is stored and list(layer.state_dict()) == ["weight_ri", "bias_ri"]
    layer.weight = 2 * layer.weight
    assert torch.equal(layer.weight, torch.full_like(value, 2))


def test_assignment_errors() -> None:
    layer, bare = CplxLinear(3, 2), CplxLinear(3, 2, bias=False)
    with pytest.raises(ValueError, match=r"expected weight of shape \(2, 3\), got \(3, 2\)"):
        layer.weight = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"expected bias of shape \(2,\), got \(1,\)"):
        layer.bias = torch.zeros(1)
    with pytest.raises(
        ValueError, match="cannot set bias to None: whether a layer has one is fixed"
    ):
        layer.bias = None
    with pytest.raises(ValueError, match="cannot set bias to tensor"):
        bare.bias = torch.zeros(2)
    with pytest.raises(ValueError, match="cannot set weight to None"):
        layer.weight = None
    bare.bias = None
    assert bare.bias is None and list(bare.state_dict()) == ["weight_ri"]


@every_layer
def test_casts_keep_imaginary_parts(cls: Any, args: Any, shape: Any) -> None:
    layer = cls(*args)
    wanted = layer.weight.detach().clone()
    for cast in (
        lambda m: m.double(),
        lambda m: m.to(torch.float64),
        lambda m: m.type(torch.float64),
    ):
        wide = cast(copy.deepcopy(layer))
        assert wide.weight.dtype == wide.bias.dtype == torch.complex128
        assert torch.equal(wide.weight, wanted.to(torch.complex128))
        assert torch.equal(wide.float().weight, wanted)
    half = copy.deepcopy(layer).half()
    assert torch.equal(half.weight_ri, torch.stack((wanted.real, wanted.imag), -1).half())
    torch.testing.assert_close(half.float().weight, wanted, rtol=1e-3, atol=1e-6)


@every_layer
def test_memory_format_keeps_the_parts_together(cls: Any, args: Any, shape: Any) -> None:
    layer = cls(*args)
    wanted = layer.weight.detach().clone()
    for form in (torch.channels_last, torch.channels_last_3d):
        layer.to(memory_format=form)
        assert torch.equal(layer.weight, wanted) and layer.weight_ri.is_contiguous()


@every_layer
def test_moves_without_a_cast_keep_shape_and_memory(cls: Any, args: Any, shape: Any) -> None:
    layer = cls(*args)
    wanted, shape = layer.weight.detach().clone(), layer.weight_ri.shape
    layer(torch.zeros(2, *[3] * len(shape[1:-1]), dtype=torch.complex64)).abs().sum().backward()
    assert (
        layer.double().weight_ri.grad.dtype == torch.float64 and layer.weight_ri.grad.shape == shape
    )
    layer.float().share_memory()
    assert layer.weight_ri.is_shared() and torch.equal(layer.weight, wanted)
    assert (
        layer.to("meta").weight.shape == shape[:-1]
        and layer.to_empty(device="cpu").weight_ri.shape == shape
    )


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_a_complex_cast_is_refused_before_anything_changes() -> None:
    layer = CplxLinear(3, 2)
    for dtype in (torch.complex64, torch.complex128):
        with pytest.raises(TypeError, match=r"got a complex one; try \.to\(torch\.float64\)"):
            layer.to(dtype)
    assert layer.weight_ri.dtype == torch.float32 and layer.weight_ri.shape == (2, 3, 2)


def test_constructor_takes_real_and_complex_types() -> None:
    for dtype in (torch.float64, torch.complex128):
        assert CplxLinear(3, 2, dtype=dtype).weight.dtype == torch.complex128
        assert CplxLinear(3, 2, dtype=dtype).bias_ri.dtype == torch.float64


def test_as_ri_is_a_view_and_refuses_real_tensors() -> None:
    z = torch.randn(3, 4, dtype=torch.complex64)
    as_ri(z.t())[1, 2, 1] = 7.0
    assert z[2, 1].imag == 7.0
    assert torch.equal(as_ri(z.conj())[..., 1], -z.imag)
    with pytest.raises(TypeError, match=r"expected a complex tensor, got torch.float32; try x.to"):
        as_ri(torch.zeros(2, 3))


@every_layer
def test_copies_and_state_dicts(cls: Any, args: Any, shape: Any) -> None:
    layer, other = cls(*args), cls(*args)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.add_(1j)
    assert torch.equal(twin.weight, layer.weight + 1j)  # the layer itself has not moved
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = torch.randn(shape, dtype=torch.complex64)
    assert torch.equal(other(x), layer(x))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias_ri"'):
        other.load_state_dict({"weight_ri": layer.weight_ri}, strict=True)


def _train(step: Any, optimizer: torch.optim.Optimizer) -> list[float]:
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = step()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_fused_adam_equals_adam_on_two_real_tensors_and_on_native_complex_ones() -> None:
    x, y = torch.randn(6, 3, dtype=torch.complex128), torch.randn(6, 2, dtype=torch.complex128)
    layer = CplxLinear(3, 2, dtype=torch.complex128)
    start = layer.weight.detach().clone()
    re, im = (nn.Parameter(part.clone()) for part in (start.real, start.imag))
    re_b, im_b = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    whole, whole_b = (
        nn.Parameter(start.clone()),
        nn.Parameter(torch.zeros(2, dtype=torch.complex128)),
    )

    def error(out: Tensor) -> Tensor:
        return (out - y).abs().square().sum()

    def planar() -> Tensor:
        out_re, out_im = (
            x.real @ re.t() - x.imag @ im.t() + re_b,
            x.real @ im.t() + x.imag @ re.t() + im_b,
        )
        return error(torch.complex(out_re, out_im))

    ours = _train(lambda: error(layer(x)), torch.optim.Adam(layer.parameters(), 0.05, fused=True))
    two = _train(planar, torch.optim.Adam([re, im, re_b, im_b], 0.05, foreach=False))
    native = _train(
        lambda: error(x @ whole.t() + whole_b),
        torch.optim.Adam([whole, whole_b], 0.05, foreach=False),
    )
    assert ours == pytest.approx(two, rel=1e-12) and ours == pytest.approx(native, rel=1e-12)
    torch.testing.assert_close(layer.weight, torch.complex(re, im), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.weight, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.bias, torch.complex(re_b, im_b), rtol=1e-12, atol=1e-12)
    moved = (layer.weight - start).detach()
    assert (moved.real.abs() > 0.05).all() and (moved.imag.abs() > 0.05).all()


@every_layer
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_of_few_digits_are_an_error_that_says_what_to_do(
    cls: Any, args: Any, shape: Any, dtype: torch.dtype
) -> None:
    x = torch.randn(shape, dtype=torch.complex64)
    wanted = rf"expected complex layers in float32 or float64, got {dtype}; try \.float\(\)"
    layer = cls(*args)
    y = layer(x)
    with pytest.raises(TypeError, match=wanted):
        layer.to(dtype)(x)
    torch.testing.assert_close(layer.float()(x), y, rtol=0.1, atol=0.1)
    with pytest.raises(TypeError, match=wanted):
        cls(*args, dtype=dtype)
    with pytest.raises(TypeError, match="expected complex64 or complex128, got complex32"):
        layer(x.to(torch.complex32))


@pytest.mark.parametrize("layer, arguments", [(CplxLinear, (3, 2)), (CplxConv1d, (3, 2, 5))])
def test_a_subclass_initialises_with_the_layers_sizes_at_hand(layer, arguments):
    class Constant(layer):
        def reset_parameters(self):
            fan_in = self.in_features if layer is CplxLinear else self.in_channels
            self.weight = torch.full_like(self.weight, 1 / fan_in)

    assert torch.equal(
        Constant(*arguments).weight, torch.full_like(layer(*arguments).weight, 1 / 3)
    )
