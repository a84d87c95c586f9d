"""A linear layer, complex or real, of which the living weights alone are stored and trained.

    y[o] = b[o] + sum over the living weights k of row o of w[k] x[column[k]]

The gradient by a living weight needs two numbers of each example, so that nothing of the size of
the full weight is read or written:

    dL/dw[k] = sum over examples of dL/dy[row[k]] conj(x[column[k]])
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.nn.fast.dispatch import once_differentiable


def is_sparse(living: Tensor) -> bool:
    """Whether a layer with these living weights, bool (out, in) or (out, in, k), is faster sparse.

        n_living/n <= (1 + 84/out)/8, and 1/4 at most

    A rule, not a clock, so that a stage that goes on has the same bits. A complex step (products,
    mask, clipping, Adam) takes as long either way at a share of 0.22, 0.22 and 0.13 of 2204 -> 1967
    weights with 52, 128 and 321 examples, and of 0.24, 0.30 and 0.23 of 1967 -> 84 (MKL, one core).
    The rule is the CPU's; on other devices layers stay dense.
    """
    if living.dim() > 2 or living.device.type != "cpu":
        return False

    n_living = int(living.sum())
    return 0 < n_living <= min(1 / 4, (1 + 84 / len(living)) / 8) * living.numel()


class SparseLinear(nn.Module):
    """y = W x + b: (..., in) -> (..., out).

    Args:
        living: bool (out, in).
        parameters: of the linear layer, by name, the weight first. `weight` (n,), complex
            `weight_ri` (n, 2), holds the living weights alone, row by row.
    """

    def __init__(self, living: Tensor, parameters: dict[str, nn.Parameter | None]) -> None:
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)

        self._csr = _Csr(living)
        self._transpose = _Csr(living.t())
        # the living weights column by column
        self._by_column = living.nonzero()[:, 1].argsort(stable=True)

    def forward(self, x: Tensor) -> Tensor:
        weight: Any
        bias: Any
        weight, bias = self._parameters.values()
        if "weight_ri" in self._parameters:
            weight = torch.view_as_complex(weight)
            bias = None if bias is None else torch.view_as_complex(bias)

        y: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), weight, self)
        y = y.view(*x.shape[:-1], self._csr.shape[0])
        return y if bias is None else y + bias

    def extra_repr(self) -> str:
        n_out, n_in = self._csr.shape
        return f"in_features={n_in}, out_features={n_out}, living={len(self._by_column)}"


def to_csr(matrix: Tensor) -> Tensor:
    """`matrix.to_sparse_csr()`, without torch's words that this is in beta and is not checked.

    It says each once in a process; the second, of torch 2.11, when one is made of its arrays.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = matrix.to_sparse_csr()
        arrays = csr.crow_indices(), csr.col_indices(), csr.values()
        return torch.sparse_csr_tensor(*arrays, csr.shape, check_invariants=False)


class _Csr:
    """The places of a sparse matrix's numbers."""

    def __init__(self, living: Tensor) -> None:
        csr = to_csr(living)
        self._arrays = csr.crow_indices().int(), csr.col_indices().int()  # int: MKL's type
        self.shape = living.shape

    def matrix(self, values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(*self._arrays, values, self.shape, check_invariants=False)


class _Product(torch.autograd.Function):
    """x W^T of x (B, in), in full precision under autocast too: (B, out)."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: SparseLinear) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return (layer._csr.matrix(weight) @ x.T).T

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        layer = ctx.layer
        needs_x, needs_weight, _ = ctx.needs_input_grad
        by_x = by_weight = None

        if needs_x:
            conjugate = weight.conj()[layer._by_column].resolve_conj()
            by_x = (layer._transpose.matrix(conjugate) @ grad.T).T
        if needs_weight:
            pattern = layer._csr.matrix(weight)  # its values are multiplied by 0
            by_weight = (
                torch.sparse.sampled_addmm(pattern, grad.T, x.conj(), beta=0).values().detach()
            )

        return by_x, by_weight, None
