"""What compact knows and refuses, and its pieces, against the layers themselves and brute force."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn import UnknownLayer, compact
from cplxnet.nn.compaction.backends import SparseRows, by_rule
from cplxnet.nn.compaction.block import Pool, Stage
from cplxnet.nn.compaction.file import decode, encode
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable


def same(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def convolutions(**options: Any) -> nn.Sequential:
    return nn.Sequential(
        cplx.CplxConv1dMasked(4, 6, 5, **options),
        cplx.CplxBatchNorm1d(6),
        cplx.Split(nn.ReLU()),
        cplx.CplxConv1dMasked(6, 4, 3, padding=2, stride=3, dilation=2),
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"padding": 3, "stride": 2}, {"dilation": 3, "stride": 4}]
)
@pytest.mark.parametrize("constant", [False, True])
def test_padding_groups_strides_without_a_head(options: dict[str, int], constant: bool) -> None:
    net: Any = convolutions(**options)
    net[1].running_var += torch.rand(2, 1, 1) * torch.eye(2).unsqueeze(-1)
    net[1].bias.normal_()
    if constant:
        net[0].mask[1] = net[0].mask[4] = (
            False  # constant, not 0: the border of zeros beside it must be seen
        )
    z = torch.randn(9, 4, 50, dtype=torch.complex64)
    made = compact(net, measure=False)
    same(made(z), net(z))
    if native_usable(torch.zeros(0)):
        made.plan = {1: ["rows"] * 2}
        same(made(z), net(z))
        same(made(z[:2]), net(z[:2]))


@torch.no_grad()
def test_a_constant_unit_goes_into_the_next_bias() -> None:
    net: Any = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    net[0].weight[1], net[0].bias[1] = 0, 2.0  # gives relu(2) = 2
    net[0].weight[2], net[0].bias[2] = 0, -1.0  # gives 0
    net[2].weight[:, 3] = 0  # is not read
    made = compact(net, measure=False)
    assert [tuple(stage.weight.shape) for stage in made.stages] == [(1, 1, 5), (3, 1, 1)]
    torch.testing.assert_close(made.stages[1].bias, net[2].bias + 2 * net[2].weight[:, 1])
    x = torch.randn(7, 5)
    same(made(x), net(x))


@torch.no_grad()
def test_given_masks_and_dropout_and_a_layer_used_twice() -> None:
    relu, layer = nn.ReLU(), nn.Linear(6, 6)
    net = nn.Sequential(layer, relu, nn.Dropout(0.5), nn.Sequential(layer, relu)).eval()
    x = torch.randn(8, 6)
    same(compact(net, measure=False)(x), net(x))
    masks = {"0": torch.rand(6, 6) < 0.5}
    first = (layer.weight * masks["0"], layer.bias)
    same(
        compact(net, masks=masks, measure=False)(x),
        layer(torch.nn.functional.linear(x, *first).relu()).relu(),
    )


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
    (nn.GRU(8, 2), "the network itself: GRU"),
]


@pytest.mark.parametrize(("net", "text"), UNKNOWN, ids=[text[:25] for _, text in UNKNOWN])
def test_what_is_not_known_is_named_and_nothing_changed(net: nn.Module, text: str) -> None:
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(UnknownLayer, match=text):
        compact(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert net.training


def test_a_state_dict_is_refused() -> None:
    small = compact(nn.Sequential(nn.Linear(3, 2)), measure=False)
    with pytest.raises(TypeError, match=r"no state dict; try nn\.save_compact"):
        small.state_dict()
    with pytest.raises(TypeError, match=r"no state dict; try nn\.save_compact"):
        small.load_state_dict({})


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


def test_inputs_that_do_not_fit() -> None:
    made = compact(convolutions(), measure=False)
    with pytest.raises(ValueError, match="expected 4 channels, got 3"):
        made(torch.zeros(2, 3, 50, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"0: expected length 5 at least, got 4"):
        made(torch.zeros(2, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"complex \(B, 4, length\), got \(4, 50\)"):
        made(torch.zeros(4, 50, dtype=torch.complex64))
    with pytest.raises(ValueError, match="expected length 3, got 4"):
        compact(nn.Sequential(nn.Linear(3, 2)), measure=False)(torch.zeros(2, 4))


@pytest.mark.skipif(not native_usable(torch.zeros(0)), reason="no C compiler, or CPLXNET_NATIVE=0")
@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 63, 64, 65, 71, 130])
@pytest.mark.parametrize("pool", [None, Pool("average", 3, 2), Pool("maximum", 2, 2)])
def test_sparse_rows_by_brute_force(length: int, pool: Pool | None) -> None:
    if pool is not None and length < pool.size:
        pytest.skip("nothing to pool")
    weight = torch.randn(5, 3, 4) * (torch.rand(5, 3, 4) < 0.4)
    stage = Stage("conv", weight, torch.randn(5), stride=3, dilation=2, relu=True, pool=pool)
    x = torch.randn(2, 3, (length - 1) * 3 + 7 + length % 3)
    y = torch.zeros(2, 5, length)
    for j in range(length):
        window = x[:, :, 3 * j : 3 * j + 7 : 2]  # (2, 3, 4)
        y[:, :, j] = ((window.unsqueeze(1) * weight).sum((2, 3)) + stage.bias).relu()
    if pool is not None:
        parts = y.unfold(2, pool.size, pool.stride)
        y = parts.mean(3) if pool.kind == "average" else parts.amax(3)
    torch.testing.assert_close(SparseRows(stage)(x), y, rtol=1e-5, atol=1e-5)


def test_the_rule_without_measuring() -> None:
    dense = Stage("fc", torch.ones(8, 4, 2), torch.zeros(8), whole=True)
    sparse = replace(dense, weight=dense.weight * (torch.arange(64).view(8, 4, 2) % 8 == 0))
    x = torch.zeros(2, 4, 2)
    assert by_rule(dense, x) == "dense"
    native.use(False)
    try:
        assert by_rule(sparse, x) == "csr"
    finally:
        native.use(True)
    assert by_rule(replace(sparse, whole=False), torch.zeros(2, 4, 9)) in ("rows", "dense")


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.003, 0.02, 0.3, 1.0])
def test_positions_and_their_bytes(share: float) -> None:
    n = 200_003
    kept = torch.rand(n) < share
    kept[[0, -1]] = share > 0
    form, stored = encode(kept)
    assert torch.equal(decode(form, stored, n), kept.nonzero().flatten())
    wanted = {0.0005: "steps16", 0.003: "steps8", 0.02: "steps8", 0.3: "bits", 1.0: "all"}
    assert form == wanted.get(share, form)
    if form == "steps8":  # at most a byte each, and one for every 255 dropped
        assert stored.nbytes <= int(kept.sum()) + n // 255
    if len(stored):
        with pytest.raises(ValueError, match="expected positions below 9, got"):
            decode("bits", torch.full((20,), 255, dtype=torch.uint8), 9)


def test_steps_by_hand() -> None:
    kept = torch.zeros(3000, dtype=torch.bool)
    kept[[0, 3, 258, 514, 2999]] = (
        True  # 0, 2, 254, 255 and 2484 = 9 * 255 + 189 dropped before them
    )
    form, stored = encode(kept)
    assert (form, stored.dtype) == ("steps16", torch.uint16) and stored.tolist() == [
        0,
        2,
        254,
        255,
        2484,
    ]
    steps8 = torch.tensor([0, 2, 254, 255, 0, *[255] * 9, 189], dtype=torch.uint8)
    assert decode("steps8", steps8, 3000).tolist() == [0, 3, 258, 514, 2999]
    with pytest.raises(ValueError, match="all, bits, steps8, steps16, got 'pickle'"):
        decode("pickle", stored, 3000)
