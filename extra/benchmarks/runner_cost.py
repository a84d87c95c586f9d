"""What the runner adds to training: \
`python -m extra.benchmarks.runner_cost [--rounds 5] [--folder FOLDER]`.

The same three stages of Experiment-1 twice: by a bare `train_stage` with the same seeds, scores and
a `torch.save` a stage, and through `auto.run` in a folder of 85 runs with `reuse`, as a grid runs
it: claim, check, status, history, a checkpoint an epoch, scores, snapshot. In turn, so that other
work on the machine meets both. An epoch's cost, from its beginning to that of the next, does not
depend on its length, so epochs are short here, and the share is of the 1000 batches of a whole one.
A run's cost is what it takes beside: until the first epoch, and from the end of a stage's last
epoch on, while its checkpoint is written behind the scores (which take seconds here and minutes on
MusicNet). Wall time and the process's CPU time (which other work does not touch, and which counts
the thread that writes the checkpoint). Also `status` on 1000 runs.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cplxnet import auto
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import stages
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.train.loop import predict, train_stage
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.state import Training
from cplxnet.musicnet import SAMPLERS, recordings
from extra.corpora import hdf5

REFERENCE = Path(__file__).parents[2] / "runs" / "reference" / "vd-c2e-02-r0"
WHOLE = 1000  # batches of an epoch of Experiment-1
RECORDINGS = 32  # a window of each makes a batch


class Clock(NamedTuple):
    """Seconds: by the wall, and of this process's threads."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def since(self, other: "Clock") -> "Clock":
        return Clock(self.wall - other.wall, self.cpu - other.cpu)


class Timed:
    """Stands in for the sampler of training.

    It notes when each pass over it, an epoch, begins and ends.
    """

    def __init__(self) -> None:
        self.times: list[tuple[Clock, Clock]] = []

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Have the block's training draw from here."""
        name, times = "one-per-recording", self.times
        plain = SAMPLERS[name]

        class Noted(plain):  # type: ignore[misc, valid-type]
            def __iter__(self) -> Iterator[Any]:
                began = Clock.now()
                yield from super().__iter__()
                times.append((began, Clock.now()))

        SAMPLERS[name] = Noted
        try:
            yield
        finally:
            SAMPLERS[name] = plain

    def by_stage(self, n_epochs: int) -> list[list[tuple[Clock, Clock]]]:
        return [self.times[i : i + n_epochs] for i in range(0, len(self.times), n_epochs)]


def epochs(stage: list[tuple[Clock, Clock]]) -> list[Clock]:
    """From the beginning of each epoch to that of the next: what is written after it is in it.

    Without the first, behind which nothing is written yet.
    """
    return [later.since(earlier) for (earlier, _), (later, _) in pairwise(stage[1:])]


def corpus(folder: Path) -> None:
    """Noise with labels: recordings of 2 s for training, one of 10 s for each scoring.

    Scoring then takes seconds.
    """
    rng = np.random.default_rng(0)
    for split, count, seconds in (("train", RECORDINGS, 2), ("valid", 1, 10), ("test", 1, 10)):
        notes = [
            (k * 550, (k + 1) * 550, 1, 40 + k % 60, 0.0, 1.0, b"Quarter")
            for k in range(20 * seconds)
        ]
        rows = [
            recordings.Recording(
                f"id_{1000 + k}",
                rng.standard_normal(11000 * seconds).astype(np.float32),
                np.array(notes, recordings.LABELS),
            )
            for k in range(count)
        ]
        hdf5.write(folder / f"musicnet_11khz_{split}.h5", rows, rate_hz=11000)


def manifest_of(n_epochs: int, n_batches: int) -> Manifest:
    """Experiment-1's first manifest with short epochs and scores of seconds."""
    first = next(iter(grid.experiment_1().values())).resolved()
    changes = {
        f"datasets.{split}.file": f"musicnet_11khz_{split}.h5"
        for split in ("train", "valid", "test")
    }
    changes |= {f"stages.{name}.n_epochs": n_epochs for name in first.stage_order}
    changes |= {f"stages.{name}.early": None for name in first.stage_order}
    return grid.edit(first, changes | {"feeds.train.n_batches": n_batches})


def bare(manifest: Manifest, folder: Path, data: Path) -> None:
    """The training, scores and a file a stage with the result, and nothing else."""
    manifest = manifest.resolved()
    components = Components(manifest, device="cpu", data=data)
    previous, state = None, {}
    for name in manifest.stage_order:
        stage = manifest.stage(name)
        model = components.build(stage)
        if previous is not None and stages.inherit(model, previous, threshold=manifest.threshold):
            scored(manifest, components, model)
        seeds = {
            purpose: stages.seed_of(manifest, name, purpose) for purpose in ("windows", "noise")
        }
        training = Training(stage, model, lambda name: 0.0, device=torch.device("cpu"), seeds=seeds)
        if not stage.restart:
            training.inherit(state)
        feed = components.feed(stage.feed, training.windows)
        train_stage(training, feed, Objective(manifest.objective_terms, stage.objective))
        scored(manifest, components, model)
        state = training.optimizer_state()
        torch.save({"model": model.state_dict(), "optimizer": state}, folder / f"{name}.pt")
        previous = model


def scored(manifest: Manifest, components: Components, model: torch.nn.Module) -> None:
    for spec in manifest.scorers.values():
        feed = components.feed(spec.feed)
        target, logit = predict(model, feed)
        components.task.score_dataset(target, logit, feed.sampler.dataset, curves=spec.curves)


def through_runner(manifest: Manifest, folder: Path, data: Path) -> None:
    """The same as a run of a grid."""
    others = sorted(path for path in (folder / "grid").iterdir() if path.is_dir())
    auto.run(manifest, folder / "grid" / "run", data=data, progress=False, reuse=others)


WAYS = {"bare": bare, "runner": through_runner}


def forget(folder: Path) -> None:
    """Remove what the last turn wrote, before the clock starts."""
    shutil.rmtree(folder / "grid" / "run", ignore_errors=True)
    for path in folder.glob("*.pt"):
        path.unlink()


def measure(folder: Path, rounds: int, n_epochs: int, n_batches: int) -> None:
    """Both ways in turn; prints what the runner adds."""
    manifest = manifest_of(n_epochs, n_batches)
    taken: dict[str, list[list[Clock]]] = {way: [[] for _ in manifest.stage_order] for way in WAYS}
    rests: dict[str, list[Clock]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):  # the first warms up
        for way, train in WAYS.items():
            forget(folder)
            timed, start = Timed(), Clock.now()
            with timed.noting():
                train(manifest, folder, folder)
            rest = Clock.now().since(start)
            for before, stage in zip(taken[way], timed.by_stage(n_epochs), strict=True):
                if number:
                    before += epochs(stage)
                rest = rest.since(stage[-1][1].since(stage[0][0]))
            if number:
                rests[way].append(rest)
    for field in Clock._fields:
        for number, name in enumerate(manifest.stage_order):
            epoch = {way: _median(taken[way][number], field) for way in WAYS}
            added, whole_epoch = epoch["runner"] - epoch["bare"], epoch["bare"] / n_batches * WHOLE
            print(
                f"{name}, {field} time: {added:+.3f} s an epoch, "
                f"{added / whole_epoch:+.2%} of one of {WHOLE} batches ({whole_epoch:.0f} s)"
            )
        medians = {way: _median(rests[way], field) for way in WAYS}
        print(
            f"run of {number + 1} stages, {field} time: "
            f"{medians['runner'] - medians['bare']:+.2f} s "
            f"({medians['runner']:.2f} against {medians['bare']:.2f})",
            flush=True,
        )


def _median(clocks: list[Clock], field: str) -> float:
    return statistics.median(getattr(clock, field) for clock in clocks)


def fill(folder: Path, count: int) -> None:
    """A grid of runs that are done, for what is looked up among them."""
    manifest = next(iter(grid.experiment_1().values())).resolved()
    grid.write(folder, {"r0": manifest})
    files = RunFolder(folder / "r0")
    files.start(manifest, "cpu")
    scores = json.loads((REFERENCE / "scores.json").read_text())  # of the size of a real one
    files.write_scores(scores)
    files.write_history([])
    files.update(
        stage="fine-tune", epoch=50, n_epochs=50, stages={"dense": {"key": "k", "seconds": 1.0}}
    )
    files.finish()
    for number in range(1, count):
        shutil.copy(folder / "r0.json", folder / f"r{number}.json")
        shutil.copytree(folder / "r0", folder / f"r{number}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m extra.benchmarks.runner_cost", description=__doc__
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="on the disk to be measured (default: temporary)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of a stage")
    parser.add_argument("--batches", type=int, default=10, help="of an epoch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        corpus(folder)
        fill(folder / "grid", 85)
        measure(folder, options.rounds, options.epochs, options.batches)
        fill(folder / "thousand", 1000)
        start = Clock.now()
        auto.status(folder / "thousand")
        taken = Clock.now().since(start)
        print(f"status of 1000 runs: {taken.wall:.2f} s wall, {taken.cpu:.2f} s of CPU")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
