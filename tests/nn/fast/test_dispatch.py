"""Where fast paths stay out of the way."""

import warnings

import torch
from c_functions import in_c, plain
from torch import Tensor

from cplxnet import nn as cplx


@in_c
def test_torch_compile_takes_the_plain_formulas() -> None:
    layer = cplx.CplxLinearVD(7, 5)
    x = torch.randn(3, 7, dtype=torch.complex64)

    def step(x: Tensor) -> Tensor:
        return layer(x).abs().square().sum() + cplx.kl_sum(layer)

    compiled = torch.compile(step, backend="eager")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        got = torch.autograd.grad(compiled(x), list(layer.parameters()))
    with plain():
        torch.manual_seed(1)
        wanted = torch.autograd.grad(step(x), list(layer.parameters()))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
