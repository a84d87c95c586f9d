"""Clipping by a norm of which part is known: against torch's own, in double precision."""

import math

import pytest
import torch
from torch import nn

from cplxnet.nn import GradientNorm


def known_of(parameters):
    """The norm, which knows the squares of these."""
    norm = GradientNorm()
    for parameter in parameters:
        norm.add(parameter, parameter.grad.double().square().sum())
    return norm


def parameters(scale=1.0):
    torch.manual_seed(3)
    made = [nn.Parameter(torch.zeros(shape)) for shape in [(300, 41), (7,), (64, 3, 2), ()]]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter) * scale
    return [*made, nn.Parameter(torch.zeros(5))]  # the last has no gradient


@pytest.mark.parametrize("max_norm", [0.05, 1e6, math.inf])
@pytest.mark.parametrize("n_known", [0, 1, 2, 4])
def test_norm_and_gradients_are_torchs(n_known, max_norm):
    ours, theirs = parameters(), [nn.Parameter(p.detach().double()) for p in parameters()]
    for mine, other in zip(ours, theirs, strict=True):
        other.grad = None if mine.grad is None else mine.grad.double()
    norm = known_of(ours[:n_known])
    wanted = nn.utils.clip_grad_norm_(theirs, max_norm)
    got = norm.clip(iter(ours), max_norm)
    assert got.dtype == torch.float32 and got.item() == pytest.approx(wanted.item(), rel=2e-7)
    for mine, other in zip(ours[:-1], theirs, strict=False):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-6, atol=0)
    assert ours[-1].grad is None


@pytest.mark.parametrize("known", [True, False])
def test_nan_and_infinity_show_in_the_norm(known):
    for bad in (math.nan, math.inf):
        made = parameters()
        made[0].grad[2, 3] = bad
        norm = known_of(made[:1] if known else [])
        assert not norm.clip(made, 1.0).isfinite()


def test_what_is_known_is_not_read_again():
    made = parameters()
    norm = GradientNorm()
    for parameter in made[:4]:
        norm.add(parameter, torch.tensor(1.0, dtype=torch.float64))
    assert norm.clip(made, math.inf).item() == 2.0
