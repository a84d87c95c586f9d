"""The networks that come with the package, as their card says."""

import re
from pathlib import Path

import pytest
import soundfile
from sklearn.metrics import average_precision_score

from cplxnet.auto.__main__ import main
from cplxnet.auto.models import load_deployed
from cplxnet.musicnet import recordings, trained
from extra.metrics import transcribe_file

CARD = Path(trained.__file__).with_name("README.md").read_text()


@pytest.mark.parametrize("name", trained.NETWORKS)
def test_a_network_is_as_its_card_says(name: str):
    path = trained.find(name)
    row = next(line for line in CARD.splitlines() if line.startswith(f"| `{path.name}`"))
    _, _, _, n_real, times, _, n_bytes, _ = (cell.replace(",", "") for cell in row.split("|"))

    assert path.stat().st_size == int(n_bytes) < 1e6
    assert 15_742_344 / int(n_real) == pytest.approx(float(times), rel=1e-3)
    kept = sum(int(stage.weight.count_nonzero()) for stage in load_deployed(path).network.stages)
    assert 0 < 2 * kept < int(n_real)  # the others are biases and batch norm


@pytest.mark.parametrize("name", trained.NETWORKS)
def test_a_network_hears_tones(name: str, tiny_corpus: Path):
    network, heard = load_deployed(trained.find(name))
    target, probability = transcribe_file(
        network, tiny_corpus / "musicnet_11khz_test.h5", **heard | {"hop": 512}
    )
    assert average_precision_score(target.ravel(), probability.ravel()) > 0.9


def test_transcribe_needs_no_model(tmp_path: Path, tiny_corpus: Path, capsys):
    item = next(recordings.recordings(tiny_corpus / "musicnet_11khz_test.h5"))
    soundfile.write(tmp_path / "chords.wav", item.data, 11_000)

    assert main(["transcribe", str(tmp_path / "chords.wav")]) == 0
    written = re.search(r"MIDI: .*chords.transcribed.mid, (\d+) notes", capsys.readouterr().out)
    assert int(written[1]) == pytest.approx(len(item.labels), rel=0.5)
    assert (tmp_path / "chords.transcribed.csv").is_file()


def test_another_name_is_a_path():
    assert trained.find("runs/demo/c2e-02-r0") == Path("runs/demo/c2e-02-r0")
