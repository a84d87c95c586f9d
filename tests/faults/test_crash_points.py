"""A process that dies just before any of its changes to files, on a machine that lives or on one
whose disk forgets what was not synced, is gone on with to the same bits. Each job is one process:
`grid` does its runs in turn.
"""

import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from crash_jobs import marks
from crash_points import STATES, Lab, Trial, removed_at_end
from small import read, small, timeless

JOBS = Path(__file__).with_name("crash_jobs.py")
N_EPOCHS = {"train": 6, "grid": 10}  # the grid's dense stage is trained once
RUNS = {"train": ("run",), "grid": ("a", "b")}
HIDDEN = re.compile(r"\..+\.part")
SAMPLE = 3  # crash points of the short test


@pytest.fixture(scope="module")
def lab(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    bench = tmp_path_factory.mktemp("crash")
    data = shutil.copytree(tiny_corpus, bench / "data")
    tone = 0.1 * np.sin(2 * np.pi * 440 / 11000 * np.arange(22000))
    soundfile.write(data / "tone.wav", tone, 11000)

    lab = Lab(JOBS, data, bench)
    small().save(data / "run.json")
    assert lab.trial("train", data).code == 0
    yield lab
    lab.close()


def _faults(lab: Lab, job: str, crashed: Trial, whole: Trial, state: str, to: Path) -> list[str]:
    """What is wrong with a folder after a crash that left `state`, once the job has run again."""
    if not crashed.after_crash(state, to) and state != "kept":
        return []

    again = lab.trial(job, to)
    if again.code != 0:
        return [f"exit code {again.code}: {again.output[-400:]}"]

    faults = []
    for run in RUNS[job]:
        if timeless(read(to / run)) != timeless(read(whole.root / run)):
            faults.append(f"other scores in {run}")
        if read(to / run, "status")["state"] != "done":
            faults.append(f"{run} is not done")

    # at most the epoch at hand, the one whose checkpoint was on its way, and what a stage that the
    # disk forgot takes (two epochs)
    n_epochs = crashed.count("epoch") + again.count("epoch")
    if n_epochs > N_EPOCHS[job] + 2 + 2 * (state != "kept"):
        faults.append(f"{n_epochs} epochs trained")

    left = {path.name for path in to.rglob("*")} - {path.name for path in whole.root.rglob("*")}
    if left:
        faults.append(f"left over: {sorted(left)}")
    return faults


def _output_faults(
    lab: Lab, job: str, crashed: Trial, whole: Trial, state: str, to: Path
) -> list[str]:
    """Targets that are missing, or neither whole nor as they were: empty of all, or with an older
    text; and names of no target, other than the hidden ones of a writer that was killed.
    """
    if not crashed.after_crash(state, to) and state != "kept":
        return []
    new = {path.name: path.read_bytes() for path in whole.root.iterdir()}
    there = {path.name: path.read_bytes() for path in to.iterdir()}
    faults = [
        f"{name} is neither old nor new"
        for name in new
        if there.get(name) not in (new[name], _old(name, lab))
    ]
    left = [name for name in there.keys() - new if not HIDDEN.fullmatch(name)]
    return faults + [f"left over: {name}" for name in left]


def _crash(lab: Lab, job: str, whole: Trial, points: Iterable[int]) -> list[str]:
    faults = []
    n_kills = 0
    look = _output_faults if job == "outputs" else _faults
    for point in points:
        with removed_at_end(lab.bench / f"{job}-{point}") as bench:
            crashed = lab.trial(job, _before(lab, job, whole, bench / "crashed"), crash_at=point)
            if crashed.code == 0:  # this time there were fewer changes
                continue
            assert crashed.code == -signal.SIGKILL, crashed.output
            n_kills += 1
            for state in STATES:
                found = look(lab, job, crashed, whole, state, bench / state)
                faults += [f"{job}, before change {point}, {state}: {fault}" for fault in found]
    assert n_kills, "no trial came to its crash point"
    return faults


def _old(name: str, lab: Lab) -> bytes:
    return marks(lab.data).encode() if name == "page.md" else b"as it was"


def _before(lab: Lab, job: str, whole: Trial, root: Path) -> Path:
    """Where the job is to run: an empty folder, or one with older outputs of another content."""
    root.mkdir(parents=True)
    if job == "outputs":
        for path in whole.root.iterdir():
            (root / path.name).write_bytes(_old(path.name, lab))
    return root


def _whole(lab: Lab, job: str) -> Trial:
    whole = lab.trial(job, lab.bench / f"{job}-whole")
    assert whole.code == 0, whole.output
    return whole


@pytest.mark.parametrize("job", ["grid", "outputs"])
def test_a_sample_of_crash_points(lab: Lab, job: str) -> None:
    whole = _whole(lab, job)
    points = {1 + k * whole.n_changes // SAMPLE for k in range(SAMPLE)}
    faults = _crash(lab, job, whole, sorted(points))
    assert not faults, "\n".join(faults)


@pytest.mark.faults
@pytest.mark.parametrize("job", ["train", "grid", "outputs"])
def test_every_crash_point(lab: Lab, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _whole(lab, job)
    faults = _crash(lab, job, whole, range(1, whole.n_changes + 1))
    with capsys.disabled():
        print(f"\n{job}: {whole.n_changes} crash points, {len(faults)} faults")
    assert not faults, "\n".join(faults)
