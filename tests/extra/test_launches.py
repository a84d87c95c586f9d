"""A training step on a GPU: launches and bytes moved stay below what they have come down to."""

import json
import subprocess
import sys

import pytest
from torch.utils import backend_registration

LIMITS = {  # launches, gigabytes
    "dense": (100, 4.0),
    "masked": (110, 4.5),
    "VD": (170, 6.0),
    "ARD": (170, 6.0),
    "shrunk 50": (110, 3.1),
    "shrunk 181": (110, 2.5),
    "shrunk 493": (110, 2.2),
}


WHOLE = {"dense": (130, 4.0), "masked": (130, 4.1), "VD": (205, 6.9), "ARD": (205, 6.9)}


def printed(*options: str) -> dict[str, dict[str, int]]:
    """What the command prints.

    It runs in a process of its own, since the device's name is a setting of the whole process.
    """
    pytest.importorskip("triton", reason="no Triton")
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no spare device for Python")
    command = [sys.executable, "-m", "extra.benchmarks.launches", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def totals() -> dict[str, dict[str, int]]:
    return printed()


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, int]]:
    """Of the trainer's own step: it also draws, clips and takes a step of Adam."""
    return printed("--whole")


@pytest.mark.parametrize("kind", LIMITS)
def test_a_step_stays_below_its_limits(totals: dict[str, dict[str, int]], kind: str) -> None:
    launches, gigabytes = LIMITS[kind]
    assert totals[kind]["launches"] <= launches
    assert totals[kind]["bytes"] <= gigabytes * 1e9


@pytest.mark.parametrize("kind", WHOLE)
def test_the_trainers_own_step_stays_below_its_limits(
    totals: dict[str, dict[str, int]], whole: dict[str, dict[str, int]], kind: str
) -> None:
    launches, gigabytes = WHOLE[kind]
    assert totals[kind]["launches"] < whole[kind]["launches"] <= launches
    assert whole[kind]["bytes"] <= gigabytes * 1e9

    # clipping reads the gradients and writes them scaled; Adam reads them, the weights and two
    # moments of them, and writes all but the gradients
    n_numbers = 15.74e6 if kind in ("dense", "masked") else 23.61e6
    clip_and_adam = (2 + 7) * 4 * n_numbers
    assert whole[kind]["bytes"] - totals[kind]["bytes"] > clip_and_adam


def test_the_count_leaves_nothing_out(totals: dict[str, dict[str, int]]) -> None:
    # What cannot be left out: weights and their gradients written and read, activations written
    # and read back.
    weights, activations = 15.74e6 * 4, 227e6
    assert totals["dense"]["bytes"] > 4 * weights + 8 * activations
    assert totals["VD"]["bytes"] > totals["dense"]["bytes"] + 8 * weights
    assert totals["dense"]["launches"] > 60 and totals["VD"]["launches"] > 120
