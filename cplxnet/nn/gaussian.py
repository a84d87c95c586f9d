"""A Gaussian posterior over the weights of a layer: log_sigma2, and what follows from it."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .fast.clipping import GradientNorm
from .fast.dispatch import native_usable
from .fast.noise import VARIANCE_FLOOR, PairNoise
from .kl import Term, add_gradient, penalty, penalty_backward, penalty_sum, squared_modulus
from .parameters import stored_parameter

# the parameters that penalised layers have and dense ones lack, whose learning rate is apart
OWN = ("log_sigma2", "log_sigma2_out", "gate_logit")


class Penalised(nn.Module):
    """Mixin over a layer whose weights, or channels, each have a penalty and are relevant or not.

    Attributes:
        own: the names of the parameters that the dense layer lacks, of `OWN`.
        at_first: their value at the start.
        penalty: of every weight or channel, differentiable, shape of the first of them.
    """

    own: ClassVar[tuple[str, ...]]
    at_first: ClassVar[float]
    penalty: Any

    def reset_parameters(self) -> None:
        """Initialise as the dense layer does, and the own parameters to `at_first`."""
        super().reset_parameters()  # type: ignore[misc]
        for name in self.own:
            if name not in self._parameters:  # the dense layer's constructor calls first
                self.register_parameter(name, nn.Parameter(self._empty_own(name)))
        self.fill_own(self.at_first)

    def fill_own(self, value: float) -> None:
        """Set every own parameter to one value."""
        for name in self.own:
            nn.init.constant_(self.get_parameter(name), value)

    def _empty_own(self, name: str) -> Tensor:
        """An own parameter without values: a real number for every weight, or output channel."""
        weight: Any = self.weight
        if name == "log_sigma2_out":
            return weight.real.new_empty(len(weight))
        return torch.empty_like(weight.real).contiguous()

    @property
    def n_penalties(self) -> int:
        """How many numbers `penalty` has."""
        return self.get_parameter(self.own[0]).numel()

    @property
    def weight_in_evaluation(self) -> Tensor:
        """What multiplies the input in evaluation: handed on to layers without own parameters."""
        weight: Tensor = self.weight  # type: ignore[assignment]
        return weight

    def kl(self, channels: float = 1.0) -> Tensor:
        """The sum of `penalty`, added in float64: a scalar.

        channels: multiplies the KL of channels, in layers that have it.
        """
        return self.penalty.sum(dtype=torch.float64).to(self._stored.dtype)

    def kl_backward(
        self, scale: Tensor, norm: GradientNorm | None = None, channels: float = 1.0
    ) -> Tensor:
        """Add the gradient of `scale * kl(channels)` to the parameters' `.grad`.

        Args:
            scale: a scalar on the layer's device.
            norm: as in `cplxnet.nn.kl_backward`.
            channels: as in `kl`.

        Returns:
            `kl(channels)`, without a graph.
        """
        return add_gradient(self.kl(channels), scale)

    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True for the weights that are kept."""
        raise NotImplementedError

    @property
    def _stored(self) -> nn.Parameter:
        """The weight as it is stored, (..., 2) in complex layers."""
        return stored_parameter(self, "weight")


class GaussianWeight(Penalised):
    """Mixin over a linear or convolutional layer: w ~ N(mu, sigma^2), mu its `weight`.

    Complex weights are circular, w ~ CN(mu, sigma^2, 0): E|w - mu|^2 = sigma^2, half of it in each
    part. Every weight has a log_sigma2 of its own: real, shape of the weight, -10 at the start (a
    nearly deterministic layer).

    Attributes:
        term: the KL of the prior; see `kl`.

    Raises:
        RuntimeError: the weight is not a parameter of its own any more (parametrized, weight_norm,
            pruned) when its KL or its relevance is asked for.

    Reference: Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued
    Networks".
    """

    own: ClassVar[tuple[str, ...]] = ("log_sigma2",)
    at_first = -10.0
    term: ClassVar[Term]
    log_sigma2: nn.Parameter

    @property
    def log_alpha(self) -> Tensor:
        """log(sigma^2/|mu|^2), shape of the weight; +inf where mu = 0."""
        return self.log_sigma2 - squared_modulus(self._stored, self.term.cplx).log()

    @property
    def penalty(self) -> Tensor:
        """The KL of every weight: exact, differentiable, shape of the weight."""
        return penalty(self._stored, self.log_sigma2, self.term)

    def kl(self, channels: float = 1.0) -> Tensor:
        return penalty_sum(self._stored, self.log_sigma2, self.term)

    def kl_backward(
        self, scale: Tensor, norm: GradientNorm | None = None, channels: float = 1.0
    ) -> Tensor:
        return penalty_backward(self._stored, self.log_sigma2, self.term, scale, norm)

    @torch.no_grad()
    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True (keep) if and only if log_alpha <= threshold."""
        return self.log_alpha <= threshold


def with_noise(mean: Tensor, variance: Tensor) -> Tensor:
    """mean + sqrt(variance) * eps with eps ~ N(0, 1), or CN(0, 1, 0) for a complex mean.

    Args:
        mean: real or complex.
        variance: real, of the same shape; at least 1e-8 is used.

    Returns:
        The mean's shape and type. The noise is drawn in the mean's own memory layout.

    Reference: Kingma, Salimans and Welling (2015), "Variational Dropout and the Local
    Reparameterization Trick", section 2.3.
    """
    if mean.is_complex() and mean.dim() >= 2:
        # layers of this package have their channels last in memory
        pairs = torch.view_as_real(mean.movedim(1, -1))
        by_pair = variance.movedim(1, -1).contiguous()
        if native_usable(pairs, by_pair):
            noisy, _ = PairNoise.apply(pairs, by_pair)
            return torch.view_as_complex(noisy).movedim(-1, 1)

    deviation = variance.clamp_min(VARIANCE_FLOOR).sqrt()
    if not mean.is_complex():
        return torch.addcmul(mean, deviation, _normal_like(mean))

    parts = torch.view_as_real(mean)
    eps = _normal_like(parts)
    noisy = torch.addcmul(parts, deviation.unsqueeze(-1), eps, value=math.sqrt(0.5))
    return torch.view_as_complex(noisy)


def _normal_like(x: Tensor) -> Tensor:
    """Standard normals in x's shape and memory layout.

    Filled in the order of memory: on the CPU `normal_` takes ten times as long on a tensor that is
    not contiguous.
    """
    eps = torch.empty_like(x)
    eps.as_strided((eps.numel(),), (1,)).normal_()
    return eps
