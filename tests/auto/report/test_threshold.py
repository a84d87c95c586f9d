"""Runs masked at other thresholds, against masks made by hand and runs with that threshold."""

import math
import os
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from small import C, read, small, snapshot

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError
from cplxnet.auto.report import tables, threshold
from cplxnet.auto.report.kinds import KINDS, make
from cplxnet.auto.report.style import Request
from cplxnet.auto.runner.components import Components
from cplxnet.auto.sweep.run_many import run_many
from cplxnet.auto.train.loop import predict

SHARES = (0.2, 0.9)  # of the weights that the thresholds leave out


@pytest.fixture(scope="module")
def grid_of_two(tiny_corpus, tmp_path_factory):
    """The folder of two finished runs, and thresholds at which they keep some of their weights."""
    folder = tmp_path_factory.mktemp("two")
    made = {f"r{seed}": small({"name": f"r{seed}", "seed": seed}) for seed in (0, 1)}
    grid.write(folder, made)
    run_many(folder, data=tiny_corpus, progress=False)
    values = torch.cat([log_alpha.flatten() for log_alpha in log_alphas(folder / "r0").values()])
    return folder, [float(values.quantile(1 - share)) for share in SHARES]


@pytest.fixture(scope="module")
def scanned(grid_of_two, tiny_corpus):
    folder, limits = grid_of_two
    return threshold.scan(Request([folder], folder, at=limits, data=tiny_corpus))


def log_alphas(run):
    """{layer: log(sigma^2/|mu|^2)} from the snapshot, by its definition."""
    state = snapshot(run, "1-sparsify.pt")["model"]
    layers = [name.removesuffix(".log_sigma2") for name in state if name.endswith(".log_sigma2")]
    return {
        name: state[f"{name}.log_sigma2"] - state[f"{name}.weight_ri"].square().sum(-1).log()
        for name in layers
    }


def by_hand(run, manifest, data, limit):
    """Average precision (scikit-learn) and compression with zeros where log alpha > `limit`."""
    state = snapshot(run, "1-sparsify.pt")["model"]
    n_dead = 0
    for name, log_alpha in log_alphas(run).items():
        dead = log_alpha > limit
        state[f"{name}.weight_ri"][dead] = 0
        n_dead += 2 * int(dead.sum())
        del state[f"{name}.log_sigma2"]
    materials = Components(manifest, device="cpu", data=data)
    net = materials.build(manifest.stage("dense"))
    net.load_state_dict(state)
    target, logit = predict(net, materials.feed(manifest.scorers["test"].feed))
    n_par = sum(p.numel() for p in net.parameters())
    return average_precision_score(target.numpy().ravel(), logit.numpy().ravel()), n_par / (
        n_par - n_dead
    )


def test_scan_against_masks_made_by_hand(grid_of_two, scanned, tiny_corpus) -> None:
    folder, found = grid_of_two[0], scanned
    assert len(found) == 4 and not found["tuned"].any()
    for row in found.to_dict("records"):
        score, compression = by_hand(
            folder / row["run"], grid.read(folder)[row["run"]], tiny_corpus, row["threshold"]
        )
        assert row["compression"] == pytest.approx(compression, rel=1e-12)
        assert row["average_precision"] == pytest.approx(score, abs=1e-6)
    assert found.groupby("threshold")["compression"].mean().is_monotonic_decreasing


def test_tune_is_what_a_run_of_that_threshold_reaches(grid_of_two, tiny_corpus, tmp_path) -> None:
    folder, limits = grid_of_two
    request = Request([folder], tmp_path / "again", at=limits[:1], data=tiny_corpus)
    found = threshold.tune(request)
    assert found["tuned"].all() and sorted(found["run"]) == ["r0", "r1"]
    fresh = grid.edit(grid.read(folder)["r1"], {"threshold": limits[0]})
    grid.write(tmp_path / "fresh", {"fresh": fresh})
    run_many(tmp_path / "fresh", data=tiny_corpus, progress=False)
    expected = read(tmp_path / "fresh" / "fresh")["stages"]["fine-tune"]
    row = found[found["run"] == "r1"].iloc[0]
    assert row["average_precision"] == expected["scores"]["test"]["end"]["average_precision"]
    assert row["compression"] == expected["compression"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("scores.json")}
    again = threshold.tune(request)  # nothing is done twice
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.equals(found)


def test_tune_refuses_two_folders_whose_runs_would_share_a_name(grid_of_two, tmp_path) -> None:
    folder, limits = grid_of_two
    for where in ("a", "b"):
        grid.write(tmp_path / where / "same", {"r0": grid.read(folder)["r0"]})
        shutil.copytree(folder / "r0", tmp_path / where / "same" / "r0")
    request = Request([tmp_path / "a/same", tmp_path / "b/same"], tmp_path / "out", at=limits[:1])
    with pytest.raises(ValueError, match="expected runs of different names, got 'same-r0-t"):
        threshold.tune(request)


def test_the_figure_draws_every_run_and_threshold(scanned) -> None:
    left, right = threshold.draw(scanned).axes
    drawn = [line.get_xydata() for line in left.get_lines() if line.get_marker() == "o"]
    assert len(drawn) == 2
    marks = {line.get_label() for line in left.get_lines()} - {"_child0"}
    assert "threshold of the manifest, -0.5" in marks
    assert any(label.startswith("dense, ") for label in marks)
    dense = [line for line in left.get_lines() if line.get_label().startswith("dense, ")]
    assert dense[0].get_ydata()[0] == pytest.approx(scanned["dense"].mean())
    expected = (
        scanned[scanned["run"] == "r0"]
        .sort_values("threshold")[["threshold", "average_precision"]]
        .to_numpy()
    )
    assert any(np.array_equal(line, expected) for line in drawn)
    assert right.get_yscale() == "log" and "threshold on log alpha" in left.get_xlabel()
    assert (scanned[C] == grid.value(small(), C)).all()


def test_no_snapshot_is_named(grid_of_two, tiny_corpus, tmp_path) -> None:
    grid.write(tmp_path, {"r0": small()})
    with pytest.raises(ValueError, match=r"1-sparsify\.pt"):
        threshold.scan(Request([tmp_path], tmp_path, data=tiny_corpus))
    folder, limits = grid_of_two
    made = make("threshold", [folder, tmp_path], out=tmp_path, at=limits[:1], data=tiny_corpus)
    assert made.sentences[0] == f"No snapshot of sparsify, so left out: {tmp_path}/r0."


def test_a_damaged_snapshot_and_masks_without_a_threshold_are_left_out_and_named(
    grid_of_two, tiny_corpus, tmp_path, capsys
) -> None:
    folder, limits = grid_of_two
    both = shutil.copytree(folder, tmp_path / "both")
    os.truncate(both / "r1" / "1-sparsify.pt", 1000)
    pruned = {"stages.sparsify.model.name": "complex.TwoLayerDenseMasked"}
    pruned |= {"stages.sparsify.objective": {"loss": 1.0}}
    pruned |= {"stages.sparsify.pruner": {"name": "random", "sparsity": 0.5}}
    grid.write(both, {"pruned": small(pruned)})
    shutil.copytree(both / "r0", both / "pruned")

    made = make("threshold", both, out=tmp_path, at=limits[:1], data=tiny_corpus)
    assert made.rows["run"].tolist() == ["r0"]
    assert made.sentences[0] == f"No threshold on log alpha, so left out: {both}/pruned."
    assert "both/r1 is left out: " in capsys.readouterr().err


def test_the_runs_asked_for_alone(grid_of_two, scanned, tiny_corpus, tmp_path) -> None:
    folder, limits = grid_of_two
    made = make("threshold", folder, out=tmp_path, runs=["r1"], at=limits, data=tiny_corpus)
    assert (
        made.rows.equals(scanned[scanned["run"] == "r1"].reset_index(drop=True))
        and made.sentences == []
    )
    with pytest.raises(ValueError, match=r"1-sparsify\.pt\), .* got none in .* named r7"):
        make("threshold", folder, out=tmp_path, runs=["r7"], data=tiny_corpus)


@pytest.mark.parametrize(
    ("kind", "said"), [("threshold", "expected runs with a snapshot"), ("compare", "two methods")]
)
def test_what_cannot_be_made_is_said_where_asked_for(grid_of_two, tmp_path, kind, said) -> None:
    made = make(kind, grid_of_two[0], out=tmp_path / "out", runs=["r7"], strict=False)
    assert (
        made.figure is None
        and made.rows.empty
        and made.paths == []
        and not (tmp_path / "out").exists()
    )
    assert (
        len(made.sentences) == 1
        and made.sentences[0].startswith(f"No {kind} here: ")
        and said in made.sentences[0]
    )


def test_a_faulty_manifest_is_no_lack(tmp_path) -> None:
    (tmp_path / "r0.json").write_text("{")
    for kind in KINDS:
        with pytest.raises(ManifestError):
            make(kind, tmp_path, strict=False)


def test_a_scorer_that_no_run_has_is_lacking(grid_of_two, tiny_corpus):
    with pytest.raises(tables.Lacking, match="a scorer 'tst', got none; try one of test, valid"):
        folder = grid_of_two[0]
        threshold.scan(Request([folder], folder, scorer="tst", data=tiny_corpus))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda:99"}, r"expected a device that torch has here \(cpu.*got 'cuda:99'"),
        ({"at": [0.0, math.nan]}, "expected finite thresholds, got nan; try --at"),
        ({"at": [math.inf]}, "expected finite thresholds, got inf; try --at"),
    ],
)
def test_a_device_or_threshold_that_cannot_be_is_named(grid_of_two, tiny_corpus, options, said):
    with pytest.raises(ValueError, match=said):
        make("threshold", grid_of_two[0], data=tiny_corpus, **options)
