"""Complex layers on a GPU, from the kernels beside this file.

They give the same values as the plain formulas.

Activations go in and come out as native complex tensors; in between they are pairs (B, L, C, 2),
which is how these tensors lie in memory, so that nothing is copied at the borders.

What is saved for the backward pass: inputs, and of a variational layer the variance; the noise is
drawn again.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from cplxnet.nn.fast.dispatch import once_differentiable

from .batchnorm import batchnorm_backward, batchnorm_forward
from .conv import (
    conv_rows,
    conv_rows_grad,
    conv_weight_grad,
)
from .kl import TERMS, kl_backward
from .launch import precision, set_tf32, tf32
from .linear import join_parts, linear_rows, linear_rows_grad, split_weight, take_parts
from .noise import noise_pairs, noise_pairs_grad, square_pairs, square_pairs_grad
from .weights import form_weight, form_weight_grad


@contextlib.contextmanager
def _matrix_units() -> Iterator[None]:
    """TF32 in torch's own products, without autocast.

    Here their operands hold no more bits than that, or may be rounded.
    """
    before = tf32()
    set_tf32(True)
    try:
        with _no_autocast():
            yield
    finally:
        set_tf32(before)


def _no_autocast() -> Any:
    return torch.autocast("cuda", enabled=False)


def _to_pairs(x: Tensor) -> Tensor:
    """Complex (B, C, ...) -> real (B, ..., C, 2), contiguous.

    It is a view of what the layers of this package give.
    """
    return torch.view_as_real(x.movedim(1, -1).contiguous().resolve_conj())


def _from_pairs(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs).movedim(-1, 1)


def _key(like: Tensor) -> Tensor:
    """The key of one layer's noise, from torch's generator of the device.

    Each replay of a CUDA graph draws a new one.
    """
    key = next(_drawn.get() or iter(()), None)
    return torch.randint(2**62, (1,), device=like.device) if key is None else key


_drawn: ContextVar[Iterator[Tensor] | None] = ContextVar("keys drawn ahead", default=None)


@contextlib.contextmanager
def keys_ahead(n: int, device: torch.device) -> Iterator[None]:
    """Draw the keys of the next n noisy layers in one go."""
    before = _drawn.set(iter(torch.randint(2**62, (n,), device=device).split(1)))
    try:
        yield
    finally:
        _drawn.reset(before)


# ---- convolution ---------------------------------------------------------------------------------


def conv1d(
    x: Tensor,
    weight_ri: Tensor,
    bias_ri: Tensor | None,
    step: int,
    *,
    mask: Tensor | None = None,
    log_sigma2: Tensor | None = None,
) -> Tensor:
    """y = W * x + b, and with `log_sigma2` noise of variance sigma^2 * |x|^2.

    Args:
        x: complex64 (B, in, L).
        weight_ri: float32 (out, in, k, 2); bias_ri: (out, 2).
        step: stride; neither padding nor dilation.
        mask: bool (out, in, k), True = keep.
        log_sigma2: (out, in, k), of a variational layer in training.

    Returns:
        complex64 (B, out, L'), channels last in memory.
    """
    pairs = _to_pairs(x)
    return _from_pairs(_Conv.apply(pairs, weight_ri, bias_ri, log_sigma2, mask, step, precision()))


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        log_sigma2: Tensor | None,
        mask: Tensor | None,
        step: int,
        products: str,
    ) -> Tensor:
        b, length, c, _ = x.shape
        block, back, sigma2, sigma2_back = form_weight(weight, mask, log_sigma2, step)
        mean = conv_rows(x.view(b, length, 2 * c), block, bias, step, products)

        # no view to autograd, so that the result may be changed in place
        y = torch.ops.aten._unsafe_view(mean, [b, mean.shape[1], len(weight), 2])

        square = variance = key = None
        if log_sigma2 is not None:
            square = square_pairs(x)
            key = _key(x)
            variance = conv_rows(square, sigma2, None, step, products)
            y = noise_pairs(y, variance, key)

        ctx.save_for_backward(x, square, variance, key, back, sigma2_back, mask, log_sigma2)
        ctx.step = step
        ctx.products = products
        ctx.weight_shape = tuple(weight.shape)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, square, variance, key, back, sigma2_back, mask, log_sigma2 = ctx.saved_tensors
        out, inputs, taps, _ = ctx.weight_shape
        step = ctx.step
        products = ctx.products
        b, length, c, _ = x.shape

        grad = grad.contiguous()
        flat = grad.view(b, grad.shape[1], 2 * out)
        by_variance = of_sigma2 = None
        if variance is not None:
            by_variance = noise_pairs_grad(grad, variance, key)
            of_sigma2 = _weight_grad(by_variance, square, taps, step, products)

        dx = None
        if ctx.needs_input_grad[0]:
            by_x = conv_rows_grad(flat, back, length, 2 * c, step, products)
            dx = by_x.view(b, length, c, 2)
            if by_variance is not None:
                by_square = conv_rows_grad(by_variance, sigma2_back, length, c, step, products)
                dx = square_pairs_grad(dx, by_square, x)

        partial = _weight_grad(flat, x.view(b, length, 2 * c), taps, step, products)
        shape = [out, inputs, taps]
        by_weight, by_s = form_weight_grad(partial, of_sigma2, mask, log_sigma2, shape)
        by_s = None if log_sigma2 is None else by_s
        by_bias = grad.flatten(0, -3).sum(0) if ctx.needs_input_grad[2] else None
        return dx, by_weight, by_bias, by_s, None, None, None


def _weight_grad(grad: Tensor, x: Tensor, taps: int, step: int, products: str) -> Tensor:
    """`conv_weight_grad`; by cuDNN in TF32, unless products are float32 or channels are few.

    The layouts of cuDNN suit the TF32 instructions.
    """
    b, length, width = x.shape
    n = grad.shape[2]
    if products == "float32" or min(n, width) < 16:
        return conv_weight_grad(grad, x, None, taps, step, products)

    with (
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=True),
        _no_autocast(),
    ):
        by_weight = torch.ops.aten.convolution_backward(
            grad.view(b, 1, -1, n).permute(0, 3, 1, 2),
            x.view(b, 1, length, width).permute(0, 3, 1, 2),
            x.new_empty(n, taps, width).view(n, 1, taps, width).permute(0, 3, 1, 2),
            None, [1, step], [0, 0], [1, 1], False, [0, 0], 1, (False, True, False),
        )[1]  # fmt: skip

    return by_weight.permute(0, 2, 3, 1).reshape(1, n, taps * width)


# ---- linear --------------------------------------------------------------------------------------


def linear(
    x: Tensor,
    weight_ri: Tensor,
    bias_ri: Tensor | None,
    *,
    mask: Tensor | None = None,
    log_sigma2: Tensor | None = None,
) -> Tensor:
    """y = W x + b, and with `log_sigma2` noise of variance sigma^2 |x|^2.

    Args:
        x: complex64 (B, in).
        weight_ri: float32 (out, in, 2); bias_ri: (out, 2).
        mask: bool (out, in), True = keep.
        log_sigma2: (out, in), of a variational layer in training.

    Returns:
        complex64 (B, out).
    """
    pairs = _to_pairs(x)
    return _from_pairs(_Linear.apply(pairs, weight_ri, bias_ri, log_sigma2, mask, precision()))


def _operands(weight: Tensor, mask: Tensor | None, split: bool) -> tuple[Tensor, Tensor | None]:
    """The stored weight as products take it: hi, and lo if it is split."""
    if not split and mask is None:
        return weight.flatten(1), None
    forms = split_weight(weight, mask, split)
    return forms[0], forms[1] if split else None


def _stacked(several: Tensor, one: Tensor, high: Tensor, low: Tensor | None) -> Tensor:
    """(3 or 1, rows, columns): (hi, lo) times high and hi times low; or the product alone."""
    if low is None:
        return (one @ high).float().unsqueeze(0)

    rows, columns = one.shape
    stack = high.new_empty(3, rows, high.shape[1])
    torch.mm(several.reshape(2 * rows, columns), high, out=stack[:2].view(2 * rows, -1))
    torch.mm(one, low, out=stack[2])
    return stack


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        log_sigma2: Tensor | None,
        mask: Tensor | None,
        products: str,
    ) -> Tensor:
        split = products == "float32"
        rows = linear_rows(x, split)
        high, low = _operands(weight, mask, split)
        if products == "bfloat16":
            rows = rows.bfloat16()
            high = high.bfloat16()

        with _matrix_units():
            parts = _stacked(rows[:2], rows[0], high.T, None if low is None else low.T)
        y = join_parts(parts, bias)

        square = sigma2 = variance = key = None
        if log_sigma2 is not None:
            square = square_pairs(x)
            sigma2 = log_sigma2.exp()
            variance = _plain(products, square, sigma2.T)
            key = _key(x)
            y = noise_pairs(y, variance, key)

        ctx.save_for_backward(x, rows, high, low, mask, log_sigma2, square, sigma2, variance, key)
        ctx.products = products
        ctx.weight_shape = weight.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, rows, high, low, mask, log_sigma2, square, sigma2, variance, key = ctx.saved_tensors
        products = ctx.products
        grad = grad.contiguous()
        parts = take_parts(grad, low is not None).to(rows.dtype)

        dx = None
        with _matrix_units():
            if ctx.needs_input_grad[0]:
                dx = linear_rows_grad(_stacked(parts[1:], parts[0], high, low))
            by_weight = (parts.flatten(0, 1).T @ rows.flatten(0, 1)).float()

        by_weight = by_weight.view(ctx.weight_shape)
        if mask is not None:
            by_weight.mul_(mask.unsqueeze(-1))

        by_s = None
        if variance is not None:
            by_variance = noise_pairs_grad(grad, variance, key)
            rows_of = (by_variance.unsqueeze(1), square.unsqueeze(1))  # a convolution of length 1
            by_s = conv_weight_grad(*rows_of, log_sigma2, 1, 1, products).squeeze(0)
            if dx is not None:
                dx = square_pairs_grad(dx, _plain(products, by_variance, sigma2), x)

        by_bias = grad.flatten(0, -3).sum(0) if ctx.needs_input_grad[2] else None
        return dx, by_weight, by_bias, by_s, None, None


def _plain(products: str, a: Tensor, b: Tensor) -> Tensor:
    """a b of the variance, in the precision of the products."""
    with _no_autocast():
        if products == "bfloat16":
            return (a.bfloat16() @ b.bfloat16()).float()
        return a @ b


# ---- batch norm ----------------------------------------------------------------------------------


class BatchNorm(torch.autograd.Function):
    """Batch normalisation of pairs (B, L, C, 2) by their own statistics, and its tail.

    See `batchnorm.py`. `running` is mean (2, C), covariance (2, 2, C) and number of batches,
    updated in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running: tuple[Tensor, Tensor, Tensor] | None,
        momentum: float | None,
        eps: float,
        relu: bool,
        pool: bool,
    ) -> Tensor:
        old = running or (None, None, None)
        y, mean, cov, affine = batchnorm_forward(x, weight, bias, *old, momentum, eps, relu, pool)

        ctx.save_for_backward(x, mean, cov, affine, weight)
        ctx.eps = eps
        ctx.relu = relu
        ctx.pool = pool
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, cov, affine, weight = ctx.saved_tensors
        dx, by_weight, by_bias = batchnorm_backward(
            grad.contiguous(), x, mean, cov, affine, weight, ctx.eps, ctx.relu, ctx.pool
        )
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        by_weight = by_weight if needs_weight else None
        by_bias = by_bias if needs_bias else None
        return dx, by_weight, by_bias, None, None, None, None, None


def trial(device: torch.device, products: str) -> None:
    """Run every kernel on small arrays, forward and backward.

    A kernel that does not compile is so met before training. `products` is their precision, as
    `precision` gives it: kernels are compiled for each.
    """
    devices = [device] if device.type == "cuda" else []

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, device=device, requires_grad=True)

    # a network may be scored first, and its seeds are set
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        # tiles are as large as in a large network
        kernel = ones(64, 16, 3, 2)
        mask = torch.ones(64, 16, 3, dtype=torch.bool, device=device)
        y = _Conv.apply(ones(2, 9, 16, 2), kernel, ones(64, 2), ones(64, 16, 3), mask, 2, products)
        y = BatchNorm.apply(y, ones(2, 2, 64), ones(2, 64), None, 0.1, 1e-5, True, True)

        weight = ones(3, 128, 2)
        mask = torch.ones(3, 128, dtype=torch.bool, device=device)
        y = _Linear.apply(y.reshape(2, 128, 2), weight, ones(3, 2), ones(3, 128), mask, products)
        y.sum().backward()

        for term in TERMS:
            mean = ones(3, 2) if term < 2 else ones(3)
            lists = [[t.detach()] for t in (mean, ones(3), mean.clone(), ones(3))]
            kl_backward(*lists[:2], [term], torch.ones((), device=device), *lists[2:], [1.0])
