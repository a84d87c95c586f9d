"""Optional dependencies: the error names the extra, and every extra and every pin agree."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cplxnet.extras import MissingExtraError, extra

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _names(requirements: list[str]) -> set[str]:
    """Names of distributions, as pip compares them."""
    return {re.split(r"[\[<>=~! ;]", text)[0].lower().replace("-", "_") for text in requirements}


def test_a_missing_package_names_the_extra_to_install():
    text = r"no_such_package.*pip install 'cplxnet\[grid\]'"
    with pytest.raises(MissingExtraError, match=text), extra("grid"):
        import no_such_package.part  # noqa: F401


def test_a_missing_module_of_our_own_is_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError, match=r"cplxnet\.no_such_module"), extra("grid"):
        import cplxnet.no_such_module  # noqa: F401


def test_every_extra_that_the_code_asks_for_exists():
    sources = [path.read_text() for path in (ROOT / "cplxnet").rglob("*.py")]
    asked = set(re.findall(r'^ *with extra\("(\w+)"\):', "\n".join(sources), flags=re.MULTILINE))

    assert asked
    assert asked <= set(EXTRAS)


def test_every_dependency_is_pinned_with_a_reason():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]

    needed = _names(PROJECT["dependencies"])
    for packages in EXTRAS.values():
        needed |= _names(packages)
    assert needed - {"cplxnet"} <= _names(pins)
    assert all(" # " in line for line in pins)


# What a process does that has the core alone: packages of the extras cannot be found.
WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

import torch._dynamo  # it looks for onnx by itself, and takes no such answer

sys.meta_path.insert(0, Absent())
from cplxnet import auto
from cplxnet.auto.__main__ import main
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["run", "grid", "--per-device", "2"], "grid"),
        (["report", "trade-off", "grid"], "report"),
        (["export", "grid/a", "net.onnx", "--as", "onnx"], "onnx"),
        (["transcribe", "a.wav", "--model", "grid/a"], "transcription"),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(arguments, name, done, tmp_path):
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "a").symlink_to(done)
    config = json.loads((done / "config.json").read_text())
    (tmp_path / "grid" / "a.json").write_text(json.dumps(config["manifest"]))
    packages = [package for packages in EXTRAS.values() for package in packages]
    absent = _names(packages) - {"cplxnet"}
    code = WITHOUT_EXTRAS.format(absent=absent, arguments=arguments)

    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )

    assert finished.returncode == 2, finished.stderr
    assert f"try pip install 'cplxnet[{name}]'" in finished.stderr
    assert "Traceback" not in finished.stderr
