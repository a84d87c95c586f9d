"""What the runner adds to training: `python -m extra.benchmarks.runner_cost [--folder FOLDER]`.

Per epoch: the checkpoint of the full complex DeepConvNet (dense and variational, with Adam's state), as the training
waits for it (copying; the file is written meanwhile) and as it takes in all, and the status and history files. Per run:
claim, configuration, status and the search for stages to share, in a folder of 85.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cplxnet.auto import claim, experiments
from cplxnet.auto.checkpoint import Checkpoints
from cplxnet.auto.earlier import finished_elsewhere
from cplxnet.auto.folder import RunFolder
from cplxnet.auto.optim import make_optimizer, named_state
from cplxnet.musicnet import MODELS

EPOCH_S = 150.0  # 1000 batches of 32 windows on two cores; see README.md of this folder for steps
N = 5


def seconds(call: Callable[[], object]) -> float:
    """Median of N calls after one."""
    times = []
    for _ in range(N + 1):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def checkpoint(model: str, files: RunFolder) -> tuple[float, float, int]:
    """Seconds that the training waits, seconds until it is on disk, bytes."""
    network = MODELS[model](in_channels=1, length=4096)
    optimizer = make_optimizer(network, "adam", lr=1e-3)
    sum(p.sum() for p in network.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    checkpoints, epoch, waits = Checkpoints(files), 0, []

    def save() -> None:
        nonlocal epoch
        epoch += 1
        start = time.perf_counter()
        state = {"key": model, "model": network.state_dict(), "optimizer": named_state(network, optimizer)}
        checkpoints.save(epoch, state)
        waits.append(time.perf_counter() - start)
        checkpoints.wait()

    whole = seconds(save)
    size = max(path.stat().st_size for path in files.path.glob("epoch-*.pt"))
    checkpoints.clear()
    return statistics.median(waits[1:]), whole, size


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m extra.benchmarks.runner_cost", description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured (default: temporary)")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as name:
        manifest = next(iter(experiments.experiment_1().values())).resolved()
        others = [RunFolder(Path(name) / f"r{number}") for number in range(85)]
        for other in others:
            other.start(manifest, "cpu")
        files = others[0]
        for model in ("complex.DeepConvNet", "complex.DeepConvNetVD"):
            waits, whole, size = checkpoint(model, files)
            print(
                f"checkpoint of {model}, {size / 1e6:.0f} MB: training waits {waits:.3f} s, on disk in {whole:.3f} s "
                f"({waits / EPOCH_S:.2%} and {whole / EPOCH_S:.2%} of an epoch of {EPOCH_S:.0f} s)"
            )
        lines = [{"stage": "dense", "epoch": epoch, "loss": 0.1, "validation": 0.7} for epoch in range(175)]
        print(f"history and status after an epoch: {seconds(lambda: _log(files, lines)):.4f} s")
        print(f"claim, configuration, status, search for stages: {seconds(lambda: _run(others, manifest)):.4f} s a run")


def _log(files: RunFolder, lines: list[dict[str, object]]) -> None:
    files.write_history(lines)  # type: ignore[arg-type]
    files.update(stage="dense", epoch=3, n_epochs=50)


def _run(others: list[RunFolder], manifest: object) -> None:
    with claim.hold(others[0].path / "claim") as held:
        others[0].start(manifest, "cpu")  # type: ignore[arg-type]
        for stage in ("dense", "sparsify", "fine-tune"):
            finished_elsewhere(others, stage, "k")
        others[0].update(state="done")
        held.finish()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
