"""Sparse products against brute force, and the rule that chooses one without measuring."""

from dataclasses import replace

import pytest
import torch

from cplxnet.nn.compaction.backends import SparseRows, by_rule
from cplxnet.nn.compaction.block import Pool, Stage
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable


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
