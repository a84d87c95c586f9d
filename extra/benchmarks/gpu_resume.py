"""A run on a GPU killed in its second stage and gone on with, held to one that nobody disturbed.

    python -m extra.benchmarks.gpu_resume FOLDER RUN DEVICE

trains RUN of the manifest in FOLDER, for `compare`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from cplxnet import auto

from .noise import write_corpus

SPLITS = ("train", "valid", "test")
PATIENCE_S = 120
N_EPOCHS = 6  # of each stage


def prepare(folder: Path, n_batches: int) -> None:
    """Data of noise, and a manifest of short stages, in `folder`."""
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


def train(folder: Path, name: str, device: str) -> dict[str, Any]:
    """Train the manifest in `folder` as the run `name`; a checkpoint after every epoch."""
    from cplxnet.auto.runner import trainer

    trainer.checkpoint_every_s = lambda device: 0.0
    manifest = auto.load(folder / "run.json")
    return auto.run(manifest, folder / name, device=device, data=folder, progress=False)


def compare(folder: Path, device: str = "cuda:0", n_batches: int = 30) -> dict[str, Any]:
    """{what: whether it is the same bits} of an undisturbed run and one killed in stage two."""
    prepare(folder, n_batches)
    command = [sys.executable, "-m", "extra.benchmarks.gpu_resume", str(folder), "killed", device]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        history = folder / "killed" / "history.jsonl"
        began = time.time()
        while run.poll() is None and time.time() - began < PATIENCE_S:
            if history.exists() and len(history.read_text().splitlines()) >= N_EPOCHS + 2:
                break
            time.sleep(0.02)
        killed = run.poll() is None
        if killed:
            os.kill(run.pid, signal.SIGKILL)
        output = run.communicate()[0]
    if not killed:
        return {"failed": output[-1500:]}

    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    train(folder, "undisturbed", device)
    same = {}
    for snapshot in sorted((folder / "undisturbed").glob("*.pt")):
        one, other = (
            torch.load(folder / n / snapshot.name, weights_only=True)
            for n in ("undisturbed", "killed")
        )
        same[snapshot.name] = all(
            torch.equal(value, other["model"][key]) for key, value in one["model"].items()
        )
    lines = [
        json.loads(x) for x in (folder / "undisturbed" / "history.jsonl").read_text().splitlines()
    ]
    same["history"] = [line["loss"] for line in lines] == [
        json.loads(x)["loss"]
        for x in (folder / "killed" / "history.jsonl").read_text().splitlines()
    ]
    seconds = sorted(line["seconds"] for line in lines[:N_EPOCHS])
    return {
        "same": same,
        "loss": lines[-1]["loss"],
        "ms a step, dense": seconds[1] / n_batches * 1e3,
    }


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
