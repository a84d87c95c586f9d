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

pytest.importorskip("triton", reason="no Triton")
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
