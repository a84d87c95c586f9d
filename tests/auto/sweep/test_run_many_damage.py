"""Any bytes in place of a run's files: the file is named or set aside, nothing is executed."""

import json
import pickle
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import assert_same_results, quick, read, small

from cplxnet import files
from cplxnet.auto import report
from cplxnet.auto.manifest import grid
from cplxnet.auto.runner import lock
from cplxnet.auto.runner.checkpoint import Checkpoints
from cplxnet.auto.runner.folder import RunFolder
from cplxnet.auto.sweep.queue import Settings, run_one

OFTEN = settings(max_examples=25, deadline=None, derandomize=True)
KEYS = [
    "state",
    "stages",
    "dense",
    "key",
    "owner",
    "pid",
    "host",
    "left_s",
    "epoch",
    "manifest",
    "stage_order",
    "notes",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["done", "running", "dense", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def snapshot_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    files.write_tensors(path, {"schema": 1, "key": "k", "model": {"w": torch.arange(6.0)}})
    return path.read_bytes()


def spoilt(whole, noise, start, length):
    start %= len(whole)
    return whole[:start] + noise + whole[start + length :]


BYTES = st.tuples(st.binary(max_size=60), st.integers(0, 1 << 16), st.integers(0, 400))


@OFTEN
@given(BYTES)
def test_any_bytes_as_a_snapshot_are_named_and_as_a_checkpoint_set_aside(snapshot_bytes, change):
    for content in (change[0], spoilt(snapshot_bytes, *change)):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "epoch-0001.pt"
            path.write_bytes(content)
            try:
                found = files.read_tensors(path)
            except ValueError as error:
                assert str(path) in str(error)
                assert Checkpoints(RunFolder(name)).latest("k") is None
                assert (Path(name) / "epoch-0001.pt.corrupt").read_bytes() == content
                assert (
                    "epoch-0001.pt is damaged and set aside" in RunFolder(name).status["notes"][0]
                )
            else:  # what a zip does not check: its comments, its times
                assert torch.equal(found["model"]["w"], torch.arange(6.0)) and found["key"] == "k"


@pytest.mark.parametrize(
    "value", [[1, 2], torch.zeros(3), "key", {"schema": 1}, {"schema": 1, "key": ["k"]}]
)
def test_tensors_that_are_no_checkpoint_are_not_taken(tmp_path, value):
    torch.save(value, tmp_path / "epoch-0001.pt")
    assert Checkpoints(RunFolder(tmp_path)).latest("k") is None


FILES = {
    "status": "status.json",
    "config": "config.json",
    "scores": "scores.json",
    "history": "history.jsonl",
}


@OFTEN
@given(
    st.sampled_from(sorted(FILES)),
    st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_bytes_as_a_file_of_a_run_are_named_and_cost_that_run_only(kind, content):
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "bad" / FILES[kind]
        grid.write(folder, {"bad": small(), "good": small({"seed": 1})})
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            getattr(RunFolder(path.parent), kind)
        except ValueError as error:
            assert str(path) in str(error)
        table = report.status(folder)
        assert table["state"]["good"] == "queued" and len(table) == 2
        outcome = run_one("bad", Settings(folder, folder / "no data", progress=False), device="cpu")
        assert outcome.state in (
            "failed",
            "skipped",
            "diverged",
            "elsewhere",
        )  # there is no data to run it with
        if outcome.state == "failed" and "musicnet_11khz_train.h5" not in outcome.reason:
            assert (
                FILES[kind] in outcome.reason
                or "ManifestChanged" in outcome.reason
                or kind == "status"
            ), outcome


@OFTEN
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_as_a_claim_count_as_one_that_is_held_or_given_up(content):
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "claim.1").write_bytes(content)
        found = lock.newest(Path(name) / "claim")
        assert found.generation == 1 and found.free() in (False, True)


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_code_in_a_checkpoint_or_snapshot_of_a_run_is_set_aside_not_run(
    done, tiny_corpus, tmp_path, save
):
    folder, trace = shutil.copytree(done, tmp_path / "two"), tmp_path / "executed"
    key = read(folder)["stages"]["sparsify"]["key"]
    evil = {"schema": 1, "key": key, "stage": "sparsify", "model": Malicious(trace)}
    for name in ("1-sparsify.pt", "epoch-0003.pt"):
        save(evil, folder / name)
    quick(small(), folder, tiny_corpus, again=True)
    assert not trace.exists()
    assert_same_results(done, folder)
    for name, note in zip(
        ("1-sparsify.pt", "epoch-0003.pt"), read(folder, "status")["notes"], strict=True
    ):
        assert f"{name} is damaged and set aside as {name}.corrupt" in note
    torch.load(
        folder / "1-sparsify.pt.corrupt", weights_only=False
    ) if save is torch.save else pickle.loads((folder / "1-sparsify.pt.corrupt").read_bytes())
    assert trace.exists()  # so the file would have done it
