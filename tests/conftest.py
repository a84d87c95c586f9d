"""What every test shares: set seeds, a modest number of threads, a corpus of seconds and a finished
run.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from slow_tests import SlowTests
from small import quick, small

from cplxnet.musicnet import recordings
from extra.corpora import hdf5

if not torch.cuda.is_available():  # before anything imports Triton: kernels run on CPU tensors then
    os.environ.setdefault("TRITON_INTERPRET", "1")

RATE_HZ = 11000
SCALE = 48 + np.array(
    [0, 2, 4, 5, 7, 9, 11, 12, 14, 16, 17, 19, 21, 23, 24]
)  # C major, MIDI 48 to 72

torch.set_num_threads(min(2, torch.get_num_threads()))  # OMP_NUM_THREADS=1 still holds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-slow", action="store_true", help="write tests/slow.txt from the tests of this run"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SlowTests(write=config.getoption("--write-slow")))


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    """Matplotlib warns of more than twenty open figures, and warnings are errors."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def _sine_recording(
    key: str, rng: np.random.Generator, *, seconds: float, beat: float = 0.3
) -> recordings.Recording:
    """Chords of one to three decaying tones (a sine and its octave), a chord each `beat` seconds,
    one rest in eight.
    """
    samples, step = int(seconds * RATE_HZ), int(beat * RATE_HZ)
    data, labels = np.zeros(samples), []
    for start in range(0, samples, step):
        end = min(start + step, samples)
        for note in (
            rng.choice(SCALE, rng.integers(1, 4), replace=False) if rng.random() > 1 / 8 else ()
        ):
            phase = 2 * np.pi * 440 * 2 ** ((note - 69) / 12) * np.arange(end - start) / RATE_HZ
            tone = np.sin(phase + rng.uniform(0, 2 * np.pi)) + 0.3 * np.sin(2 * phase)
            data[start:end] += 0.2 * tone * np.exp(-np.arange(end - start) / RATE_HZ)
            labels.append((start, end, 1, note, start / step, end / step, b"Quarter"))
    data += 0.001 * rng.standard_normal(samples)
    return recordings.Recording(
        key,
        data.astype(np.float32),
        np.array(labels, recordings.LABELS),
        composer="Sine",
        composition="Chords in C",
        movement=key,
        ensemble="Sines",
    )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with musicnet_11khz_{train,valid,test}.h5: 3, 2 and 2 recordings of 3 to 5 s of sine
    chords.
    """
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(2018)
    for split, first, count in (("train", 1001, 3), ("valid", 2001, 2), ("test", 3001, 2)):
        chords = [_sine_recording(f"id_{first + k}", rng, seconds=3 + k) for k in range(count)]
        hdf5.write(folder / f"musicnet_11khz_{split}.h5", chords, rate_hz=RATE_HZ)
    return folder


@pytest.fixture(scope="session")
def done(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `small()`; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("done") / "one"
    quick(small(), folder, tiny_corpus)
    return folder


@pytest.fixture(scope="session")
def sparse(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that has lost weights; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("sparse") / "one"
    changes = {"stages.sparsify.optimizer": {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 2.0}}
    quick(small(changes), folder, tiny_corpus)
    return folder
