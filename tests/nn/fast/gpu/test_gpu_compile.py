"""Every kernel compiles for Hopper and Ampere.

It keeps its numbers in registers, and loads 16 bytes where it can.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton")

# Scattered by nature: weights and their gradients change places, a mask has a byte for two numbers.
NARROW = {"_form_kernel", "_form_grad_kernel"}


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "stack"), [(90, 0), (80, 8)])
def test_kernels_compile_without_spills(capability: int, stack: int) -> None:
    """stack: bytes; on Ampere the weight's gradient keeps two numbers there, outside its loop."""
    script = Path(__file__).with_name("compiled.py")
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, str(script), str(capability)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results) >= 30
    spilling = [r for r in results if r["stack"] > stack or r["local"]]
    assert spilling == []
    assert [r["kernel"] for r in results if not r["wide"] and r["kernel"] not in NARROW] == []
