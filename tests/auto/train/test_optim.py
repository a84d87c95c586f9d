"""Optimisers and schedules: against the definitions, and Adam's state against Adam written out."""

import math

import pytest
import torch

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Optimizer, Schedule
from cplxnet.auto.train.optim import (
    SCHEDULES,
    load_named_state,
    make_schedule,
    named_state,
    set_rate,
)
from cplxnet.auto.train.optim import make_optimizer as optimizer_of


def make_optimizer(model, name, **options):
    return optimizer_of(model, Optimizer(name=name, **options))


def test_trabelsi2017_epoch_by_epoch():
    factor = make_schedule(Schedule(name="trabelsi2017"), 200)
    expected = [1.0] * 10 + [0.1] * 90 + [0.05] * 20 + [0.01] * 30 + [0.001] * 50
    assert [factor(epoch) for epoch in range(200)] == expected


def test_constant_is_what_no_schedule_means():
    for spec in (None, Schedule(name="constant")):
        assert [make_schedule(spec, 5)(epoch) for epoch in range(5)] == [1.0] * 5


def test_step_falls_once_where_told():
    factor = make_schedule(Schedule(name="step"), 10)
    assert [factor(epoch) for epoch in range(10)] == [1.0] * 6 + [0.1] * 4
    factor = make_schedule(Schedule(name="step", at=0.5, factor=0.25), 4)
    assert [factor(epoch) for epoch in range(4)] == [1.0, 1.0, 0.25, 0.25]


def test_cosine_goes_from_one_halfway_to_the_middle_and_towards_its_end():
    factor = make_schedule(Schedule(name="cosine", final=0.2), 10)
    values = [factor(epoch) for epoch in range(10)]
    assert values[0] == 1.0 and values[5] == pytest.approx(0.6)
    assert values == sorted(values, reverse=True)
    assert SCHEDULES["cosine"](10, 10, final=0.2) == pytest.approx(0.2)
    assert values[3] == pytest.approx(
        0.2 + 0.8 * math.cos(math.pi * 3 / 20) ** 2
    )  # (1 + cos 2a)/2 = cos(a)^2


def test_rates_are_the_start_rate_times_the_factor_not_the_last_rate():
    model = cplx.CplxLinearVD(3, 2)
    optimizer = make_optimizer(model, "adam", lr=1e-2, lr_log_sigma2=0.5)
    for factor in (0.1, 0.1, 1.0, 0.05):
        assert set_rate(optimizer, factor) == pytest.approx(1e-2 * factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [1e-2 * factor, 0.5 * factor]
        )


def test_log_sigma2_has_a_group_of_its_own_only_where_asked_for():
    model = torch.nn.Sequential(
        cplx.CplxLinearVD(3, 2), cplx.CplxBatchNorm1d(2), cplx.CplxLinearVD(2, 2)
    )
    one = make_optimizer(model, "adam", lr=1e-3)
    assert [len(group["params"]) for group in one.param_groups] == [len(list(model.parameters()))]
    mean, sigma = make_optimizer(model, "adam", lr=1e-3, lr_log_sigma2=1e-1).param_groups
    assert [id(p) for p in sigma["params"]] == [id(model[0].log_sigma2), id(model[2].log_sigma2)]
    assert len(mean["params"]) + 2 == len(list(model.parameters()))
    assert (
        make_optimizer(cplx.CplxLinear(3, 2), "adam", lr=1e-3, lr_log_sigma2=1e-1).param_groups[0][
            "lr"
        ]
        == 1e-3
    )


def test_options_reach_adam():
    group = make_optimizer(
        cplx.CplxLinear(3, 2), "adam", lr=1e-3, betas=(0.8, 0.9), weight_decay=0.1
    ).param_groups[0]
    assert (group["betas"], group["weight_decay"], group["fused"]) == ((0.8, 0.9), 0.1, True)


def test_weight_decay_never_touches_log_sigma2():
    """With no gradient at all Adam moves what decays, and only that."""
    for own_rate in (None, 1e-2):
        model = cplx.CplxLinearVD(3, 2)
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer = make_optimizer(model, "adam", lr=1e-2, lr_log_sigma2=own_rate, weight_decay=0.1)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        assert torch.equal(model.log_sigma2, before["log_sigma2"])
        assert not torch.equal(model.weight_ri, before["weight_ri"])
        assert [group["lr"] for group in optimizer.param_groups] == [1e-2, own_rate or 1e-2]


def test_a_rate_that_is_a_tensor_is_changed_in_place():
    group = {"params": [torch.nn.Parameter(torch.ones(2))], "initial_lr": 1e-2}
    optimizer = torch.optim.Adam([group], lr=torch.tensor(1e-2))
    rate = optimizer.param_groups[0]["lr"]
    for factor in (0.1, 0.1, 0.5):
        assert set_rate(optimizer, factor) == pytest.approx(1e-2 * factor)
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == pytest.approx(1e-2 * factor)


class Adam:
    """Kingma and Ba (2015), algorithm 1, of one parameter, in float64."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value.detach().double().clone()
        self.m, self.v, self.t = torch.zeros_like(self.value), torch.zeros_like(self.value), 0

    def step(self, grad: torch.Tensor, lr: float) -> None:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * grad.double()
        self.v = 0.999 * self.v + 0.001 * grad.double() ** 2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.value -= lr * m / (v.sqrt() + 1e-8)


def take_steps(model, optimizer, by_hand, n, lr):
    for _ in range(n):
        for key, p in model.named_parameters():
            p.grad = torch.randn_like(p)
            by_hand[key].step(p.grad, lr)
        optimizer.step()


def test_state_carried_from_dense_to_variational_goes_on_and_new_parameters_start_fresh():
    dense, vd = cplx.CplxLinear(4, 3), cplx.CplxLinearVD(4, 3)
    first = make_optimizer(dense, "adam", lr=1e-2)
    by_hand = {key: Adam(p) for key, p in dense.named_parameters()}
    take_steps(dense, first, by_hand, 3, 1e-2)
    state = named_state(dense, first)
    assert state.keys() == {"weight_ri", "bias_ri"}

    vd.load_state_dict(dense.state_dict(), strict=False)
    second = make_optimizer(vd, "adam", lr=1e-3)
    load_named_state(vd, second, state)
    by_hand["log_sigma2"] = Adam(vd.log_sigma2)
    take_steps(vd, second, by_hand, 4, 1e-3)
    assert {key: hand.t for key, hand in by_hand.items()} == {
        "weight_ri": 7,
        "bias_ri": 7,
        "log_sigma2": 4,
    }
    for key, p in vd.named_parameters():
        torch.testing.assert_close(p.detach().double(), by_hand[key].value, rtol=1e-6, atol=1e-6)


def test_state_goes_on_in_one_network_as_if_never_saved():
    model, straight = cplx.CplxLinear(4, 3), cplx.CplxLinear(4, 3)
    straight.load_state_dict(model.state_dict())
    grads = [torch.randn(3, 4, 2) for _ in range(6)]
    one, other = make_optimizer(model, "adam", lr=1e-2), make_optimizer(straight, "adam", lr=1e-2)
    for k, grad in enumerate(grads):
        if k == 3:
            state, one = named_state(model, one), make_optimizer(model, "adam", lr=1e-2)
            load_named_state(model, one, state)
        model.weight_ri.grad, straight.weight_ri.grad = grad.clone(), grad.clone()
        one.step(), other.step()
    assert torch.equal(model.weight_ri, straight.weight_ri)


def test_loading_copies():
    model = cplx.CplxLinear(2, 2)
    optimizer = make_optimizer(model, "adam", lr=1e-2)
    state = {
        "weight_ri": {
            "exp_avg": torch.zeros(2, 2, 2),
            "exp_avg_sq": torch.zeros(2, 2, 2),
            "step": torch.tensor(5.0),
        }
    }
    load_named_state(model, optimizer, state)
    model.weight_ri.grad = torch.ones(2, 2, 2)
    optimizer.step()
    assert state["weight_ri"]["step"] == 5 and not state["weight_ri"]["exp_avg"].any()


# -- schedules that rise, and other optimisers -----------------------------------------------------


def test_linear_and_cubic_rise_from_begin_to_end():
    """The value of an epoch's end: 10 epochs from 0.2 to 0.7 end at 0.3, 0.4, ... of the stage."""
    share = [0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1]
    linear = make_schedule(Schedule(name="linear", begin=0.2, end=0.7), 10)
    cubic = make_schedule(Schedule(name="cubic", begin=0.2, end=0.7), 10)
    assert [linear(epoch) for epoch in range(10)] == pytest.approx(share)
    # Zhu and Gupta 2017, equation 1, from s_i = 0 to s_f = 1
    expected = [1 + (0 - 1) * (1 - p) ** 3 for p in share]
    assert [cubic(epoch) for epoch in range(10)] == pytest.approx(expected)


def test_by_default_a_rise_takes_the_whole_stage_and_no_epoch_has_zero():
    factor = make_schedule(Schedule(name="linear"), 4)
    assert [factor(epoch) for epoch in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("begin", "end"), [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.5), (0.6, 0.2)])
def test_a_rise_needs_a_beginning_before_its_end(begin, end):
    with pytest.raises(ValueError, match="are not 0 <= begin < end <= 1"):
        SCHEDULES["cubic"](0, 10, begin=begin, end=end)


def trained_on(optimizer, model, grads):
    for grad in grads:
        for p in model.parameters():
            p.grad = torch.full_like(p, grad)
        optimizer.step()


def test_sgd_with_momentum_follows_its_recursion():
    """v = 0.8 v + g, w = w - lr v, from v = 0."""
    model = cplx.CplxLinearVD(3, 2)
    start = model.weight_ri.detach().clone()
    trained_on(make_optimizer(model, "sgd", lr=0.1, momentum=0.8), model, [1.0, 2.0, -1.0])
    velocity, moved = 0.0, 0.0
    for grad in (1.0, 2.0, -1.0):
        velocity = 0.8 * velocity + grad
        moved += 0.1 * velocity
    torch.testing.assert_close(model.weight_ri.detach(), start - moved)


def test_adamw_shrinks_weights_by_rate_times_decay_and_never_log_sigma2():
    model = cplx.CplxLinearVD(3, 2)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    trained_on(make_optimizer(model, "adamw", lr=0.1), model, [0.0])  # its own decay: 0.01
    torch.testing.assert_close(model.weight_ri.detach(), before["weight_ri"] * (1 - 0.1 * 0.01))
    assert torch.equal(model.log_sigma2, before["log_sigma2"])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_any_optimisers_state_goes_on_in_a_network_with_new_parameters(name):
    """As dense's in sparsify: what both have is as if never saved, log_sigma2 starts fresh."""
    dense, straight, vd = cplx.CplxLinear(4, 3), cplx.CplxLinear(4, 3), cplx.CplxLinearVD(4, 3)
    for model in (straight, vd):
        model.load_state_dict(dense.state_dict(), strict=False)
    before, other = (make_optimizer(model, name, lr=1e-2) for model in (dense, straight))
    trained_on(before, dense, [1.0, -2.0])
    trained_on(other, straight, [1.0, -2.0, 0.5, 0.1])

    vd.load_state_dict(dense.state_dict(), strict=False)
    after = make_optimizer(vd, name, lr=1e-2)
    load_named_state(vd, after, named_state(dense, before))
    trained_on(after, vd, [0.5, 0.1])
    assert torch.equal(vd.weight_ri, straight.weight_ri)
    assert torch.equal(vd.bias_ri, straight.bias_ri)
