"""The KL terms by name, weights at a given log(|mu|^2/sigma^2), and values by mpmath."""

import math

import mpmath
import pytest
import torch
from torch import Tensor

from cplxnet.nn.kl import COMPLEX_ARD, COMPLEX_VD, REAL_ARD, REAL_VD, Term

TERMS = {
    "complex-vd": COMPLEX_VD,
    "complex-ard": COMPLEX_ARD,
    "real-vd": REAL_VD,
    "real-ard": REAL_ARD,
}
every_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


def at(n: Tensor, term: Term, log_sigma2: float = -3.0) -> tuple[Tensor, Tensor]:
    """Stored weight and log_sigma2 with log(|mu|^2/sigma^2) = n; complex weights at 1 radian."""
    modulus = ((n + log_sigma2) / 2).exp()
    parts = torch.stack((modulus * math.cos(1.0), modulus * math.sin(1.0)), -1)
    return (parts if term.cplx else -modulus), torch.full_like(n, log_sigma2)


def log_fraction(q: mpmath.mpf, name: str) -> mpmath.mpf:
    """The terms of the table in `kl`, by mpmath."""
    if name == "complex-vd":
        return (
            mpmath.nsum(lambda k: -((-q) ** k) / (k * mpmath.factorial(k)), [1, mpmath.inf])
            if q < 20
            else (mpmath.euler + mpmath.log(q) + mpmath.e1(q))
        )
    if name == "real-vd":
        fit = mpmath.mpf("0.63576") * (
            1
            - 1 / (1 + mpmath.exp(-(mpmath.mpf("1.87320") - mpmath.mpf("1.48695") * mpmath.log(q))))
        )
        return fit + mpmath.log1p(q) / 2
    return mpmath.log1p(q) / (1 if name == "complex-ard" else 2)
