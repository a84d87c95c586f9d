"""The notebooks in extra/ run top to bottom in their own folder, on a setting of seconds, and show
what they say.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import symusic
import tiny
from test_notebooks import checkout_of, compressing, execute, images, texts

from cplxnet import auto
from cplxnet.auto.manifest import grid
from cplxnet.musicnet import recordings, trained

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # what papermill and the Jupyter libraries warn of is not ours
RUN = "runs/demo/c2e-02-r0"


def players(notebook: dict) -> int:
    """How many audio players the cells show."""
    outputs = [
        output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])
    ]
    return sum("<audio" in "".join(data.get("text/html", [])) for data in outputs)


def beside(root: Path) -> list[Path]:
    """What lies beside the notebooks, bytecode apart."""
    return sorted(path for path in root.glob("extra/**/*") if "__pycache__" not in path.parts)


@pytest.fixture(scope="module")
def checkout(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the notebooks need of a checkout, where they look for it: a corpus, and a run on windows
    of 256 samples.

    Nothing may be written beside them.
    """
    root = checkout_of("extra", tmp_path_factory.mktemp("checkout"))
    shutil.copytree(tiny_corpus, root / "data" / "demo")
    manifest = grid.edit(
        compressing("demo"),
        {f"datasets.{split}.window": 256 for split in ("train", "valid", "test")},
    )
    auto.run(manifest, root / RUN, data=root / "data", progress=False)
    before = beside(root)
    yield root
    assert beside(root) == before


def test_get_datasets(tmp_path: Path, checkout: Path) -> None:
    source = tiny.tar(tmp_path / "own.tar.gz", tiny.folder(tmp_path / "unpacked"))
    metadata = tiny.metadata(tmp_path / "musicnet_metadata.csv")
    options = {"source": str(source), "metadata": str(metadata), "check": False}
    shown = texts(
        execute("extra/get_datasets.ipynb", tmp_path, root=checkout, **options, n_workers=0)
    )
    assert "train: 2 recordings, MusicNet has 321" in shown
    for name in (
        "musicnet.h5",
        *(f"musicnet_11khz_{split}.h5" for split in ("train", "valid", "test")),
    ):
        assert (checkout / "data" / name).is_file() and name in shown


def test_visualizer(tmp_path: Path, checkout: Path) -> None:
    ran = execute(
        "extra/musicnet_visualizer.ipynb", tmp_path, root=checkout, begin_s=0.0, seconds=2.0
    )
    assert images(ran) == 2 and "Chords in C" in texts(ran) and players(ran) == 1


def test_check_transforms(tmp_path: Path, checkout: Path) -> None:
    ran = execute("extra/check_transforms.ipynb", tmp_path, root=checkout, window_number=100)
    shown = texts(ran)
    assert (
        images(ran) == 2
        and "ours (61, 70), scipy (61, 70)" in shown
        and "ours (61, 70), swapped (70, 61)" in shown
    )
    assert shown.count("True") == 3 and "False" not in shown


def test_transcription(tmp_path: Path, tiny_corpus: Path, checkout: Path) -> None:
    networks = {name: f"{RUN}/{k}-{name}.pt" for k, name in ((0, "dense"), (2, "fine-tune"))}
    part = {"hop": 512, "begin_s": 0.0, "seconds": 2.0}
    ran = execute("extra/transcription.ipynb", tmp_path, root=checkout, networks=networks, **part)
    assert images(ran) == 1 and players(ran) == 3
    shown, item = texts(ran), next(recordings.recordings(tiny_corpus / "musicnet_11khz_test.h5"))
    assert "accuracy" in shown and f"labels.mid: {len(item.labels)} notes" in shown
    for stage in ("dense", "fine-tune", "labels"):
        (track,) = symusic.Score(
            checkout / "runs" / "transcription" / f"{item.key}-{stage}.mid"
        ).tracks
        assert f"{item.key}-{stage}.mid: {len(track.notes)} notes" in shown


def test_view_model(tmp_path: Path, checkout: Path) -> None:
    ran = execute("extra/view_model.ipynb", tmp_path, root=checkout, plane="fc2")
    counted = json.loads((checkout / RUN / "scores.json").read_text())["stages"]["fine-tune"][
        "layers"
    ]["fc1"]
    assert images(ran) == 7 and "2-fine-tune.pt" in texts(ran)
    assert counted["n_zero"] > 0 and str(2048 * 256 - counted["n_zero"] // 2) in texts(
        ran
    )  # complex weights kept


def test_a_clone_without_runs_looks_at_the_networks_of_the_package(
    tmp_path: Path, checkout: Path
) -> None:
    ran = execute("extra/view_model.ipynb", tmp_path, root=checkout, run="runs/none")
    assert images(ran) == 4 and "(607, 127, 29)" in texts(ran)  # of 2048 outputs, 607 are alive

    options = {"hop": 2048, "begin_s": 0.0, "seconds": 2.0}
    shown = texts(execute("extra/transcription.ipynb", tmp_path, root=checkout, **options))
    assert all(f"{name.replace('-', ' ')}: {{" in shown for name in trained.NETWORKS)


def test_first_steps(tmp_path: Path) -> None:
    ran = execute("extra/first_steps.ipynb", tmp_path, n_steps=300)
    tones = [10, 13, 17, 22, 29, 38, 50, 66]
    heard = " ".join(map(str, [*(-tone for tone in reversed(tones)), *tones]))
    assert images(ran) == 1 and f"listened to: {heard}" in texts(ran)


def test_kl_divergence(tmp_path: Path) -> None:
    ran = execute("extra/kl_divergence.ipynb", tmp_path, draws=2000, n_points=181)
    shown = texts(ran)
    assert (
        images(ran) == 3 and "0.2036" in shown and "0.5772" in shown
    )  # complex ARD from VD: slope, and gamma


def test_deploy(tmp_path: Path, checkout: Path) -> None:
    ran = execute("extra/deploy.ipynb", tmp_path, root=checkout, seconds=2.0, rounds=1)
    shown = texts(ran)
    assert (
        images(ran) == 1
        and "'signal': ['batch', " in shown
        and "largest difference of a probability" in shown
    )
    made = {path.name for path in (checkout / "runs" / "demo" / "deploy").iterdir()}
    assert {
        "compact.safetensors",
        "compact.onnx",
        "raw-audio.onnx",
        "compact.csv",
        "raw-audio.mid",
    } <= made


def test_own_task(tmp_path: Path, checkout: Path) -> None:
    n_signals = {"train": 300, "valid": 50, "test": 100}
    ran = execute(
        "extra/own_task.ipynb",
        tmp_path,
        root=checkout,
        clues=["phase"],
        n_signals=n_signals,
        n_batches=2,
    )
    shown = texts(ran)
    assert "clue in the phase" in shown and "two-channel" in shown and images(ran) == 1
