"""The package as pip installs it: a wheel, with the C sources, in an empty environment."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
# A user's first half hour: an experiment of a second, with every warning an error.
EXPERIMENT = """
import json, sys
from pathlib import Path

from cplxnet import auto
from cplxnet.auto.manifest import grid

data, folder = sys.argv[1:]
manifest = grid.tiny(folder=".", model="complex.DeepConvNet")
manifest.save(Path(folder) / "one.json")
scores = auto.run(manifest, Path(folder) / "one", data=data, progress=False)
table = auto.report.collect(folder)

extras = {"distributed", "bokeh", "matplotlib", "onnx", "onnxruntime", "music21", "jupyterlab"}
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps({
    "package": auto.__file__,
    "stages": list(scores["stages"]),
    "rows": len(table),
    "extras": sorted(loaded & extras),
}))
"""


def _call(*command: object, **options) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "cplxnet", source / "cplxnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    folder = tmp_path_factory.mktemp("wheel")

    _call(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, source)

    (path,) = folder.glob("cplxnet-*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel):
    kinds = {".py", ".c", ".h", ".json", ".mplstyle", ".safetensors", ".md"}
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cplxnet").rglob("*")
        if path.suffix in kinds
    }
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if name.startswith("cplxnet/")}

    assert any(name.endswith(".c") for name in here)
    assert there == here


def test_an_experiment_runs_from_the_wheel_alone(wheel, tiny_corpus, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]

    _call(python, "-m", "pip", "install", "-c", ROOT / "requirements.txt", *core)
    _call(python, "-m", "pip", "install", "--no-deps", wheel)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "CPLXNET"))
    }
    finished = _call(
        python, "-W", "error", "-c", EXPERIMENT, tiny_corpus, tmp_path / "grid",
        cwd=tmp_path, env=clean | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip

    assert finished.stderr == ""
    told = json.loads(finished.stdout.splitlines()[-1])
    assert told["package"].startswith(str(environment))
    assert told["stages"] == ["dense", "sparsify", "fine-tune"]
    assert told["rows"] > 0
    assert told["extras"] == []
    assert list((tmp_path / "cache" / "cplxnet").glob("*.so")), "the C functions were not compiled"
