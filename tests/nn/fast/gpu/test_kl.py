"""The KL kernel, in Triton's interpreter, against the formulas in float64."""

import pytest
import torch
from interpreted import error, interpreted

from cplxnet.nn.kl import COMPLEX_ARD, COMPLEX_VD, REAL_ARD, REAL_VD, penalty

kernel = interpreted("kl")
TERMS = [COMPLEX_VD, COMPLEX_ARD, REAL_VD, REAL_ARD]  # in the order of their numbers


def weights(term, shape):
    """Weights with zeros and the limits of log_sigma2: alpha runs from nothing to enormous."""
    log_sigma2 = torch.randn(shape) * 6 - 5
    log_sigma2.view(-1)[:4] = torch.tensor([-100.0, 90.0, -69.0, 0.0])
    weight = torch.randn(*shape, *((2,) if term.cplx else ()))
    weight.view(-1)[10:14] = 0
    weight.view(-1)[14:18] = 1e-25
    weight.view(-1)[18:22] = 1e-41  # denormal
    return weight, log_sigma2


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # NumPy, of the interpreter
@pytest.mark.parametrize("number", range(len(TERMS)))
def test_value_gradients_and_squares(number):
    term = TERMS[number]
    weight, log_sigma2 = weights(term, (37, 29))
    by_weight, by_log_sigma2 = torch.randn_like(weight), torch.randn_like(log_sigma2)
    before = by_weight.double(), by_log_sigma2.double()

    ((value, square_w, square_s),) = kernel.kl_backward(
        [weight], [log_sigma2], [number], torch.tensor(0.3), [by_weight], [by_log_sigma2], [0.5]
    ).tolist()

    wide = [t.double().requires_grad_() for t in (weight, log_sigma2)]
    right = penalty(*wide, term).sum()
    grads = torch.autograd.grad(0.15 * right, wide)
    assert value == pytest.approx(right.item(), rel=1e-6)
    assert error(by_weight - before[0].float(), grads[0]) < 1e-6
    assert error(by_log_sigma2 - before[1].float(), grads[1]) < 2e-6
    assert square_w == pytest.approx(by_weight.double().square().sum().item(), rel=1e-6)
    assert square_s == pytest.approx(by_log_sigma2.double().square().sum().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_layers_are_kept_apart():
    term = TERMS[1]
    layers = [weights(term, shape) for shape in ((3, 5), (70, 40), (1, 1024), (9, 9))]
    zeros = [(torch.zeros_like(w), torch.zeros_like(s)) for w, s in layers]
    totals = kernel.kl_backward(
        [w for w, _ in layers],
        [s for _, s in layers],
        [1] * 4,
        torch.tensor(1.0),
        [w for w, _ in zeros],
        [s for _, s in zeros],
        [1.0] * 4,
    )
    for (w, s), total in zip(layers, totals[:, 0].tolist(), strict=True):
        assert total == pytest.approx(penalty(w.double(), s.double(), term).sum().item(), rel=1e-6)


def test_a_term_that_is_not_known_is_an_error():
    weight, log_sigma2 = weights(TERMS[0], (9, 9))
    with pytest.raises(ValueError, match=r"expected the number of a KL term, .* got 4"):
        kernel.kl_backward(
            [weight],
            [log_sigma2],
            [4],
            torch.tensor(1.0),
            [torch.zeros_like(weight)],
            [torch.zeros_like(log_sigma2)],
            [1.0],
        )


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_nan_stays():
    weight, log_sigma2 = weights(TERMS[0], (9, 9))
    weight[0, 0, 0] = float("nan")
    grads = [torch.zeros_like(weight)], [torch.zeros_like(log_sigma2)]
    total = kernel.kl_backward([weight], [log_sigma2], [0], torch.tensor(1.0), *grads, [1.0])
    assert torch.isnan(total[0]).all() and torch.isnan(grads[1][0][0, 0])
