"""Complex batch normalisation: whitening of (real, imaginary) per channel."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .fast import gpu
from .fast.batchnorm import NO_TAIL, Normalise, Tail
from .fast.batchnorm import normalise_by as normalise_by_in_c
from .fast.dispatch import native_usable
from .parameters import as_ri, real_dtype, refuse_complex
from .whitening import affine, map_by, normalise, normalise_by


class CplxBatchNorm1d(_BatchNorm):
    """y = W (V + eps I)^(-1/2) (x - m) + b for each channel.

    m and V are the mean and the covariance of (real, imaginary).
    W is a full real 2x2 matrix that starts at I/sqrt(2) (and stays there if `affine` is False), so
    that E|y|^2 = 1. Mean and covariance (biased) are those of the batch, over batch and positions;
    in eval mode they are the running ones.

    To torch this is a batch norm: `torch.optim.swa_utils.update_bn` renews its running statistics.
    It has no synchronised form: the layer that `convert_sync_batchnorm` makes of it refuses complex
    input.

    Args:
        num_features: channels C of the input, complex (B, C) or (B, C, L).
        eps: added to the diagonal of V.
        momentum: weight of a new batch in the running statistics; None for a cumulative average.
        affine: whether W and b are learnt.
        track_running_stats: whether there are running statistics; without, eval mode uses the
            batch's.
        device: of parameters and buffers.
        dtype: float32 or float64, or the complex type of those.

    Parameters are weight (2, 2, C) and bias (2, C), real; buffers are running_mean (2, C),
    running_var (2, 2, C) and num_batches_tracked.

    Raises:
        ValueError: an input of another shape, or in training a single value per channel, as torch
            does.
        TypeError: a real input.

    Reference: Trabelsi et al. (2018), "Deep Complex Networks", equations 3 to 6. Their scale matrix
    is symmetric; ours is full, so that weights of older libraries load.
    """

    weight: nn.Parameter | None  # type: ignore[assignment]
    bias: nn.Parameter | None  # type: ignore[assignment]
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
        nn.Module.__init__(self)  # _BatchNorm's would make parameters of its own shapes
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats

        def empty(*shape: int) -> Tensor:
            return torch.empty(*shape, num_features, device=device, dtype=real_dtype(dtype))

        self.weight = nn.Parameter(empty(2, 2)) if affine else None
        self.bias = nn.Parameter(empty(2)) if affine else None
        count = torch.tensor(0, device=device)
        self.register_buffer("running_mean", empty(2) if track_running_stats else None)
        self.register_buffer("running_var", empty(2, 2) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", count if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Running mean 0 and covariance I/2, that of a circular variable with E|x|^2 = 1."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.copy_(unit_matrix(self.running_var) / 2)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """W = I/sqrt(2), b = 0, and the running statistics of `reset_running_stats`."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            with torch.no_grad():
                self.weight.copy_(unit_matrix(self.weight) * 0.5**0.5)
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise complex x (B, C) or (B, C, L); the result has x's shape."""
        return self._normalise(x, NO_TAIL)

    def fused_usable(self, x: Tensor) -> bool:
        """Whether `fused` can take complex x (B, C, L): a GPU, or C on channels that lie last."""
        if x.dim() != 3 or not x.is_complex():
            return False
        if not self._by_batch and torch.is_grad_enabled():
            return False  # a gradient through running statistics is rare: left to autograd

        if self._on_gpu_usable(x):
            return True
        # parameters first: False under a tracer, which would record the view of x
        return native_usable(*self._numbers()) and native_usable(as_ri(x.movedim(1, -1)))

    def fused(self, x: Tensor, pool: bool) -> Tensor:
        """Batch norm and split ReLU in one pass, and `Split(AvgPool1d(2))` with them if `pool`.

        x: complex (B, C, L), such that `fused_usable(x)`. Returns (B, C, L), or (B, C, L // 2) if
            `pool`.
        """
        return self._normalise(x, Tail(relu=True, pool=pool, length=x.shape[-1]))

    @property
    def _by_batch(self) -> bool:
        """Whether the batch's statistics are used, not the running ones."""
        return self.training or not self.track_running_stats

    def _numbers(self) -> list[Tensor]:
        """Parameters and running statistics, as far as the layer has them."""
        stored = (self.weight, self.bias, self.running_mean, self.running_var)
        return [t for t in stored if t is not None]

    def _on_gpu_usable(self, x: Tensor) -> bool:
        numbers = self._numbers()
        return gpu.usable(x, *numbers) and gpu.in_order(*numbers)

    def _normalise(self, x: Tensor, tail: Tail) -> Tensor:
        """Batch norm of complex x (B, C) or (B, C, L), and in the same pass what follows it."""
        if x.dim() not in (2, 3) or x.shape[1] != self.num_features:
            expected = f"complex (B, {self.num_features}) or (B, {self.num_features}, L)"
            raise ValueError(f"expected {expected}, got {tuple(x.shape)}")

        pairs = as_ri(x.movedim(1, -1).contiguous())  # (B, C, 2) or (B, L, C, 2)
        n = math.prod(pairs.shape[:-2])
        if self._by_batch and n < 2:
            raise ValueError(
                f"expected more than one value per channel in training, got input rows {n}"
            )

        if self._on_gpu_usable(pairs):
            y = self._on_gpu(pairs, tail)
        elif self._by_batch:
            y = self._by_batch_statistics(pairs.flatten(0, -3), tail)
        else:
            y = self._by_running_statistics(pairs.flatten(0, -3), tail)

        shape = (x.shape[0], x.shape[-1] // 2, *pairs.shape[-2:]) if tail.pool else pairs.shape
        return torch.view_as_complex(y.view(shape)).movedim(-1, 1)

    def _on_gpu(self, x_ri: Tensor, tail: Tail) -> Tensor:
        """Normalise pairs (B, C, 2) or (B, L, C, 2) by the GPU's kernels."""
        from .fast.gpu import batchnorm, layers

        pairs = x_ri.view(len(x_ri), -1, self.num_features, 2)
        if self._by_batch:
            tracked = self.training and self.track_running_stats
            running = (self.running_mean, self.running_var, self.num_batches_tracked)
            return layers.BatchNorm.apply(
                pairs,
                self.weight,
                self.bias,
                running if tracked else None,
                self.momentum,
                self.eps,
                tail.relu,
                tail.pool,
            )

        matrix, shift = map_by(*self._running)
        if self._needs_gradient(x_ri):
            return affine(pairs, matrix, shift)  # without a tail: `fused_usable` is False
        by = torch.cat((matrix.reshape(4, -1), shift))
        return batchnorm.batchnorm_apply(pairs, by, tail.relu, tail.pool)

    def _by_batch_statistics(self, x_ri: Tensor, tail: Tail) -> Tensor:
        """Normalise (N, C, 2) by its own statistics, and update the running ones in training."""
        given = (x_ri, self.weight, self.bias)
        if native_usable(*(t for t in given if t is not None)):
            y, mean, cov = Normalise.apply(*given, self.eps, tail)
        else:
            y, mean, cov = normalise(*given, self.eps)

        if self.training and self.track_running_stats:
            n = x_ri.shape[0]  # a traced size stays one, `len` would fix it
            self._update_running(mean, cov * (n / (n - 1)))
        return y

    def _by_running_statistics(self, x_ri: Tensor, tail: Tail) -> Tensor:
        """Normalise (N, C, 2) by the running statistics."""
        if not self._needs_gradient(x_ri) and native_usable(x_ri, *self._numbers()):
            return normalise_by_in_c(x_ri, *self._running, tail)

        return normalise_by(x_ri, *self._running)

    @property
    def _running(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, float]:
        """Running statistics and what follows them in `whitening.map_by`."""
        return self.running_mean, self.running_var, self.weight, self.bias, self.eps

    def _needs_gradient(self, x_ri: Tensor) -> bool:
        tensors = (x_ri, *self._numbers())
        return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, cov: Tensor) -> None:
        """Move the running statistics towards a mean (2, C) and unbiased covariance (2, 2, C)."""
        self.num_batches_tracked.add_(1)
        # a tensor, so that a cumulative average does not wait for the device
        n_batches = self.num_batches_tracked.to(mean.dtype)
        rate = 1 / n_batches if self.momentum is None else self.momentum
        self.running_mean += rate * (mean - self.running_mean)
        self.running_var += rate * (cov - self.running_var)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for stored in (self.weight, self.running_mean):
            if stored is not None:
                refuse_complex(fn, stored)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        )


def unit_matrix(like: Tensor) -> Tensor:
    """The 2x2 unit matrix (2, 2, 1)."""
    return torch.eye(2, dtype=like.dtype, device=like.device).unsqueeze(-1)
