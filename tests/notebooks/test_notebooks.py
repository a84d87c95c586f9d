"""The three notebooks run top to bottom from a clean kernel, on a setting of seconds, and make what
they say.
"""

import json
import shutil
from pathlib import Path

import papermill
import pytest

from cplxnet import auto
from cplxnet.auto import report
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest

ROOT = Path(__file__).parents[2]
C = "stages.sparsify.objective.kl_div"

# what papermill and the Jupyter libraries warn of is not ours
pytestmark = pytest.mark.filterwarnings("ignore")


def execute(name: str, into: Path, *, root: Path = ROOT, **parameters: object) -> dict:
    """Run a notebook of the repository with other parameters, in its own folder as Jupyter does;
    its output as JSON.
    """
    path, out = root / name, into / Path(name).name
    papermill.execute_notebook(
        path, out, parameters, kernel_name="python3", cwd=path.parent, progress_bar=False
    )
    ran = json.loads(out.read_text())
    assert "jupyter.widget-view" not in out.read_text()  # it would reopen as an error
    return ran


def checkout_of(folder: str, root: Path) -> Path:
    """A checkout at `root` with the notebooks of one folder and its modules; they look for all else
    from its root.
    """
    for pattern in ("*.ipynb", "*.py", "corpora/**/*.py"):
        for path in (ROOT / folder).glob(pattern):
            (root / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to(ROOT))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def compressing(folder: str) -> Manifest:
    """A run of seconds whose log_sigma2 moves by 1 a step: some weights become irrelevant within
    six steps.
    """
    fast = {"name": "adam", "lr": 1e-3, "lr_log_sigma2": 2.0}
    return grid.edit(grid.tiny(folder=folder), {"stages.sparsify.optimizer": fast})


def texts(notebook: dict) -> str:
    """All that the cells printed or returned, as one text."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            found += output.get("text", []) + output.get("data", {}).get("text/plain", [])
    return "".join(found)


def images(notebook: dict) -> int:
    return sum(
        "image/png" in o.get("data", {})
        for cell in notebook["cells"]
        for o in cell.get("outputs", [])
    )


@pytest.fixture(autouse=True)
def text_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")


@pytest.mark.parametrize("preset", ["experiment-1", "demo"])
def test_generator_writes_the_grid_of_a_preset(tmp_path: Path, preset: str) -> None:
    folder = tmp_path / "grid"
    options = {"preset": preset, "folder": str(folder), "timed": preset == "demo"}
    printed = texts(execute("experiment_generator.ipynb", tmp_path, **options))
    made = grid.expanded(preset)
    assert f"{len(made)} manifests, {len(made)} of them new or changed" in printed
    assert C in printed and f"{len(made)} new" in printed and "gpu_hours" in printed
    assert grid.read(folder) == made

    committed = ROOT / "runs" / preset
    for path in committed.glob("*.json"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_generator_in_another_folder_finds_the_root(tmp_path: Path) -> None:
    """A copy that papermill has executed lies in runs/demo/ and is opened there."""
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "experiment_generator.ipynb", folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    options = {"grid": {C: [0.5]}, "timed": False}
    printed = texts(
        execute("runs/demo/experiment_generator.ipynb", tmp_path, root=tmp_path, **options)
    )
    assert "runs/demo-varied: 1 manifests, 1 of them new" in printed
    assert list(grid.read(tmp_path / "runs" / "demo-varied")) == ["c5e-01-r0"]


def test_experiment_and_analysis(tmp_path: Path, tiny_corpus: Path) -> None:
    folder = tmp_path / "runs"
    grid.write(folder, grid.expand(compressing(tiny_corpus.name), {C: [1.0, 1e4]}))
    options = {
        "folder": str(folder),
        "data": str(tiny_corpus.parent),
        "changes": {"stages.fine-tune.n_epochs": 1},
    }
    ran = execute("auto_experiment.ipynb", tmp_path, **options)
    assert images(ran) == 1 and "stages.fine-tune.n_epochs" in texts(ran)
    names = {path.stem for path in folder.glob("*.json")}
    assert len(names) == 2
    (edited,) = auto.status(tmp_path / "runs-edited").index
    assert edited.startswith(sorted(names)[0])
    for grid_or_edited in (folder, tmp_path / "runs-edited"):
        assert (auto.status(grid_or_edited)["state"] == "done").all()

    options = {"folder": str(folder), "data": str(tiny_corpus.parent), "again": sorted(names)[:1]}
    analysed = execute("experiment_analysis.ipynb", tmp_path, **options)
    drawn = set(report.KINDS) - {"compare", "size"}  # one method; files are in deploy.ipynb
    assert images(analysed) == len(drawn)
    assert {
        path.stem for path in (folder / "figures").glob("*.png") if path.stat().st_size > 10_000
    } == drawn
    table = auto.report.collect(folder)
    best = table[(table["stage"] == "fine-tune") & (table["scorer"] == "test")]["compression"].max()
    assert f"{best:.4f}"[:5] in texts(analysed)
