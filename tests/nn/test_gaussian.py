"""Noise of a given variance: its floor, and the memory layout it keeps."""

import pytest
import torch

from cplxnet.nn.gaussian import with_noise


def test_variance_is_floored_before_the_root() -> None:
    torch.manual_seed(0)
    variance = torch.full((100_000,), -1e-6, requires_grad=True)
    y = with_noise(torch.zeros(100_000), variance)
    assert y.std().item() == pytest.approx(1e-4, rel=0.02)
    y.sum().backward()
    assert not variance.grad.any()


def test_noise_keeps_the_memory_layout() -> None:
    z = torch.randn(3, 7, 4, dtype=torch.complex64).movedim(-1, 1)  # (3, 4, 7), channels last
    y = with_noise(z, torch.ones(3, 7, 4).movedim(-1, 1))
    assert y.stride() == z.stride()
