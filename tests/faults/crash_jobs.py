"""What the tests of crash points run: `python crash_jobs.py DATA` serves these jobs (`crash_points`)."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from crash_points import serve
from small import SAMPLERS, Epochs, quick, small

from cplxnet import files
from cplxnet.auto import run_many
from cplxnet.auto.__main__ import main
from cplxnet.musicnet import recordings
from extra.corpora import hdf5


def _prepare(say: Callable[..., None]) -> None:
    torch.set_num_threads(1)  # a forked child has no threads of OpenMP
    epochs = Epochs(lambda n: say(epoch=n))
    SAMPLERS[epochs.name] = epochs.sampler


def train(root: Path, data: Path, say: Callable[..., None]) -> None:
    """A run of three stages, two epochs each."""
    _prepare(say)
    quick(small(), root / "run", data)


def grid(root: Path, data: Path, say: Callable[..., None]) -> None:
    """Two runs that share their dense stage."""
    _prepare(say)
    for name, c in (("a", 0.05), ("b", 0.1)):
        path = root / f"{name}.json"
        if not path.exists():
            small({"stages.sparsify.objective.kl_div": c}).save(path)
    outcomes = run_many(root, data=data, progress=False)
    bad = [outcome for outcome in outcomes if outcome.state not in ("done", "skipped")]
    if bad:
        raise RuntimeError(f"expected every run done, got {bad}")


def marks(data: Path) -> str:
    """A page that `page` may put its text into."""
    return f"<!-- begin: python -m cplxnet.auto page {data} --into FILE -->\n<!-- end -->\n"


def outputs(root: Path, data: Path, say: Callable[..., None]) -> None:
    """What commands write, over what is there: page, figure, network, transcription, a corpus."""
    torch.set_num_threads(1)
    run = data / "run"
    network = root / "net.safetensors"
    wav = data / "tone.wav"
    page = root / "page.md"
    if not page.exists():
        files.write_text(page, marks(data))
    for words in (
        ["page", str(data), "--into", str(page)],
        ["report", "trade-off", str(data), "--out", str(root)],
        ["export", str(run), str(network), "--as", "compact"],
        [
            "transcribe",
            str(wav),
            "--model",
            str(network),
            "--out",
            str(root / "tone"),
            "--overwrite",
        ],
    ):
        if main(words) != 0:
            raise RuntimeError(f"expected {words[0]} to end with 0")
    train_file = data / "musicnet_11khz_valid.h5"
    hdf5.write(root / "corpus.h5", recordings.recordings(train_file), rate_hz=11000)


if __name__ == "__main__":
    serve({"train": train, "grid": grid, "outputs": outputs}, Path(sys.argv[1]))
