"""Complex activations (B, C, L) as real channels-last images, and back, without a copy.

A complex tensor that lies in memory as (B, L, C) is, read as real numbers, an image of 2C channels (real and imaginary
parts in turn) stored channels last: the layout in which convolution and pooling are fastest. Layers of this package
give their results in that layout; to the caller they stay ordinary complex tensors (B, C, L).
"""

import torch
from torch import Tensor

from .storage import as_ri


def to_image(z: Tensor) -> Tensor:
    """Complex (B, C, H, W) -> real (B, 2C, H, W), channels last in memory; complex (B, C, L) is read as H = 1."""
    if z.dim() == 3:
        z = z.unsqueeze(2)
    if z.dim() != 4:
        raise ValueError(
            f"expected (batch, channels, length) or (batch, channels, height, width), got {tuple(z.shape)}"
        )
    rows = z.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C); copies only what is not channels last already
    return as_ri(rows).flatten(-2).permute(0, 3, 1, 2)


def from_image(image: Tensor, dim: int) -> Tensor:
    """Real (B, 2C, H, W) -> complex (B, C, H, W), or (B, C, W) if `dim` is 3."""
    rows = image.permute(0, 2, 3, 1).contiguous()  # (B, H, W, 2C)
    z = torch.view_as_complex(rows.unflatten(-1, (-1, 2))).permute(0, 3, 1, 2)
    return z.squeeze(2) if dim == 3 else z
