"""Complex linear layer."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast import gpu
from .fast.dispatch import own_gradient_usable
from .parameters import ComplexParameters, as_ri, real_dtype

FEW_ROWS, MANY_ROWS = 16, 1024


class CplxLinear(ComplexParameters):
    """y = W x + b with complex W (out, in) and b (out): (..., in) -> (..., out).

    Weights start by Trabelsi's initialisation (Rayleigh modulus, uniform phase), biases at 0.

    Args:
        in_features: size of the input's last axis.
        out_features: size of the output's last axis.
        bias: whether there is a b.
        device: of the parameters.
        dtype: float32 or float64, or the complex type of those.

    Raises:
        TypeError: a real input.
        ValueError: an input of another size.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__((out_features, in_features), bias, device, dtype)
        self.in_features = in_features
        self.out_features = out_features
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y = gpu.forward(self, x)
        return cplx_linear(x, self.weight_ri, self.bias_ri) if y is None else y

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias_ri is not None}"
        )


def cplx_linear(x: Tensor, weight_ri: Tensor, bias_ri: Tensor | None = None) -> Tensor:
    """y = W x + b as one real matrix product on the stored (interleaved) weight.

    Read as real vectors, Re(Wx) = <(Wr, Wi), (xr, -xi)> and Im(Wx) = <(Wr, Wi), (xi, xr)>: twice
    the rows, twice the columns, the weight as it is, and no more multiplications than the complex
    product needs.

    Args:
        x: complex (..., in).
        weight_ri: real (out, in, 2).
        bias_ri: real (out, 2), or None.

    Returns:
        Complex (..., out).
    """
    real_dtype(weight_ri.dtype)
    re, im = as_ri(x).unbind(-1)
    if re.shape[-1] != weight_ri.shape[1]:
        raise ValueError(f"expected (..., {weight_ri.shape[1]}), got {tuple(x.shape)}")

    for_re = torch.stack((re, -im), -1)
    for_im = torch.stack((im, re), -1)
    rows = torch.stack((for_re, for_im))  # (2, ..., in, 2)

    parts = product(rows.flatten(-2).flatten(0, -2), weight_ri.flatten(-2))
    # autocast may have made it bfloat16, which has no complex type
    parts = parts.to(rows.dtype).contiguous()
    y_re, y_im = parts.unflatten(0, rows.shape[:-2]).unbind(0)  # each (..., out)
    y = torch.complex(y_re, y_im)

    return y if bias_ri is None else y + torch.view_as_complex(bias_ri)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T of real x (rows, in) and W (out, in): `torch.nn.functional.linear` without a bias.

    On the CPU as (W x^T)^T for some ten to a thousand rows: the products of both passes then take
    two thirds of the time (MKL, 64 rows, 7424 -> 2048).
    """
    if x.device.type != "cpu" or torch.jit.is_tracing() or not FEW_ROWS <= len(x) <= MANY_ROWS:
        return F.linear(x, weight)
    if not own_gradient_usable(x, weight):
        return (weight @ x.T).T

    return _Product.apply(x, weight)


class _Product(torch.autograd.Function):
    """(W x^T)^T, and its gradient by x as (W^T g^T)^T: autograd's g W is a third slower in MKL."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return (weight @ x.T).T

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        by_x = (weight.T @ grad.T).T if needs_x else None
        by_weight = grad.T @ x if needs_weight else None

        return by_x, by_weight
