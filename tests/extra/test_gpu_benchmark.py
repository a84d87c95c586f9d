"""The command for a GPU.

A part that fails, hangs or leaves processes behind stops no other, and keeps its rows.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from cplxnet import nn as cplx

pytest.importorskip("triton", reason="no Triton")
from cplxnet.nn.fast import gpu as kernels
from cplxnet.nn.fast.gpu import launch
from extra.benchmarks import gpu, gpu_resume

ROWS = "import json, pathlib; pathlib.Path({target!r}).write_text(json.dumps([{{'ms': 1.5}}])); "


def supervised(tmp_path: Path, script: str, limit_s: float = 30):
    target = tmp_path / "part.json"
    command = [sys.executable, "-c", ROWS.format(target=str(target)) + script]
    return gpu.supervised(command, target, limit_s)


def test_a_part_that_ends_well(tmp_path: Path) -> None:
    assert supervised(tmp_path, "pass") == ([{"ms": 1.5}], "")


def test_a_part_that_fails_keeps_its_rows_and_says_why(tmp_path: Path) -> None:
    rows, remark = supervised(tmp_path, "raise RuntimeError('CUDA error: \\udcff'[:12])")
    assert rows == [{"ms": 1.5}]
    assert remark.startswith("exit code 1: ") and "RuntimeError: CUDA error" in remark


def test_a_part_that_hangs_is_cut_off_with_what_it_started(tmp_path: Path) -> None:
    script = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    began = time.monotonic()
    assert supervised(tmp_path, script, 6) == ([{"ms": 1.5}], "cut off after 6 s")
    assert time.monotonic() - began < 30


def test_no_time_left(tmp_path: Path) -> None:
    assert supervised(tmp_path, "", 4) == (None, "no time left")


def test_rows_are_kept_one_by_one(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"

    def rows():
        yield {"ms": 1.0}
        assert json.loads(target.read_text()) == [{"ms": 1.0}]
        raise RuntimeError("lost the device")

    with pytest.raises(RuntimeError, match="lost"):
        gpu.keep_results(rows(), target)
    assert json.loads(target.read_text()) == [{"ms": 1.0}]


def test_what_nobody_has_seen_comes_first_and_all_fits() -> None:
    names = list(gpu.PARTS)
    assert names[:3] == ["resumed", "tests", "steps"] and names[-1] == "peers"
    assert gpu.TOTAL_S <= 7 * 60
    assert sum(part.limit_s for name, part in gpu.PARTS.items() if name != "peers") <= 480


def test_steps_have_their_rates_and_their_share_of_the_floor() -> None:
    """A dense step must move 3 GB: in 1 ms at 3000 GB a second. A plain one moves what it likes."""
    of_dense = {"batch": 321, "kind": "dense", "ms": 2.0}
    graph, plain, failed = gpu.rates(
        [of_dense | {"form": "graph"}, of_dense | {"form": "plain"}, {"failed": "no memory"}], 3000
    )
    assert graph["share of the floor"] == plain["share of the floor"] == pytest.approx(0.5)
    assert graph["GB a second"] == pytest.approx(gpu.MOVED_GB["dense"] / 2e-3)
    assert "GB a second" not in plain and failed == {"failed": "no memory"}


def test_where_a_step_spends_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are counted by step, the longest first; the rest and the gaps make the whole."""
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    a = torch.randn(500, 500)
    rows = gpu.kernel_times(lambda: (a @ a).exp() @ a, ms=1000.0, n_steps=4, most=2)

    assert [row["kernel"] for row in rows[-2:]] == ["others", "gaps"]
    longest = {row["kernel"]: row["launches"] for row in rows[:2]}
    assert longest["aten::mm"] == 2 and longest.get("aten::exp", 1) == 1
    assert rows[0]["us"] >= rows[1]["us"] > 0
    assert sum(row["us"] for row in rows) == pytest.approx(1e6)


def small(kind: str) -> nn.Module:
    """Layers of every kind that the kernels take, of a size that Triton's interpreter bears."""
    form = gpu.KINDS[kind]
    conv = getattr(cplx, f"CplxConv1d{form}")(1, 3, 6, stride=2, bias=False)
    linear = getattr(cplx, f"CplxLinear{form}")(3 * 30, 84)
    if kind == "masked":
        conv.mask[:, :, 1::2] = False
        linear.mask[::3] = False
    split = cplx.Split(nn.ReLU())
    norm = cplx.CplxBatchNorm1d(3)
    return nn.Sequential(conv, norm, split, nn.Flatten(), linear, cplx.CplxToReal())


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's steps on the CPU, kernels by Triton's interpreter."""
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "WINDOW", 64)
    monkeypatch.setattr(gpu, "PRODUCTS", ("float32",))
    monkeypatch.setattr(gpu, "network", small)
    monkeypatch.setattr(kernels, "DEVICES", {"cpu"})


def test_whole_steps_are_those_of_float64(on_the_cpu: None) -> None:
    started = launch.STARTED.total()
    rows = list(gpu.against_float64(batch=5))
    assert launch.STARTED.total() > started + 50  # the kernels ran

    assert [(row["kind"], row["form"]) for row in rows] == [
        (kind, form) for kind in gpu.KINDS for form in ("plain", "fused")
    ]
    for row in rows:
        assert max(row["loss"], row["norm"], row["KL"]) < 2e-6, row
        assert row["worst gradient"] < 2e-5 and row["change"] < 2e-3, row


def test_ten_steps_have_the_same_bits_again(on_the_cpu: None, tmp_path: Path) -> None:
    bits = gpu.bits(gpu.corpus(tmp_path, 4))
    loss, kl, norm = bits.pop("loss, KL, norm")
    assert bits == {"again": True, "by graph": True, "another seed differs": True}
    assert 0 < loss < 1 and kl > 0 and norm > 0


def test_a_step_on_other_noise_or_with_another_gradient_is_seen(
    on_the_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "KINDS", {"VD": "VD"})
    given = gpu.noise_given
    monkeypatch.setattr(gpu, "noise_given", lambda kept: given([-e for e in kept]))
    assert all(row["loss"] > 1e-5 for row in gpu.against_float64(batch=5))

    monkeypatch.setattr(gpu, "noise_given", given)
    by_kernel = kernels.kl_backward
    monkeypatch.setattr(
        kernels, "kl_backward", lambda layers, scale, *more: by_kernel(layers, 2 * scale, *more)
    )
    plain, fused = gpu.against_float64(batch=5)
    assert plain["worst gradient"] < 2e-5 and fused["worst gradient"] > 1e-3


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setattr(gpu, "PARTS", {})
    gpu.main(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_without_a_graph_is_held_to_one_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of no training, whose snapshots say what they were trained by; none is killed."""

    def train(folder: Path, name: str, device: str, manifest: str = "run.json") -> None:
        run = folder / name
        run.mkdir()
        wanted = json.loads((folder / manifest).read_text()).get("cuda_graph")
        weight = torch.tensor(2.0 if wanted is False else 1.0)
        torch.save({"model": {"weight": weight}}, run / "0-dense.pt")
        line = json.dumps({"loss": 0.5, "seconds": 1.0})
        (run / "history.jsonl").write_text(f"{line}\n" * gpu_resume.N_EPOCHS)

    monkeypatch.setattr(gpu_resume, "train", train)
    monkeypatch.setattr(sys, "executable", "false")
    killed, eager = gpu_resume.compare(tmp_path, "cpu")
    assert killed == {"run": "killed", "failed": ""}
    assert eager == {"run": "without a graph", "0-dense.pt": False, "history": True}


# on a machine lent with a GPU, beside Python's own library
THERE = "torch torchgen functorch triton numpy h5py tqdm safetensors pytest _pytest"
OF_TORCH = "typing_extensions sympy mpmath filelock fsspec jinja2 markupsafe networkx"
OF_PYTEST = "pluggy iniconfig packaging pygments py"
CARRIED = "pydantic pydantic_core annotated_types typing_inspection"  # see gpu.py

BARE = """
import importlib.metadata
import sys

THERE = set(sys.argv[1].split())
LACKING = set(importlib.metadata.packages_distributions()) - THERE


class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.partition(".")[0] in LACKING else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = map(Without, sys.meta_path)

from cplxnet import auto
from extra.benchmarks import gpu, gpu_resume

gpu.gpu_resume.prepare(gpu.Path(sys.argv[2]), 1)
assert auto.run

import pytest

sys.exit(pytest.main(["--collect-only", "-p", "no:cacheprovider", "-m", "cuda", *gpu.MARKED]))
"""


@pytest.mark.slow
def test_the_command_needs_no_more_than_it_says(tmp_path: Path) -> None:
    """It imports, writes its manifest and finds its tests where few packages are."""
    there = " ".join(["cplxnet", "extra", THERE, OF_TORCH, OF_PYTEST, CARRIED])
    done = subprocess.run(
        [sys.executable, "-c", BARE, there, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    documented = gpu.__doc__ or ""
    assert all(name in documented for name in CARRIED.split())
