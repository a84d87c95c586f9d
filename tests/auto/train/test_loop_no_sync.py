"""Nothing in a training step waits for the device: the operations of steps on a device that is not
there, counted.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import backend_registration

from cplxnet.auto.manifest.schema import Optimizer, Term
from cplxnet.auto.train.graph import Graphed
from cplxnet.auto.train.loop import make_step
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.optim import make_optimizer
from cplxnet.auto.train.state import Feed
from cplxnet.musicnet import MODELS, SAMPLERS, MusicNet, features

MODEL_NAMES = [f"complex.DeepConvNet{kind}" for kind in ("", "VD", "Masked")]
MODEL_NAMES += [f"real.DeepConvNet{kind}" for kind in ("", "VD", "Masked")]
READING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "is_same_size")
SHAPING = (
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "unique",
    "_unique2",
    "bincount",
    "unique_consecutive",
)

Steps = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def noted() -> dict[str, Steps]:
    """What fake_device.py prints; the process is its own since the device's name is a setting of
    the whole process.
    """
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no spare device for Python")
    root = Path(__file__).parents[3]  # where `extra` can be imported from
    command = [sys.executable, "-m", "tests.auto.fake_device", *MODEL_NAMES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def offences(step: list[str]) -> list[str]:
    """Operations of a step that wait for the device, or bring to it what was made on the host."""
    found = []
    for line in step:
        name, devices = line.split(": ")
        before, after = devices.split(" -> ")
        reads = name.split(".")[1] in READING + SHAPING
        crosses = "cpu" in devices or after == "scalar" or ("copy" in name and "scalar" in before)
        if reads or crosses or after == "raised":
            found.append(line)
    return found


def computing(step: list[str]) -> list[str]:
    """The names of the operations in order, without those that only take note of a tensor."""
    return [line.split(":")[0] for line in step]


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_step_neither_reads_back_nor_copies(noted: dict[str, Steps], model: str) -> None:
    for run in noted[model].values():
        before, *steps, after = run["steps"]
        *refreshed, sums = before
        assert sums == "aten.zeros.default: none -> ghost"
        assert set(refreshed) == {"aten.fill_.Scalar: ghost -> ghost"}  # rates, the KL's weight
        assert [offences(step) for step in steps] == [[]] * len(steps)
        # the epoch's end: one read-back of all means, which this device cannot give
        assert (
            computing(after)[-1] == "aten._local_scalar_dense.default"
            and "_local_scalar_dense" in run["raised"]
        )
        assert len(offences(after)) == 1


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_a_step_is_a_whole_training_step(noted: dict[str, Steps], model: str) -> None:
    for step in noted[model]["few"]["steps"][1:-1]:
        names = computing(step)
        stages = [
            "randint",
            "searchsorted",
            "index_select",
            "_fft",
            "convolution.",
            "binary_cross_entropy",
            "convolution_backward",
        ]
        stages += ["_foreach_norm", "_fused_adam_"]
        places = [next((i for i, n in enumerate(names) if stage in n), -1) for stage in stages]
        assert places == sorted(places) and min(places) >= 0, dict(zip(stages, places, strict=True))
        n_layers = 6 * (2 if model.endswith("VD") else 1)  # of the mean, and of the variance
        assert sum("convolution_backward" in name for name in names) == n_layers


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_as_many_operations_for_30_recordings_as_for_3(noted: dict[str, Steps], model: str) -> None:
    few, many = (computing(noted[model][n]["steps"][1]) for n in ("few", "many"))
    assert many == few


@pytest.mark.parametrize("case", ["two epochs", "kernels"])
def test_no_number_of_the_host_changes_from_epoch_to_epoch(
    noted: dict[str, Steps], case: str
) -> None:
    """A captured step would go on with those of its capture, in silence."""
    numbers = noted[case]["few"]["numbers"]
    second_steps = numbers[2], numbers[5]  # of both epochs, whose rates and KL weights differ
    assert second_steps[0] == second_steps[1] and len(second_steps[0]) > 50
    assert any("cplxnet.kl_backward" in line for line in numbers[2]) == (case == "kernels")
    assert numbers[0] != numbers[3]  # refreshed before the steps


def test_a_number_that_is_frozen_on_the_host_is_found(noted: dict[str, Steps]) -> None:
    frozen = noted["frozen"]["few"]["numbers"]
    changed = [a.split(":")[0] for a, b in zip(frozen[2], frozen[5], strict=True) if a != b]
    assert set(changed) == {"aten.new_full.default", "aten._fused_adam_.default"}


@pytest.mark.parametrize("kind", ["raw", "stft"])
def test_other_features_are_made_on_the_device_too(noted: dict[str, Steps], kind: str) -> None:
    assert offences(noted[kind]["few"]["steps"][1]) == []


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("reading", "aten._local_scalar_dense.default"),
        ("uploading", "aten._to_copy.default: cpu -> ghost"),
        ("counting", "aten.index.Tensor"),
    ],
)
def test_faults_made_on_purpose_are_found(noted: dict[str, Steps], fault: str, found: str) -> None:
    assert any(line.startswith(found) for line in offences(noted[fault]["few"]["steps"][1]))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("model", [name for name in MODEL_NAMES if name.startswith("complex")])
def test_a_step_on_a_gpu_is_captured(model: str, tiny_corpus: Path) -> None:
    """A capture fails on any wait for the device.

    A step that falls back warns, which is an error here.
    """
    dataset = MusicNet(tiny_corpus / "musicnet_11khz_train.h5", device="cuda")
    variational = model.endswith("VD")
    network = MODELS[model]().cuda()
    terms = {"loss": Term(name="bce_with_logits"), "kl": Term(name="kl", coef=1e-5)}
    objective = Objective(terms, {"loss": 1.0} | ({"kl": 0.1} if variational else {}))
    optimizer = make_optimizer(network, Optimizer(lr=1e-3))
    generator = torch.Generator("cuda").manual_seed(0)
    feed = Feed(SAMPLERS["one-per-recording"](dataset, generator, n_batches=4), features)
    step = make_step(network.train(), objective, optimizer, 0.05)
    graphed = Graphed(lambda: step(*feed.draw()), torch.device("cuda"), [generator])
    for _ in range(6):
        loss, kl, _ = graphed().tolist()
    assert 0 < loss < 5 and (kl > 0) == variational
