"""The trade-off to click on: what it points at is in the table, what it plays is the network's."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
import soundfile
import torch
from small import C, quick, small
from test_tables import fill, stage

from cplxnet.auto.manifest import grid
from cplxnet.auto.notebook import Picker
from cplxnet.auto.report import interactive
from cplxnet.musicnet import example, recordings


@pytest.fixture
def folder(tmp_path):
    """A run without snapshot and, once it is run, one with its snapshot."""
    manifests = {"kept": small({C: 0.1}), "run": small({C: 0.2, "seed": 1})}
    grid.write(tmp_path / "grid", manifests)
    stages = {"dense": stage(0.4), "fine-tune": stage(0.3, start=0.2, n_zero=50)}
    fill(tmp_path / "grid", "kept", manifests["kept"], stages)
    return tmp_path / "grid"


def players(text):
    """The sounds of a page, by name: samples, rate."""
    pattern = r"<p>(\w+)<br><audio[^>]*base64,([^\"]+)\""
    return {
        name: soundfile.read(io.BytesIO(base64.b64decode(sound)))
        for name, sound in re.findall(pattern, text)
    }


def test_pointing_names_a_run_and_a_click_plays_it(folder, tiny_corpus):
    shown = interactive.trade_off_page(folder, data=tiny_corpus).data
    assert "No run here has both" in shown and not players(html.unescape(shown))

    quick(grid.read(folder)["run"], folder / "run", tiny_corpus)
    shown = interactive.trade_off_page(folder, data=tiny_corpus, begin_s=1e6).data
    assert "try begin_s=0" in html.unescape(shown)
    part = {"number": 0, "begin_s": 0.0, "seconds": 0.5}
    shown = html.unescape(interactive.trade_off_page(folder, data=tiny_corpus, **part).data)
    (model,) = json.loads(
        re.search(r'<script type="application/json"[^>]*>\s*(\{.*?\})\s*</script>', shown, re.S)[1]
    ).values()
    text = json.dumps(model)
    for value in ("kept", "0.2", "compression", "Its snapshot is not here."):
        assert value in text
    assert text.count("data:audio/mpeg") >= 2  # recording and labels
    assert "network: no note" in text  # two epochs teach it nothing


def test_an_example_plays_the_notes_that_the_network_writes_down(tiny_corpus):
    file = tiny_corpus / "musicnet_11khz_test.h5"
    first = next(iter(recordings.recordings(file)))

    def always_a4(x):
        logit = torch.full((len(x), 84), -9.0)
        logit[:, 69 - 21] = 9.0  # 440 Hz
        return logit

    shown = example(always_a4, file, begin_s=0.0, seconds=1.0, hop=128, window=256)
    samples, rate_hz = players(shown)["network"]
    spectrum = np.abs(np.fft.rfft(samples))
    peak_hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)[spectrum.argmax()]
    assert peak_hz == pytest.approx(440, abs=3)

    assert "network: no note" in example(
        lambda x: torch.full((len(x), 84), -9.0), file, begin_s=0.0, seconds=1.0
    )
    truth = players(example(None, file, begin_s=0.0, seconds=1.0))
    assert set(truth) == {"recording", "labels"} and first.key in example(None, file, begin_s=0.0)
    with pytest.raises(ValueError, match=r"expected a recording of 0 to \d+, got 99"):
        example(None, file, number=99)
    with pytest.raises(ValueError, match=r"s long, got one from 1000000.0 s on"):
        example(None, file, begin_s=1e6)


def test_a_picker_offers_the_scorers_of_folders_with_results(folder):
    other = folder.parent / "other"
    grid.write(other, {"one": grid.edit(small(), {"scorers.validation.curves": True})})
    fill(other, "one", grid.read(other)["one"], {"dense": stage(0.4)})
    grid.write(folder.parent / "without", {"one": small()})

    options = {"label": "scorer", "names": interactive.scorers, "holding": "*/scores.json"}
    picked = Picker(str(folder), "test", runs=folder.parent, **options)
    assert set(picked._folder.options) == {str(folder), str(other)}
    assert set(picked._name.options) == {"test", "validation"}

    picked._folder.value = str(other)
    assert (picked.folder, picked.name) == (str(other), "test")
    with pytest.raises(ValueError, match="expected a scorer of test, validation, got 'unseen'"):
        Picker(str(folder), "unseen", runs=folder.parent, **options)
