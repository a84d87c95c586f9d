"""Tables from scores.json files written by hand."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text
from scored_runs import fill, stage
from small import C, small

from cplxnet.auto import report
from cplxnet.auto.__main__ import main
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import Manifest, ManifestError
from cplxnet.auto.report import tables
from cplxnet.auto.runner.folder import RunFolder

COLUMNS = [
    "folder",
    "run",
    "method",
    C,
    "setting",
    "seed",
    "state",
    "stage",
    "scorer",
    "scored_on",
    "average_precision",
    "average_precision_trabelsi2018",
    "positive_share",
    "n_windows",
    "average_precision_start",
    "n_par",
    "n_zero",
    "compression",
    "epochs",
    "n_epochs",
    "stopped_early",
    "seconds",
    "reused_from",
]


@pytest.fixture
def folder(tmp_path):
    """Two values of C and two seeds: three whole runs, one under way, one cut off, one queued."""
    manifests = grid.expand(
        small(), {C: [0.1, 0.2, 0.3]}, replicates=2, label=lambda v: f"c{v[C]}-r{v['seed']}"
    )
    grid.write(tmp_path, manifests)
    for c, seed, ap, n_zero in ((0.1, 0, 0.30, 50), (0.1, 1, 0.36, 75), (0.2, 0, 0.20, 90)):
        name = f"c{c}-r{seed}"
        dense = stage(0.4, reused_from=None if (c, seed) != (0.2, 0) else "c0.1-r0")
        stages = {"dense": dense, "sparsify": stage(ap - 0.1, n_zero=n_zero)}
        stages["fine-tune"] = stage(ap, start=ap - 0.15, n_zero=n_zero)
        fill(tmp_path, name, manifests[name], stages)
    fill(tmp_path, "c0.2-r1", manifests["c0.2-r1"], {"dense": stage(0.44)}, state="running")
    RunFolder(tmp_path / "c0.3-r0").start(manifests["c0.3-r0"], "cpu")
    return tmp_path


def test_a_row_per_run_stage_and_scorer(folder):
    table = report.collect(folder)
    assert set(table.columns) == set(COLUMNS)
    assert len(table) == 3 * 3 * 2 + 2
    assert set(table["run"]) == {
        "c0.1-r0",
        "c0.1-r1",
        "c0.2-r0",
        "c0.2-r1",
    }  # others have no scores yet
    row = table[
        (table["run"] == "c0.1-r1") & (table["stage"] == "fine-tune") & (table["scorer"] == "test")
    ].iloc[0]
    assert (row[C], row["seed"], row["state"]) == (0.1, 1, "done")
    assert row["average_precision"] == 0.36 and row["average_precision_start"] == pytest.approx(
        0.21
    )
    assert (row["n_par"], row["n_zero"], row["compression"]) == (100, 75, 4.0)
    validation = table[
        (table["run"] == "c0.1-r1")
        & (table["stage"] == "fine-tune")
        & (table["scorer"] == "validation")
    ]
    assert validation["average_precision"].item() == 0.72
    assert table[table["stage"] == "dense"]["average_precision_start"].isna().all()
    assert set(table[table["run"] == "c0.2-r1"]["stage"]) == {"dense"}
    assert table[table["run"] == "c0.2-r0"]["reused_from"].dropna().tolist() == ["c0.1-r0"] * 2


def test_no_runs_at_all_is_an_empty_table(tmp_path):
    grid.write(tmp_path, {"one": small()})
    assert report.collect(tmp_path).empty and report.layers(tmp_path).empty
    assert report.summary(report.collect(tmp_path)).empty


def test_scores_of_a_manifest_that_has_changed_since_are_left_out(folder):
    changed = grid.edit(grid.read(folder)["c0.1-r0"], {"stages.sparsify.n_epochs": 9})
    grid.write(folder, {"c0.1-r0": changed}, overwrite=True)
    assert "c0.1-r0" not in set(report.collect(folder)["run"])
    assert "c0.1-r0" not in set(report.layers(folder)["run"])


def test_a_changed_or_broken_manifest_is_said_everywhere(folder, capsys):
    changed = grid.edit(grid.read(folder)["c0.1-r0"], {"stages.sparsify.n_epochs": 9})
    grid.write(folder, {"c0.1-r0": changed}, overwrite=True)
    row = report.status(folder).loc["c0.1-r0"]
    assert row["state"] == "changed" and "its manifest has changed" in row["reason"]
    assert set(report.status(folder).drop("c0.1-r0")["state"]) == {
        *("done", "running", "interrupted", "queued")
    }
    report.collect(folder)
    said = capsys.readouterr().err
    assert said.startswith("c0.1-r0 is left out: ") and "stages.sparsify.n_epochs" in said
    assert "c0.1-r0 (its manifest has changed" in report.missing([folder])[0]

    (folder / "c0.1-r1.json").write_text('{"schema": 1}')
    row = report.status(folder).loc["c0.1-r1"]
    assert row["state"] == "broken" and "c0.1-r1.json" in row["reason"]
    assert "datasets" in row["reason"]
    (folder / "c0.1-r1.json").write_text("[" * 100_000)
    row = report.status(folder).loc["c0.1-r1"]
    assert row["state"] == "broken" and "nested too deeply" in row["reason"]


def test_a_network_with_nothing_left_has_no_finite_compression(folder):
    manifest = grid.read(folder)["c0.3-r0"]
    fill(folder, "c0.3-r0", manifest, {"sparsify": stage(0.05, n_zero=100)})
    table = report.collect(folder)
    assert table[table["run"] == "c0.3-r0"]["compression"].isna().all()


def test_layers_have_their_own_sparsity(folder):
    table = report.layers(folder)
    assert len(table) == 3 * 3 * 2 + 2
    row = table[(table["run"] == "c0.2-r0") & (table["stage"] == "sparsify")].set_index("layer")
    assert row["sparsity"].tolist() == [18 / 20, 72 / 80]
    assert row.loc["fc1", C] == 0.2 and row.loc["fc2", "n_zero"] == 72


def test_status_has_a_row_per_manifest(folder):
    table = report.status(folder)
    assert table["state"].to_dict() == {
        "c0.1-r0": "done",
        "c0.1-r1": "done",
        "c0.2-r0": "done",
        "c0.2-r1": "running",
        "c0.3-r0": "interrupted",
        "c0.3-r1": "queued",
    }
    columns = ["state", "stage", "epoch", "n_epochs", "validation", "left", "owner", "reason"]
    assert list(table.columns) == columns and table.index.name == "run"
    assert (
        "process is gone" in table.loc["c0.3-r0", "reason"]
    )  # marked as running, claimed by nobody


def test_summary_is_short(folder):
    table = report.summary(report.collect(folder))
    assert list(table.columns) == [
        "run",
        "stage",
        "AP",
        "AP before",
        "compression",
        "epochs",
        "seconds",
    ]
    assert len(table) == 3 * 3 + 1
    assert isinstance(table, pd.DataFrame) and table["AP"].iloc[0] == 0.4


def test_faults_are_named(tmp_path, folder):
    with pytest.raises(
        FileNotFoundError, match="none: expected a folder of manifests, got nothing there"
    ):
        report.collect(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="none: expected a folder"):
        report.status(tmp_path / "none")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "extra.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"extra\.json"):
        report.collect(tmp_path / "broken")


def spoil(path, change):
    """Change the JSON values in a file."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


INCOMPLETE = {
    "no manifest": lambda scores: scores.pop("manifest"),
    "no counts": lambda scores: scores["stages"]["sparsify"].pop("n_par"),
    "no layers": lambda scores: scores["stages"]["dense"].pop("layers"),
    "no end": lambda scores: scores["stages"]["dense"]["scores"]["test"].pop("end"),
    "no start": lambda scores: scores["stages"]["dense"]["scores"]["test"].pop("start"),
    "words": lambda scores: scores["stages"]["dense"].update(n_par="many"),
    "a score in words": lambda scores: scores["stages"]["fine-tune"]["scores"]["test"][
        "start"
    ].update(average_precision="high"),
    "a list of layers": lambda scores: scores["stages"]["dense"].update(layers=[1]),
    "a list of scores": lambda scores: scores["stages"]["dense"].update(scores=[1]),
    "a number for an end": lambda scores: scores["stages"]["dense"]["scores"]["test"].update(end=1),
    "half an end": lambda scores: scores["stages"]["dense"]["scores"]["test"]["end"].pop(
        "average_precision"
    ),
    "another score in words": lambda scores: scores["stages"]["dense"]["scores"]["test"][
        "end"
    ].update(n_windows="many"),
    "a stage of another manifest": lambda scores: scores["stages"].update(last={"scores": {}}),
}


@pytest.mark.parametrize("change", INCOMPLETE.values(), ids=INCOMPLETE)
def test_a_run_with_incomplete_scores_is_named_and_the_others_are_there(folder, change, capsys):
    whole = report.collect(folder)
    spoil(folder / "c0.1-r0" / "scores.json", change)
    assert report.collect(folder).equals(whole[whole["run"] != "c0.1-r0"].reset_index(drop=True))
    said = capsys.readouterr().err
    assert said.startswith("c0.1-r0 is left out: ") and "scores.json: expected" in said


def test_a_new_score_is_a_column_and_runs_from_before_it_are_there(folder, capsys):
    """All committed results were left out as soon as a score had one more name."""
    whole = report.collect(folder)

    def tested(scores):
        return scores["stages"]["dense"]["scores"]["test"]["end"]

    spoil(folder / "c0.1-r0" / "scores.json", lambda scores: tested(scores).update(f1=0.25))
    lacking = ("average_precision_trabelsi2018", "n_windows", "positive_share")
    for name in lacking:
        spoil(
            folder / "c0.1-r1" / "scores.json", lambda scores, name=name: tested(scores).pop(name)
        )
    table = report.collect(folder)
    assert capsys.readouterr().err == "" and list(table.drop(columns="f1")) == list(whole)

    dense = table[(table["stage"] == "dense") & (table["scorer"] == "test")].set_index("run")
    assert dense["f1"].dropna().to_dict() == {"c0.1-r0": 0.25}
    assert dense.loc["c0.1-r1", list(lacking)].isna().all()
    chance = tables.by_run(tables.of_scorer(table, "test")).set_index("run")["chance"]
    assert chance.dropna().to_dict() == {"c0.1-r0": 0.05, "c0.2-r0": 0.05, "c0.2-r1": 0.05}


def test_a_task_without_a_share_of_positives_has_no_chance(folder, capsys):
    for path in folder.glob("*/scores.json"):
        text = path.read_text()
        path.write_text(text.replace('"positive_share"', '"n_classes"'))
        assert path.read_text() != text
    assert main(["report", str(folder)]) == 0 and main(["page", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert " on test, 100 real numbers." in shown
    assert "chance" not in shown and "nan" not in shown
    of_run = report.of_run(json.loads((folder / "c0.1-r0" / "scores.json").read_text()))
    assert of_run["positive share"].isna().all()


def test_a_broken_manifest_is_named_and_the_others_are_there(folder, capsys):
    whole = report.collect(folder)
    (folder / "c0.1-r0.json").write_text("{}")
    assert report.collect(folder).equals(whole[whole["run"] != "c0.1-r0"].reset_index(drop=True))
    assert capsys.readouterr().err.startswith("c0.1-r0 is left out: ")
    assert "| VD | 0.1 | 1 | 4 |" in report.page.markdown(folder)
    assert "Not finished: 4 of 6 runs (c0.1-r0, " in report.page.markdown(folder)


def test_what_is_switched_off_is_not_averaged_with_what_is_inherited(tmp_path):
    early = {"scorer": "validation", "patience": 3}
    base = grid.edit(small({C: 0.1}), {"stages.dense.early": early})
    inherits = base.to_dict()
    inherits["stages"]["fine-tune"].pop("early", None)
    off = grid.edit(base, {"stages.fine-tune.early": None})
    manifests = {"inherits": Manifest.model_validate(inherits), "off": off}
    grid.write(tmp_path, manifests)
    methods = {run.name: run.method for run in tables.every_run([tmp_path])}
    assert methods == {
        "inherits": "VD fine-tune early",
        "off": "VD",
    }


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_damaged_scores_stop_neither_report_nor_page(folder, text, capsys):
    (folder / "c0.1-r0" / "scores.json").write_text(text)
    assert "| VD | 0.1 | 1 | 4 |" in report.page.markdown(folder)
    assert len(report.layers(folder)) == 2 * 3 * 2 + 2
    assert main(["report", str(folder)]) == 0
    assert main(["page", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "c0.1-r0 is left out: " in shown.err and "VD, C = 0.1: 4 times fewer" in shown.out


def test_a_run_whose_folder_cannot_be_read_is_damaged(folder):
    shutil.rmtree(folder / "c0.1-r1")
    (folder / "c0.1-r1").write_text("no folder")
    table = report.status(folder)
    assert table["state"]["c0.1-r1"] == "damaged" and table["state"]["c0.1-r0"] == "done"
    assert set(report.collect(folder)["run"]) == {"c0.1-r0", "c0.2-r0", "c0.2-r1"}


def test_a_damaged_status_keeps_its_scores_in_the_table(folder):
    (folder / "c0.1-r0" / "status.json").write_text("{")
    states = report.collect(folder).set_index("run")["state"]
    assert set(states["c0.1-r0"]) == {"damaged"} and set(states["c0.1-r1"]) == {"done"}


def test_status_of_results_kept_without_status_files_has_their_last_stage(folder):
    (folder / "c0.1-r0" / "status.json").unlink()
    row = report.status(folder).loc["c0.1-r0"]
    assert row[["state", "stage", "epoch", "n_epochs"]].tolist() == ["done", "fine-tune", 2, 2]


def test_the_reference_grid_is_shown_as_done():
    table = report.status(Path(__file__).parents[3] / "runs" / "reference")
    assert len(table) == 12 and set(table["state"]) == {"done"}
    counts = table.groupby(["state", "stage"]).size()  # what the notebook shows; leaves None out
    assert counts.to_dict() == {("done", "fine-tune"): 12}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"state": "asleep"}',
        '{"state": "running", "owner": 3}',
        '{"state": "failed", "epoch": 2.5}',
        '{"state": "failed", "n_epochs": "x"}',
    ],
)
def test_status_of_a_damaged_run_is_a_row_that_says_so(folder, text):
    (folder / "c0.1-r0" / "status.json").write_text(text)
    table = report.status(folder)
    assert table["state"]["c0.1-r0"] == "damaged" and table["reason"]["c0.1-r0"]
    assert table["state"]["c0.1-r1"] == "done"


def test_a_grid_whose_kl_term_has_another_name_lacks_what_is_drawn_over_c(folder, tmp_path, capsys):
    other = tmp_path / "other"
    for name, manifest in grid.read(folder).items():
        if name.startswith("c0.1"):
            renamed = json.loads(manifest.to_json().replace("kl_div", "divergence"))
            grid.write(other, {name: Manifest.model_validate(renamed)})
            scores = json.loads((folder / name / "scores.json").read_text())
            fill(other, name, Manifest.model_validate(renamed), scores["stages"])

    assert main(["report", str(other)]) == 0
    assert "VD: 3 times fewer" in capsys.readouterr().out
    page = report.page.markdown(other)
    assert "| VD | none | 2 |" in page and "VD keeps " in page and "nan" not in page
    for kind in report.KINDS:
        made = report.make(kind, other, out=tmp_path / "figures", strict=False)
        lacks = "expected runs with a weight at stages.sparsify.objective.kl_div, got none"
        assert (kind in ("c-profile", "layers")) == (lacks in " ".join(made.sentences)), kind


RATES = {  # of the committed grid `runs/rates`
    "c1e-01-tune2e-03": "VD fine-tune lr=0.002 shrink=False",
    "c1e-01-tune8e-03": "VD fine-tune lr=0.008",
    "c1e-01-tune8e-03-taught": "VD fine-tune lr=0.008 distill temperature=2",
    "c1e-01-tune8e-03-taught-T4": "VD fine-tune lr=0.008 distill temperature=4",
}


def test_methods_are_called_by_what_sparsifies_and_what_differs_and_by_no_more(tmp_path):
    root = Path(__file__).parents[3] / "runs"
    methods = {run.name: run.method for run in tables.every_run([root / "rates"])}
    assert methods.items() >= RATES.items() and len(set(methods.values())) == 7
    assert {run.method for run in tables.every_run([root / "reference"])} == {"VD"}

    settled = grid.settled((0.02, 0.4), l0_values=(2.0,), sparsities=(0.98, 0.9945), replicates=1)
    grid.write(tmp_path, settled)
    runs = {run.name: (run.method, run.columns["setting"]) for run in tables.every_run([tmp_path])}
    assert (
        runs.items()
        >= {
            "vd-c2e-02-r0": ("complex VD", "C = 0.02"),
            "l0-c2e+00-r0": ("complex L0", "C = 2"),
            "gradual-by-layer-s0.98-r0": ("complex gradual by layer", "sparsity = 0.98"),
            "one-shot-s0.9945-r0": ("complex one-shot", "sparsity = 0.9945"),
            "random-c4e-01-r0": ("complex random", "C = 0.4"),
            "real-same-cost-c2e-01-r0": ("real VD width=1.38", "C = 0.2"),
            "real-moduli-c1e-01-r0": ("real VD features.cplx=False width=1.257", "C = 0.1"),
            "random-phase-c1e-01-r0": ("complex VD features.kind=fft-random-phase", "C = 0.1"),
        }.items()
    )


def test_the_sparsity_of_a_pruner_is_never_called_c(tmp_path):
    pruned = {
        "stages.sparsify.model.name": "complex.TwoLayerDenseMasked",
        "stages.sparsify.objective": {"loss": 1.0},
    }
    manifests = {"vd": small({C: 0.02})}
    for sparsity in (0.5, 0.75):
        pruner = {"name": "one-shot", "sparsity": sparsity}
        changes = pruned | {"stages.sparsify.pruner": pruner}
        manifests[f"s{sparsity}"] = grid.edit(small(), changes)
    grid.write(tmp_path, manifests)
    for name, n_zero in {"vd": 60, "s0.5": 50, "s0.75": 75}.items():
        stages = {"dense": stage(0.4), "sparsify": stage(0.3, n_zero=n_zero)}
        stages["fine-tune"] = stage(0.35, start=0.3, n_zero=n_zero)
        fill(tmp_path, name, manifests[name], stages)

    table = report.collect(tmp_path)
    assert table.set_index("run")[C].drop("vd").isna().all()
    page = report.page.markdown(tmp_path)
    assert "| one-shot | sparsity = 0.75 | 1 |" in page and "| VD | 0.02 | 1 |" in page
    assert "| form | C or sparsity | replicates |" in page and "C = 0.75" not in page
    for kind in ("trade-off", "layers", "c-profile", "stopping", "compare"):
        made = report.make(kind, tmp_path, out=tmp_path / "figures", strict=False)
        texts = [*made.sentences, *map(str, made.figure.findobj(Text) if made.figure else [])]
        assert not any("C = 0.75" in text or "C = 0.5" in text for text in texts), kind
    assert "Without a C, so left out: one-shot." in report.make("c-profile", tmp_path).sentences
