"""Complex batch normalisation: whitening of (real, imaginary) per channel (Trabelsi et al. 2018, section 3.5)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .fast import gpu
from .fast.batchnorm import NO_TAIL, Tail
from .parameters import as_ri, refuse_complex
from .whitening import affine, normalise, normalise_by, running_map


class CplxBatchNorm1d(nn.Module):
    """y = W (V + eps I)^(-1/2) (x - m) + b, with m and V the mean and covariance of each channel's (real, imaginary).

    W is a full real 2x2 matrix, I/sqrt(2) at the start (and for good if `affine` is False), so that E|y|^2 = 1. Input
    complex (B, C) or (B, C, L), statistics over batch and positions (biased). In eval mode the running statistics take
    the place of the batch's. Arguments as in `torch.nn.BatchNorm1d`; `momentum=None` keeps a cumulative average.

    Parameters: weight (2, 2, C), bias (2, C). Buffers: running_mean (2, C), running_var (2, 2, C), num_batches_tracked.
    Raises ValueError for another shape, and for a single value per channel in training, as torch does.
    Reference: Trabelsi et al. 2018, "Deep Complex Networks", equations 3 to 6. Their scale matrix is symmetric; ours is
    full, so that weights of older libraries load.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        real = dtype.to_real() if dtype is not None else None
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        options = {"device": device, "dtype": real}
        self.weight = nn.Parameter(torch.empty(2, 2, num_features, **options)) if affine else None
        self.bias = nn.Parameter(torch.empty(2, num_features, **options)) if affine else None
        tracked = track_running_stats
        self.register_buffer(
            "running_mean", torch.empty(2, num_features, **options) if tracked else None
        )
        self.register_buffer(
            "running_var", torch.empty(2, 2, num_features, **options) if tracked else None
        )
        self.register_buffer(
            "num_batches_tracked", torch.tensor(0, device=device) if tracked else None
        )
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Running mean 0 and covariance I/2, that of a circular variable with E|x|^2 = 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.copy_(_eye(self.running_var) / 2)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            with torch.no_grad():
                self.weight.copy_(_eye(self.weight) * 0.5**0.5)
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self._normalised(x, NO_TAIL)

    def rectified(self, x: Tensor, pool: bool) -> Tensor:
        """y after the split ReLU, and if `pool` after `Split(AvgPool1d(2))`: in one go, where `folding` sees a way."""
        return self._normalised(x, Tail(True, pool, x.shape[-1]))

    def _normalised(self, x: Tensor, tail: Tail) -> Tensor:
        if x.dim() not in (2, 3) or x.shape[1] != self.num_features:
            expected = f"complex (B, {self.num_features}) or (B, {self.num_features}, L)"
            raise ValueError(f"expected {expected}, got {tuple(x.shape)}")
        rows = x.movedim(1, -1)  # (B, C) or (B, L, C)
        pairs = as_ri(rows.contiguous())
        if gpu.usable(pairs, self.weight, self.bias, self.running_mean, self.running_var):
            return self._on_gpu(pairs, tail)
        flat = pairs.view(-1, self.num_features, 2)  # (N, C, 2)
        if self.training or not self.track_running_stats:
            y = self._by_batch(flat, tail)
        else:
            y = normalise_by(
                flat, self.running_mean, self.running_var, self.weight, self.bias, self.eps, tail
            )
        length = (tail.length // 2,) if tail.pool else rows.shape[1:-1]
        return torch.view_as_complex(y.view(len(rows), *length, self.num_features, 2)).movedim(
            -1, 1
        )

    def _on_gpu(self, pairs: Tensor, tail: Tail) -> Tensor:
        """The same by the GPU's kernels, where neither statistics nor running statistics need a gradient."""
        from .fast.gpu import layers

        shape = pairs.shape
        pairs = pairs.view(len(pairs), -1, self.num_features, 2)
        options = {"relu": tail.relu, "pool": tail.pool}
        tracked = self.training and self.track_running_stats
        if self.training or not self.track_running_stats:
            if pairs.shape[0] * pairs.shape[1] < 2:
                raise ValueError(
                    "expected more than one value per channel in training, got input rows 1"
                )
            kept = (self.running_mean, self.running_var, self.num_batches_tracked)
            y = layers.batchnorm(
                pairs,
                self.weight,
                self.bias,
                kept if tracked else None,
                momentum=self.momentum,
                eps=self.eps,
                **options,
            )
        else:
            matrix, shift = running_map(
                self.running_mean, self.running_var, self.weight, self.bias, self.eps
            )
            needs = torch.is_grad_enabled() and (pairs.requires_grad or matrix.requires_grad)
            if needs:
                y = affine(pairs.view(-1, self.num_features, 2), matrix, shift)
            else:
                y = layers.batchnorm_by(pairs, torch.cat((matrix.reshape(4, -1), shift)), **options)
        length = (y.shape[1],) if len(shape) == 4 else ()
        return torch.view_as_complex(y.view(len(pairs), *length, self.num_features, 2)).movedim(
            -1, 1
        )

    def _by_batch(self, flat: Tensor, tail: Tail) -> Tensor:
        n = flat.shape[0]
        if n < 2:
            raise ValueError(
                f"expected more than one value per channel in training, got input rows {n}"
            )
        y, mean, cov = normalise(flat, self.weight, self.bias, self.eps, tail)
        if self.training and self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                # a tensor, so that a cumulative average does not wait for the device
                n_batches = self.num_batches_tracked.to(mean.dtype)
                rate = 1 / n_batches if self.momentum is None else self.momentum
                self.running_mean += rate * (mean - self.running_mean)
                self.running_var += rate * (cov * (n / (n - 1)) - self.running_var)
        return y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CplxBatchNorm1d":
        for stored in (self.weight, self.running_mean):
            if stored is not None:
                refuse_complex(fn, stored)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        )


def _eye(like: Tensor) -> Tensor:
    return torch.eye(2, dtype=like.dtype, device=like.device).unsqueeze(-1)
