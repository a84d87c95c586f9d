"""Batch norm, split ReLU and pooling fused, against the formula and the layers one by one."""

import pytest
import torch
from c_functions import in_c, plain
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.musicnet import networks
from cplxnet.nn.whitening import normalise

CASES = pytest.mark.parametrize(
    ("channels", "length", "pooled"),
    [
        (16, 100, True),
        (16, 101, True),
        (5, 8, False),
        (130, 9, True),
        (300, 2, True),
        (3, 1, False),
    ],
    ids=str,
)


def block(channels: int, pooled: bool = True, **pool: int) -> list[nn.Module]:
    """Batch norm with a full matrix and a bias of its own, split ReLU, and perhaps pooling."""
    norm = cplx.CplxBatchNorm1d(channels)
    assert norm.weight is not None
    assert norm.bias is not None
    with torch.no_grad():
        norm.weight.add_(torch.randn_like(norm.weight) / 2)
        norm.bias.add_(torch.randn_like(norm.bias) / 2)
    pools = [cplx.Split(nn.AvgPool1d(**({"kernel_size": 2} | pool)))] if pooled else []
    return [norm, cplx.Split(nn.ReLU()), *pools]


def activations(channels: int, length: int) -> Tensor:
    """Complex (B, C, L), channels last in memory, far from white noise."""
    z = torch.randn(3 if length > 2 else 50, length, channels, dtype=torch.complex64)
    return (z + z.conj() / 2 + 0.7).movedim(-1, 1)


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every time that layers run as one, whether with pooling."""
    calls: list[bool] = []
    original = cplx.CplxBatchNorm1d.fused

    def noted(self: cplx.CplxBatchNorm1d, x: Tensor, pool: bool) -> Tensor:
        calls.append(pool)
        return original(self, x, pool)

    monkeypatch.setattr(cplx.CplxBatchNorm1d, "fused", noted)
    return calls


@in_c
@CASES
def test_value_and_gradients_are_those_of_the_formula(
    channels: int, length: int, pooled: bool, folded: list[bool]
) -> None:
    layers, x = block(channels, pooled), activations(channels, length).requires_grad_()
    norm = layers[0]
    y = cplx.through(layers, x)
    upstream = torch.randn_like(y)
    found = torch.autograd.grad((y * upstream).real.sum(), [x, *norm.parameters()])
    assert folded == [pooled]

    exact, weight, bias = (
        t.detach().to(torch.complex128 if t.is_complex() else torch.float64)
        for t in (x, *norm.parameters())
    )
    inputs = [t.requires_grad_() for t in (exact, weight, bias)]
    rows = torch.view_as_real(exact.movedim(1, -1)).reshape(-1, channels, 2)
    z = normalise(rows, weight, bias, 1e-5)[0].relu().view(len(x), length, channels, 2)
    if pooled:
        z = (z[:, : length // 2 * 2 : 2] + z[:, 1::2][:, : length // 2]) / 2
    expected = torch.view_as_complex(z.contiguous()).movedim(-1, 1)
    gradients = torch.autograd.grad((expected * upstream).real.sum(), inputs)

    torch.testing.assert_close(y, expected.to(torch.complex64), rtol=1e-5, atol=3e-6)
    for a, b in zip(found, gradients, strict=True):
        assert (a - b).norm() < 3e-6 * b.norm()


@in_c
@CASES
def test_same_as_the_layers_one_by_one(
    channels: int, length: int, pooled: bool, folded: list[bool]
) -> None:
    layers, x = block(channels, pooled), activations(channels, length)
    norm = layers[0]
    assert isinstance(norm, cplx.CplxBatchNorm1d)
    results = []
    for run in (lambda x: cplx.through(layers, x), nn.Sequential(*layers)):
        norm.reset_running_stats()
        z = x.clone().requires_grad_()
        y = run(z)
        gradients = torch.autograd.grad(y.abs().square().sum(), [z, *norm.parameters()])
        norm.eval()
        with torch.no_grad():
            evaluated = run(x)
        norm.train()
        assert (
            y.stride() == evaluated.stride() == (y[0].numel(), 1, channels)
        )  # the next convolution wants channels last
        results.append(
            [y, evaluated, *gradients, norm.running_mean.clone(), norm.running_var.clone()]
        )
    assert folded == [pooled, pooled]  # in training and in evaluation, and not in the Sequential
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


@in_c
def test_what_cannot_be_folded_runs_layer_by_layer(folded: list[bool]) -> None:
    x = activations(4, 12)

    def check(layers: list[nn.Module], x: Tensor, expected: list[bool]) -> None:
        folded.clear()
        torch.testing.assert_close(cplx.through(layers, x), nn.Sequential(*layers)(x))
        assert folded == expected

    check(block(4), x, [True])
    check(block(4) + block(4, False), x, [True, False])
    check(block(4, kernel_size=3), x, [False])  # ReLU still is
    check(block(4, kernel_size=2, stride=1), x, [False])
    check(block(4, kernel_size=2, padding=1), x, [False])
    check(block(4, False), activations(4, 12).contiguous(), [])
    check([block(4)[0]], x, [])
    check([block(4)[0], cplx.Split(nn.Tanh())], x, [])
    check([nn.Identity(), *block(4), nn.Flatten()], x, [True])
    check([layer.double() for layer in block(4)], x.to(torch.complex128), [])
    in_evaluation = [layer.eval() for layer in block(4)]
    check(in_evaluation, x, [])  # somebody may want the gradient
    with torch.no_grad():
        check(in_evaluation, x, [True])
    with plain():
        check(block(4), x, [])


@in_c
@pytest.mark.parametrize(
    ("name", "expected"), [("0", []), ("1", []), ("1.module", []), ("2", [False])]
)
def test_a_layer_with_a_hook_runs_by_itself(
    name: str, expected: list[bool], folded: list[bool]
) -> None:
    layers, x, seen = block(4), activations(4, 12), []
    nn.Sequential(*layers).get_submodule(name).register_forward_hook(lambda *_: seen.append(name))
    cplx.through(layers, x)
    assert folded == expected
    assert seen == [name]


@in_c
def test_what_lies_between_is_not_kept() -> None:
    layers, x = block(16), activations(16, 100).requires_grad_()

    def kept(run: nn.Module) -> int:
        sizes: dict[int, int] = {}

        def note(t: Tensor) -> Tensor:
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            y = run(x)
        del y
        return sum(sizes.values())

    one_by_one = kept(nn.Sequential(*layers))
    together = kept(lambda x: cplx.through(layers, x))  # type: ignore[arg-type]
    assert 0 < together <= one_by_one - x.nbytes  # the output of ReLU at least


@in_c
@pytest.mark.parametrize("kind", ["", "VD"])
def test_a_network_folds_its_blocks(kind: str, folded: list[bool]) -> None:
    x = torch.randn(2, 1, 2048, dtype=torch.complex64)
    net = networks.build(f"complex.DeepConvNet{kind}", x)
    torch.manual_seed(1)
    y = net(x)
    assert folded == [True] * 5
    folded.clear()
    torch.manual_seed(1)
    z = x
    for layer in net:
        z = layer(z)
    assert folded == []
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
