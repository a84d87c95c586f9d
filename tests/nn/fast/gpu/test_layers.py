"""Convolution and linear layers by the GPU kernels, against torch's complex128 operations."""

import pytest
import torch
from interpreted import error, interpreted

layers = interpreted("layers")
noise = interpreted("noise")


def channels_last(b, c, length):
    return torch.randn(b, length, c, dtype=torch.complex64).movedim(-1, 1).requires_grad_()


def cplx_conv1d(x, weight_ri, bias_ri=None, step=1):
    """torch's own convolution of complex tensors."""
    bias = None if bias_ri is None else torch.view_as_complex(bias_ri)
    return torch.nn.functional.conv1d(x, torch.view_as_complex(weight_ri), bias, stride=step)


def cplx_linear(x, weight_ri, bias_ri=None):
    """W x + b in complex numbers."""
    y = x @ torch.view_as_complex(weight_ri).T
    return y if bias_ri is None else y + torch.view_as_complex(bias_ri)


def wide(t):
    """A leaf with the same values in double precision."""
    dtype = torch.complex128 if t.is_complex() else torch.float64
    return t.detach().to(dtype).requires_grad_()


def compare(y, right, given, given_right, tolerance):
    grad = torch.randn_like(y)
    found = torch.autograd.grad(y, given, grad)
    expected = torch.autograd.grad(right, given_right, grad.to(torch.complex128))
    assert y.shape == right.shape and error(y, right) < tolerance
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and error(a, b) < tolerance


CONVOLUTIONS = [  # batch, in, length, out, kernel, stride, bias, masked
    (3, 2, 21, 5, 3, 2, True, False),
    (2, 1, 40, 4, 6, 2, False, True),
    (2, 4, 13, 3, 3, 1, True, True),
    (2, 3, 9, 2, 1, 3, False, False),
    (2, 16, 30, 20, 3, 2, False, False),
    (1, 2, 5, 3, 5, 1, True, False),
]


@pytest.mark.parametrize(("b", "i", "length", "o", "k", "step", "bias", "masked"), CONVOLUTIONS)
def test_convolution(b, i, length, o, k, step, bias, masked):
    x = channels_last(b, i, length)
    weight = torch.randn(o, i, k, 2, requires_grad=True)
    shift = torch.randn(o, 2, requires_grad=True) if bias else None
    mask = torch.rand(o, i, k) > 0.4 if masked else None
    given = [t for t in (x, weight, shift) if t is not None]
    wider = [wide(t) for t in given]
    kept = wider[1] if mask is None else wider[1] * mask.unsqueeze(-1)

    y = layers.conv1d(x, weight, shift, step, mask=mask)
    right = cplx_conv1d(wider[0], kept, wider[2] if bias else None, step)
    compare(y, right, given, wider, 2e-6)


@pytest.mark.parametrize(
    ("b", "i", "o", "bias", "masked"),
    [(5, 7, 9, True, False), (4, 33, 20, True, True), (1, 3, 2, False, False)],
)
def test_linear(b, i, o, bias, masked):
    x = torch.randn(b, i, dtype=torch.complex64, requires_grad=True)
    weight = torch.randn(o, i, 2, requires_grad=True)
    shift = torch.randn(o, 2, requires_grad=True) if bias else None
    mask = torch.rand(o, i) > 0.4 if masked else None
    given = [t for t in (x, weight, shift) if t is not None]
    wider = [wide(t) for t in given]
    kept = wider[1] if mask is None else wider[1] * mask.unsqueeze(-1)

    y = layers.linear(x, weight, shift, mask=mask)
    right = cplx_linear(wider[0], kept, wider[2] if bias else None)
    compare(y, right, given, wider, 2e-6)


def noise_like(variance, key):
    """The noise CN(0, 1) that a layer drew with this key, for a variance (B, C, ...).

    It has its channels second, as the variance.
    """
    n = variance.numel()
    e = noise.noise_pairs(torch.zeros(n, 2), torch.full((n,), 1.0), key)
    return torch.view_as_complex(e.double()).view(variance.movedim(1, -1).shape).movedim(-1, 1)


def test_noisy_convolution():
    x = channels_last(2, 3, 17)
    weight = torch.randn(4, 3, 3, 2, requires_grad=True)
    bias = torch.randn(4, 2, requires_grad=True)
    log_sigma2 = (torch.randn(4, 3, 3) - 1).requires_grad_()
    given = [x, weight, bias, log_sigma2]
    wider = [wide(t) for t in given]

    torch.manual_seed(5)
    y = layers.conv1d(x, weight, bias, 2, log_sigma2=log_sigma2)

    torch.manual_seed(5)
    key = torch.randint(2**62, (1,))
    square = wider[0].real ** 2 + wider[0].imag ** 2
    variance = torch.nn.functional.conv1d(square, wider[3].exp(), stride=2)
    mean = cplx_conv1d(wider[0], wider[1], wider[2], 2)
    right = mean + variance.sqrt() * noise_like(variance, key)
    compare(y, right, given, wider, 2e-6)


def test_noisy_linear():
    x = torch.randn(4, 9, dtype=torch.complex64, requires_grad=True)
    weight = torch.randn(6, 9, 2, requires_grad=True)
    bias = torch.randn(6, 2, requires_grad=True)
    log_sigma2 = (torch.randn(6, 9) - 1).requires_grad_()
    given = [x, weight, bias, log_sigma2]
    wider = [wide(t) for t in given]

    torch.manual_seed(5)
    y = layers.linear(x, weight, bias, log_sigma2=log_sigma2)

    torch.manual_seed(5)
    key = torch.randint(2**62, (1,))
    variance = (wider[0].real ** 2 + wider[0].imag ** 2) @ wider[3].exp().T
    right = cplx_linear(*wider[:3]) + variance.sqrt() * noise_like(variance, key)
    compare(y, right, given, wider, 2e-6)


def test_leading_bits_are_those_of_tf32():
    linear = interpreted("linear")
    x = torch.cat(
        (torch.randn(500) * 10 ** torch.linspace(-20, 20, 500), torch.tensor([0.0, -0.0]))
    )
    weight = x.view(251, 1, 2)
    high, low = linear.split_weight(weight, None, True)
    bits = high.view(torch.int32)
    assert ((bits & 0x1FFF) == 0).all()  # 10 bits after the leading one
    assert torch.equal(high + low, x.view(251, 2))
    assert (low.abs() <= x.view(251, 2).abs() * 2.0**-11).all()


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy, of the interpreter
def test_the_first_try_may_come_while_a_network_is_scored():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode():
        layers.trial(device, layers.precision())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    ("products", "least", "most"), [("tf32", 5e-5, 2e-3), ("bfloat16", 5e-4, 1e-2)]
)
def test_products_of_fewer_digits(monkeypatch, products, least, most):
    monkeypatch.setattr(layers, "precision", lambda: products)
    x = channels_last(4, 32, 100)
    weight = torch.randn(64, 32, 3, 2, requires_grad=True)
    y = layers.conv1d(x, weight, None, 1)
    right = cplx_conv1d(wide(x), wide(weight))
    assert least < error(y, right) < most  # rounded, and no more than that

    fc = torch.randn(20, 32, 2, requires_grad=True)
    rows = x[:, :, 0].detach().requires_grad_()
    compared = layers.linear(rows, fc, None), cplx_linear(wide(rows), wide(fc))
    assert least < error(*compared) < most
    grad = torch.randn_like(y)
    by_weight = torch.autograd.grad(y, weight, grad)[0]
    wider = wide(weight)
    right = torch.autograd.grad(cplx_conv1d(wide(x), wider), wider, grad.to(torch.complex128))[0]
    assert error(by_weight, right) < most
