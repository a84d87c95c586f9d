"""Every kernel compiles for Hopper and Ampere.

It keeps its numbers in registers, and loads 16 bytes where it can.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton")

ROOT = Path(__file__).parents[4]

# Scattered by nature: weights and their gradients change places, a mask has a byte for two numbers,
# partial sums lie in threes.
NARROW = {"_form_kernel", "_form_grad_kernel", "_total_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "stack", "uneven"), [(90, 0, 72), (80, 8, 192)])
def test_kernels_compile_without_spills(capability: int, stack: int, uneven: int) -> None:
    """stack: bytes; on Ampere the weight's gradient keeps two numbers there, outside its loop.

    uneven: of convolutions in three products whose width is no multiple of the tile.
    """
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "extra.benchmarks.compiled", str(capability), "--json"],
        capture_output=True,
        text=True,
        timeout=1200,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    sources = (ROOT / "cplxnet/nn/fast/gpu").glob("*.py")
    launched = {
        k for path in sources for k in re.findall(r"launch\w*\(\s*(_\w+),", path.read_text())
    }
    assert {r["kernel"] for r in results} == launched

    widest = {"PRECISION": "tf32x3", "EVEN": "False", "BLOCK_N": "64"}
    allowed = [uneven if widest.items() <= r["constants"].items() else stack for r in results]
    assert [r for r, most in zip(results, allowed, strict=True) if r["stack"] > most] == []
    assert [r for r in results if r["local"]] == []

    even = [r for r in results if r["constants"].get("EVEN") != "False"]
    assert [r for r in even if not r["wide"] and r["kernel"] not in NARROW] == []
