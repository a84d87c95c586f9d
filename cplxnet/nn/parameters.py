"""Complex parameters and activations as real numbers in pairs.

A complex parameter is one real parameter whose last axis holds (real part, imaginary part).
Optimisers then see real numbers only (`Adam(fused=True)` refuses complex ones), `Module.double()`
casts both parts, and `torch.view_as_complex` gives the complex tensor without a copy, so that a
write into `layer.weight` is a write into the parameter.

A complex activation (B, C, L) that lies in memory as (B, L, C) is, read as real numbers, an image
of 2C channels (real and imaginary parts in turn) stored channels last: the layout in which
convolution and pooling are fastest. The layers here return their results in that layout; to the
caller they are ordinary complex tensors (B, C, L).
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from .init import trabelsi_standard_

# -- parameters ------------------------------------------------------------------------------------


class ComplexParameters(nn.Module):
    """Base of complex layers: `weight` and `bias` are views of real `weight_ri` and `bias_ri`.

    Reading `layer.weight` gives a native complex tensor that shares memory with the parameter and
    carries its gradient. `layer.weight = value` copies values in: a tensor, an array or a Parameter
    of the same shape, real or complex.

    Args:
        shape: of the weight, (out, in, ...).
        bias: whether there is one, (out,).
        device: of the parameters.
        dtype: as for `real_dtype`.

    Raises:
        ValueError: a value of another shape, or None where the layer has a bias.
        TypeError: a cast to a complex type, or a forward pass in a type other than float32 and
            float64.
    """

    weight_ri: nn.Parameter
    bias_ri: nn.Parameter | None

    def __init__(
        self, shape: tuple[int, ...], bias: bool, device: Any, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        kind: Any = {"device": device, "dtype": real_dtype(dtype)}
        self.weight_ri = nn.Parameter(torch.empty(*shape, 2, **kind))
        bias_ri = nn.Parameter(torch.empty(shape[0], 2, **kind)) if bias else None
        self.register_parameter("bias_ri", bias_ri)

    def reset_parameters(self) -> None:
        """Trabelsi's initialisation of the weight, 0 for the bias."""
        trabelsi_standard_(self.weight)
        if self.bias_ri is not None:
            nn.init.zeros_(self.bias_ri)

    @property
    def weight(self) -> Tensor:
        """Complex, of the layer's shape."""
        return torch.view_as_complex(self.weight_ri)

    @property
    def bias(self) -> Tensor | None:
        """Complex (out,), or None."""
        return None if self.bias_ri is None else torch.view_as_complex(self.bias_ri)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("weight", "bias"):
            super().__setattr__(name, value)
            return

        target = getattr(self, name)
        if target is None and value is None:
            return
        if target is None or value is None:
            raise ValueError(
                f"cannot set {name} to {value!r}: whether a layer has one is fixed by its "
                "constructor"
            )

        value = torch.as_tensor(value)
        if value.shape != target.shape:
            raise ValueError(
                f"expected {name} of shape {tuple(target.shape)}, got {tuple(value.shape)}"
            )
        with torch.no_grad():
            target.copy_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        refuse_complex(fn, self.weight_ri)
        # flat: a channels-last memory format, meant for (out, in, kh, kw), would tear (out, in, k,
        # 2) apart
        super()._apply(lambda t: fn(t.flatten()).view(t.shape), recurse)
        return self


def stored_parameter(layer: nn.Module, name: str) -> Any:
    """The real parameter behind `layer.weight` or `layer.bias`, or None if the layer has no bias.

    `weight_ri` (..., 2) of complex layers, `weight` of real ones. A replica of the layer
    (`torch.nn.DataParallel`) has a copy of it.

    Raises:
        RuntimeError: it is not a parameter of the layer any more, since torch.nn.utils computes it
            from others (parametrize, weight_norm, prune).
    """
    key = f"{name}_ri" if isinstance(layer, ComplexParameters) else name
    if getattr(layer, "_is_replica", False):
        return getattr(layer, key)
    if key not in layer._parameters:
        raise RuntimeError(
            f"expected {key} to be a parameter of {type(layer).__name__}, got a tensor computed "
            "from others: parametrizations, weight_norm and pruning do not go with variational and "
            "masked layers; try the dense layer, or "
            "torch.nn.utils.parametrize.remove_parametrizations first"
        )

    return layer._parameters[key]


def real_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    """The type that complex numbers of `dtype`, real or complex, are stored in; None for None.

    Raises:
        TypeError: neither float32 nor float64, which are the types that complex layers compute in.
    """
    real = dtype.to_real() if dtype is not None and dtype.is_complex else dtype
    if real not in (None, torch.float32, torch.float64):
        raise TypeError(
            f"expected complex layers in float32 or float64, got {dtype}; try .float(), and "
            "torch.autocast for products in fewer digits"
        )

    return real


def refuse_complex(fn: Callable[[Tensor], Tensor], stored: Tensor) -> None:
    """Check that `fn`, which `Module.to` applies to every tensor, keeps `stored` real.

    Raises:
        TypeError: complex numbers.
    """
    if fn(stored.detach()[:0].flatten()).is_complex():
        raise TypeError(
            "expected a float type to cast complex layers to, got a complex one; "
            "try .to(torch.float64)"
        )


# -- activations -----------------------------------------------------------------------------------


def as_ri(z: Tensor) -> Tensor:
    """The real view (..., 2) of a complex tensor (...): no copy, gradients flow, strides are kept.

    Raises:
        TypeError: a real tensor, since a forgotten cast would show as a wrong shape far away; or
            complex32.
    """
    if not z.is_complex():
        raise TypeError(f"expected a complex tensor, got {z.dtype}; try x.to(torch.complex64)")
    if z.dtype == torch.complex32:
        raise TypeError(
            "expected complex64 or complex128, got complex32; try x.to(torch.complex64)"
        )

    return torch.view_as_real(z.resolve_conj())


def channels_last(image: Tensor) -> Tensor:
    """The image (B, C, H, W) with its channels last in memory; copied only if they are not.

    `contiguous(memory_format=torch.channels_last)`, strides alike, which vmap does not know.
    """
    return image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def to_image(z: Tensor) -> Tensor:
    """Complex (B, C, H, W) -> real (B, 2C, H, W), channels last in memory.

    Complex (B, C, L) is read as (B, C, 1, L). Copies only what is not channels last already.

    Raises:
        ValueError: another number of axes.
    """
    if z.dim() == 3:
        z = z.unsqueeze(2)
    if z.dim() != 4:
        raise ValueError(
            "expected (batch, channels, length) or (batch, channels, height, width), got "
            f"{tuple(z.shape)}"
        )

    rows = z.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)
    return as_ri(rows).flatten(-2).permute(0, 3, 1, 2)


def from_image(image: Tensor, dim: int) -> Tensor:
    """Real (B, 2C, H, W) -> complex (B, C, H, W), or (B, C, W) if `dim` is 3."""
    rows = image.permute(0, 2, 3, 1).contiguous()  # (B, H, W, 2C)
    z = torch.view_as_complex(rows.unflatten(-1, (-1, 2))).permute(0, 3, 1, 2)

    return z.squeeze(2) if dim == 3 else z
