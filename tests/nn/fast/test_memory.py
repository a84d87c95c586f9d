"""Freed memory kept, counted in page faults, in a process of its own."""

import platform
import subprocess
import sys

import pytest

from cplxnet import nn as cplx

FAULTS = """
import resource, sys
import torch
from cplxnet import nn as cplx

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 << 20)  # 64 MiB, 16384 pages of 4 KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults()
found = [faults()]
for on in (True, False):
    assert cplx.keep_freed(on)
    faults()
    found.append(faults())
print(*found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is of glibc's malloc")
def test_freed_memory_costs_no_more_page_faults() -> None:
    command = [sys.executable, "-c", FAULTS]
    before, kept, after = map(
        int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    )
    assert kept < 50
    assert (
        min(before, after) > 5 * 16384 / 512
    )  # even where the system has huge pages for it: 2 MiB at once


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not cplx.keep_freed()
