"""The notebooks in extra/ run top to bottom on a setting of seconds, and show what they say."""

import sys
from pathlib import Path

import pytest
from test_notebooks import execute, images, texts

sys.path.insert(0, str(Path(__file__).parent / "archive"))

import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # what papermill and the Jupyter libraries warn of is not ours


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    (tmp_path / "extra").mkdir()
    return tmp_path


def test_get_datasets(tmp_path: Path) -> None:
    source = tiny.tar(tmp_path / "own.tar.gz", tiny.folder(tmp_path / "unpacked"))
    metadata = tiny.metadata(tmp_path / "musicnet_metadata.csv")
    options = {"source": str(source), "metadata": str(metadata), "data": str(tmp_path / "data"), "check": False}
    shown = texts(execute("extra/get_datasets.ipynb", tmp_path, **options, n_workers=0))
    assert "train: 2 recordings, MusicNet has 321" in shown
    for name in ("musicnet.h5", *(f"musicnet_11khz_{split}.h5" for split in ("train", "valid", "test"))):
        assert (tmp_path / "data" / name).is_file() and name in shown


def test_visualizer(tmp_path: Path, tiny_corpus: Path) -> None:
    ran = execute("extra/musicnet_visualizer.ipynb", tmp_path, folder=str(tiny_corpus), begin_s=0.0, seconds=2.0)
    assert images(ran) == 2 and "Chords in C" in texts(ran)
    html = [
        o["data"]["text/html"] for c in ran["cells"] for o in c.get("outputs", []) if "text/html" in o.get("data", {})
    ]
    assert any("<audio" in "".join(text) for text in html)


def test_check_transforms(tmp_path: Path, tiny_corpus: Path) -> None:
    file = str(tiny_corpus / "musicnet_11khz_test.h5")
    ran = execute("extra/check_transforms.ipynb", tmp_path, file=file, window_number=100)
    shown = texts(ran)
    assert images(ran) == 2 and "ours (61, 70), scipy (61, 70)" in shown and "ours (61, 70), swapped (70, 61)" in shown
    assert shown.count("True") == 3 and "False" not in shown
