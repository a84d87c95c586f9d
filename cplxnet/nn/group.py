"""Linear and convolutional layers with one noise for each output channel or unit.

    y = b + z (W x),    z ~ CN(1, alpha, 0) or N(1, alpha)    in training
    y = b + W x                                               in evaluation

    alpha_o = sigma_o^2 / (mean of |w|^2 over the weights of channel o)

one z for each output channel o and example: all weights of a channel share their noise, at all
positions of a convolution. sigma_o^2 = e^`log_sigma2_out` is learnt, not alpha. The noise then
stays as it is while the weights of an irrelevant channel shrink to zero, and masking them costs
little. With alpha as the parameter nothing would shrink them. The KL of a channel is that of one
weight with |mu|^2 the mean of |w|^2, and sigma_o^2 (see `kl`), log-uniform prior ("GroupVD") or
automatic relevance determination ("GroupARD"). A channel is relevant if
log alpha <= threshold, and with it all its weights: what is masked are whole channels, so that a
smaller dense layer is left. Constructor arguments and shapes are those of the mean layer, as in
`torch.nn`.

"BothVD" and "BothARD" layers have this noise and that of each weight (see `variational`): W is
drawn from its posterior, z multiplies what it gives, and both KL are added. A weight is relevant if
it is and its channel is.

References:
    Neklyudov, Molchanov, Ashukha and Vetrov (2017), "Structured Bayesian Pruning via Log-Normal
        Multiplicative Noise". The noise is Gaussian here, so that the KL is that of single weights.
    Molchanov, Ashukha and Vetrov (2017), "Variational Dropout Sparsifies Deep Neural Networks",
        section 4.2: sigma^2 as the parameter in the place of alpha.
    Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks".
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from . import variational
from .conv import CplxConv1d, CplxConv2d
from .fast.clipping import GradientNorm
from .gaussian import GaussianWeight, Penalised
from .kl import COMPLEX_ARD, COMPLEX_VD, REAL_ARD, REAL_VD, Term, add_gradient, penalty
from .linear import CplxLinear

SMALLEST = 1e-10  # root mean square of |w| that noise is measured by


class GroupNoise(Penalised):
    """Mixin over a linear or convolutional layer: y = b + z (W x), a noise z for each channel.

    Attributes:
        log_sigma2_out: log(sigma_o^2), real (out,).
        term: the KL of the prior; see `kl`.
    """

    own: ClassVar[tuple[str, ...]] = ("log_sigma2_out",)
    at_first = -10.0  # a nearly deterministic layer
    term: ClassVar[Term]
    log_sigma2_out: nn.Parameter

    @property
    def log_alpha_out(self) -> Tensor:
        """The logarithm of each channel's noise against its size, (out,); +inf without weights."""
        return self.log_sigma2_out - 2 * self._size.log()

    @property
    def _size(self) -> Tensor:
        """The root mean square of |w| over the weights of each channel, (out,)."""
        weight: Any = self.weight
        norm = torch.linalg.vector_norm(self._stored.flatten(1), dim=1)
        return norm / math.sqrt(weight[0].numel())

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)  # type: ignore[misc]
        if not self.training:
            return y

        weight: Any = self.weight
        n_positions = weight.dim() - 2  # axes after the channels'
        shape = [1] * n_positions  # they share their noise
        bias: Any = self.bias
        product = y if bias is None else y - bias.view(-1, *shape)
        size = self._size
        # without weights there is nothing to multiply, and no direction for the noise's gradient
        deviation = torch.where(
            size > 0, (self.log_sigma2_out / 2).exp() / size.clamp_min(SMALLEST), 0
        )
        lead = y.shape[: y.dim() - n_positions]  # without a batch, where torch's layers allow it
        eps = torch.randn(*lead, *shape, dtype=y.dtype, device=y.device)

        return y + product * (deviation.view(-1, *shape) * eps)

    @property
    def penalty_out(self) -> Tensor:
        """The KL of every output channel: exact, differentiable, (out,)."""
        mean = self._size
        if self.term.cplx:
            mean = torch.stack([mean, torch.zeros_like(mean)], -1)
        return penalty(mean, self.log_sigma2_out, self.term)

    @property
    def penalty(self) -> Tensor:
        """`penalty_out`."""
        return self.penalty_out

    def kl(self, channels: float = 1.0) -> Tensor:
        total = channels * self.penalty_out.sum(dtype=torch.float64)
        return total.to(self._stored.dtype)

    @torch.no_grad()
    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True (keep) in channels with log_alpha_out <= threshold."""
        return self._to_weights(self.log_alpha_out <= threshold).clone()

    def _to_weights(self, of_channels: Tensor) -> Tensor:
        """A value of each channel (out,) at all its weights: a view in the weight's shape."""
        weight: Any = self.weight
        return of_channels.view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape)


class BothNoise(GroupNoise, GaussianWeight):
    """Mixin over a layer with a Gaussian posterior: its own noise, and that of its channels."""

    own = (*GaussianWeight.own, *GroupNoise.own)

    @property
    def penalty(self) -> Tensor:
        """The KL of every weight, with its share of its channel's: shape of the weight.

        The weights of a channel have equal shares.
        """
        of_each = penalty(self._stored, self.log_sigma2, self.term)
        return of_each + self._to_weights(self.penalty_out / of_each[0].numel())

    def kl(self, channels: float = 1.0) -> Tensor:
        return GaussianWeight.kl(self) + GroupNoise.kl(self, channels)

    def kl_backward(
        self, scale: Tensor, norm: GradientNorm | None = None, channels: float = 1.0
    ) -> Tensor:
        # channels first: the pass over the weights measures what the gradients have become
        of_channels = add_gradient(GroupNoise.kl(self, channels), scale)
        return of_channels + GaussianWeight.kl_backward(self, scale, norm)

    @torch.no_grad()
    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True (keep) where the weight and its channel are relevant."""
        return GroupNoise.relevance(self, threshold) & GaussianWeight.relevance(self, threshold)


class CplxLinearGroupVD(GroupNoise, CplxLinear):
    """`CplxLinear` with a noise a unit: complex (..., in) -> (..., out)."""

    term = COMPLEX_VD


class CplxLinearGroupARD(GroupNoise, CplxLinear):
    """`CplxLinear` with a noise a unit: complex (..., in) -> (..., out)."""

    term = COMPLEX_ARD


class CplxConv1dGroupVD(GroupNoise, CplxConv1d):
    """`CplxConv1d` with a noise a channel: complex (B, in, L) -> (B, out, L')."""

    term = COMPLEX_VD


class CplxConv1dGroupARD(GroupNoise, CplxConv1d):
    """`CplxConv1d` with a noise a channel: complex (B, in, L) -> (B, out, L')."""

    term = COMPLEX_ARD


class CplxConv2dGroupVD(GroupNoise, CplxConv2d):
    """`CplxConv2d` with a noise a channel: complex (B, in, H, W) -> (B, out, H', W')."""

    term = COMPLEX_VD


class CplxConv2dGroupARD(GroupNoise, CplxConv2d):
    """`CplxConv2d` with a noise a channel: complex (B, in, H, W) -> (B, out, H', W')."""

    term = COMPLEX_ARD


class LinearGroupVD(GroupNoise, nn.Linear):
    """`torch.nn.Linear` with a noise a unit."""

    term = REAL_VD


class LinearGroupARD(GroupNoise, nn.Linear):
    """`torch.nn.Linear` with a noise a unit."""

    term = REAL_ARD


class Conv1dGroupVD(GroupNoise, nn.Conv1d):
    """`torch.nn.Conv1d` with a noise a channel."""

    term = REAL_VD


class Conv1dGroupARD(GroupNoise, nn.Conv1d):
    """`torch.nn.Conv1d` with a noise a channel."""

    term = REAL_ARD


class Conv2dGroupVD(GroupNoise, nn.Conv2d):
    """`torch.nn.Conv2d` with a noise a channel."""

    term = REAL_VD


class Conv2dGroupARD(GroupNoise, nn.Conv2d):
    """`torch.nn.Conv2d` with a noise a channel."""

    term = REAL_ARD


class CplxLinearBothVD(BothNoise, variational.CplxLinearVD):
    """`CplxLinearVD` with a noise a unit as well: complex (..., in) -> (..., out)."""


class CplxLinearBothARD(BothNoise, variational.CplxLinearARD):
    """`CplxLinearARD` with a noise a unit as well: complex (..., in) -> (..., out)."""


class CplxConv1dBothVD(BothNoise, variational.CplxConv1dVD):
    """`CplxConv1dVD` with a noise a channel as well: complex (B, in, L) -> (B, out, L')."""


class CplxConv1dBothARD(BothNoise, variational.CplxConv1dARD):
    """`CplxConv1dARD` with a noise a channel as well: complex (B, in, L) -> (B, out, L')."""


class CplxConv2dBothVD(BothNoise, variational.CplxConv2dVD):
    """`CplxConv2dVD` with a noise a channel as well: (B, in, H, W) -> (B, out, H', W')."""


class CplxConv2dBothARD(BothNoise, variational.CplxConv2dARD):
    """`CplxConv2dARD` with a noise a channel as well: (B, in, H, W) -> (B, out, H', W')."""


class LinearBothVD(BothNoise, variational.LinearVD):
    """`LinearVD` with a noise a unit as well."""


class LinearBothARD(BothNoise, variational.LinearARD):
    """`LinearARD` with a noise a unit as well."""


class Conv1dBothVD(BothNoise, variational.Conv1dVD):
    """`Conv1dVD` with a noise a channel as well."""


class Conv1dBothARD(BothNoise, variational.Conv1dARD):
    """`Conv1dARD` with a noise a channel as well."""


class Conv2dBothVD(BothNoise, variational.Conv2dVD):
    """`Conv2dVD` with a noise a channel as well."""


class Conv2dBothARD(BothNoise, variational.Conv2dARD):
    """`Conv2dARD` with a noise a channel as well."""
