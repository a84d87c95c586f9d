"""What the tests of crash points run: `python crash_jobs.py DATA` serves these jobs (`crash_points`)."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from crash_points import serve
from small import SAMPLERS, Epochs, quick, small

from cplxnet.auto import run_many


def _prepare(say: Callable[..., None]) -> None:
    torch.set_num_threads(1)  # a forked child has no threads of OpenMP
    epochs = Epochs(lambda n: say(epoch=n))
    SAMPLERS[epochs.name] = epochs.sampler


def train(root: Path, data: Path, say: Callable[..., None]) -> None:
    """A run of three stages, two epochs each."""
    _prepare(say)
    quick(small(), root / "run", data)


def grid(root: Path, data: Path, say: Callable[..., None]) -> None:
    """Two runs that share their dense stage."""
    _prepare(say)
    for name, c in (("a", 0.05), ("b", 0.1)):
        path = root / f"{name}.json"
        if not path.exists():
            small({"stages.sparsify.objective.kl_div": c}).save(path)
    outcomes = run_many(root, data=data, progress=False)
    bad = [outcome for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        raise RuntimeError(f"expected every run done, got {bad}")


if __name__ == "__main__":
    serve({"train": train, "grid": grid}, Path(sys.argv[1]))
