"""The convolution with its own gradient by the weight, against torch's and the defining sum."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.nn.conv import two_dimensional
from cplxnet.nn.fast import conv
from cplxnet.nn.fast.conv import Geometry


def channels_last(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


sizes = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 5),
    channels=sizes,
    out=sizes,
    kernel=st.tuples(sizes, sizes),
    stride=st.tuples(sizes, sizes),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    image=st.tuples(st.integers(3, 7), st.integers(3, 9)),
    at_once=st.sampled_from([250, 1000, 1 << 22]),
)
def test_all_gradients_are_those_of_torch(
    batch, channels, out, kernel, stride, padding, image, at_once
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "UNFOLDED", at_once)
        x, w = (
            channels_last(batch, channels, *image).requires_grad_(),
            channels_last(out, channels, *kernel),
        )
        w, b = w.requires_grad_(), torch.randn(out, dtype=torch.float64, requires_grad=True)
        ours = conv.conv2d(x, w, b, Geometry(stride, padding))
        theirs = F.conv2d(x, w, b, stride, padding)
        assert torch.equal(ours, theirs) and type(ours.grad_fn).__name__ == "_ConvolutionBackward"
        grad = torch.randn_like(ours)
        found, wanted = (torch.autograd.grad(y, (x, w, b), grad) for y in (ours, theirs))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_by_the_weight_is_the_sum_that_defines_it():
    """dL/dw[o, c, i, j] = sum over b, y, x of g[b, o, y, x] image[b, c, 2 y + i - 1, 3 x + j]."""
    image, grad = channels_last(2, 2, 5, 8), torch.randn(2, 3, 3, 3, dtype=torch.float64)
    padded, g = np.pad(image.numpy(), ((0, 0), (0, 0), (1, 1), (0, 0))), grad.numpy()
    found = conv.weight_gradient(image, grad, (2, 2), (2, 3), (1, 0))
    for o, c, i, j in itertools.product(range(3), range(2), range(2), range(2)):
        wanted = sum(
            g[b, o, y, x] * padded[b, c, 2 * y + i, 3 * x + j]
            for b, y, x in itertools.product(range(2), range(3), range(3))
        )
        assert abs(found[o, c, i, j].item() - wanted) < 1e-13


def test_it_can_be_differentiated_twice():
    x, w = channels_last(2, 2, 3, 6).requires_grad_(), channels_last(3, 2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *a: conv.conv2d(*a, None, Geometry((1, 2), (1, 0))), (x, w)
    )
    assert torch.autograd.gradgradcheck(
        lambda *a: conv.conv2d(*a, None, Geometry((1, 2), (1, 0))), (x, w)
    )


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"dilation": (1, 2)}], ids=str
)
def test_what_it_has_no_gradient_for_is_left_to_torch(options):
    x, w = (
        channels_last(2, 4, 5, 6),
        channels_last(4, 4 // options.get("groups", 1), 3, 3).requires_grad_(),
    )
    y = conv.conv2d(x, w, None, two_dimensional(2, **options))
    assert torch.equal(y, F.conv2d(x, w, **options))
    assert type(y.grad_fn).__name__ == "ConvolutionBackward0"


def test_an_image_that_would_be_large_unfolded_is_left_to_torch(monkeypatch):
    x, w = channels_last(1, 2, 8, 16), channels_last(1, 2, 3, 3).requires_grad_()
    kinds = []
    for unfolded in (8 * 16 * 2 * 9 // 8, 8 * 16 * 2 * 9 // 8 - 1):
        monkeypatch.setattr(conv, "UNFOLDED", unfolded)
        kinds.append(type(conv.conv2d(x, w, None, Geometry()).grad_fn).__name__)
    assert kinds == ["_ConvolutionBackward", "ConvolutionBackward0"]


def test_it_stays_out_of_the_way_of_autocast_and_of_evaluation():
    x, w = (
        channels_last(2, 2, 3, 6, dtype=torch.float32),
        channels_last(3, 2, 2, 3, dtype=torch.float32),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.conv2d(x, w.requires_grad_(), None, Geometry()).dtype == torch.bfloat16
    with torch.no_grad():
        assert conv.conv2d(x, w, None, Geometry()).grad_fn is None


@pytest.mark.parametrize(
    "kind", [cplx.CplxConv1d, cplx.CplxConv1dVD, cplx.CplxConv1dARD, cplx.CplxConv1dMasked]
)
def test_layers_train_by_it(kind, monkeypatch):
    calls, own = [], conv.weight_gradient
    monkeypatch.setattr(conv, "weight_gradient", lambda *a: calls.append(a) or own(*a))
    layer = kind(2, 3, 5, stride=2)
    layer(torch.randn(4, 2, 30, dtype=torch.complex64)).abs().sum().backward()
    assert len(calls) == (2 if isinstance(layer, cplx.GaussianWeight) else 1)
