"""Notebooks are committed as git's filter leaves them, so that a fresh clone has no changes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_committed_notebooks_are_as_the_filter_leaves_them():
    command = re.search(r'filter\.notebook\.clean "\S+ (.*)"', (ROOT / "Makefile").read_text())
    assert command is not None
    notebooks = [
        str(path) for place in (".", "extra", "legacy") for path in ROOT.glob(f"{place}/*.ipynb")
    ]
    assert len(notebooks) > 10

    strip = [sys.executable, "-m", "nbstripout", *shlex.split(command.group(1))]
    process = subprocess.run([*strip, "--verify", *notebooks], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
