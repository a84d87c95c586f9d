"""Many runs: one that fails costs itself, one that is done is not run again."""

import json
import shutil
import time

import pytest
import torch
from small import C, Epochs, quick, small, timeless

from cplxnet.auto import run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.read import ManifestError
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.runner.trainer import Trainer
from cplxnet.auto.sweep.run_many import Outcome


@pytest.fixture(scope="module")
def mixed(tiny_corpus, tmp_path_factory):
    """A folder run, with outcomes: one lacks a data file, one diverges, two go well."""
    folder = tmp_path_factory.mktemp("mixed")
    manifests = {
        "a-missing": small({"datasets.test.file": "absent.h5"}),
        "b-diverges": small({"stages.dense.optimizer.lr": 1e30}),
        "c-good": small({C: 0.1}),
        "d-good": small({C: 0.2}),
    }
    grid.write(folder, manifests)
    counting = Epochs()
    with pytest.MonkeyPatch.context() as patch:
        counting.watch(patch)
        outcomes = run_many(folder, data=tiny_corpus, progress=False)
    return folder, outcomes, counting.n


def test_a_faulty_run_does_not_stop_the_others(mixed):
    folder, outcomes, _ = mixed
    assert [(outcome.name, outcome.state) for outcome in outcomes] == [
        ("a-missing", "failed"),
        ("b-diverges", "diverged"),
        ("c-good", "done"),
        ("d-good", "done"),
    ]
    assert "FileNotFoundError" in outcomes[0].reason and "absent.h5" in outcomes[0].reason
    assert outcomes[1].reason.startswith("Diverged: ") and outcomes[2].reason is None
    for name, state, _ in outcomes:
        lasting = "queued" if name == "a-missing" else state  # it is tried again
        assert RunFolder(folder / name).status["state"] == lasting
        assert (folder / name / "traceback.txt").exists() == (lasting == "diverged")


def test_a_shared_stage_is_trained_once_and_the_scores_are_those_of_a_run_alone(
    mixed, tiny_corpus, tmp_path
):
    folder, _, n_epochs = mixed
    assert (
        n_epochs == 1 + 6 + 4
    )  # the one that diverged in its first epoch, a whole run, one without dense
    alone = quick(small({C: 0.2}), tmp_path, tiny_corpus)
    found = RunFolder(folder / "d-good").scores
    assert found["stages"]["dense"]["reused_from"] == "c-good"
    assert timeless(found) == timeless(json.loads(json.dumps(alone).replace("NaN", "null")))


@pytest.fixture
def again(mixed, tmp_path):
    return shutil.copytree(mixed[0], tmp_path / "again")


def test_failed_runs_are_retried_where_asked_for(again, tiny_corpus, epochs):
    outcomes = run_many(again, data=tiny_corpus, progress=False, retry_failed=True)
    assert [outcome.state for outcome in outcomes] == ["failed", "diverged", "skipped", "skipped"]
    assert epochs.n == 1


def test_the_second_time_only_what_is_not_done_is_run_and_failed_runs_are_left(
    again, tiny_corpus, epochs
):
    outcomes = run_many(again, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in outcomes] == ["failed", "diverged", "skipped", "skipped"]
    assert outcomes[1].reason.startswith("Diverged: ") and epochs.n == 0


def test_a_repaired_run_is_done_the_next_time(again, tiny_corpus):
    grid.write(again, {"a-missing": small({C: 0.3})}, overwrite=True)
    outcomes = run_many(
        again, data=tiny_corpus, progress=False, retry_failed=True, accept_changes=True
    )
    assert outcomes[0] == Outcome("a-missing", "done")


def test_a_changed_manifest_is_refused_with_both_versions(again, tiny_corpus, epochs):
    before = (again / "c-good" / "status.json").read_bytes()
    grid.write(again, {"c-good": small({C: 0.4})}, overwrite=True)
    outcomes = run_many(again, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in outcomes[2:]] == ["failed", "skipped"] and epochs.n == 0
    assert f"{C}: 0.1 when it was started, 0.4 now" in outcomes[2].reason
    versions = [small({C: value}).fingerprint()[:12] for value in (0.1, 0.4)]
    assert f"({versions[0]} when it was started, {versions[1]} now)" in outcomes[2].reason
    assert (again / "c-good" / "status.json").read_bytes() == before


def test_a_default_spelt_out_is_no_change(again, tiny_corpus, epochs):
    spelt = grid.edit(small({C: 0.1}), {"task": "musicnet", "samples": "float32"})
    grid.write(again, {"c-good": spelt}, overwrite=True)
    assert run_many(again, data=tiny_corpus, progress=False)[2] == Outcome("c-good", "skipped")


def test_a_changed_manifest_is_run_again_from_what_changed_where_that_is_accepted(
    again, tiny_corpus, epochs
):
    grid.write(again, {"c-good": small({C: 0.4})}, overwrite=True)
    outcomes = run_many(again, data=tiny_corpus, progress=False, accept_changes=True)
    assert [outcome.state for outcome in outcomes[2:]] == ["done", "skipped"] and epochs.n == 4


@pytest.mark.parametrize("damaged", ["status.json", "config.json", "scores.json"])
def test_a_damaged_folder_costs_its_own_run_only(again, tiny_corpus, damaged):
    (again / "c-good" / damaged).write_text('{"sta')
    grid.write(again, {"e-good": small({C: 0.5})})
    if damaged == "scores.json":  # of a finished run it would not be read
        (again / "c-good" / "status.json").unlink()
    outcomes = run_many(again, data=tiny_corpus, progress=False)
    mended = damaged != "config.json"  # which says with what manifest the run was started
    state = "done" if mended else "failed"
    assert [outcome.state for outcome in outcomes[2:]] == [state, "skipped", "done"]
    if mended:
        assert (again / "c-good" / f"{damaged}.corrupt").exists()
    else:
        assert f"{damaged}: expected JSON" in outcomes[2].reason


def test_without_reuse_every_run_trains_all(tiny_corpus, tmp_path, epochs):
    grid.write(tmp_path, {"one": small({C: 0.1}), "two": small({C: 0.2})})
    run_many(tmp_path, data=tiny_corpus, progress=False, reuse=False)
    assert epochs.n == 12
    assert RunFolder(tmp_path / "two").scores["stages"]["dense"]["reused_from"] is None


def test_ctrl_c_ends_them_all(tiny_corpus, tmp_path, monkeypatch):
    grid.write(tmp_path, {"one": small(), "two": small({"seed": 1})})

    def interrupted(self, reuse):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_many(tmp_path, data=tiny_corpus, progress=False)
    assert RunFolder(tmp_path / "one").status["state"] == "interrupted"
    assert not (tmp_path / "two").exists()


def test_all_manifests_and_the_device_are_checked_before_the_first_run(tiny_corpus, tmp_path):
    grid.write(tmp_path, {"one": small()})
    with pytest.raises(ValueError, match="expected a device that torch has here"):
        run_many(tmp_path, device="nowhere", data=tiny_corpus, progress=False)
    (tmp_path / "two.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"two\.json"):
        run_many(tmp_path, data=tiny_corpus, progress=False)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("seconds", [0, -1, 0.5, float("nan"), float("inf")])
def test_a_timeout_is_a_finite_number_of_at_least_a_second(tiny_corpus, tmp_path, seconds):
    grid.write(tmp_path, {"one": small()})
    with pytest.raises(ValueError, match="expected a timeout of at least a second, got"):
        run_many(tmp_path, data=tiny_corpus, progress=False, timeout_s=seconds)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({C: 0.2}, "10 epochs in place of 12, 17% fewer"),
        ({"stages.fine-tune.restart": False}, "10 epochs in place of 12, 17% fewer"),
        ({"seed": 1}, ""),
    ],
    ids=["dense shared", "an optimiser that goes on in one run only", "nothing shared"],
)
def test_what_sharing_stages_saves_is_said_before(
    tiny_corpus, tmp_path, monkeypatch, capsys, changes, said
):
    def interrupted(self, reuse):
        raise KeyboardInterrupt

    grid.write(tmp_path, {"one": small(), "two": small(changes)})
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    monkeypatch.setattr(Trainer, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_many(tmp_path, data=tiny_corpus)
    shown = capsys.readouterr().err
    assert said in shown and ("stages that runs share" in shown) == bool(said)


def test_bars_are_drawn_where_asked_for(tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CPLXNET_PROGRESS", "text")
    grid.write(tmp_path, {"one": small()})
    run_many(tmp_path, data=tiny_corpus)
    shown = capsys.readouterr().err
    assert all(label in shown for label in ("dense", "sparsify", "fine-tune", "1/1", "6/6"))
    monkeypatch.setenv("CPLXNET_PROGRESS", "loud")
    with pytest.raises(
        ValueError, match="expected CPLXNET_PROGRESS of auto, text, off or a path, got 'loud'"
    ):
        run_many(tmp_path, data=tiny_corpus)


def raising(monkeypatch, error, times=1):
    """Have the first runs end by this error, others as they do."""
    train = Trainer.run
    n_left = [times]

    def failing(self, others):
        n_left[0] -= 1
        if n_left[0] >= 0:
            raise error
        return train(self, others)

    monkeypatch.setattr(Trainer, "run", failing)


def test_a_run_that_is_out_of_memory_is_named_and_the_next_goes_on(
    tiny_corpus, tmp_path, monkeypatch
):
    grid.write(tmp_path, {"one": small(), "two": small({"seed": 1})})
    raising(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"))
    outcomes = run_many(tmp_path, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "cpu has too little memory for this run: CUDA out of memory" in outcomes[0].reason
    status = RunFolder(tmp_path / "one").status
    assert status["state"] == "interrupted" and status["reason"] == outcomes[0].reason


def test_a_device_that_is_lost_is_named_and_its_runs_are_tried_again(
    tiny_corpus, tmp_path, monkeypatch
):
    grid.write(tmp_path, {"one": small(), "two": small({"seed": 1})})
    with monkeypatch.context() as patch:
        raising(patch, RuntimeError("CUDA error: unspecified launch failure\nmore"))
        patch.setattr("cplxnet.auto.runner.run.answers", lambda device: False)
        outcomes = run_many(tmp_path, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert outcomes[0].reason.startswith(
        "DeviceLost: cpu does not answer any more: CUDA error: unspecified launch failure; try "
    )
    assert RunFolder(tmp_path / "one").status["state"] == "interrupted"  # no fault of the run's
    again = run_many(tmp_path, data=tiny_corpus, progress=False)
    assert [outcome.state for outcome in again] == ["done", "skipped"]


def test_what_failed_says_when(again, tiny_corpus):
    outcomes = run_many(again, data=tiny_corpus, progress=False)
    updated = RunFolder(again / "b-diverges").status["updated"]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(updated))
    assert outcomes[1].reason.endswith(f"try a lower learning rate, on {when}")


def test_done_runs_are_looked_at_again_by_name_from_anywhere_or_all(again, tiny_corpus, epochs):
    def states(which):
        outcomes = run_many(again, data=tiny_corpus, progress=False, again=which)
        return {outcome.name: outcome.state for outcome in outcomes}

    done = [name for name, state in states(False).items() if state == "skipped"]
    assert states([])[done[0]] == "skipped"
    assert states(name for name in done[:1])[done[0]] == "done"
    everything = states(True)
    assert all(everything[name] == "done" for name in done)
    with pytest.raises(ValueError, match=r"expected names of runs .*, got nobody"):
        states(["nobody"])
    assert epochs.n == 0


def test_accepted_changes_leave_no_claim_on_runs_of_an_older_fingerprint(done, tmp_path):
    grid.write(tmp_path, {"one": small()})
    folder = shutil.copytree(done, tmp_path / "one")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"fingerprint": "older"}))
    outcomes = run_many(tmp_path, data=tmp_path, progress=False, accept_changes=True)
    assert [outcome.state for outcome in outcomes] == ["skipped"]
    assert not list(folder.glob("claim*"))
