"""The planted task: who can find a clue in phases, and who one in amplitudes."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from cplxnet import auto
from cplxnet.auto import tasks
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest
from extra import own_task

N = {"train": 3000, "valid": 200, "test": 1000}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    tasks.register("lines", own_task)
    yield
    del tasks.TASKS["lines"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    for clue in ("phase", "amplitude"):
        for seed, name in enumerate(own_task.FILES):
            own_task.plant(folder / f"{clue}-{name}.npz", clue=clue, n=N[name], seed=seed)
    return folder


def manifests(clue: str) -> dict[str, Manifest]:
    """The three, and the complex one on random phases; dense alone."""
    made = grid.expand(**own_task.lines(clue))
    changes = {"features.kind": "spectrum-random-phase", "name": "random phases"}
    made["random-phase"] = grid.edit(made["complex"], changes)
    return {
        name: grid.edit(
            one, {"stages": {"dense": one.to_dict()["stages"]["dense"]}, "stage_order": ["dense"]}
        )
        for name, one in made.items()
    }


def scores(clue: str, data: Path, tmp_path: Path, only: Collection[str] = ()) -> dict[str, float]:
    results = {
        name: auto.run(manifest, tmp_path / name, data=data, progress=False)
        for name, manifest in manifests(clue).items()
        if not only or name in only
    }
    return {
        name: result["stages"]["dense"]["scores"]["test"]["end"]["average_precision"]
        for name, result in results.items()
    }


def test_a_clue_in_relative_phase_is_found_by_those_who_hear_phase(data, tmp_path):
    found = scores("phase", data, tmp_path)
    assert found["complex"] > 0.97 and found["two-channel"] > 0.97
    # 1000 signals, half of them of class 1: chance is 0.5, with a standard deviation of 0.02
    assert abs(found["magnitudes"] - 0.5) < 0.08 and abs(found["random-phase"] - 0.5) < 0.08


def test_a_clue_in_amplitudes_is_found_by_all_alike(data, tmp_path):
    found = scores("amplitude", data, tmp_path)
    assert min(found.values()) > 0.93
    assert max(found.values()) - min(found.values()) < 0.04


def test_complex_signals_are_heard_as_they_are(data, tmp_path):
    """As radio or MRI gives them: here the analytic signals of the planted ones."""
    for name in own_task.FILES:
        with np.load(data / f"phase-{name}.npz") as arrays:
            analytic = scipy.signal.hilbert(arrays["signal"]).astype(np.complex64)
            np.savez(tmp_path / f"phase-{name}.npz", signal=analytic, target=arrays["target"])
    found = scores("phase", tmp_path, tmp_path, only=("complex", "two-channel", "magnitudes"))
    assert found["complex"] > 0.97 and found["two-channel"] > 0.97
    assert abs(found["magnitudes"] - 0.5) < 0.08


def test_the_clue_lies_where_it_is_said_to(data):
    for clue, differs in (("phase", [False, False, True]), ("amplitude", [True, True, False])):
        with np.load(data / f"{clue}-train.npz") as arrays:
            lines = np.fft.rfft(arrays["signal"])[:, own_task.LINES]
            label = arrays["target"][:, 0].astype(bool)
        turn = np.cos(np.angle(lines[:, 1] * lines[:, 0].conj()))
        for values, expected in zip((*np.abs(lines.T), turn), differs, strict=True):
            one, other = values[label], values[~label]
            error = np.hypot(one.std(), other.std()) / np.sqrt(len(values) / 2)
            assert (abs(one.mean() - other.mean()) > 5 * error) == expected
