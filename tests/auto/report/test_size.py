"""Average precision against bytes, held to files written and scored by hand."""

import json
import os
import shutil

import pytest
import torch
from sklearn.metrics import average_precision_score
from small import read, small

from cplxnet import nn as cplx
from cplxnet.auto.manifest import grid
from cplxnet.auto.models import load_model
from cplxnet.auto.report import size
from cplxnet.auto.report.kinds import make
from cplxnet.auto.report.style import Request
from cplxnet.auto.runner.components import Components
from cplxnet.auto.sweep.run_many import run_many


@pytest.fixture(scope="module")
def folder(tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    grid.write(folder, {"r0": small({"name": "r0"})})
    run_many(folder, data=tiny_corpus, progress=False)
    return folder


@pytest.mark.parametrize("bits", [32, 4, "auto"])
def test_rows_against_files_written_and_scored_by_hand(folder, tiny_corpus, tmp_path, bits):
    request = Request(folders=[folder], out=tmp_path, data=tiny_corpus)
    (row,) = size.rows(request, bits=[bits]).to_dict("records")

    model, manifest = load_model(folder / "r0")
    posterior, _ = load_model(folder / "r0", "sparsify")
    small_network = cplx.compact(model, measure=False)
    sigma = {
        32: None,
        4: cplx.sigma_for_bits(small_network, 4),
        "auto": cplx.posterior_sigma(model, posterior),
    }
    cplx.save_compact(small_network, tmp_path / "net", sigma=sigma[bits])
    network = cplx.load_compact(tmp_path / "net", measure=False)
    feed = Components(manifest, device="cpu", data=tiny_corpus).feed("test")
    pairs = [(notes, network(x)) for x, notes in feed]
    target, logit = (torch.cat(each).numpy().ravel() for each in zip(*pairs, strict=True))

    tuned = read(folder / "r0")["stages"]["fine-tune"]
    assert row["bits"] == str(bits)
    assert row["average_precision"] == pytest.approx(
        average_precision_score(target, logit), abs=1e-6
    )
    assert row["masked"] == tuned["scores"]["test"]["end"]["average_precision"]
    # beside these bytes the file has what the network hears
    assert 0 < row["bytes"] - os.path.getsize(tmp_path / "net") < 200
    assert row["times"] == pytest.approx(4 * tuned["n_par"] / row["bytes"])
    n_kept = tuned["n_par"] - tuned["n_zero"]
    assert row["bits_kept"] == pytest.approx(8 * row["bytes"] / n_kept)


def test_the_report(folder, tiny_corpus, tmp_path):
    report = make("size", folder, out=tmp_path, data=tiny_corpus)
    assert [path.name for path in report.paths] == ["size.pdf", "size.png", "size.csv"]
    assert report.rows["bits"].tolist() == ["32", "8", "6", "5", "4", "3", "auto"]
    assert report.rows["bytes"][:6].is_monotonic_decreasing
    assert report.sentences[0].startswith("r0: ") and "bytes with bits auto" in report.sentences[0]


def test_runs_under_way_or_damaged_are_left_out_and_named(folder, tiny_corpus, tmp_path, capsys):
    grid_of_three = tmp_path / "grid"
    shutil.copytree(folder, grid_of_three)
    for name in ("cut", "running"):
        shutil.copy(grid_of_three / "r0.json", grid_of_three / f"{name}.json")
        shutil.copytree(grid_of_three / "r0", grid_of_three / name)
    os.truncate(grid_of_three / "cut" / "2-fine-tune.pt", 1000)
    scores = read(grid_of_three / "running")
    del scores["stages"]["fine-tune"]
    (grid_of_three / "running" / "status.json").unlink()
    (grid_of_three / "running" / "scores.json").write_text(json.dumps(scores))
    (grid_of_three / "running" / "2-fine-tune.pt").unlink()

    request = Request(folders=[grid_of_three], out=tmp_path, data=tiny_corpus)
    assert size.rows(request, bits=[32])["run"].tolist() == ["r0"]
    assert "grid/cut is left out: " in capsys.readouterr().err
