"""Gradual pruning's schedule against the published formula, and the steps that it prunes at."""

import pytest
import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Pruner
from cplxnet.auto.train.pruning import Pruning, sparsity_after


def pruner(**changes) -> Pruner:
    return Pruner(**{"name": "gradual", "sparsity": 0.9, **changes})


def test_the_schedule_is_that_of_zhu_and_gupta():
    spec = pruner(initial=0.25, begin=0.1, end=0.7)
    s_i, s_f, t0, n, dt = 0.25, 0.9, 20, 12, 10  # t0 + n dt = 140 = 0.7 of 200 steps
    for k in range(n + 1):
        t = t0 + k * dt
        published = s_f + (s_i - s_f) * (1 - (t - t0) / (n * dt)) ** 3
        assert sparsity_after(t, 200, spec, s_f) == pytest.approx(published, rel=1e-12)
    assert sparsity_after(3, 200, spec, s_f) == s_i
    assert sparsity_after(200, 200, spec, s_f) == s_f


def masked_net() -> nn.Sequential:
    return nn.Sequential(cplx.CplxLinearMasked(20, 10), cplx.CplxLinearMasked(10, 5))


def n_zero(net: nn.Module) -> int:
    return sum(int((~layer.mask).sum()) for layer in net)


def test_a_stage_prunes_every_so_many_steps_and_ends_at_its_sparsity():
    net, spec = masked_net(), pruner(every=5, begin=0.2, end=0.6)
    pruning = Pruning(spec, net, like=None, threshold=-0.5, seed=0)
    pruning.start()
    counts = []
    for step in range(1, 31):
        pruning.after(step, 30)
        counts.append(n_zero(net))
    changed = [
        step for step, (a, b) in enumerate(zip([0, *counts], counts, strict=False), 1) if a != b
    ]
    assert changed == [10, 15, 18]  # multiples of 5 after 6, and 18 = 0.6 of 30
    expected = [round(250 * sparsity_after(step, 30, spec, 0.9)) for step in changed]
    assert [counts[step - 1] for step in changed] == expected
    assert counts[-1] == 225
    assert all((layer.weight[~layer.mask] == 0).all() for layer in net)


@pytest.mark.parametrize(("n_steps", "end"), [(30, 0.01), (1, 0.4), (3, 0.1)])
def test_a_stage_of_few_steps_is_pruned_all_the_same(n_steps, end):
    """Its pruning is over before its first step, by the schedule."""
    net = masked_net()
    pruning = Pruning(pruner(end=end), net, like=None, threshold=-0.5, seed=0)
    pruning.start()
    for step in range(1, n_steps + 1):
        pruning.after(step, n_steps)
    assert n_zero(net) == 225


def test_a_layer_of_less_than_the_initial_sparsity_has_its_own_from_the_first():
    assert sparsity_after(50, 200, pruner(initial=0.5, end=1.0), 0.1) == 0.1


@pytest.mark.parametrize("name", ["gradual", "one-shot", "random"])
def test_the_sparsity_of_each_layer_of_an_earlier_network(name):
    like = nn.Sequential(cplx.CplxLinearVD(20, 10), cplx.CplxLinearARD(10, 5))
    with torch.no_grad():
        for layer, n in ((like[0], 37), (like[1], 11)):
            layer.log_sigma2.flatten()[:n] = 20.0
    net = masked_net()
    spec = Pruner(name=name, like="sparsify", end=0.5, every=3)
    pruning = Pruning(spec, net, like=like, threshold=-0.5, seed=5)
    pruning.start()
    for step in range(1, 11):
        pruning.after(step, 10)
    assert [int((~layer.mask).sum()) for layer in net] == [37, 11]
