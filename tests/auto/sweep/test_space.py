"""Disk space: what is announced is what the runs then take."""

import collections
import shutil

import pytest
from small import C, small

from cplxnet.auto import run_many
from cplxnet.auto.manifest import grid
from cplxnet.auto.sweep import savings, space

BEST = {"scorer": "validation", "restore_best": True}
Usage = collections.namedtuple("Usage", "total used free")


def taken(folder):
    """Bytes of the folder's snapshots, a file under several names once."""
    found = {path.stat().st_ino: path.stat().st_size for path in folder.glob("*/*.pt")}
    return sum(found.values())


def without_checkpoints(folder, manifests, **options):
    return space.needed(folder, manifests, at_once=0, **options)


@pytest.mark.parametrize("reuse", [True, False])
def test_what_is_needed_is_what_the_snapshots_then_take(reuse, tiny_corpus, tmp_path):
    best = {"stages.sparsify.early": BEST}
    manifests = {"a": small({C: 0.1}), "b": small({C: 0.2}), "c": small(best | {C: 0.2, "seed": 1})}
    grid.write(tmp_path, manifests)
    said = without_checkpoints(tmp_path, manifests, reuse=reuse)
    run_many(tmp_path, data=tiny_corpus, progress=False, reuse=reuse)
    assert said == pytest.approx(taken(tmp_path), rel=0.01)
    assert len(list(tmp_path.glob("*/*.pt"))) == 9
    assert space.needed(tmp_path, manifests, reuse=reuse, at_once=4) == 0
    last = tmp_path / "b" / "2-fine-tune.pt"
    size, checkpoint = (
        last.stat().st_size,
        (tmp_path / "b" / "0-dense.pt").stat().st_size,
    )  # masks are a sixteenth
    last.unlink()
    assert without_checkpoints(tmp_path, manifests, reuse=reuse) == pytest.approx(size, rel=0.01)
    more = space.needed(tmp_path, manifests, reuse=reuse, at_once=2) - size
    assert more == pytest.approx(2 * 2 * checkpoint, rel=0.1)
    (
        tmp_path / "b" / "0-dense.pt"
    ).unlink()  # a's has the same key: with reuse it only gets a second name
    more = without_checkpoints(tmp_path, manifests, reuse=reuse) - size
    dense = (tmp_path / "a" / "0-dense.pt").stat().st_size
    assert more == pytest.approx(0 if reuse else dense, abs=0.02 * dense)


def test_a_stage_whose_optimiser_goes_on_in_one_run_only_is_trained_and_kept_twice(
    tiny_corpus, tmp_path
):
    manifests = {"a": small(), "b": small({"stages.fine-tune.restart": False})}
    grid.write(tmp_path, manifests)
    said = without_checkpoints(tmp_path, manifests)
    assert "10 epochs in place of 12, 17% fewer" in savings.planned(
        manifests
    )  # dense once, the others twice
    run_many(tmp_path, data=tiny_corpus, progress=False)
    assert said == pytest.approx(taken(tmp_path), rel=0.01)


def test_a_grid_that_finds_no_room_is_told_so_before_it_starts(
    tiny_corpus, tmp_path, monkeypatch, capsys
):
    manifests = {"a": small()}
    grid.write(tmp_path, manifests)
    wanted = space.needed(tmp_path, manifests)
    for free, short in ((wanted, False), (wanted - 1, True)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path, free=free: Usage(2 * wanted, 0, free)
        )
        assert bool(space.shortage(tmp_path, manifests)) == short
    run_many(tmp_path, data=tiny_corpus)
    said = capsys.readouterr().err
    assert (
        f"snapshots in {tmp_path} will take about {wanted / 1e9:.1f} GB more" in said
        and "--retry-failed" in said
    )


def test_a_network_that_cannot_be_built_counts_nothing():
    broken = small(model="complex.DeepConvNet", window=16)  # less than its convolutions reach
    assert space.needed("nowhere", {"a": broken}) == 0
    assert (
        space.needed("nowhere", {"a": broken, "b": small()})
        == space.needed("nowhere", {"b": small()})
        > 0
    )
