"""Runs whose scores are written by hand: files in their folders, and the numbers of a table."""

from cplxnet.auto.manifest.read import Manifest
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.folder import RunFolder

DENSE = {0: 0.90, 1: 0.92}  # seed -> average precision
TUNED = {  # (C, replicate) -> compression, before, after
    (0.01, 0): (10.0, 0.88, 0.91),
    (0.01, 1): (12.0, 0.86, 0.93),
    (0.1, 0): (150.0, 0.70, 0.80),
    (0.1, 1): (100.0, 0.74, 0.84),
}


def stage(ap, *, start=None, n_zero=0, reused_from=None):
    """A stage of scores.json with average precision `ap` on test and twice that on validation."""

    def scored(value):
        names = {"average_precision_trabelsi2018": None, "n_windows": 7, "positive_share": 0.05}
        return None if value is None else {"average_precision": value, **names, "notes": {}}

    return {
        "key": "k",
        "epochs": 2,
        "stopped_early": False,
        "seconds": 1.5,
        "reused_from": reused_from,
        "n_par": 100,
        "n_zero": n_zero,
        "compression": None if n_zero == 100 else 100 / (100 - n_zero),
        "layers": {
            "fc1": {"n_par": 20, "n_zero": n_zero // 5},
            "fc2": {"n_par": 80, "n_zero": n_zero - n_zero // 5},
        },
        "scores": {
            "validation": {"start": scored(start and 2 * start), "end": scored(2 * ap)},
            "test": {"start": scored(start), "end": scored(ap)},
        },
    }


def fill(folder, name, manifest: Manifest, stages, state="done"):
    files = RunFolder(folder / name)
    if state == "running":
        lock.hold(files.path / "claim")  # for as long as the tests run
    files.start(manifest.resolved(), "cpu")
    files.write_scores(
        {"schema": 1, "name": name, "manifest": manifest.resolved().to_dict(), "stages": stages}
    )
    files.update(state=state)
