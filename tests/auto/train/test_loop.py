"""The training of a stage on a network small enough to follow by hand."""

import math

import pytest
import torch
from small import small
from torch import nn
from tqdm.notebook import tqdm as tqdm_notebook

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Optimizer, Term
from cplxnet.auto.train.loop import Diverged, make_step, predict, train_stage
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.optim import make_optimizer
from cplxnet.auto.train.state import Training
from cplxnet.progress import finish

TERMS = {"loss": Term(name="mse"), "kl_div": Term(name="kl")}
MSE = Objective(TERMS, {"loss": 1.0})


class Slope(nn.Module):
    """x -> w x, w = 1 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.w * x


def batches(*pairs):
    return [(torch.tensor([[x]]), torch.tensor([[y]])) for x, y in pairs]


def training_of(model, *, n_epochs=1, lr=0.1, score=lambda name: 0.0, **keys):
    """The training of a stage by gradient descent; `keys` are the stage's own."""
    off = {"grad_clip": None, "early": None, "lr_scheduler": None}
    changes = {"n_epochs": n_epochs, **off, **keys}
    name = "sparsify" if keys.get("kl_scheduler") else "dense"  # the one that has a KL term
    stage = small({f"stages.{name}.{key}": value for key, value in changes.items()}).stage(name)
    training = Training(
        stage, model, score, device=torch.device("cpu"), seeds={"windows": 0, "noise": 0}
    )
    training.optimizer = make_optimizer(model, Optimizer(name="sgd", lr=lr, momentum=0.0))
    return training


def trained(model, feed, objective=MSE, **options):
    """The line of an epoch."""
    training = training_of(model, **options)
    train_stage(training, feed, objective)
    return training.history[-1]


# -- the step --------------------------------------------------------------------------------------


def test_a_step_gives_loss_kl_and_norm_and_follows_the_gradient():
    model = Slope()
    step = make_step(model, MSE, torch.optim.SGD(model.parameters(), lr=0.1), None)
    sums = step(*batches((1.0, 3.0))[0])
    # w = 1: loss (w - 3)^2 = 4, gradient 2 (w - 3) = -4, so w = 1.4
    assert sums.tolist() == [4.0, 0.0, 4.0] and not sums.requires_grad
    assert model.w.item() == pytest.approx(1.4)


def test_means_over_batches_follow_the_steps_between_them():
    model = Slope()
    line = trained(model, batches((1.0, 3.0), (2.0, 0.0)))
    # w = 1: loss 4, gradient -4, so w = 1.4; then loss 2.8^2, gradient 2 * 2.8 * 2 = 11.2, w = 0.28
    assert line["loss"] == pytest.approx((4 + 2.8**2) / 2)
    assert line["grad_norm"] == pytest.approx((4 + 11.2) / 2)
    assert line["kl"] is None
    assert model.w.item() == pytest.approx(0.28)


def test_the_step_is_clipped_and_the_norm_is_that_before_clipping():
    model = Slope()
    line = trained(model, batches((1.0, 3.0)), grad_clip=0.05)
    assert line["grad_norm"] == pytest.approx(4.0)
    assert model.w.item() == pytest.approx(1 + 0.1 * 0.05, rel=1e-5)


def test_the_clipped_norm_is_that_of_all_parameters_together():
    model = nn.Linear(3, 2)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    trained(model, [(torch.randn(4, 3), 10 * torch.randn(4, 2))], grad_clip=0.05, lr=1.0)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.05, rel=1e-4)


def test_a_small_gradient_is_left_alone():
    model = Slope()
    trained(model, batches((1.0, 1.01)), grad_clip=0.05)
    assert model.w.item() == pytest.approx(1 + 0.1 * 0.02, rel=1e-5)


def test_the_kl_mean_has_no_coefficient():
    model = nn.Sequential(cplx.CplxLinearVD(2, 2), cplx.CplxToReal())
    expected = cplx.kl_sum(model).item()
    batch = [(torch.randn(3, 2, dtype=torch.complex64), torch.zeros(3, 2))]
    line = trained(model, batch, Objective(TERMS, {"loss": 1.0, "kl_div": 1e-3}))
    assert line["kl"] == pytest.approx(expected)


# -- divergence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_one_batch_that_is_not_finite_is_divergence(bad, position):
    pairs = [(1.0, 3.0), (1.0, 2.0), (1.0, 1.0)]
    pairs[position] = (bad, 1.0)
    with pytest.raises(Diverged, match=r"loss (nan|inf), .*try a lower learning rate"):
        trained(Slope(), batches(*pairs), grad_clip=0.05)


def test_a_gradient_that_is_not_finite_is_divergence():
    class Root(Slope):
        def forward(self, x):
            return (self.w - 1).sqrt() * x  # 0 at w = 1, where its derivative is infinite

    with pytest.raises(Diverged, match=r"gradient norm (nan|inf)"):
        trained(Root(), batches((1.0, 3.0)))


# -- the stage -------------------------------------------------------------------------------------


def test_every_epoch_is_scored_trained_logged_and_saved_in_this_order():
    happened = []

    class Noting(Slope):
        def forward(self, x):
            happened.append("batch")
            return super().forward(x)

    def score(name):
        happened.append(name)
        return 0.5

    training = training_of(Noting(), n_epochs=2, early={"scorer": "validation"}, score=score)
    train_stage(
        training,
        batches((1.0, 3.0), (2.0, 0.0)),
        MSE,
        check=lambda: happened.append("may I go on?"),
        log=lambda line: happened.append(f"log {line['epoch']}"),
        save=lambda: happened.append(f"save {training.n_epochs}"),
    )
    epoch = ["validation", *2 * ["may I go on?", "batch"]]
    assert happened == [*epoch, "log 0", "save 1", *epoch, "log 1", "save 2"]
    assert [line["validation"] for line in training.history] == [0.5, 0.5]


def test_it_goes_on_after_the_epochs_that_are_done():
    training = training_of(Slope(), n_epochs=5)
    training.n_epochs = 3
    train_stage(training, batches((1.0, 3.0)), MSE)
    assert [line["epoch"] for line in training.history] == [3, 4] and training.n_epochs == 5


def test_it_stops_before_the_epoch_whose_score_fell_and_says_why(monkeypatch, capsys):
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    scores = iter([0.3, 0.391, 0.36])
    training = training_of(
        Slope(), n_epochs=9, early={"scorer": "validation"}, score=lambda name: next(scores)
    )
    restored = train_stage(training, batches((1.0, 3.0)), MSE, progress=True)
    assert (training.n_epochs, training.early.stopped, training.early.last) == (2, True, 0.36)
    assert restored is False
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "stopped early: AP 0.360 after 0.391" in shown and "2/2" in shown


def test_the_kl_has_the_weight_of_its_epoch():
    """The KL alone, on a schedule of 0.5 and 1: epochs of SGD as with each weight throughout."""

    def trained_with(factors, kl_scheduler=None):
        model = nn.Sequential(cplx.CplxLinearVD(2, 2), cplx.CplxToReal())
        with torch.no_grad():
            model[0].weight_ri.fill_(0.5)
            model[0].log_sigma2.fill_(-2.0)
        batch = [(torch.randn(3, 2, dtype=torch.complex64), torch.zeros(3, 2))]
        for factor in factors:
            n_epochs = 2 if kl_scheduler else 1
            training = training_of(model, n_epochs=n_epochs, kl_scheduler=kl_scheduler)
            train_stage(training, batch, Objective(TERMS, {"loss": 0.0, "kl_div": 0.3 * factor}))
        return model[0].log_sigma2.detach()

    scheduled = trained_with([1.0], {"name": "linear"})
    assert torch.equal(scheduled, trained_with([0.5, 1.0]))


def test_where_nothing_stops_a_stage_ten_scores_are_taken_to_be_looked_at():
    changes = {"stages.dense.n_epochs": 25, "stages.dense.early": None}
    stage = small(changes | {"stages.dense.lr_scheduler": None}).stage("dense")
    asked = []
    training = Training(
        stage,
        Slope(),
        lambda name: asked.append(name) or 0.1,
        device=torch.device("cpu"),
        seeds={"windows": 0, "noise": 0},
        watched="validation",
    )
    train_stage(training, batches((1.0, 3.0)), MSE)
    scored = [k for k, line in enumerate(training.history) if line["validation"] is not None]
    assert scored == [0, 3, 6, 9, 12, 15, 18, 21, 24] and asked == ["validation"] * 9


def test_a_widget_that_ends_early_is_full():
    """It would stay at a third of the way, although nothing is left to do."""
    shown = tqdm_notebook(total=9, display=False)
    shown.update(3)
    finish(shown, "stopped early")
    shown.close()
    _, widget, text = shown.container.children
    assert (widget.value, widget.max, widget.bar_style) == (3, 3, "success")
    assert "stopped" in text.value and "3/3" in text.value


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
    predict(model, batch)
    assert model.seen == [(False, False)] * 2
    assert model.norm.num_batches_tracked == 0 and not model.norm.running_mean.any()
    trained(model, batch)
    assert model.seen[2:] == [(True, True)] * 2 and model.norm.num_batches_tracked == 2


# -- predictions -----------------------------------------------------------------------------------


def test_predict_gives_targets_and_outputs_of_all_batches_in_order():
    target, output = predict(Slope(), batches((1.0, 5.0), (2.0, 6.0), (3.0, 7.0)))
    assert target.tolist() == [[5.0], [6.0], [7.0]] and output.tolist() == [[1.0], [2.0], [3.0]]
    assert not output.requires_grad


def test_predict_adds_no_noise():
    model = nn.Sequential(cplx.CplxLinearVD(3, 2), cplx.CplxToReal())
    with torch.no_grad():
        model[0].log_sigma2.fill_(2.0)
    x = torch.randn(4, 3, dtype=torch.complex64)
    expected = (x @ model[0].weight.detach().T + model[0].bias.detach()).real
    torch.testing.assert_close(predict(model, [(x, torch.zeros(4))])[1].clone(), expected)
