"""The same experiment again, or what is left of it, gives the same bits; and only what is needed is
trained.
"""

import contextlib
import errno
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import (
    SNAPSHOTS,
    STAGES,
    C,
    assert_same_results,
    cut_off,
    equal,
    quick,
    read,
    small,
    snapshot,
    timeless,
)

from cplxnet import files
from cplxnet.auto import edit, load, run
from cplxnet.auto.__main__ import main
from cplxnet.auto.manifest.read import parse
from cplxnet.auto.runner import lock, stages
from cplxnet.auto.runner.components import Components
from cplxnet.auto.runner.folder import ManifestChanged, RunFolder


def test_the_same_manifest_gives_the_same_bits(done, tiny_corpus, tmp_path):
    torch.manual_seed(99)  # what was drawn before a run does not matter
    quick(small(), tmp_path / "two", tiny_corpus)
    assert_same_results(done, tmp_path / "two")


def test_another_seed_gives_other_scores(done, tiny_corpus, tmp_path):
    quick(small({"seed": 1}), tmp_path / "two", tiny_corpus)
    one, two = read(done)["stages"], read(tmp_path / "two")["stages"]
    for name in STAGES:
        ends = [stages[name]["scores"]["test"]["end"]["average_precision"] for stages in (one, two)]
        assert ends[0] != ends[1]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("options", [{}, {"device": "no such device"}, {"accept_changes": True}])
def test_a_finished_run_returns_its_scores_without_data_or_device(
    done, tmp_path, epochs, monkeypatch, capsys, options
):
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    before = files_of(done)
    assert run(small(), done, data=tmp_path / "no data", **options) == read(done)
    assert epochs.n == 0 and files_of(done) == before
    assert re.search(r"^one: read, trained on \d{4}-\d\d-\d\d$", capsys.readouterr().err, re.M)


def test_results_kept_without_snapshots_and_status_are_done_too(done, tmp_path):
    """As in the committed `runs/reference`."""
    for name in ("config.json", "scores.json", "history.jsonl"):
        shutil.copy(done / name, tmp_path / name)
    assert quick(small(), tmp_path, tmp_path / "no data") == read(done)
    assert sorted(files_of(tmp_path)) == ["config.json", "history.jsonl", "scores.json"]


def test_a_run_without_its_config_goes_on_beside_other_json(done, tiny_corpus, tmp_path, epochs):
    """A damaged config.json is to be deleted, and what is exported may lie in the run's folder."""
    folder = shutil.copytree(done, tmp_path / "two")
    (folder / "config.json").unlink()
    (folder / "exported.json").write_text("{}")
    assert quick(small(), folder, tiny_corpus, again=True) == read(done)
    assert epochs.n == 0


def test_a_finished_run_looked_at_again_is_not_trained_again(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    assert quick(small(), folder, tiny_corpus, again=True) == read(folder) == read(done)
    assert epochs.n == 0
    assert (folder / "history.jsonl").read_bytes() == (done / "history.jsonl").read_bytes()
    before, after = read(done, "status"), read(folder, "status")
    where = ("state", "stage", "epoch", "n_epochs", "validation")  # what `status` shows of it
    assert [after[key] for key in where] == [before[key] for key in where] and after[
        "stage"
    ] == "fine-tune"


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_going_on_from_a_stage_gives_the_same_bits(done, tiny_corpus, tmp_path, epochs, lost):
    folder = shutil.copytree(done, tmp_path / "two")
    for name in SNAPSHOTS[lost:]:
        (folder / name).unlink()
    quick(small(), folder, tiny_corpus, again=True)
    assert epochs.n == 2 * (3 - lost)
    assert_same_results(done, folder)
    assert [line["epoch"] for line in RunFolder(folder).history] == [0, 1] * 3


def test_a_changed_setting_trains_from_its_stage_on(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    quick(small({C: 0.7}), folder, tiny_corpus, accept_changes=True)
    assert epochs.n == 4  # sparsify and fine-tune
    assert equal(snapshot(done, "0-dense.pt"), snapshot(folder, "0-dense.pt"))
    assert not equal(*(snapshot(path, "1-sparsify.pt")["model"] for path in (done, folder)))


def test_a_snapshot_of_another_experiment_is_not_taken(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    shutil.copy(folder / "1-sparsify.pt", folder / "0-dense.pt")
    quick(small(), folder, tiny_corpus, again=True)
    assert epochs.n == 2
    assert_same_results(done, folder)


def test_reuse_trains_a_shared_stage_once_and_changes_no_bit(done, tiny_corpus, tmp_path, epochs):
    other = small({C: 0.7, "name": "other"})
    quick(other, tmp_path / "alone", tiny_corpus)
    assert epochs.n == 6
    quick(other, tmp_path / "reusing", tiny_corpus, reuse=[tmp_path / "absent", done])
    assert epochs.n == 6 + 4
    assert_same_results(tmp_path / "alone", tmp_path / "reusing")
    reused = {
        name: stage["reused_from"] for name, stage in read(tmp_path / "reusing")["stages"].items()
    }
    assert reused == {"dense": "one", "sparsify": None, "fine-tune": None}
    assert len(RunFolder(tmp_path / "reusing").history) == 6


def test_a_stage_after_one_of_another_name_is_another(done, tiny_corpus, tmp_path, epochs):
    """Equal settings under another name draw other random numbers."""
    raw = small().to_dict()
    raw["stages"] = {"warm-up": raw["stages"].pop("dense"), **raw["stages"]}
    other = parse(raw | {"stage_order": ["warm-up", "sparsify", "fine-tune"]})
    quick(other, tmp_path / "alone", tiny_corpus)
    quick(other, tmp_path / "reusing", tiny_corpus, reuse=[done])
    assert epochs.n == 6 + 6
    assert timeless(read(tmp_path / "alone")) == timeless(read(tmp_path / "reusing"))


def test_a_snapshot_without_the_state_that_a_stage_goes_on_with_is_not_taken(
    done, tiny_corpus, tmp_path, epochs
):
    on = small({"stages.fine-tune.restart": False})
    quick(on, tmp_path / "alone", tiny_corpus)
    quick(on, tmp_path / "reusing", tiny_corpus, reuse=[done])
    assert epochs.n == 6 + 4 and snapshot(tmp_path / "reusing", "1-sparsify.pt")["optimizer"]
    assert_same_results(tmp_path / "alone", tmp_path / "reusing")
    reused = {
        name: stage["reused_from"] for name, stage in read(tmp_path / "reusing")["stages"].items()
    }
    assert reused == {"dense": "one", "sparsify": None, "fine-tune": None}
    quick(
        small(), tmp_path / "back", tiny_corpus, reuse=[tmp_path / "alone"]
    )  # which has more than this one needs
    assert epochs.n == 6 + 4 + 2
    assert timeless(read(tmp_path / "back")) == timeless(read(done))


@pytest.mark.parametrize(
    ("damaged", "n_epochs"),
    [("scores.json", 4), ("0-dense.pt", 4), ("history.jsonl", 2)],  # the last is in the snapshot
)
def test_a_damaged_folder_to_reuse_from_is_passed_over(
    done, tiny_corpus, tmp_path, epochs, damaged, n_epochs
):
    bad = shutil.copytree(done, tmp_path / "bad")
    (bad / damaged).write_bytes((bad / damaged).read_bytes()[:100])
    quick(
        small({f"stages.{name}.n_epochs": 1 for name in STAGES[1:]}),
        tmp_path / "two",
        tiny_corpus,
        reuse=[bad],
    )
    assert epochs.n == n_epochs and read(tmp_path / "two", "status")["state"] == "done"
    assert len(RunFolder(tmp_path / "two").history) == 4


def test_a_folder_to_reuse_from_that_cannot_be_read_is_passed_over(
    done, tiny_corpus, tmp_path, epochs
):
    bad = shutil.copytree(done, tmp_path / "bad")
    (bad / "scores.json").unlink()
    (bad / "scores.json").mkdir()
    quick(small(), tmp_path / "two", tiny_corpus, reuse=[bad])
    assert epochs.n == 6 and read(tmp_path / "two", "status")["state"] == "done"


def test_a_full_disk_while_a_stage_is_taken_over_ends_the_run(
    done, tiny_corpus, tmp_path, monkeypatch
):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "share", full)
    with pytest.raises(OSError, match="No space left"):
        quick(small(), tmp_path / "two", tiny_corpus, reuse=[done])


@pytest.mark.parametrize("damage", [lambda whole: b"PK", lambda whole: whole[: len(whole) // 2]])
def test_a_damaged_snapshot_of_its_own_is_named_set_aside_and_trained_again(
    done, tiny_corpus, tmp_path, epochs, capsys, damage
):
    folder = shutil.copytree(done, tmp_path / "two")
    (folder / "0-dense.pt").write_bytes(damage((folder / "0-dense.pt").read_bytes()))
    quick(small(), folder, tiny_corpus, again=True)
    assert epochs.n == 2  # the stages after it still hold
    assert_same_results(done, folder)
    note = r"0-dense.pt is damaged and set aside as 0-dense.pt.corrupt"
    assert note in capsys.readouterr().err and note in read(folder, "status")["notes"][0]
    assert (folder / "0-dense.pt.corrupt").exists()


def test_scores_of_another_snapshot_are_not_taken(done, tiny_corpus, tmp_path, epochs):
    folder = shutil.copytree(done, tmp_path / "two")
    scores = read(folder)
    scores["stages"]["fine-tune"] |= {"key": "of a run that was cut off", "compression": 1e6}
    RunFolder(folder).write_scores(scores)
    quick(small(), folder, tiny_corpus, again=True)
    assert epochs.n == 0  # its snapshot is scored again
    assert_same_results(done, folder)


@pytest.mark.parametrize("damage", [None, b"", b'{"stages": {"dense": {"ke'])
def test_lost_scores_are_made_again_from_the_snapshots(done, tiny_corpus, tmp_path, epochs, damage):
    folder = shutil.copytree(done, tmp_path / "two")
    path = folder / "scores.json"
    path.unlink() if damage is None else path.write_bytes(damage)
    small().save(tmp_path / "two.json")
    assert main(["run", str(tmp_path), "--data", str(tiny_corpus)]) == 0
    assert epochs.n == 0
    assert_same_results(done, folder)
    assert RunFolder(folder).status["state"] == "done" and RunFolder(folder).verify() == []


def test_lost_scores_of_a_stage_that_stopped_early_are_made_again(tiny_corpus, tmp_path, epochs):
    stops = small({"stages.dense.n_epochs": 6, "stages.dense.early.patience": 1})
    whole = tmp_path / "whole"
    scores = quick(stops, whole, tiny_corpus)
    dense = scores["stages"]["dense"]
    assert dense["stopped_early"] and dense["epochs"] < 6
    n_epochs = epochs.n

    again = shutil.copytree(whole, tmp_path / "again")
    (again / "scores.json").unlink()
    quick(stops, again, tiny_corpus)
    assert epochs.n == n_epochs
    assert timeless(read(again)) == timeless(read(whole))


@pytest.mark.parametrize("damage", [b"", b"PK"])
def test_a_cut_snapshot_of_a_finished_run_is_made_again_by_the_command(
    done, tiny_corpus, tmp_path, epochs, capsys, damage
):
    folder = shutil.copytree(done, tmp_path / "two")
    small().save(tmp_path / "two.json")
    (folder / "2-fine-tune.pt").write_bytes(damage)
    assert main(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "interrupted" in shown and "2-fine-tune.pt is damaged" in shown
    assert main(["run", str(tmp_path), "--data", str(tiny_corpus)]) == 0
    assert epochs.n == 2
    assert_same_results(done, folder)


def test_a_flipped_bit_in_a_snapshot_is_found_and_mended_by_the_commands(
    done, tiny_corpus, tmp_path, epochs, capsys
):
    folder = shutil.copytree(done, tmp_path / "two")
    small().save(tmp_path / "two.json")
    content = bytearray((folder / "1-sparsify.pt").read_bytes())
    content[len(content) // 2] ^= 16
    (folder / "1-sparsify.pt").write_bytes(content)

    assert main(["status", str(tmp_path), "--verify"]) == 1
    shown = capsys.readouterr()
    assert "two: " in shown.out and "1-sparsify.pt: expected a snapshot" in shown.out
    assert f"run {tmp_path} --again two" in shown.err
    assert main(["run", str(tmp_path), "--data", str(tiny_corpus), "--again", "two"]) == 0
    assert epochs.n == 2
    assert_same_results(done, folder)
    assert main(["status", str(tmp_path), "--verify"]) == 0


@pytest.fixture
def other_corpus(tiny_corpus, tmp_path):
    """The corpus with the recordings of valid in the place of those of test."""
    folder = shutil.copytree(tiny_corpus, tmp_path / "other")
    shutil.copy(folder / "musicnet_11khz_valid.h5", folder / "musicnet_11khz_test.h5")
    return folder


def test_what_is_trained_is_not_lost_to_another_data_folder(
    done, tiny_corpus, other_corpus, tmp_path, monkeypatch, epochs
):
    folder = tmp_path / "run"
    cut_off(folder, tiny_corpus, monkeypatch, 3)
    names = {path.name for path in folder.glob("*.pt")}
    assert names == {"0-dense.pt", "epoch-0003.pt"}

    expected = r"expected the data.* got others:\n  dataset test: '\w+' .*\ntry .*--accept-changes"
    with pytest.raises(ManifestChanged, match=expected):
        quick(small(), folder, other_corpus)
    assert {path.name for path in folder.glob("*.pt")} == names

    quick(small(), folder, tiny_corpus)
    assert epochs.n == 6  # three before it was cut off
    assert_same_results(done, folder)

    # a lost file is not made again on other data either, unless that is asked for
    (folder / SNAPSHOTS[2]).unlink()
    with pytest.raises(ManifestChanged, match="dataset test"):
        quick(small(), folder, other_corpus)
    quick(small(), folder, other_corpus, accept_changes=True)
    quick(small(), tmp_path / "undisturbed", other_corpus)
    assert_same_results(tmp_path / "undisturbed", folder)


@pytest.mark.parametrize(("what", "before"), [("device", "cuda"), ("torch", "2.11.0+cu130")])
def test_nor_to_another_kind_of_device_or_another_torch(
    what, before, tiny_corpus, tmp_path, monkeypatch
):
    cut_off(tmp_path, tiny_corpus, monkeypatch, 3)
    config = read(tmp_path, "config")
    now = {"device": "cpu", "torch": torch.__version__}[what]
    assert config["trained_on"][what] == now
    config["trained_on"][what] = before
    files.write_json(tmp_path / "config.json", config)

    expected = re.escape(f"  {what}: {before!r} when it was started, {now!r} now")
    with pytest.raises(ManifestChanged, match=expected):
        quick(small(), tmp_path, tiny_corpus)
    assert (tmp_path / "epoch-0003.pt").exists()


def test_other_data_are_fine_where_nothing_is_trained(
    tiny_corpus, other_corpus, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    cut_off(folder, tiny_corpus, monkeypatch, 0)
    quick(small(), folder, other_corpus)
    assert RunFolder(folder).status["state"] == "done"


def claimed_by_a_process_that_was_killed(place):
    """A claim whose owner has ended, and the draft of another that was killed as it made one."""
    code = (
        f"import os; from cplxnet.auto.runner import lock; lock.hold({str(place)!r}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    (place.parent / f".{place.name}.2.77-0123.draft").write_text("{}")


def test_claims_that_killed_processes_left_on_finished_work_are_removed(
    done, tiny_corpus, tmp_path, epochs
):
    folder = shutil.copytree(done, tmp_path / "one")
    claimed_by_a_process_that_was_killed(folder / "claim")
    quick(small(), folder, tiny_corpus)
    assert files_of(folder).keys() == files_of(done).keys()

    # on a stage that another run has finished
    other = small({C: 0.7, "name": "other"})
    place = tmp_path / ".claims" / read(done)["stages"]["dense"]["key"][:32]
    claimed_by_a_process_that_was_killed(place)
    quick(other, tmp_path / "other", tiny_corpus, reuse=[folder])
    assert epochs.n == 4 and files_of(tmp_path / ".claims") == {}


def test_snapshots_of_earlier_versions_are_taken_as_they_are(done, tiny_corpus, tmp_path, epochs):
    """Without a checksum, the history and epochs of their stage; without sizes in status.json."""
    folder = shutil.copytree(done, tmp_path / "two")
    for name in SNAPSHOTS:
        saved = snapshot(folder, name)
        for key in ("crc32", "history", "n_epochs"):
            del saved[key]
        torch.save(saved, folder / name)
    status = read(folder, "status")
    del status["files"]
    (folder / "status.json").write_text(json.dumps(status))
    history = (folder / "history.jsonl").read_bytes()

    assert quick(small(), folder, tmp_path / "no data") == read(done)
    assert quick(small(), folder, tiny_corpus, again=True) == read(done)
    assert epochs.n == 0 and (folder / "history.jsonl").read_bytes() == history

    (folder / "history.jsonl").write_text("{")
    quick(small(), folder, tiny_corpus, again=True)
    assert epochs.n == 0 and not list(folder.glob("*.corrupt"))


def test_the_command_leaves_a_finished_run_alone_whatever_the_data_folder(done, tmp_path, capsys):
    folder = shutil.copytree(done, tmp_path / "one")
    small().save(tmp_path / "one.json")
    before = files_of(folder)
    assert main(["run", str(tmp_path / "one.json"), "--data", str(tmp_path / "none")]) == 0
    assert files_of(folder) == before
    assert main(["run", str(tmp_path), "--data", str(tmp_path / "none")]) == 0
    assert files_of(folder) == before


def test_the_committed_reference_is_done_as_it_lies(tmp_path):
    reference = Path(__file__).parents[3] / "runs" / "reference"
    name = "vd-c2e-02-r0"
    folder = shutil.copytree(reference / name, tmp_path / name)
    before = files_of(folder)
    scores = quick(load(reference / f"{name}.json"), folder, tmp_path / "no data")
    assert list(scores["stages"]) == list(STAGES) and files_of(folder) == before


def test_an_edited_manifests_run_takes_stages_from_its_originals_grid(
    done, tiny_corpus, tmp_path, epochs
):
    shutil.copytree(done, tmp_path / "demo" / "r0")
    small().save(tmp_path / "demo" / "r0.json")
    small({"seed": 1}).save(tmp_path / "demo" / "r1.json")
    longer = edit(tmp_path / "demo" / "r0.json", {"stages.fine-tune.n_epochs": 3})
    edited = load(longer)

    quick(edited, longer.with_suffix(""), tiny_corpus)
    assert epochs.n == 3
    stages = read(longer.with_suffix(""))["stages"]
    reused = [stage["reused_from"] for stage in stages.values()]
    assert reused == ["r0", "r0", None]

    # from another run of that grid, if the original is not run; from none if so asked
    shutil.move(tmp_path / "demo" / "r0", tmp_path / "demo" / "r1")
    assert list(quick(edited, tmp_path / "demo-edited" / "b", tiny_corpus)["stages"]) == [*stages]
    assert epochs.n == 6
    quick(edited, tmp_path / "demo-edited" / "c", tiny_corpus, reuse=None)
    assert epochs.n == 13


@pytest.mark.parametrize("edited_first", [False, True])
def test_what_a_grid_and_its_edits_share_is_trained_once(
    done, tiny_corpus, tmp_path, epochs, monkeypatch, edited_first
):
    """A run waits for a stage that one of the other folder is training."""
    small().save(tmp_path / "demo" / "r0.json")
    first = tmp_path / "demo" / "r0.json"
    second = edit(first, {"stages.fine-tune.n_epochs": 3})
    if edited_first:
        first, second = second, first
    components = Components(small(), device="cpu", data=tiny_corpus)
    _, shared = next(stages.planned(small(), data=components.fingerprints))

    with contextlib.ExitStack() as training:
        place = first.parent / ".claims" / shared.key[:32]
        training.enter_context(lock.hold(place))

        def finished_meanwhile(seconds):
            training.close()
            shutil.copytree(done, first.with_suffix(""), dirs_exist_ok=True)

        monkeypatch.setattr("time.sleep", finished_meanwhile)
        quick(load(second), second.with_suffix(""), tiny_corpus)
    assert epochs.n == (0 if edited_first else 3)  # of fine-tune
