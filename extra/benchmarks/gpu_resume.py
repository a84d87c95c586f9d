"""A run on a GPU held to two others: killed in its second stage and gone on with; without a graph.

    python -m extra.benchmarks.gpu_resume FOLDER RUN DEVICE

trains RUN of the manifest in FOLDER, for `compare`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cplxnet import auto

from .noise import write_corpus

SPLITS = ("train", "valid", "test")
PATIENCE_S = 120
N_EPOCHS = 6  # of each stage


def prepare(folder: Path, n_batches: int) -> None:
    """Data of noise, and a manifest of short stages with and without a CUDA graph, in `folder`."""
    (folder / "noise").mkdir(exist_ok=True)
    for split in SPLITS:
        path = folder / "noise" / f"musicnet_11khz_{split}.h5"
        write_corpus(path, seconds=4, n_recordings=4)

    template = auto.experiments.tiny(folder="noise", model="complex.DeepConvNet")
    grid = {
        "feeds.train.n_batches": n_batches,
        "stages.dense.n_epochs": N_EPOCHS,
        "stages.sparsify.n_epochs": N_EPOCHS,
        "stages.fine-tune.n_epochs": 1,
    }
    auto.grid.edit(template, grid).save(folder / "run.json")
    auto.grid.edit(template, grid | {"cuda_graph": False}).save(folder / "eager.json")


def train(folder: Path, name: str, device: str, manifest: str = "run.json") -> dict[str, Any]:
    """Train a manifest in `folder` as the run `name`; a checkpoint after every epoch."""
    from cplxnet.auto.runner import trainer

    trainer.checkpoint_every_s = lambda device: 0.0
    return auto.run(
        auto.load(folder / manifest), folder / name, device=device, data=folder, progress=False
    )


def history(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / name / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def same(folder: Path, name: str) -> dict[str, bool]:
    """{what: whether the run `name` has the bits of the undisturbed one}."""
    found = {}
    for snapshot in sorted((folder / "undisturbed").glob("*.pt")):
        one, other = (
            torch.load(folder / run / snapshot.name, weights_only=True)["model"]
            for run in ("undisturbed", name)
        )
        found[snapshot.name] = all(torch.equal(value, other[key]) for key, value in one.items())

    losses = [[line["loss"] for line in history(folder, run)] for run in ("undisturbed", name)]
    return found | {"history": losses[0] == losses[1]}


def compare(folder: Path, device: str = "cuda:0", n_batches: int = 30) -> Iterator[dict[str, Any]]:
    """What has the same bits in an undisturbed run, one killed in stage two, one without a graph.

    A row each of the other two.
    """
    prepare(folder, n_batches)
    command = [sys.executable, "-m", "extra.benchmarks.gpu_resume", str(folder), "killed", device]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        written = folder / "killed" / "history.jsonl"
        began = time.time()
        while run.poll() is None and time.time() - began < PATIENCE_S:
            if written.exists() and len(history(folder, "killed")) >= N_EPOCHS + 2:
                break
            time.sleep(0.02)
        killed = run.poll() is None
        if killed:
            os.kill(run.pid, signal.SIGKILL)
        output = run.communicate()[0]
    train(folder, "undisturbed", device)
    lines = history(folder, "undisturbed")
    seconds = sorted(line["seconds"] for line in lines[:N_EPOCHS])
    about = {"loss": lines[-1]["loss"], "ms a step, dense": seconds[1] / n_batches * 1e3}

    if killed:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
        yield {"run": "killed", **same(folder, "killed"), **about}
    else:
        yield {"run": "killed", "failed": output[-1500:]}

    train(folder, "without a graph", device, "eager.json")
    yield {"run": "without a graph", **same(folder, "without a graph")}


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
