"""What every layer with a Gaussian posterior over its weights has: log_sigma2, and what follows from it."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from .fast.dispatch import native_usable
from .fast.noise import PairNoise
from .kl import Squares, Term, penalty, penalty_backward, penalty_sum, squared_modulus
from .parameters import stored_parameter

VARIANCE_FLOOR = 1e-8  # some float32 convolutions of squares return tiny negatives


class GaussianWeight(nn.Module):
    """Mixin over a linear or convolutional layer: w ~ N(mu, sigma^2), mu its `weight`, one log_sigma2 per weight.

    Complex weights are circular, w ~ CN(mu, sigma^2, 0): E|w - mu|^2 = sigma^2, half of it in each part. `term` is the
    KL of the prior (see `kl`). log_sigma2: real, shape of the weight, starts at -10 (a nearly deterministic layer).
    Reference: Nazarov and Burnaev (2020), "Bayesian Sparsification Methods for Deep Complex-valued Networks".
    """

    term: ClassVar[Term]
    log_sigma2: nn.Parameter

    def reset_parameters(self) -> None:
        super().reset_parameters()  # type: ignore[misc]
        if (
            "log_sigma2" not in self._parameters
        ):  # the first call comes from the mean layer's constructor
            stored = self.stored_weight
            shape = stored.shape[:-1] if self.term.cplx else stored.shape
            self.log_sigma2 = nn.Parameter(
                torch.empty(shape, device=stored.device, dtype=stored.dtype)
            )
        nn.init.constant_(self.log_sigma2, -10.0)

    @property
    def stored_weight(self) -> nn.Parameter:
        """The real parameter that holds the means: `weight_ri` (..., 2) of complex layers, `weight` of real ones."""
        return stored_parameter(self, "weight")

    @property
    def log_alpha(self) -> Tensor:
        """log(sigma^2/|mu|^2), shape of the weight; +inf where mu = 0."""
        return self.log_sigma2 - squared_modulus(self.stored_weight, self.term.cplx).log()

    @property
    def penalty(self) -> Tensor:
        """The KL of every weight: exact, differentiable, shape of the weight."""
        return penalty(self.stored_weight, self.log_sigma2, self.term)

    def kl(self) -> Tensor:
        """The sum of `penalty` as a scalar, by the fast path."""
        return penalty_sum(self.stored_weight, self.log_sigma2, self.term)

    def kl_backward(self, scale: Tensor, squares: Squares | None = None) -> Tensor:
        """Add the gradient of `scale * kl()` to the parameters' `.grad`; returns `kl()`. squares: as in `nn`."""
        return penalty_backward(self.stored_weight, self.log_sigma2, self.term, scale, squares)

    @torch.no_grad()
    def relevance(self, threshold: float) -> Tensor:
        """bool, shape of the weight: True (keep) if and only if log_alpha <= threshold."""
        return self.log_alpha <= threshold


def with_noise(mean: Tensor, variance: Tensor) -> Tensor:
    """mean + sqrt(variance) * eps with eps ~ N(0, 1), or CN(0, 1, 0) for a complex mean.

    mean: real or complex; variance: real, of the same shape, floored at 1e-8. The noise is drawn in the mean's own
    memory layout. Reference: Kingma, Salimans and Welling (2015), section 2.3 (local reparameterisation).
    """
    if mean.is_complex() and mean.dim() == variance.dim() >= 2:
        # in the order of memory, where layers of this package have their channels last
        pairs, scale = torch.view_as_real(mean.movedim(1, -1)), variance.movedim(1, -1).contiguous()
        if native_usable(pairs, scale):
            noisy, _ = PairNoise.apply(pairs, scale, VARIANCE_FLOOR)
            return torch.view_as_complex(noisy).movedim(-1, 1)
    deviation = variance.clamp_min(VARIANCE_FLOOR).sqrt()
    if not mean.is_complex():
        return torch.addcmul(mean, deviation, _normal_like(mean))
    parts = torch.view_as_real(mean)
    eps = _normal_like(parts)
    return torch.view_as_complex(
        torch.addcmul(parts, deviation.unsqueeze(-1), eps, value=math.sqrt(0.5))
    )


def _normal_like(x: Tensor) -> Tensor:
    """Standard normals in x's shape and memory layout.

    Filled in the order of memory: on the CPU `normal_` takes ten times as long on a tensor that is not contiguous.
    """
    eps = torch.empty_like(x)
    eps.as_strided((eps.numel(),), (1,)).normal_()
    return eps
