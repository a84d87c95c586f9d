"""Complex linear layer."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .init import trabelsi_standard_
from .storage import ComplexParameters, as_ri, empty_ri


def cplx_linear(x: Tensor, weight_ri: Tensor, bias_ri: Tensor | None = None) -> Tensor:
    """y = W x + b as ONE real matrix product on the stored (interleaved) weight.

    Read as real vectors, Re(Wx) = <(Wr, Wi), (xr, -xi)> and Im(Wx) = <(Wr, Wi), (xi, xr)>: twice the rows, twice the
    columns, the weight untouched, and no more multiplications than the complex product needs.

    x: complex (..., in); weight_ri: real (out, in, 2); bias_ri: real (out, 2). Returns complex (..., out).
    """
    re, im = as_ri(x).unbind(-1)
    rows = torch.stack((torch.stack((re, -im), -1), torch.stack((im, re), -1)))  # (2, ..., in, 2)
    y_re, y_im = F.linear(rows.flatten(-2), weight_ri.flatten(-2))  # each (..., out)
    y = torch.complex(y_re, y_im)
    return y if bias_ri is None else y + torch.view_as_complex(bias_ri)


class CplxLinear(ComplexParameters):
    """y = W x + b with complex W (out, in) and b (out); arguments as in `torch.nn.Linear`.

    Weights start by Trabelsi's initialisation (Rayleigh modulus, uniform phase), biases at 0.
    Input complex (..., in_features), output complex (..., out_features).
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
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_ri = empty_ri(out_features, in_features, device=device, dtype=dtype)
        self.bias_ri = empty_ri(out_features, device=device, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        trabelsi_standard_(self.weight)
        if self.bias_ri is not None:
            torch.nn.init.zeros_(self.bias_ri)

    def forward(self, x: Tensor) -> Tensor:
        return cplx_linear(x, self.weight_ri, self.bias_ri)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias_ri is not None}"
