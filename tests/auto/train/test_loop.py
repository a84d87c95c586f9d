"""One epoch on a network small enough to follow by hand."""

import math

import pytest
import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Term
from cplxnet.auto.train.loop import Diverged, predict, train_epoch
from cplxnet.auto.train.objective import Objective

TERMS = {"loss": Term(name="mse"), "kl_div": Term(name="kl")}
MSE = Objective(TERMS, {"loss": 1.0})


class Slope(nn.Module):
    """x -> w x, w = 1 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.w * x


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def batches(*pairs):
    return [(torch.tensor([[x]]), torch.tensor([[y]])) for x, y in pairs]


def test_means_over_batches_follow_the_steps_between_them():
    model = Slope()
    means = train_epoch(
        model, batches((1.0, 3.0), (2.0, 0.0)), lambda x: x, MSE, sgd(model), grad_clip=None
    )
    # w = 1: loss 4, gradient 2 (w - 3) = -4, so w = 1.4; then loss 2.8^2, gradient 2 * 2.8 * 2 = 11.2, w = 0.28
    assert means.loss == pytest.approx((4 + 2.8**2) / 2)
    assert means.grad_norm == pytest.approx((4 + 11.2) / 2)
    assert means.kl == 0.0
    assert model.w.item() == pytest.approx(0.28)


def test_the_step_is_clipped_and_the_norm_is_that_before_clipping():
    model = Slope()
    means = train_epoch(model, batches((1.0, 3.0)), lambda x: x, MSE, sgd(model), grad_clip=0.05)
    assert means.grad_norm == pytest.approx(4.0)
    assert model.w.item() == pytest.approx(1 + 0.1 * 0.05, rel=1e-5)


def test_the_clipped_norm_is_that_of_all_parameters_together():
    model = nn.Linear(3, 2)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    batch = [(torch.randn(4, 3), 10 * torch.randn(4, 2))]
    train_epoch(model, batch, lambda x: x, MSE, sgd(model, lr=1.0), grad_clip=0.05)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.05, rel=1e-4)


def test_a_small_gradient_is_left_alone():
    model = Slope()
    train_epoch(model, batches((1.0, 1.01)), lambda x: x, MSE, sgd(model), grad_clip=0.05)
    assert model.w.item() == pytest.approx(1 + 0.1 * 0.02, rel=1e-5)


def test_the_kl_mean_has_no_coefficient():
    model = nn.Sequential(cplx.CplxLinearVD(2, 2), cplx.CplxToReal())
    expected = cplx.kl_sum(model).item()
    batch = [(torch.randn(3, 2, dtype=torch.complex64), torch.zeros(3, 2))]
    means = train_epoch(
        model,
        batch,
        lambda x: x,
        Objective(TERMS, {"loss": 1.0, "kl_div": 1e-3}),
        sgd(model),
        grad_clip=None,
    )
    assert means.kl == pytest.approx(expected)


def test_inputs_are_prepared_for_training_and_for_scoring():
    model = Slope()
    means = train_epoch(
        model, batches((1.0, 3.0)), lambda x: 3 * x, MSE, sgd(model), grad_clip=None
    )
    assert means.loss == 0.0
    assert predict(model, batches((1.0, 3.0)), lambda x: 3 * x)[1].item() == 3.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_one_batch_that_is_not_finite_is_divergence(bad, position):
    model, pairs = Slope(), [(1.0, 3.0), (1.0, 2.0), (1.0, 1.0)]
    pairs[position] = (bad, 1.0)
    with pytest.raises(Diverged, match=r"loss (nan|inf), .*try a lower learning rate"):
        train_epoch(model, batches(*pairs), lambda x: x, MSE, sgd(model), grad_clip=0.05)


def test_a_gradient_that_is_not_finite_is_divergence():
    class Root(Slope):
        def forward(self, x):
            return (self.w - 1).sqrt() * x  # 0 at w = 1, where its derivative is infinite

    model = Root()
    with pytest.raises(Diverged, match=r"gradient norm (nan|inf)"):
        train_epoch(model, batches((1.0, 3.0)), lambda x: x, MSE, sgd(model), grad_clip=None)


class Watching(nn.Module):
    """Notes the mode it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.seen = nn.BatchNorm1d(2), []

    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.norm(x)


def test_training_trains_and_predicting_does_not():
    model, batch = Watching(), [(torch.randn(5, 2), torch.zeros(5, 2))] * 2
    predict(model, batch, lambda x: x)
    assert model.seen == [(False, False)] * 2
    assert model.norm.num_batches_tracked == 0 and not model.norm.running_mean.any()
    train_epoch(model, batch, lambda x: x, MSE, sgd(model), grad_clip=None)
    assert model.seen[2:] == [(True, True)] * 2 and model.norm.num_batches_tracked == 2


def test_predict_gives_targets_and_outputs_of_all_batches_in_order():
    model = Slope()
    target, output = predict(model, batches((1.0, 5.0), (2.0, 6.0), (3.0, 7.0)), lambda x: x)
    assert target.tolist() == [[5.0], [6.0], [7.0]] and output.tolist() == [[1.0], [2.0], [3.0]]
    assert not output.requires_grad


def test_predict_adds_no_noise():
    model = nn.Sequential(cplx.CplxLinearVD(3, 2), cplx.CplxToReal())
    with torch.no_grad():
        model[0].log_sigma2.fill_(2.0)
    x = torch.randn(4, 3, dtype=torch.complex64)
    expected = (x @ model[0].weight.detach().T + model[0].bias.detach()).real
    torch.testing.assert_close(
        predict(model, [(x, torch.zeros(4))], lambda x: x)[1].clone(), expected
    )
