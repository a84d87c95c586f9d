"""MusicNet's first release: other names of columns, and measures in place of beats."""

import numpy as np
import pytest
import tiny

from extra.corpora import archive
from extra.corpora.archive import labels, published

FIRST = [
    "start_sample",
    "end_sample",
    "instrument_id",
    "midi_note",
    "measure",
    "beat",
    "note_value",
]
STORED = [
    ("beat", "<f8"),
    ("end_time", "<i8"),
    ("instrument", "<i4"),
    ("measure", "<f8"),
    ("note_id", "<i4"),
    ("note_value", "S20"),
    ("start_time", "<i8"),
]
ROWS = tiny.notes(1727)
IMPORTANT = ["start_time", "end_time", "instrument", "note", "note_value"]


def expected():
    """The rows of the newer release, without beats."""
    table, _ = labels.from_csv(tiny.csv_bytes(ROWS), "new.csv")
    table["start_beat"] = 0.0
    table["end_beat"] = 0.0
    return table


def test_csv_of_the_first_release():
    table, notices = labels.from_csv(tiny.csv_bytes(ROWS, FIRST), "1727.csv")

    assert np.array_equal(table, expected())
    (notice,) = notices
    assert notice.startswith(
        "1727.csv, line 1: labels without start_beat, end_beat, which stay empty"
    )
    assert "measure, beat" in notice


def test_columns_of_the_first_release():
    columns = np.zeros(len(ROWS), STORED)
    for k, (start, end, instrument, note, measure, beat, value) in enumerate(ROWS):
        columns[k] = (beat, end, instrument, measure, note, value.encode(), start)

    table, notices = labels.from_columns(columns, "old.h5, id_1727")

    assert np.array_equal(table, expected())
    assert "old.h5, id_1727: labels without start_beat, end_beat" in notices[0]


def test_the_four_columns_that_matter_are_enough():
    rows = [row[:4] for row in ROWS]
    table, notices = labels.from_csv(tiny.csv_bytes(rows, FIRST[:4]), "1727.csv")

    assert np.array_equal(table[IMPORTANT[:4]], expected()[IMPORTANT[:4]])
    assert set(table["note_value"]) == {b""}
    assert "without start_beat, end_beat, note_value" in notices[0]
    with pytest.raises(archive.ArchiveError, match=r"got no end_time$"):
        labels.from_csv(tiny.csv_bytes([], ["start_sample", "instrument", "note"]), "1727.csv")


def intervals(first_release):
    """Notes of four measures, a crotchet each, as (start, end, fields)."""
    rows = []
    for k in range(16):
        place = (1.0 + k // 4, float(k % 4)) if first_release else (float(k), 1.0)
        rows.append((22050 * k, 22050 * (k + 1), (1, 60 + k, *place, "Quarter")))
    return rows


def test_intervals_that_count_measures_lose_them_and_those_that_count_beats_do_not():
    table, notices = labels.from_intervals(intervals(first_release=True), "1727.npy")
    assert set(table["start_beat"]) == {0.0} and set(table["end_beat"]) == {0.0}
    assert "1727.npy: labels without start_beat, end_beat" in notices[0]
    assert table["note"].tolist() == list(range(60, 76))

    table, notices = labels.from_intervals(intervals(first_release=False), "1727.npy")
    assert table["start_beat"].tolist() == list(range(16)) and notices == []


def test_a_folder_of_the_first_release_gives_the_same_music(unpacked, metadata_csv, tmp_path):
    folder = tiny.folder(tmp_path / "first")
    for path in folder.glob("*_labels/*.csv"):
        path.write_bytes(tiny.csv_bytes(tiny.notes(int(path.stem)), FIRST))

    built = archive.build(folder, tmp_path / "data", metadata_csv=metadata_csv, n_workers=0)

    rows = {row["file"]: (row["recordings"], row["notes"]) for row in built.rows()}
    assert rows["musicnet.h5"] == (4, 48)
    about_beats = [notice for notice in built.notices if "labels without" in notice]
    assert len(about_beats) == 1 and " and 3 more: labels without" in about_beats[0]  # not four


def test_without_a_connection_composers_stay_empty(unpacked, tmp_path, monkeypatch, capsys):
    nowhere = published.Remote("http://127.0.0.1:9/m.csv", published.METADATA.name, None, "0" * 32)
    monkeypatch.setattr(published, "METADATA", nowhere)

    assert archive.obtain_metadata(unpacked, None, tmp_path) is None
    assert "composers and movements stay empty" in capsys.readouterr().out
    (tmp_path / nowhere.name).write_text(tiny.METADATA)
    assert archive.obtain_metadata(unpacked, None, tmp_path) == tmp_path / nowhere.name


def test_the_command_builds_without_a_connection(unpacked, tmp_path, monkeypatch, capsys):
    from extra.corpora.archive.__main__ import main

    nowhere = published.Remote("http://127.0.0.1:9/m.csv", published.METADATA.name, None, None)
    monkeypatch.setattr(published, "METADATA", nowhere)

    assert main([str(unpacked), "--data", str(tmp_path), "--workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "musicnet_11khz_train.h5: 2 recordings" in printed
    assert "4 recordings without metadata" in printed
