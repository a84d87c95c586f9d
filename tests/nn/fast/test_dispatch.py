"""Where fast paths stay away: tracing, fake tensors, torch.func, subclasses, torch.compile."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from c_functions import in_c, plain
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cplxnet import nn as cplx
from cplxnet.musicnet import networks
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable, own_gradient_usable

with warnings.catch_warnings():  # of what torch scripts at the first jvp of a process, its own
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.func.jvp(torch.sin, (torch.ones(()),), (torch.ones(()),))

TRACING = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)  # torch.jit itself, and the layers' checks of shapes


class Subclass(Tensor):
    pass


def inside(transform: Callable[..., Any]) -> bool:
    """Whether a fast path may take the tensor that `transform` hands to its function."""
    answers: list[bool] = []

    def ask(x: Tensor) -> Tensor:
        answers.append(native_usable(x) or own_gradient_usable(x))
        return x.sum()

    transform(ask)(torch.ones(3, 4))
    return any(answers)


@in_c
def test_plain_tensors_are_taken() -> None:
    assert native_usable(torch.ones(3), nn.Parameter(torch.ones(3))) and native_usable()
    with torch.inference_mode():
        assert native_usable(torch.ones(3))
    with torch.device("cpu"):
        assert native_usable(torch.ones(3))


@TRACING
@pytest.mark.parametrize(
    "transform",
    [
        torch.vmap,
        torch.func.grad,
        torch.func.jacrev,
        torch.func.functionalize,
        lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
        make_fx,
        lambda f: lambda x: torch.jit.trace(f, x, check_trace=False),
        lambda f: torch.compile(f, backend="eager"),
    ],
    ids=["vmap", "grad", "jacrev", "functionalize", "jvp", "make_fx", "jit", "compile"],
)
def test_transformed_tensors_are_left_alone(transform: Callable[..., Any]) -> None:
    assert not inside(transform)


def test_modes_and_other_tensors_are_left_alone() -> None:
    x = torch.ones(4)
    with FakeTensorMode():
        assert not native_usable(torch.ones(4))
        assert not native_usable()
    with FlopCounterMode(display=False):
        assert not native_usable(x)
    with TorchFunctionMode():
        assert not native_usable(x)
    with forward_ad.dual_level():
        assert not native_usable(forward_ad.make_dual(x, x))
    others = [
        x.as_subclass(Subclass),
        x.double(),
        x.to("meta"),
        x.to_sparse(),
        torch._neg_view(x),
        torch.ones(4, 2)[:, 0],
        torch._efficientzerotensor(4),
    ]
    assert not any(native_usable(t) for t in others)


@in_c
def test_a_tensor_without_memory_is_refused_before_c_reads_it() -> None:
    layer, x = cplx.CplxBatchNorm1d(2), torch.randn(5, 2, dtype=torch.complex64)
    y = torch.view_as_real(layer(x))
    with pytest.raises(RuntimeError, match=r"expected a plain contiguous tensor .* try the plain"):
        torch.autograd.grad(y, layer.weight, torch.ones(3, *y.shape), is_grads_batched=True)
    with pytest.raises(RuntimeError, match="got Tensor on meta"):
        native.call("column_sums", 1, 1, 1, torch.ones(1, device="meta"), torch.ones(1))


def test_batch_norm_under_make_fx() -> None:
    norm = cplx.CplxBatchNorm1d(2).eval().requires_grad_(False)
    x = torch.ones(3, 2, dtype=torch.complex64)
    graph = make_fx(norm)(x)
    torch.testing.assert_close(graph(x), x, rtol=1e-4, atol=0)  # I/sqrt(2) of a covariance I/2
    torch.testing.assert_close(graph(2 * x), 2 * x, rtol=1e-4, atol=0)


LAYERS = {
    "linear": (lambda: cplx.CplxLinear(5, 3), (20, 5)),
    "linear VD": (lambda: cplx.CplxLinearVD(5, 3), (20, 5)),
    "linear masked": (lambda: cplx.CplxLinearMasked(5, 3), (20, 5)),
    "conv": (lambda: cplx.CplxConv1d(5, 3, 2), (4, 5, 7)),
    "conv ARD": (
        lambda: cplx.CplxConv1dARD(5, 3, 2, padding=1, padding_mode="circular"),
        (4, 5, 7),
    ),
    "conv2d VD": (lambda: cplx.CplxConv2dVD(5, 3, 2), (4, 5, 7, 6)),
    "batch norm": (lambda: cplx.CplxBatchNorm1d(5), (20, 5)),
    "batch norm of sequences": (lambda: cplx.CplxBatchNorm1d(5), (4, 5, 7)),
    "modulus relu": (lambda: cplx.CplxModReLU(), (4, 5, 7)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def in_evaluation(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[name]
    layer = make()
    with torch.no_grad():
        for stored in layer.state_dict().values():
            if stored.is_floating_point():
                stored += torch.rand_like(stored) / 4
    return layer.eval(), torch.randn(shape, dtype=torch.complex64)


@every_layer
@TRACING
@pytest.mark.parametrize("trainable", [True, False])
def test_traced_in_evaluation(name: str, trainable: bool) -> None:
    layer, x = in_evaluation(name)
    traced = torch.jit.trace(layer.requires_grad_(trainable), x)  # with jit's own check
    torch.testing.assert_close(traced(x), layer(x), rtol=1e-5, atol=1e-6)
    larger = torch.cat((x, 2 * x))
    torch.testing.assert_close(traced(larger), layer(larger), rtol=1e-5, atol=1e-6)


@every_layer
def test_fake_tensors_get_shape_and_type(name: str) -> None:
    layer, x = in_evaluation(name)
    for training in (True, False):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = layer.train(training)(mode.from_tensor(x))
        assert (fake.shape, fake.dtype) == (layer.eval()(x).shape, torch.complex64)


@every_layer
def test_vmap_gradients_of_samples_and_jvp(name: str) -> None:
    layer, x = in_evaluation(name)
    parameters = dict(layer.named_parameters())
    stacked = torch.stack((x, 2 * x, 3 * x))
    torch.testing.assert_close(
        torch.vmap(layer)(stacked), torch.stack([layer(sample) for sample in stacked])
    )

    def loss(values: dict[str, Tensor], sample: Tensor) -> Tensor:
        return (
            torch.func.functional_call(layer, values, (sample.unsqueeze(0),)).abs().square().sum()
        )

    each = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    wanted = torch.autograd.grad(
        loss(parameters, x[2]), list(parameters.values()), allow_unused=True
    )
    for key, grad in zip(parameters, wanted, strict=True):
        grad = torch.zeros_like(parameters[key]) if grad is None else grad
        torch.testing.assert_close(each[key][2], grad, rtol=1e-4, atol=1e-5)

    layer, x = layer.double(), x.to(torch.complex128)
    direction = torch.randn_like(x)
    with torch.no_grad():
        _, tangent = torch.func.jvp(layer, (x,), (direction,))
        slope = (layer(x + 1e-6 * direction) - layer(x - 1e-6 * direction)) / 2e-6
    torch.testing.assert_close(tangent, slope, rtol=1e-4, atol=1e-4)


@every_layer
def test_vmap_over_the_networks_of_an_ensemble(name: str) -> None:
    layers = [in_evaluation(name)[0] for _ in range(3)]
    x = in_evaluation(name)[1]

    def member(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layers[0], (parameters, buffers), (x,))

    together = torch.vmap(member)(*torch.func.stack_module_state(layers))
    torch.testing.assert_close(together, torch.stack([layer(x) for layer in layers]))


@pytest.mark.parametrize(("cls", "size"), [(cplx.CplxConv1dVD, (2,)), (cplx.CplxConv2dARD, (2, 1))])
def test_vmap_over_draws_of_the_noise(cls: Any, size: tuple[int, ...]) -> None:
    layer = cls(1, 1, size)
    nn.init.constant_(layer.log_sigma2, 0.5)
    draws = torch.full((4000, 1, 1, *size), 3j)
    y = torch.vmap(layer, randomness="different")(draws)
    variance = (y - layer.eval()(draws[0])).abs().square().mean()
    # e^0.5 (9 + 9), and the deviation of a mean of 4000 exponential variables
    assert variance.item() == pytest.approx(math.exp(0.5) * 18, rel=5 / math.sqrt(4000))


REFUSED = {
    "conv ARD": lambda: cplx.CplxConv1dARD(2, 3, 2),
    "linear VD": lambda: cplx.CplxLinearVD(2, 3),
    "batch norm": lambda: cplx.CplxBatchNorm1d(2),
}


@in_c
@pytest.mark.parametrize("name", REFUSED)
def test_a_gradient_in_c_is_not_differentiated_again(name: str) -> None:
    layer = REFUSED[name]()
    x = torch.randn((4, 2, 5) if "conv" in name else (4, 2), dtype=torch.complex64)
    x.requires_grad_()
    (first,) = torch.autograd.grad(layer(x).abs().sum(), x)

    def slope() -> Tensor:
        # what torch.autograd.grad differentiates again: with torch's once_differentiable it would
        # take parts of it for constants, without a word
        return torch.autograd.grad(layer(x).abs().sum(), x, create_graph=True)[0]

    with pytest.raises(RuntimeError, match=r"got create_graph=True; try the plain formulas"):
        slope()
    with plain():
        assert slope().requires_grad and slope().shape == first.shape


@in_c
def test_a_hessian_of_the_kl_is_refused_in_c_and_not_zero() -> None:
    kl = KLSum(cplx.CplxLinearVD(5, 3))
    values = {key: value.detach() for key, value in kl.named_parameters()}

    def of(log_sigma2: Tensor) -> Tensor:
        changed = values | {"layer.log_sigma2": log_sigma2}
        return torch.func.functional_call(kl, changed, (torch.ones(()),))

    log_sigma2 = values["layer.log_sigma2"]
    with pytest.raises(RuntimeError, match=r"got create_graph=True; try the plain formulas"):
        torch.autograd.functional.hvp(of, log_sigma2, torch.ones_like(log_sigma2))
    with plain():
        _, curvature = torch.autograd.functional.hvp(of, log_sigma2, torch.ones_like(log_sigma2))
    q = kl.layer.weight.detach().abs().square() / log_sigma2.exp()
    torch.testing.assert_close(curvature, q * (-q).exp(), rtol=1e-3, atol=1e-6)


class KLSum(nn.Module):
    """The KL of a layer as a module without arguments but a factor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, factor: Tensor) -> Tensor:
        return cplx.kl_sum(self.layer) * factor


@TRACING
def test_kl_under_tracing_and_transforms() -> None:
    kl, one = KLSum(cplx.CplxLinearVD(5, 3)), torch.ones(())
    wanted = kl(one)
    by_weight, by_log_sigma2 = torch.autograd.grad(
        wanted, [kl.layer.weight_ri, kl.layer.log_sigma2]
    )

    traced = torch.jit.trace(kl, one)
    torch.testing.assert_close(traced(one), wanted)

    def of(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(kl, values, (one,))

    values = {key: value.detach() for key, value in kl.named_parameters()}
    gradients = torch.func.grad(of)(values)
    torch.testing.assert_close(gradients["layer.weight_ri"], by_weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients["layer.log_sigma2"], by_log_sigma2, rtol=1e-5, atol=1e-6)
    both = {key: torch.stack((value, value)) for key, value in values.items()}
    torch.testing.assert_close(torch.vmap(of)(both), wanted.detach().expand(2))


@TRACING
@pytest.mark.parametrize("kind", ["", "VD", "Masked"])
def test_a_traced_network_gives_the_same_values(kind: str) -> None:
    x = torch.randn(2, 1, 2048, dtype=torch.complex64)
    net = networks.build(f"complex.DeepConvNet{kind}", x).eval()
    traced = torch.jit.trace(net, x)
    torch.testing.assert_close(traced(x), net(x), rtol=1e-4, atol=1e-5)


@in_c
def test_torch_compile_takes_the_plain_formulas() -> None:
    layer = cplx.CplxLinearVD(7, 5)
    x = torch.randn(3, 7, dtype=torch.complex64)

    def step(x: Tensor) -> Tensor:
        return layer(x).abs().square().sum() + cplx.kl_sum(layer)

    compiled = torch.compile(step, backend="eager")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        got = torch.autograd.grad(compiled(x), list(layer.parameters()))
    with plain():
        torch.manual_seed(1)
        wanted = torch.autograd.grad(step(x), list(layer.parameters()))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
