"""Every form of the archive gives the same bytes; what is in them against soxr and plain h5py."""

import hashlib
import json
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import soxr
import tiny

from cplxnet.musicnet import MusicNet
from extra.corpora import archive
from extra.corpora.archive.build import _all
from extra.corpora.jobs import locked

NAMES = (
    "musicnet.h5",
    "musicnet_11khz_train.h5",
    "musicnet_11khz_valid.h5",
    "musicnet_11khz_test.h5",
)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def built(unpacked, metadata_csv, tmp_path_factory) -> archive.Built:
    return archive.build(
        unpacked, tmp_path_factory.mktemp("built"), metadata_csv=metadata_csv, n_workers=0
    )


def test_what_is_in_the_files(built):
    splits = {"train": [1727, 1759], "valid": [2131], "test": [2303]}
    for split, numbers in splits.items():
        with h5py.File(built.folder / f"musicnet_11khz_{split}.h5") as file:
            assert (
                sorted(file) == [f"id_{number}" for number in numbers]
                and file.attrs["rate_hz"] == 11000
            )
            for number in numbers:
                group, rows = file[f"id_{number}"], sorted(tiny.notes(number))
                want = soxr.resample(tiny.audio(number), 44100, 11000, quality="VHQ")
                assert group["data"].dtype == np.float32 and np.array_equal(group["data"][()], want)
                assert group["labels"]["start_time"].tolist() == [
                    int(row[0] * 11000 / 44100) for row in rows
                ]
                assert group["labels"]["end_time"].tolist() == [
                    int(row[1] * 11000 / 44100) for row in rows
                ]
                assert group["labels"]["note"].tolist() == [row[3] for row in rows]
                assert set(group["labels"]["note_value"]) == {b"Dotted Quarter"}
                assert group["data"].fletcher32 and group["data"].chunks is not None
                assert group.attrs["seconds"] == len(want) / 11000
    with h5py.File(built.folder / "musicnet.h5") as file:
        assert (
            sorted(file) == ["id_1727", "id_1759", "id_2131", "id_2303"]
            and file.attrs["rate_hz"] == 44100
        )
        assert np.array_equal(file["id_2131/data"][()], tiny.audio(2131))
        assert dict(file["id_2131"].attrs)["movement"] == "1. Prélude, slow"
        assert file["id_1727"].attrs["ensemble"] == "Piano Quintet"


def test_the_table(built):
    rows = {row["file"]: row for row in built.rows()}
    assert list(rows) == list(NAMES)
    assert [row["recordings"] for row in rows.values()] == [4, 2, 1, 1]
    assert [row["expected for MusicNet"] for row in rows.values()] == [330, 321, 6, 3]
    assert rows["musicnet.h5"]["notes"] == 48 and rows["musicnet_11khz_train.h5"]["notes"] == 24
    for name, row in rows.items():
        assert row["md5"] == hashlib.md5((built.folder / name).read_bytes()).hexdigest()
    seconds = sum(len(tiny.audio(number)) for number in tiny.NUMBERS) / 44100
    assert rows["musicnet.h5"]["seconds"] == pytest.approx(seconds)
    assert "train: 2 recordings, MusicNet has 321" in built.notices


def test_the_train_file_opens(built):
    data = MusicNet(built.folder / "musicnet_11khz_train.h5")
    assert data.keys == ("id_1727", "id_1759") and data.windows([0])[1].shape == (1, 84)


@pytest.mark.parametrize(
    "form", ["tar", "tar, labels first", "int16 folder", "hdf5", "hdf5 note", "npz"]
)
def test_every_form_gives_the_same_bytes(form, built, unpacked, metadata_csv, tmp_path):
    source = {
        "tar": lambda: tiny.tar(tmp_path / "musicnet.tar.gz", unpacked),
        "tar, labels first": lambda: tiny.tar(
            tmp_path / "musicnet.tar.gz", unpacked, labels_first=True
        ),
        "int16 folder": lambda: tiny.folder(tmp_path / "folder", width="int16"),
        "hdf5": lambda: tiny.hdf5(tmp_path / "old.h5"),
        "hdf5 note": lambda: tiny.hdf5(tmp_path / "old.h5", note="note"),
        "npz": lambda: tiny.npz(tmp_path / "musicnet.npz"),
    }[form]()
    archive.build(source, tmp_path / "data", metadata_csv=metadata_csv, n_workers=0)
    assert content(tmp_path / "data") == content(built.folder)
    assert not (tmp_path / "data" / ".musicnet-build").exists()


def test_two_processes_give_the_same_bytes(built, unpacked, metadata_csv, tmp_path):
    for source in (unpacked, tiny.tar(tmp_path / "musicnet.tar.gz", unpacked)):
        archive.build(source, tmp_path / "data", metadata_csv=metadata_csv, n_workers=2, force=True)
        assert content(tmp_path / "data") == content(built.folder)


def test_built_again_only_if_something_changed(
    built, unpacked, metadata_csv, tmp_path, monkeypatch
):
    archive.build(unpacked, tmp_path, metadata_csv=metadata_csv, n_workers=0)
    before = (tmp_path / NAMES[0]).stat().st_mtime_ns
    again = archive.build(unpacked, tmp_path, metadata_csv=metadata_csv, n_workers=0)
    assert again.files == built.files and again.notices == built.notices
    assert (tmp_path / NAMES[0]).stat().st_mtime_ns == before
    (tmp_path / NAMES[3]).unlink()
    archive.build(unpacked, tmp_path, metadata_csv=metadata_csv, n_workers=0)
    assert content(tmp_path) == content(built.folder)


def test_without_the_large_file_and_without_metadata(unpacked, tmp_path):
    made = archive.build(unpacked, tmp_path, full=False, n_workers=0)
    assert sorted(made.files) == sorted(NAMES[1:]) and not (tmp_path / "musicnet.h5").exists()
    assert "4 recordings without metadata: 1727, 1759, 2131, 2303" in made.notices


def test_a_killed_worker_is_told():
    with pytest.raises(RuntimeError, match=r"a process of the build was killed.*run it again"):
        _all(_die, [()], 1, lambda: None)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_build_at_a_time(unpacked, tmp_path):
    with (
        locked(tmp_path / ".musicnet-build"),
        pytest.raises(RuntimeError, match="expected no other build here"),
    ):
        archive.build(unpacked, tmp_path, n_workers=0)


def test_command_line(built, unpacked, metadata_csv, tmp_path, capsys):
    from extra.corpora.archive.__main__ import main

    source = tiny.tar(tmp_path / "own.tar.gz", unpacked)
    options = ["--data", str(tmp_path / "data"), "--metadata", str(metadata_csv), "--workers", "0"]
    assert main([str(source), *options]) == 1
    assert "expected md5 1caef62" in capsys.readouterr().err
    assert main([str(source), *options, "--no-check"]) == 0
    assert (
        "musicnet_11khz_test.h5: 1 recordings (MusicNet has 3), 0.00 hours, 12 notes"
        in capsys.readouterr().out
    )
    assert content(tmp_path / "data") == content(built.folder)
    assert main([str(tmp_path / "nowhere"), *options]) == 1
    assert "expected MusicNet at" in capsys.readouterr().err
    assert (
        json.loads((tmp_path / "data" / "musicnet.build.json").read_text())["files"][0][
            "recordings"
        ]
        == 4
    )
