"""The three notebooks in JupyterLab, as people run them: in a browser, with a live kernel.

Chromium is driven over its debugging protocol. CPLXNET_SCREENSHOTS=FOLDER keeps a picture of each
notebook.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_notebooks import ROOT, C, compressing

from cplxnet.auto.manifest import grid

websocket = pytest.importorskip("websocket", reason="websocket-client comes with JupyterLab")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.faults,  # minutes, and another program: `make faults`
    pytest.mark.filterwarnings("ignore"),  # what the Jupyter libraries warn of is not ours
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
]
PATIENCE_S = 180.0


def wait_for(question: Callable[[], Any], what: str) -> Any:
    """The first answer that is not empty."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if answer := question():
                return answer
        time.sleep(0.3)
    raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")


@contextlib.contextmanager
def process(*command: str, log: Path, **options: Any) -> Iterator[None]:
    with log.open("w") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file, **options)
        try:
            yield
        finally:
            started.terminate()
            started.wait(20)


class Tab:
    """A tab of the browser."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(
            address, suppress_origin=True, timeout=5 * PATIENCE_S
        )
        self.numbers = itertools.count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                return message["result"]

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        return answer["result"].get("value")


@pytest.fixture(scope="module")
def checkout(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks beside a grid of two runs of seconds."""
    root = tmp_path_factory.mktemp("lab")
    for name in ("experiment_generator", "auto_experiment", "experiment_analysis"):
        shutil.copy(ROOT / f"{name}.ipynb", root)
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copytree(tiny_corpus, root / "data" / tiny_corpus.name)
    grid.write(root / "runs" / "tiny", grid.expand(compressing(tiny_corpus.name), {C: [1.0, 1e4]}))
    return root


@pytest.fixture(scope="module")
def lab(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Tab]]:
    """JupyterLab's address, and a tab of a browser."""
    home = tmp_path_factory.mktemp("home")
    environment = {key: value for key, value in os.environ.items() if key != "CPLXNET_PROGRESS"}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "JUPYTER_RUNTIME_DIR": str(home)}
    server = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--port=0"]
    server += ["--IdentityProvider.token=t", "--LabApp.expose_app_in_browser=True"]
    browser = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "about:blank"]
    browser += ["--remote-debugging-port=0", f"--user-data-dir={home}/browser"]
    browser += ["--window-size=1200,2400"]

    with (
        process(*server, log=home / "lab.log", cwd=checkout, env=environment),
        process(*browser, log=home / "browser.log", env=environment),
    ):
        listening = r"DevTools listening on ws://([^/]+)/"
        place = wait_for(
            lambda: re.search(listening, (home / "browser.log").read_text()), "chromium"
        )[1]
        tabs = json.load(urllib.request.urlopen(f"http://{place}/json"))
        tab = Tab(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        running = wait_for(lambda: list(home.glob("jpserver-*.json")), "JupyterLab")[0]
        yield json.loads(running.read_text())["url"], tab
        tab.socket.close()


APP = "window.jupyterapp"
BOOK = f"[...{APP}.shell.widgets('main')][0]"  # the only thing open
# Tracebacks of outputs that are errors, and widgets without their kernel.
BROKEN = f"""{BOOK}.content.model.toJSON().cells.flatMap(cell => cell.outputs || [])
    .filter(output => output.output_type == 'error').map(output => output.traceback.join('\\n'))
    .concat(document.body.innerText.match(/Error (displaying|creating) widget.*/g) || [])"""


def open_book(lab: tuple[str, Tab], name: str) -> Tab:
    address, tab = lab
    tab.call("Emulation.setFocusEmulationEnabled", enabled=True)  # commands go to what has it
    tab.call("Page.navigate", url=f"{address}lab/tree/{name}?token=t&reset")
    ready = f"{BOOK}?.context?.isReady && {BOOK}?.sessionContext?.session?.kernel?.status == 'idle'"
    wait_for(lambda: tab.ask(f"Boolean({ready})"), f"{name} with a kernel")
    tab.ask(f"{APP}.shell.activateById({BOOK}.id)")
    return tab


def run_all(lab: tuple[str, Tab], name: str) -> str:
    """Run a notebook from top to bottom and save it; its text as it is seen."""
    tab = open_book(lab, name)
    tab.ask(f"{APP}.commands.execute('notebook:run-all-cells').then(() => 1)")
    wait_for(lambda: tab.ask(f"{BOOK}.sessionContext.session.kernel.status == 'idle'"), name)
    tab.ask(f"{APP}.commands.execute('docmanager:save').then(() => 1)")

    folder = os.environ.get("CPLXNET_SCREENSHOTS")
    if folder:
        picture = tab.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path = Path(folder) / f"{Path(name).stem}.png"
        path.write_bytes(base64.b64decode(picture))
    assert tab.ask(BROKEN) == []
    return tab.ask("document.body.innerText")


def parameters(path: Path, **values: Any) -> None:
    """Set values in the notebook's parameters cell, as people do."""
    book = json.loads(path.read_text())
    (cell,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    cell["source"] += [f"\n{name} = {value!r}" for name, value in values.items()]
    path.write_text(json.dumps(book))


def test_the_journey(lab: tuple[str, Tab], checkout: Path) -> None:
    folder = "runs/tiny"
    parameters(checkout / "experiment_generator.ipynb", preset="demo", timed=False)
    run_all(lab, "experiment_generator.ipynb")
    assert list((checkout / "runs" / "demo").glob("*.json"))

    parameters(checkout / "auto_experiment.ipynb", folder=folder)
    run_all(lab, "auto_experiment.ipynb")
    assert len(list((checkout / folder).glob("*/scores.json"))) == 2
    book = json.loads((checkout / "auto_experiment.ipynb").read_text())
    kinds = {
        kind
        for cell in book["cells"]
        for output in cell.get("outputs", [])
        for kind in output.get("data", {})
    }
    assert "image/png" in kinds and "text/html" in kinds  # curves, and the grid's table
    tab = lab[1]
    assert tab.ask("document.querySelectorAll('.widget-dropdown').length") == 2

    played = {"number": 0, "begin_s": 0.0, "seconds": 2.0}
    parameters(checkout / "experiment_analysis.ipynb", folder=folder, again=None, example=played)
    run_all(lab, "experiment_analysis.ipynb")
    assert len(list((checkout / folder / "figures").glob("*.png"))) >= 5


def test_a_mistake_is_one_line_on_the_page(lab: tuple[str, Tab], checkout: Path) -> None:
    path = shutil.copy(checkout / "auto_experiment.ipynb", checkout / "mistaken.ipynb")
    parameters(Path(path), folder="runs/nothing")
    tab = open_book(lab, "mistaken.ipynb")
    tab.ask(f"{APP}.commands.execute('notebook:run-all-cells').then(() => 1)")
    (shown,) = wait_for(lambda: tab.ask(BROKEN), "the error")
    assert shown.startswith("FileNotFoundError: runs/nothing: expected a folder of manifests")
    assert len(shown.splitlines()) == 1
    assert shown in tab.ask("document.body.innerText")
