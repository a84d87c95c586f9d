"""A process that dies just before any of its changes to files is gone on with to the same bits.

The machine lives, or its disk forgets what was not synced. Of two processes that share a grid, both
die, or one does and the other brings it to its end.
"""

import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny
from crash_jobs import marks
from crash_points import STATES, Lab, Trial, digest, removed_at_end
from small import read, small, timeless

JOBS = Path(__file__).with_name("crash_jobs.py")
RUNS = {"train": ("run",), **dict.fromkeys(("grid", "commands", "workers"), ("a", "b"))}
N_EPOCHS = {"run": 6, "a": 6, "b": 4}  # b takes the dense stage of a
AT_ONCE = {"commands": 2, "workers": 2}  # processes that train
AGAIN = {"commands": "grid", "workers": "grid"}  # what goes on after a crash, where another does
OUTPUTS = ("outputs", "corpora")
RECORD = Path("musicnet.build.json")  # of what is whole; it is not there while that changes
HIDDEN = re.compile(r"\..+\.part")
SAMPLE = 3  # crash points of the short test
LABS = 4  # at once in the long one: a trial mostly waits, for claims of the dead to run out say


@pytest.fixture(scope="module")
def lab(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    bench = tmp_path_factory.mktemp("crash")
    data = shutil.copytree(tiny_corpus, bench / "data")
    tone = 0.1 * np.sin(2 * np.pi * 440 / 11000 * np.arange(22000))
    soundfile.write(data / "tone.wav", tone, 11000)
    tiny.folder(data / "musicnet")

    lab = Lab(JOBS, data, bench)
    small(window=16).save(data / "run.json")
    assert lab.trial("train", data).code == 0
    yield lab
    lab.close()


# -- runs ------------------------------------------------------------------------------------------


def _run_faults(
    lab: Lab, job: str, crashed: Trial, whole: Trial, state: str, to: Path
) -> list[str]:
    """What is wrong with a folder after a crash that left `state`, once the job has run again."""
    again = lab.trial(AGAIN.get(job, job), to)
    if again.code != 0:
        return [f"exit code {again.code}: {again.output[-400:]}"]

    faults = [f"left over: {name}" for name in sorted(_names(to) - _names(whole.root))]
    for run in RUNS[job]:
        if timeless(read(to / run)) != timeless(read(whole.root / run)):
            faults.append(f"other scores in {run}")
        if read(to / run, "status")["state"] != "done":
            faults.append(f"{run} is not done")

    # at most the epoch at hand of each process, the one whose checkpoint was on its way, and what a
    # stage that the disk forgot takes (two epochs)
    n_epochs = crashed.count("epoch") + again.count("epoch")
    lost = AT_ONCE.get(job, 1) * (2 + 2 * (state != "kept"))
    if n_epochs > sum(N_EPOCHS[run] for run in RUNS[job]) + lost:
        faults.append(f"{n_epochs} epochs trained")
    return faults


def _one_dead(lab: Lab, job: str, whole: Trial, point: int, bench: Path) -> list[str] | None:
    """What is wrong where one process of several died and the others went on; None if none died."""
    crashed = lab.trial(job, bench / "one dead", crash_at=point, alone=True)
    if not crashed.count("crashed"):
        return None
    if crashed.code not in (0, -signal.SIGKILL):  # the command itself may be the one
        return [f"exit code {crashed.code}: {crashed.output[-400:]}"]

    unfinished = []
    if crashed.code == 0:
        states = {run: read(crashed.root / run, "status")["state"] for run in RUNS[job]}
        unfinished = [f"{run} is {state}" for run, state in states.items() if state != "done"]
    return unfinished + _run_faults(lab, job, crashed, whole, "kept", crashed.root)


# -- outputs ---------------------------------------------------------------------------------------


def _output_faults(
    lab: Lab, job: str, crashed: Trial, whole: Trial, state: str, to: Path
) -> list[str]:
    """Targets that are missing, or neither whole nor as they were: empty of all, or with an older
    text; and names of no target, other than the hidden ones of a writer that was killed. And what
    is not as it would have been at once, or left over, when the job has run again.
    """
    new = _contents(whole.root)
    there = _contents(to)
    faults = [
        f"{name} is neither old nor new"
        for name in new
        if there.get(name) not in (new[name], _old(name, lab)) and (name != RECORD or name in there)
    ]
    hidden = [any(part.startswith(".") for part in name.parts) for name in there]
    left = [name for name, own in zip(there, hidden, strict=True) if not own and name not in new]
    if job == "outputs":
        left += [name for name in there if name.name[0] == "." and not HIDDEN.fullmatch(name.name)]

    again = lab.trial(job, to)
    if again.code != 0:
        return [*faults, f"exit code {again.code}: {again.output[-400:]}"]
    if _contents(to) != new:
        faults.append(f"not what is written at once: {sorted(_names(to) ^ _names(whole.root))}")
    return faults + [f"left over: {name}" for name in left]


def _contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _old(name: Path, lab: Lab) -> bytes:
    return marks(lab.data).encode() if name.name == "page.md" else b"as it was"


def _before(lab: Lab, job: str, whole: Trial, root: Path) -> Path:
    """Where the job is to run: an empty folder, or one with older outputs of another content."""
    root.mkdir(parents=True)
    if job in OUTPUTS:
        for name in _contents(whole.root):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(_old(name, lab))
    return root


# -- crashes ---------------------------------------------------------------------------------------


def _crash(lab: Lab, job: str, whole: Trial, points: Iterable[int]) -> tuple[list[str], int]:
    """What is wrong after crashes at these points, and how many different states they left."""
    faults = []
    n_kills = 0
    seen: set[str] = set()  # what a crash left before is not looked at again
    look = _output_faults if job in OUTPUTS else _run_faults
    for point in points:
        with removed_at_end(lab.bench / f"{job}-{point}") as bench:
            crashed = lab.trial(job, _before(lab, job, whole, bench / "crashed"), crash_at=point)
            if crashed.code == 0:  # this time there were fewer changes
                continue
            assert crashed.code == -signal.SIGKILL, crashed.output
            n_kills += 1
            for state in STATES:
                crashed.after_crash(state, bench / state)
                left = digest(bench / state)
                if left not in seen:
                    seen.add(left)
                    found = look(lab, job, crashed, whole, state, bench / state)
                    faults += [f"{job}, before change {point}, {state}: {fault}" for fault in found]

            if job in AT_ONCE:
                found = _one_dead(lab, job, whole, point, bench) or []
                faults += [f"{job}, one before change {point}: {fault}" for fault in found]
    assert n_kills, "no trial came to its crash point"
    return faults, len(seen)


def _names(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*")}


def _whole(lab: Lab, job: str) -> Trial:
    whole = lab.trial(job, lab.bench / f"{job}-whole")
    assert whole.code == 0, whole.output
    return whole


@pytest.mark.parametrize("job", ["grid", "commands", "outputs", "corpora"])
def test_a_sample_of_crash_points(lab: Lab, job: str) -> None:
    whole = _whole(lab, job)
    points = {1 + k * whole.n_changes // SAMPLE for k in range(SAMPLE)}
    faults, _ = _crash(lab, job, whole, sorted(points))
    assert not faults, "\n".join(faults)


@pytest.mark.faults
@pytest.mark.parametrize("job", ["train", "grid", "commands", "workers", "outputs", "corpora"])
def test_every_crash_point(lab: Lab, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _whole(lab, job)
    labs = [lab, *(Lab(JOBS, lab.data, lab.bench / f"lab-{k}-{job}") for k in range(1, LABS))]
    shares = [range(1 + k, whole.n_changes + 1, LABS) for k in range(LABS)]
    with ThreadPoolExecutor(LABS) as pool:
        results = list(pool.map(lambda one, share: _crash(one, job, whole, share), labs, shares))
    for one in labs[1:]:
        one.close()

    faults = [fault for found, _ in results for fault in found]
    n_states = sum(number for _, number in results)
    with capsys.disabled():
        print(f"\n{job}: {whole.n_changes} crash points, {n_states} states, {len(faults)} faults")
    assert not faults, "\n".join(faults)
