"""What can be read from a network, and what is refused and named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn import UnknownLayer, compact

UNKNOWN = [
    (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.GELU())), "1.0: GELU"),
    (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "1: Softmax"),
    (nn.Sequential(cplx.CplxLinear(2, 2), cplx.CplxModReLU()), "1: CplxModReLU"),
    (nn.Sequential(cplx.CplxLinear(2, 2), cplx.Split(nn.Tanh())), r"1: Split .*Split\(Tanh\)"),
    (nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), "0: ReLU .*before the first layer"),
    (nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)), "2: BatchNorm1d .*at once"),
    (
        nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2, track_running_stats=False)),
        "1: BatchNorm1d .*statistics",
    ),
    (nn.Sequential(nn.Conv1d(2, 2, 1), nn.MaxPool1d(2, padding=1)), "1: MaxPool1d .*padding"),
    (nn.Sequential(nn.Conv1d(2, 2, 1), nn.AvgPool1d(2), nn.ReLU()), "2: ReLU .*after average"),
    (nn.Sequential(nn.Conv1d(2, 2, 3, padding="same")), "0: Conv1d .*'same'"),
    (nn.Sequential(nn.Conv1d(2, 2, 3), nn.Linear(2, 2)), "1: Linear .*flatten"),
    (nn.Sequential(nn.Linear(2, 2), nn.Conv1d(2, 2, 1)), "1: Conv1d .*after"),
    (nn.Sequential(nn.Conv1d(2, 2, 3), nn.Flatten(), nn.ReLU()), "1: Flatten .*no linear layer"),
    (nn.GRU(8, 2), "the network itself: GRU"),
]


@pytest.mark.parametrize(("net", "text"), UNKNOWN, ids=[text[:25] for _, text in UNKNOWN])
def test_what_is_not_known_is_named_and_nothing_changed(net: nn.Module, text: str) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UnknownLayer, match=text):
        compact(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training


def test_a_flatten_at_the_end_of_linear_layers_changes_nothing() -> None:
    net, x = nn.Sequential(nn.Linear(3, 2), nn.Flatten()).eval(), torch.randn(4, 3)
    torch.testing.assert_close(compact(net, measure=False)(x), net(x))


def test_a_forward_or_layer_of_the_users_own_is_refused() -> None:
    class Residual(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(UnknownLayer, match=r"Residual .*its forward is its own"):
        compact(Residual(nn.Linear(2, 2)))
    with pytest.raises(UnknownLayer, match="0: Scaled"):
        compact(nn.Sequential(Scaled(2, 2)))


def test_masks_and_weights_that_do_not_fit() -> None:
    net: Any = nn.Sequential(cplx.LinearMasked(3, 2))
    net[0]._buffers["mask"] = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"0: expected a mask of shape \(2, 3\), got \(2, 4\)"):
        compact(net)
    with pytest.raises(ValueError, match=r"0: expected a mask of shape \(2, 3\), got \(3,\)"):
        compact(nn.Sequential(nn.Linear(3, 2)), masks={"0": torch.ones(3)})
    with pytest.raises(ValueError, match="no layers of the names fc, gc"):
        compact(nn.Sequential(nn.Linear(3, 2)), masks={"fc": torch.ones(3), "gc": torch.ones(3)})
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="0: expected finite weights"):
        compact(net)
    with pytest.raises(ValueError, match="linear or convolutional layers"):
        compact(nn.Sequential(nn.Identity()))
