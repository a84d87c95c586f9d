"""What the notebooks share in a kernel: root, errors as one message, bars, refreshing output."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from cplxnet.auto import notebook
from extra import widgets

# what the Jupyter libraries warn of is not ours
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("below", "marks"),
    [
        (".", ["pyproject.toml"]),
        ("extra", ["pyproject.toml", "runs/"]),
        ("runs/demo", ["pyproject.toml", "runs/demo/runs/"]),  # the checkout's, not the nearest
        ("runs/demo", ["runs/"]),  # a folder of runs without a checkout
    ],
)
def test_the_root_is_found_from_any_folder_below(tmp_path: Path, below: str, marks: list[str]):
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    for mark in marks:
        if mark.endswith("/"):
            (tmp_path / mark).mkdir(parents=True, exist_ok=True)
        else:
            (tmp_path / mark).touch()

    assert notebook.root(tmp_path / below) == tmp_path.resolve()


def test_no_root_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"expected pyproject\.toml or runs/ in .*; try"):
        notebook.root(tmp_path)


CELLS = {
    "start": "from cplxnet import progress\nfrom cplxnet.auto import notebook\nnotebook.start()",
    "where": "import os; print(os.getcwd())",
    "beside": "from extra import beside, widgets",
    "mistake": 'from cplxnet import auto\nauto.load("runs/nothing.json")',
    "table": "from cplxnet.auto import report\nreport.status('runs/none')",
    "folder": 'widgets.Picker("runs/nothing")',
    "whole": "%tb",
    "own": "import json\njson.loads('{')",
    "interrupt": "raise KeyboardInterrupt",
    "bar": "for _ in progress.bar(range(3), desc='dense'):\n    pass",
    "line": "progress.say('dense: AP 0.5')",
    "bar that leaves": "for _ in progress.bar(range(3), leave=False):\n    pass",
    "pick": "picked = widgets.Picker('runs/one', 'b')\npicked",
    "another": "picked._folder.value = 'runs/two'\nprint(picked.folder, picked.name)",
    "refresh": (
        "import time\nvalues = iter(range(1000))\n"
        "with widgets.refreshing(lambda: next(values), every_s=0.05):\n    time.sleep(0.5)"
    ),
    "figure": (
        "import matplotlib.pyplot as plt\n"
        "with widgets.refreshing(lambda: plt.subplots()[0]):\n    pass"
    ),
    "drawing": (
        "with widgets.refreshing(lambda: {}['none'], every_s=0.05):\n"
        "    time.sleep(0.2)\n    raise RuntimeError('of the run')"
    ),
    "nothing yet": "with widgets.refreshing(lambda: open('nothing')):\n    pass",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of CELLS by name, from a kernel that began in the folder extra/."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "pyproject.toml").touch()
    for folder in ("extra", "runs/one", "runs/two"):
        (root / folder).mkdir(parents=True)
    for module in ("__init__", "beside"):
        (root / "extra" / f"{module}.py").touch()
    shutil.copy(widgets.__file__, root / "extra")
    for path in ("one/a", "one/b", "two/c"):
        (root / "runs" / f"{path}.json").touch()

    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    book = nbformat.v4.new_notebook(cells=cells)
    environment = {key: value for key, value in os.environ.items() if key != "CPLXNET_PROGRESS"}
    client = NotebookClient(
        book,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(root / "extra")}},
    )
    client.execute(env=environment | {"PYTHONPATH": str(Path(notebook.__file__).parents[2])})
    return {"root": [str(root)]} | dict(
        zip(CELLS, (cell["outputs"] for cell in book.cells), strict=True)
    )


def error(outputs: list[Any]) -> str:
    (output,) = [output for output in outputs if output["output_type"] == "error"]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output["traceback"]))  # without colours


def test_a_notebook_works_from_the_root(shown):
    assert shown["start"] == []
    assert shown["where"][0]["text"].strip() == shown["root"][0]
    assert shown["beside"] == []  # a module beside the notebooks is imported


def test_a_mistake_is_one_message_and_its_traceback_is_kept(shown):
    assert error(shown["mistake"]).startswith("ManifestNotFoundError: runs/nothing.json")
    assert error(shown["folder"]).startswith("FileNotFoundError: runs/nothing: expected a folder")
    assert "runs/one, runs/two" in error(shown["folder"])
    assert error(shown["table"]).endswith(
        f"got nothing there (working directory: {shown['root'][0]})"
    )
    for name in ("mistake", "folder", "table"):
        assert "Traceback" not in error(shown[name]) and error(shown[name]).count("\n") <= 2
    assert "_names(folder)" in error(shown["whole"])  # where `Picker` asks for them


def test_a_fault_elsewhere_keeps_its_traceback(shown):
    assert "json.loads" in error(shown["own"]) and "Traceback" in error(shown["own"])


def test_an_interrupt_says_that_the_cell_goes_on(shown):
    assert error(shown["interrupt"]) == notebook.INTERRUPTED


def test_a_bar_leaves_a_line_of_text(shown):
    (bar,) = shown["bar"]
    assert set(bar["data"]) == {"text/plain"}  # no widget, which needs its kernel
    assert bar["data"]["text/plain"].startswith("dense: 100%") and "3/3" in str(bar)
    (gone,) = shown["bar that leaves"]
    assert gone["data"]["text/plain"] == ""


def test_a_line_beside_the_bars_is_no_error(shown):
    (line,) = shown["line"]
    assert (line["name"], line["text"]) == ("stdout", "dense: AP 0.5\n")  # stderr is shown in red


def test_a_picker_offers_what_there_is(shown):
    assert "Dropdown" in str(shown["pick"])
    assert shown["another"][0]["text"] == "runs/two c\n"


def test_output_is_refreshed_until_the_end(shown):
    (number,) = shown["refresh"]
    assert 3 <= int(number["data"]["text/plain"]) <= 10
    (figure,) = shown["figure"]
    assert "image/png" in figure["data"]
    assert [output["data"]["text/plain"] for output in shown["nothing yet"]] == ["..."]


def test_an_error_in_drawing_is_said_once_and_the_runs_own_stays(shown):
    assert "RuntimeError: of the run" in error(shown["drawing"])
    assert "during handling" not in error(shown["drawing"]).lower()
    (said,) = [output["text"] for output in shown["drawing"] if output["output_type"] == "stream"]
    assert said == "not drawn: KeyError: 'none'\n"
