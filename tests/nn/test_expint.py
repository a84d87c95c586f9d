"""Ein against mpmath, at both ends and in both precisions."""

import math
from typing import Any

import mpmath
import pytest
import torch

from cplxnet.nn.expint import ein, ein_exp, ein_slope

mpmath.mp.dps = 30


def reference(q: mpmath.mpf) -> mpmath.mpf:
    """The defining series below 20 (in 30 digits, as it cancels), the classical formula above."""
    if q == 0:
        return mpmath.mpf(0)
    if q < 20:
        return mpmath.nsum(lambda k: -((-q) ** k) / (k * mpmath.factorial(k)), [1, mpmath.inf])
    return mpmath.euler + mpmath.log(q) + mpmath.e1(q)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_relative_error_against_mpmath(dtype: torch.dtype, tolerance: float) -> None:
    n = torch.linspace(-30, 30, 401, dtype=dtype)
    wanted = torch.tensor([float(reference(mpmath.exp(float(v)))) for v in n], dtype=torch.float64)
    torch.testing.assert_close(ein_exp(n).double(), wanted, rtol=tolerance, atol=0)
    q = n.exp()
    wanted = torch.tensor([float(reference(mpmath.mpf(float(v)))) for v in q], dtype=torch.float64)
    torch.testing.assert_close(ein(q).double(), wanted, rtol=tolerance, atol=0)


def test_reference_is_the_integral() -> None:
    integral = mpmath.quad(lambda t: -mpmath.expm1(-t) / t, [0, 1, 3, 25])
    assert float(reference(mpmath.mpf(25))) == pytest.approx(float(integral), rel=1e-14)
    assert float(reference(mpmath.mpf(3))) == pytest.approx(
        float(mpmath.quad(lambda t: -mpmath.expm1(-t) / t, [0, 3]))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends(dtype: torch.dtype) -> None:
    inf = math.inf
    assert ein(torch.tensor([0.0, inf], dtype=dtype)).tolist() == [0.0, inf]
    assert ein_exp(torch.tensor([-inf, inf], dtype=dtype)).tolist() == [0.0, inf]
    # e^1000 overflows in either precision; the value is gamma + 1000
    assert ein_exp(torch.tensor(1000.0, dtype=dtype)).item() == pytest.approx(
        1000.5772156649, rel=1e-7
    )
    tiny = torch.tensor(1e-30, dtype=dtype)
    assert ein(tiny).item() == pytest.approx(tiny.item(), rel=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-15)])
@pytest.mark.parametrize(("compiling", "grad"), [(False, False), (True, False), (False, True)])
def test_slope(
    dtype: torch.dtype, tolerance: float, compiling: bool, grad: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    q = torch.linspace(-40, 40, 801, dtype=dtype).exp()
    wanted = [float(-mpmath.expm1(-mpmath.mpf(float(v))) / mpmath.mpf(float(v))) for v in q]
    with torch.set_grad_enabled(grad):
        slope = ein_slope(q).double()
    torch.testing.assert_close(
        slope, torch.tensor(wanted, dtype=torch.float64), rtol=tolerance, atol=0
    )


def test_no_step_where_the_two_forms_meet() -> None:
    q = torch.linspace(2.4999, 2.5001, 201, dtype=torch.float64)
    slope = ein(q).diff() / q.diff()
    middle = (q[1:] + q[:-1]) / 2
    torch.testing.assert_close(slope, -torch.expm1(-middle) / middle, rtol=1e-8, atol=0)


def test_other_precisions_go_through_float32() -> None:
    q = torch.tensor([0.1, 1.0, 10.0], dtype=torch.bfloat16)
    assert torch.equal(ein(q), ein(q.float()).bfloat16())
    assert torch.equal(ein_exp(q), ein_exp(q.float()).bfloat16())
