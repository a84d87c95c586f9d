"""A results page from scores.json files written by hand, its figures worked out by hand too."""

from pathlib import Path

import pandas as pd
import pytest
from scored_runs import fill, stage
from small import C, small

from cplxnet.auto import __main__, report
from cplxnet.auto.manifest import grid, read
from cplxnet.auto.manifest.read import parse
from cplxnet.auto.report import tables
from cplxnet.auto.report import text as page
from cplxnet.auto.runner.folder import RunFolder

# form, C, seed -> (zeros of 100, average precision before and after); dense is 0.40 and 0.44
LOSSES = {
    ("VD", 0.1, 0): (75, 0.30, 0.41),
    ("VD", 0.1, 1): (75, 0.32, 0.43),
    ("VD", 0.2, 0): (99, 0.20, 0.30),
    ("ARD", 0.1, 0): (50, 0.30, 0.39),
}


@pytest.fixture
def folder(tmp_path):
    axes = {
        grid.METHOD: ["complex.TwoLayerDenseVD", "complex.TwoLayerDenseARD"],
        C: [0.1, 0.2],
    }

    def label(values):
        form = values[grid.METHOD].removeprefix("complex.TwoLayerDense")
        return f"{form}-{values[C]}-{values['seed']}"

    manifests = grid.expand(small(), axes, replicates=2, label=label)
    grid.write(tmp_path, manifests)
    for (form, c, seed), (n_zero, before, after) in LOSSES.items():
        stages = {"dense": stage(0.44 if seed else 0.40), "sparsify": stage(before, n_zero=n_zero)}
        stages["fine-tune"] = stage(after, start=before, n_zero=n_zero)
        fill(tmp_path, f"{form}-{c}-{seed}", manifests[f"{form}-{c}-{seed}"], stages)
    name = "ARD-0.2-1"
    fill(tmp_path, name, manifests[name], {"dense": stage(0.44)}, state="running")
    return tmp_path


def test_each_group_has_means_and_losses_beside_its_own_dense_network(folder):
    found = page.groups(report.collect(folder)).set_index(["form", "C"])
    assert list(found.index) == [("ARD", 0.1), ("VD", 0.1), ("VD", 0.2)]
    row = found.loc[("VD", 0.1)]
    assert (row["n"], row["compression"], row["kept"]) == (2, 4.0, 25.0)
    assert row[["before", "after"]].tolist() == pytest.approx([0.31, 0.42])
    # 0.40 - 0.41 and 0.44 - 0.43: a gain and a loss, nothing on average
    assert row[["loss", "loss_low", "loss_high"]].tolist() == pytest.approx([0.0, -0.01, 0.01])
    assert found.loc[("VD", 0.2), "loss"] == pytest.approx(0.10)


def test_the_readings_of_a_report_keep_the_forms_apart(folder):
    dense, *others = report.readings(report.collect(folder))
    assert dense.startswith("Dense: average precision 0.420 on test")
    assert [text.partition(" times")[0] for text in others] == [
        "ARD, C = 0.1: 2",
        "VD, C = 0.1: 4",
        "VD, C = 0.2: 100",
    ]
    # of seed 0 alone, whose dense network has 0.40; the mean over both seeds is 0.42
    assert others[0].endswith("0.300 before and 0.390 after fine-tuning, 0.010 below dense.")


def test_the_page_says_what_is_known_and_what_is_not(folder, capsys):
    assert __main__.main(["page", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "| VD | 0.1 | 2 | 4 | 25 | 0.3100 | 0.4200 | 0.0000 | -0.0100 to 0.0100 |" in text
    assert "| ARD | 0.1 | 1 | 2 | 50 | 0.3000 | 0.3900 | 0.0100 | one only |" in text
    assert (
        "1. Dense: 100 real numbers, average precision 0.4000 and 0.4400 on test (0.050 would"
        in text
    )
    assert "so 2 replicates differ by 0.0400." in text
    assert "| form | C | replicates |" in text and "| below dense | range over seeds |" in text
    # of several methods the table has the groups, and no sentence repeats them
    assert " keeps " not in text and "\n2. " not in text
    assert "Not finished: 4 of 8 runs (ARD-0.1-1, ARD-0.2-0, ARD-0.2-1, VD-0.2-1)." in text
    assert "at times fewer" not in text  # no compression is spanned by both forms


def test_the_page_of_one_form_says_what_levels_cost(folder):
    for name in ("ARD-0.1-0", "ARD-0.1-1", "ARD-0.2-0", "ARD-0.2-1"):
        (folder / f"{name}.json").unlink()
    text = page.markdown(folder)
    assert (
        "3. VD at C = 0.2 keeps 1 of 100 real numbers, 100 times fewer: average precision 0.3000, "
        "0.1000 below" in text
    )
    assert (
        "VD at 50 times fewer: not known, its neighbours are far apart, at 4 and 100 times." in text
    )
    assert "VD at 200 times fewer: not known, what is finished spans 4 to 100 times." in text


@pytest.mark.parametrize(
    ("times", "losses", "said"),
    [
        # 50 lies at log(2)/log(4) = 1/2 of the way from 25 to 100 times
        (
            [25, 100],
            [0.0, 0.1],
            ", between its neighbours in the table: 0.0500 below dense, beyond",
        ),
        ([10, 51.6], [0.0, 0.03], ", as at 51.6 times: 0.0300 below dense, not beyond the 0.0400"),
        ([46, 46, 500], [0.0, -0.02, 0.3], ", as at 46 times: 0.0100 above dense."),
        ([10, 60], [0.0, 0.1], ": not known, its neighbours are far apart, at 10 and 60 times."),
        ([10, 40], [0.0, 0.1], ": not known, what is finished spans 10 to 40 times."),
        ([10, 10], [0.0, 0.1], ": not known, what is finished is at 10 times."),
    ],
)
def test_a_cost_is_read_between_neighbours_or_near_a_group(times, losses, said):
    rows = pd.DataFrame({"compression": [float(t) for t in times], "loss": losses})
    sentence = page._cost_at("At 50 times", 50.0, rows, pd.Series([0.40, 0.44]))
    assert sentence.startswith(f"At 50 times{said}")


def test_the_page_of_several_forms_ranks_them(folder):
    manifest = read.load(folder / "ARD-0.2-0.json")
    stages = {"dense": stage(0.40), "sparsify": stage(0.3, n_zero=99)}
    fill(folder, "ARD-0.2-0", manifest, stages | {"fine-tune": stage(0.35, start=0.3, n_zero=99)})

    text = page.markdown(folder)
    # seed 0: ARD goes from 0.39 at 2 times to 0.35 at 100, VD from 0.41 at 4 times to 0.30
    assert "| below the best | range over seeds | pairs |" in text
    assert "| 100 | ARD | 0.3500 | the best | the best | 1 |" in text
    assert "| 100 | VD | 0.3000 | 0.0500 | 0.0500 to 0.0500 | 1 |" in text
    assert (
        "At 100 times fewer ARD has the highest mean; in the one pair above VD (+0.0500, "
        "1 pair)." in text
    )
    assert "between its neighbours" not in text and "\n| 50 |" not in text


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("threshold", 0.25, "threshold=0.25"),
        ("stages.dense.n_epochs", 1, "dense n_epochs=1"),
        ("objective_terms.kl_div.coef", 2e-5, "objective_terms.kl_div.coef=2e-05"),
        ("datasets.test.file", "other.h5", "datasets.test.file=other.h5"),
    ],
)
def test_an_edited_run_is_never_averaged_with_the_others(folder, path, value, said):
    before = page.groups(report.collect(folder)).set_index(["form", "C"])
    edited = grid.edit(grid.read(folder)["VD-0.1-0"], {path: value, "seed": 1})
    grid.write(folder, {"edited": edited})
    stages = {"dense": stage(0.2), "sparsify": stage(0.1, n_zero=10)}
    stages["fine-tune"] = stage(0.19, start=0.1, n_zero=10)
    fill(folder, "edited", edited, stages)

    found = page.groups(report.collect(folder))
    own = found[found["form"].str.contains("=") & (found["after"] == 0.19)]
    assert len(own) == 1 and own["n"].item() == 1
    assert own["form"].item() == f"VD {said}"
    # what is not edited, which most runs are not, keeps its name and its numbers
    others = found.drop(own.index)
    pd.testing.assert_frame_equal(others.set_index(["form", "C"]), before, check_index_type=False)

    dense = [text for text in report.readings(report.collect(folder)) if text.startswith("Dense")]
    scores = sorted(text.partition(" on ")[0][-5:] for text in dense)
    assert scores == ["0.200", "0.420"]  # VD and ARD begin with the same networks
    table = report.collect(folder)
    assert not set(table[table["run"] == "edited"]["method"]) & set(
        table[table["run"] != "edited"]["method"]
    )


def test_a_default_that_is_spelt_out_makes_no_other_method(folder):
    before = page.groups(report.collect(folder))
    manifest = grid.read(folder)["VD-0.1-1"]
    assert "products" not in manifest.to_dict()
    grid.write(folder, {"VD-0.1-1": grid.edit(manifest, {"products": "float32"})}, overwrite=True)
    pd.testing.assert_frame_equal(page.groups(report.collect(folder)), before)


def test_whole_folders_that_differ_are_called_by_their_names(folder, tmp_path):
    more = {"stages.fine-tune.n_epochs": 9}
    longer = {name: grid.edit(m, more) for name, m in grid.read(folder).items()}
    grid.write(tmp_path / "longer", longer)
    name = "VD-0.1-0"
    stages = {"dense": stage(0.4), "sparsify": stage(0.3, n_zero=75)}
    fill(tmp_path / "longer", name, longer[name], stages)
    methods = report.collect(folder, tmp_path / "longer")["method"]
    assert set(methods) == {f"{folder.name} ARD", f"{folder.name} VD", "longer VD"}


def test_a_grid_that_is_not_started_has_no_figures(tmp_path):
    grid.write(tmp_path, {"one": small()})
    assert page.markdown(tmp_path) == "Not finished: 1 of 1 runs (one).\n"
    assert page.groups(report.collect(tmp_path)).empty


def test_results_go_between_the_marks_and_nowhere_else(folder, tmp_path, capsys):
    path, begin = tmp_path / "results.md", page.BEGIN.format(folder=folder.as_posix())
    path.write_text(f"# Results\n\n{begin}\nold\n{page.END}\n\nAfter.\n")
    for _ in range(2):  # the second time it replaces itself
        assert __main__.main(["page", str(folder), "--into", str(path)]) == 0
        assert (
            path.read_text()
            == f"# Results\n\n{begin}\n\n{page.markdown(folder)}\n{page.END}\n\nAfter.\n"
        )
    written = path.read_text()
    assert __main__.main(["page", str(folder), "--into", str(path), "--scorer", "tset"]) == 2
    assert (
        "expected runs scored by 'tset', got none (scorers: test, validation)"
        in capsys.readouterr().err
    )
    assert path.read_text() == written  # it was emptied
    path.write_text("# Results\n")
    assert __main__.main(["page", str(folder), "--into", str(path)]) == 2
    assert "expected the lines" in capsys.readouterr().err and path.read_text() == "# Results\n"
    path.write_bytes(b"\xff\n")
    assert __main__.main(["page", str(folder), "--into", str(path)]) == 2
    assert f"{path}: expected text in UTF-8, got invalid" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reference", "structured"])
def test_a_committed_page_is_what_its_runs_say(tmp_path, monkeypatch, name):
    root = Path(__file__).resolve().parents[3]
    monkeypatch.chdir(root)
    committed = (root / "extra" / "reference.md").read_text()
    copy = tmp_path / "page.md"
    copy.write_text(committed)
    page.insert(copy, f"runs/{name}")
    assert copy.read_text() == committed and page.markdown(f"runs/{name}") in committed


def renamed(manifest, stages, scorer):
    """A manifest whose stages and second scorer have other names."""
    raw = manifest.to_dict()
    raw["stages"] = dict(zip(stages, raw["stages"].values(), strict=True))
    raw["stage_order"] = stages
    raw["scorers"] = {"validation": raw["scorers"]["validation"], scorer: raw["scorers"]["test"]}
    return parse(raw)


@pytest.mark.parametrize(
    ("stages", "scorer", "said"),
    [
        (["whole", "thin", "polish"], "test", "Without stages called dense and fine-tune, so"),
        (["dense", "sparsify", "fine-tune"], "unseen", "Not scored by 'test', so left out: "),
    ],
)
def test_runs_with_other_names_are_named_and_the_others_reported(
    folder, tmp_path, capsys, stages, scorer, said
):
    before = report.readings(report.collect(folder))
    manifest = renamed(small({"seed": 7}), stages, scorer)
    grid.write(folder, {"other": manifest})
    result = stage(0.5)
    result["scores"][scorer] = result["scores"].pop("test")
    fill(folder, "other", manifest, dict.fromkeys(stages, result))

    *others, last = report.readings(report.collect(folder))
    assert others == before and last.startswith(said) and "other" in last
    assert last in page.markdown(folder)
    for name in ("VD-0.1-0", "VD-0.1-1", "VD-0.2-0", "ARD-0.1-0", "ARD-0.2-1"):
        (folder / f"{name}.json").unlink()  # until there are no others
    assert report.readings(report.collect(folder)) == [last]
    assert __main__.main(["report", str(folder)]) == 0
    assert __main__.main(["page", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.count(last) == 2 and "Empty DataFrame" not in out


def test_other_names_of_stages_are_said_once(tmp_path):
    """They were said by each of their keys: "VD whole no whole thin no thin ... dense dense"."""
    stages = ["whole", "thin", "polish"]
    others = {f"o{k}": renamed(small({"seed": k}), stages, "test") for k in (1, 2)}
    grid.write(tmp_path, others | {f"r{k}": small({"seed": k}) for k in range(5)})
    methods = {run.name: run.method for run in tables.every_run([tmp_path])}
    assert {methods[f"r{k}"] for k in range(5)} == {"VD"}
    assert methods["o1"] == methods["o2"] == "VD stage_order=whole,thin,polish"

    longer = renamed(small({"stages.fine-tune.n_epochs": 9}), stages, "test")
    grid.write(tmp_path, {"o3": longer})
    methods = {run.name: run.method for run in tables.every_run([tmp_path])}
    assert methods["o3"] != methods["o1"] and methods["o3"].startswith("VD stage_order=whole")


def test_names_are_text_on_the_page(folder):
    table = report.collect(folder)
    rows = page.groups(table).assign(form="a|b <i>")
    assert [line.partition(" | 0")[0] for line in page._markdown_table(rows)][2:] == [
        r"| a\|b &lt;i&gt;"
    ] * len(rows)


def test_a_score_that_is_no_number_is_named_and_a_gap_is_called_none(folder):
    """A null left the mean without a word; "nan before" stood for what was never scored."""
    files = RunFolder(folder / "VD-0.1-1")
    scores = files.scores
    scores["stages"]["fine-tune"]["scores"]["test"]["end"]["average_precision"] = None
    files.write_scores(scores)
    files = RunFolder(folder / "VD-0.2-0")
    scores = files.scores
    scores["stages"]["fine-tune"]["scores"]["test"]["start"] = None
    scores["stages"]["dense"]["scores"]["test"]["end"]["average_precision"] = None
    files.write_scores(scores)

    said = [
        "Without an average precision on 'test' after dense, so not compared with it: VD-0.2-0.",
        "Without an average precision on 'test' after fine-tune, so left out: VD-0.1-1.",
    ]
    *_, group, first, second = report.readings(report.collect(folder))
    assert [first, second] == said
    assert group.endswith(
        "100 times fewer real numbers, average precision 0.300 after fine-tuning."
    )
    written = page.markdown(folder)
    assert all(sentence in written for sentence in said) and "nan" not in written
    assert "| VD | 0.2 | 1 | 100 | 1 | none | 0.3000 | none | one only |" in written


def test_readings_say_what_the_table_says(table: pd.DataFrame) -> None:
    dense, low, high = report.readings(table)
    assert (
        dense
        == "Dense: average precision 0.910 on test (0.030 would be chance), 1,000 real numbers."
    )
    assert low == (
        "VD, C = 0.01: 11 times fewer real numbers, average precision 0.870 before and 0.920 after "
        "fine-tuning, 0.010 above dense."
    )
    assert high.startswith("VD, C = 0.1: 125 times fewer") and high.endswith("0.090 below dense.")
    assert report.readings(table[:0]) == []
