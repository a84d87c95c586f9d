"""The trade-off to click on: what it points at is in the table, what it plays is the network's."""

import base64
import dataclasses
import html
import io
import json
import re

import h5py
import numpy as np
import pytest
import soundfile
import torch
from scored_runs import fill, stage
from small import C, quick, small

from cplxnet.auto.manifest import grid
from cplxnet.auto.report import tables
from cplxnet.musicnet import recordings
from extra import interactive
from extra.corpora import hdf5
from extra.example import example
from extra.widgets import Picker


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
    with pytest.raises(ValueError, match=r"expected a recording of 0 to \d+, got -1"):
        example(None, file, number=-1)


@pytest.mark.parametrize(
    "part", [{"begin_s": -1.0}, {"seconds": 0}, {"seconds": -1}, {"begin_s": float("nan")}]
)
def test_a_part_that_is_no_stretch_of_time_is_refused(tiny_corpus, part):
    with pytest.raises(ValueError, match=r"expected begin_s >= 0 and seconds > 0, got .* try"):
        example(None, tiny_corpus / "musicnet_11khz_test.h5", **part)


def test_a_short_recording_is_shown_from_its_beginning(tiny_corpus):
    file = tiny_corpus / "musicnet_11khz_test.h5"
    first = next(iter(recordings.recordings(file)))
    duration_s = len(first) / recordings.rate_hz(file)
    assert duration_s < 20
    shown = example(None, file)
    assert "from 0 s on" in shown
    samples, rate_hz = players(shown)["recording"]
    assert len(samples) / rate_hz == pytest.approx(min(duration_s, 10), abs=0.2)


def test_only_the_recording_that_is_shown_is_read_on(tiny_corpus, tmp_path):
    first = next(iter(recordings.recordings(tiny_corpus / "musicnet_11khz_test.h5")))
    file = tmp_path / "two.h5"
    two = [dataclasses.replace(first, key=key) for key in ("id_1", "id_2")]
    hdf5.write(file, two, rate_hz=11_000)
    with h5py.File(file, "r+") as damaged:
        damaged["id_2/data"][0] = np.nan
    assert "id_1" in example(None, file)
    with pytest.raises(recordings.RecordingError, match="id_2: expected finite samples"):
        example(None, file, number=1)


def test_the_truth_is_made_once(folder, tiny_corpus, monkeypatch):
    quick(grid.read(folder)["run"], folder / "run", tiny_corpus)
    (run,) = (run for run in tables.every_run([folder]) if run.name == "run")
    monkeypatch.setattr(tables, "every_run", lambda folders: [run, run])
    made = []
    shown = {"musicnet": lambda model, file, **_: made.append(model) or "shown"}
    monkeypatch.setattr(interactive, "EXAMPLES", shown)
    cards = interactive._cards(folder, "test", tiny_corpus, {})
    assert cards == {"run": "shown", "": "shown"}
    assert len(made) == 3 and made.count(None) == 1


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
