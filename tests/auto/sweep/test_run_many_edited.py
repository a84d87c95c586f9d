"""A manifest edited while the command runs is refused, both versions shown; others run on."""

import pytest
from small import C, Epochs, assert_same_results, quick, read, small

from cplxnet.auto import report, run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep.queue import Settings, run_one

OLD, NEW = {C: 0.1}, {C: 0.4}


@pytest.fixture
def edited(tiny_corpus, tmp_path, monkeypatch):
    """Three runs; as the first began to train, it and the second, before its turn, were edited."""
    folder = tmp_path / "grid"
    seeds = {"a": 0, "b": 1, "c": 2}
    grid.write(folder, {name: small(OLD | {"seed": seed}) for name, seed in seeds.items()})

    def editing(n):
        grid.write(
            folder, {name: small(NEW | {"seed": seeds[name]}) for name in "ab"}, overwrite=True
        )

    with monkeypatch.context() as patch:
        Epochs(editing).watch(patch)
        return folder, run_many(folder, data=tiny_corpus, progress=False)


def test_a_manifest_whose_text_stands_is_not_parsed_again(tmp_path, monkeypatch):
    manifest = small(OLD)
    manifest.save(tmp_path / "a.json")
    parsed = []
    monkeypatch.setattr("cplxnet.auto.manifest.read.parse", lambda *_, **__: parsed.append(1))
    settings = Settings(tmp_path, tmp_path / "no data", progress=False)
    outcome = run_one("a", settings, device="cpu", read=manifest)
    assert outcome.reason.startswith("FileNotFoundError") and not parsed  # of the data

    (tmp_path / "a.json").write_text(manifest.to_json().replace("  ", " "))
    run_one("a", settings, device="cpu", read=manifest)
    assert parsed == [1]


def test_both_are_refused_and_the_third_is_done(edited, tiny_corpus, tmp_path):
    folder, outcomes = edited
    assert [outcome.state for outcome in outcomes] == ["failed", "failed", "done"]
    for outcome, seed, when in (
        (outcomes[0], 0, "when it was started"),
        (outcomes[1], 1, "when the command was"),
    ):
        versions = [small(change | {"seed": seed}).fingerprint()[:12] for change in (OLD, NEW)]
        assert outcome.reason.startswith("ManifestChanged: ")
        assert f"{C}: 0.1 {when}" in outcome.reason and "0.4 now" in outcome.reason
        assert (
            f"({versions[0]} {when}" in outcome.reason and f"{versions[1]} now)" in outcome.reason
        )
    quick(small(OLD), tmp_path / "alone", tiny_corpus)
    assert_same_results(
        tmp_path / "alone", folder / "a"
    )  # trained to its end by the manifest it was started with
    assert not (folder / "b").exists() and read(folder / "c", "status")["state"] == "done"


def test_the_command_again_runs_what_was_not_started_and_refuses_the_other_until_told(
    edited, tiny_corpus
):
    folder, _ = edited
    before = (folder / "a" / "status.json").read_bytes()
    assert [outcome.state for outcome in run_many(folder, data=tiny_corpus, progress=False)] == [
        *("failed", "done", "skipped")
    ]
    assert (folder / "a" / "status.json").read_bytes() == before
    assert RunFolder(folder / "b").config["fingerprint"] == small(NEW | {"seed": 1}).fingerprint()
    outcomes = run_many(folder, data=tiny_corpus, progress=False, accept_changes=True)
    assert [outcome.state for outcome in outcomes] == ["done", "skipped", "skipped"]
    assert set(report.collect(folder).query("run == 'a'")[C]) == {0.4}
    assert report.status(folder)["stage"].tolist() == ["fine-tune"] * 3
