"""The demo and the reference corpus built, with makers that fail in every way."""

import os
import signal
import time

import numpy as np
import pytest
from demo_pieces import piece

from cplxnet.musicnet import recordings
from extra.corpora import jobs
from extra.corpora.demo import IncompleteCorpusWarning, __main__, build, build_reference
from extra.corpora.demo.build import fingerprint
from extra.corpora.demo.pieces import DEMO, REFERENCE, SPLITS

THREE = (
    piece("id_1001", "train"),
    piece("id_2001", "valid", seconds=4.0),
    piece("id_3001", "test", seconds=3.0),
)


def test_the_corpus_is_built_twice_alike_and_then_found_built(tmp_path):
    folders = [build(tmp_path / name, pieces=THREE, timeout_s=600.0) for name in ("a", "b")]
    names = sorted(p.name for p in folders[0].iterdir())
    assert names == ["musicnet.h5", *(f"musicnet_11khz_{split}.h5" for split in sorted(SPLITS))]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    stamp = (folders[0] / "musicnet.h5").stat().st_mtime_ns
    build(tmp_path / "a", pieces=THREE, maker=fails, n_workers=0)  # would fail, were it called
    assert (folders[0] / "musicnet.h5").stat().st_mtime_ns == stamp
    full = {r.key: r for r in recordings.recordings(folders[0] / "musicnet.h5")}
    for split, key in zip(SPLITS, ("id_1001", "id_2001", "id_3001"), strict=True):
        (low,) = recordings.recordings(folders[0] / f"musicnet_11khz_{split}.h5")
        assert (
            low.key == key
            and recordings.rate_hz(folders[0] / f"musicnet_11khz_{split}.h5") == 11_000
        )
        assert abs(len(low) - len(full[key]) * 11_000 / 44_100) <= 1
        assert low.labels["start_time"].tolist() == [
            t * 110 // 441 for t in full[key].labels["start_time"].tolist()
        ]
        assert (low.labels["end_time"] <= len(low)).all() and set(low.labels["instrument"]) == {1}


def fails(piece, font, result):
    raise ValueError("no such instrument")


def misbehaves(piece, font, result):
    """A renderer that hangs, raises or kills itself on some pieces and makes the others."""
    if piece.key == "id_1002":
        time.sleep(60)
    if piece.key == "id_1003":
        raise ValueError("no such instrument")
    if piece.key == "id_1004":
        os.kill(os.getpid(), signal.SIGKILL)
    if piece.key != "id_1005":  # which ends well and leaves nothing
        data, labels = np.zeros(900, np.float32), np.zeros(0, recordings.LABELS)
        np.savez(result, full=data, full_labels=labels, low=data, low_labels=labels, dropped=2)


@pytest.mark.parametrize(
    ("make", "left"), [(build, "demo/.build"), (build_reference, ".reference")]
)
def test_what_a_build_killed_at_its_very_end_left_is_removed(tmp_path, make, left):
    def built():
        make(tmp_path, pieces=THREE, maker=misbehaves, n_workers=0)

    built()
    (tmp_path / left).mkdir()
    (tmp_path / left / "id_1001.npz").write_bytes(b"half")
    with jobs.locked(tmp_path / left):  # it lives: it will remove it
        built()
        assert (tmp_path / left).exists()
    built()
    assert not (tmp_path / left).exists()


def test_a_renderer_that_hangs_or_crashes_costs_that_piece_only(tmp_path, capsys):
    bad = tuple(piece(f"id_100{k}") for k in (2, 3, 4, 5))
    began = time.monotonic()
    with pytest.warns(IncompleteCorpusWarning) as caught:
        folder = build(
            tmp_path, pieces=THREE[:1] + bad + THREE[1:], maker=misbehaves, timeout_s=8.0
        )
    assert time.monotonic() - began < 40
    text = str(caught[0].message)
    for key, why in (
        ("id_1002", "did not end within 8 s"),
        ("id_1003", "ValueError: no such instrument"),
        ("id_1004", "process ended with code -9"),
        ("id_1005", "left no result"),
    ):
        assert any(key in line and why in line for line in text.splitlines()), (key, text)
    assert [r.key for r in recordings.recordings(folder / "musicnet.h5")] == [
        "id_1001",
        "id_2001",
        "id_3001",
    ]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert "id_1001" in capsys.readouterr().out  # whose two notes outside the classes are named
    with pytest.warns(
        IncompleteCorpusWarning, match="--force"
    ):  # still named when nothing is left to do
        build(tmp_path, pieces=THREE[:1] + bad + THREE[1:], maker=fails, n_workers=0)


def test_a_split_without_any_piece_is_an_error(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"got none in train, valid, test: id_1001 .*no such instrument"
    ):
        build(tmp_path, pieces=THREE, maker=fails, n_workers=0)
    assert list((tmp_path / "demo").iterdir()) == []


def silence(piece, font, result):
    data, labels = np.full(900, float(piece.key[-1]), np.float32), np.zeros(0, recordings.LABELS)
    np.savez(result, full=data, full_labels=labels, low=data, low_labels=labels, dropped=0)


def test_the_reference_corpus_is_whole_or_not_there(tmp_path, monkeypatch, capsys):
    with pytest.raises(IncompleteCorpusWarning, match=r"id_1003.*no such instrument"):
        build_reference(tmp_path, pieces=(*THREE, piece("id_1003")), maker=misbehaves, n_workers=0)
    assert list(tmp_path.iterdir()) == []
    folder = build_reference(tmp_path, pieces=THREE, maker=silence, n_workers=0)
    names = [f"musicnet_11khz_{split}.h5" for split in SPLITS]
    assert folder == tmp_path / "reference" and sorted(p.name for p in folder.iterdir()) == sorted(
        names
    )
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]
    before = [(folder / name).read_bytes() for name in names]
    assert (
        build_reference(tmp_path, pieces=THREE, maker=fails, n_workers=0) == folder
    )  # found built: the maker is not asked
    build_reference(tmp_path, pieces=THREE, maker=silence, force=True, n_workers=0)
    assert [(folder / name).read_bytes() for name in names] == before
    (recording,) = recordings.recordings(folder / names[0])
    assert recording.key == "id_1001" and recording.data[0] == 1.0

    monkeypatch.setitem(__main__.SIZES, "reference", lambda data, force: folder)
    capsys.readouterr()
    assert __main__.main(["--size", "reference", "--data", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "musicnet_11khz_test.h5: 1 recordings" in printed and "44.1 kHz" not in printed


def test_each_corpus_has_a_recipe_of_its_own():
    assert fingerprint(DEMO) == fingerprint(tuple(DEMO))
    assert fingerprint(DEMO) != fingerprint(REFERENCE)
    assert fingerprint(DEMO) != fingerprint(DEMO[1:])


def test_the_command_says_what_failed_without_a_traceback(tmp_path, monkeypatch, capsys):
    def build_nothing(data, force):
        raise RuntimeError("expected pieces in every split, got none in test")

    monkeypatch.setitem(__main__.SIZES, "demo", build_nothing)

    assert __main__.main(["--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "error: expected pieces in every split, got none in test\n"


def makes_all_but_the_second(piece, font, result):
    if piece.key == "id_1002":
        raise ValueError("no such instrument")
    silence(piece, font, result)


def test_force_never_takes_a_piece_away(tmp_path):
    four = (*THREE, piece("id_1002"))
    with pytest.warns(IncompleteCorpusWarning, match="id_1002"):
        folder = build(tmp_path, pieces=four, maker=makes_all_but_the_second, n_workers=0)
    with pytest.warns(IncompleteCorpusWarning, match="id_1002"):  # missing before: no loss
        build(tmp_path, pieces=four, maker=makes_all_but_the_second, force=True, n_workers=0)

    build(tmp_path, pieces=four, maker=silence, force=True, n_workers=0)
    before = (folder / "musicnet.h5").read_bytes()
    with pytest.raises(RuntimeError, match=r"left as it is, since it has pieces .*\n +id_1002"):
        build(tmp_path, pieces=four, maker=makes_all_but_the_second, force=True, n_workers=0)
    assert (folder / "musicnet.h5").read_bytes() == before
