"""Peak memory of a training step with variational dropout, each library in a process of its own."""

import subprocess
import sys

from cplxnet import nn as cplx

from .steps import CONTESTANTS, OURS, PLAIN, entrant, example, train

STEPS = 3


def status_mib(field: str) -> float:
    """`VmHWM` (the most so far) or `VmRSS` (now) of this process. Linux only."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def peaks(batch: int) -> dict[str, float]:
    """{contestant: MiB that building the network and training it takes beyond the imports}."""
    return {name: _peak(name, batch) for name in CONTESTANTS["VD"] if name != PLAIN}


def _peak(name: str, batch: int) -> float:
    command = [sys.executable, "-m", __spec__.name, name, str(batch)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(name: str, batch: int) -> None:
    before = status_mib("VmRSS")
    if name == OURS:
        cplx.keep_freed()  # as its runner does
    x, target = example(batch)
    contestant = entrant(*CONTESTANTS["VD"][name], x)
    for _ in range(STEPS):
        train(contestant, target)
    print(status_mib("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
