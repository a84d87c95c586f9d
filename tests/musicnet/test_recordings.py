import dataclasses
import fcntl

import h5py
import numpy as np
import pytest

from cplxnet.musicnet import recordings
from extra.corpora import hdf5


def recording(key="id_1001", samples=1000, notes=((0, 500, 60), (400, 900, 64))):
    generator = np.random.default_rng(int(key[-4:]))
    labels = np.zeros(len(notes), recordings.LABELS)
    for column, values in zip(
        ("start_time", "end_time", "note"), zip(*notes, strict=True), strict=True
    ):
        labels[column] = values
    labels["instrument"], labels["note_value"] = 41, b"Dotted Eighth"
    return recordings.Recording(
        key,
        generator.standard_normal(samples, dtype=np.float32),
        labels,
        "Haydn",
        "Op. 1",
        "1. Presto",
        "Quartet",
    )


def changed(path, edit):
    """The valid file at `path` with `edit` applied by plain h5py, behind the layout's back."""
    hdf5.write(path, [recording()], rate_hz=11000)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def test_what_is_written_is_read_back(tmp_path):
    path, written = tmp_path / "a.h5", [recording("id_1002", samples=70), recording("id_1001")]
    hdf5.write(path, written, rate_hz=11000, attributes={"recipe": "abc"})
    read = list(recordings.recordings(path))
    assert [r.key for r in read] == ["id_1001", "id_1002"]
    for got, want in zip(read, written[::-1], strict=True):
        np.testing.assert_array_equal(got.data, want.data)
        np.testing.assert_array_equal(got.labels, want.labels)
        assert (got.composer, got.composition, got.movement, got.ensemble) == (
            "Haydn",
            "Op. 1",
            "1. Presto",
            "Quartet",
        )
    assert recordings.rate_hz(path) == 11000 and recordings.attributes(path)["recipe"] == "abc"
    with h5py.File(path) as file:  # the file as plain h5py sees it
        assert (
            file["id_1001/data"].dtype == np.float32
            and file["id_1001"].attrs["seconds"] == 1000 / 11000
        )
        assert file["id_1001/labels"]["note"].tolist() == [60, 64]


def test_same_recordings_give_same_bytes_and_leave_nothing_beside(tmp_path):
    for name in ("a.h5", "b.h5"):
        hdf5.write(tmp_path / name, [recording()], rate_hz=11000)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_note_id_is_read_as_note(tmp_path):
    def rename(file):
        old = file["id_1001/labels"][()]
        names = ["note_id" if name == "note" else name for name in old.dtype.names]
        del file["id_1001/labels"]
        file["id_1001/labels"] = old.view(
            np.dtype({"names": names, "formats": [old.dtype[k] for k in range(len(names))]})
        )

    (read,) = recordings.recordings(changed(tmp_path / "a.h5", rename))
    assert read.labels["note"].tolist() == [60, 64]


def set_label(column, value):
    def edit(file):
        labels = file["id_1001/labels"][()]
        labels[column][1] = value
        file["id_1001/labels"][...] = labels

    return edit


def set_sample(value):
    def edit(file):
        file["id_1001/data"][77] = value

    return edit


def drop_column(file):
    labels = file["id_1001/labels"][()]
    del file["id_1001/labels"]
    file["id_1001/labels"] = labels[["start_time", "note"]].copy()


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda file: file.clear(), r"a\.h5: expected groups id_NNNN"),
        (
            lambda file: file["id_1001"].pop("data"),
            r"a\.h5, recording id_1001: expected datasets .* no `data`",
        ),
        (
            lambda file: file["id_1001"].pop("labels"),
            r"a\.h5, recording id_1001: expected datasets .* no `labels`",
        ),
        (drop_column, r"id_1001: expected a column `end_time` in `labels`, got start_time, note"),
        (
            set_label("note", 20),
            r"id_1001: expected notes in 21\.\.104, got note 20 on \[400, 900\) in row 1",
        ),
        (set_label("note", 105), r"id_1001: expected notes in 21\.\.104, got note 105"),
        (
            set_label("end_time", 399),
            r"id_1001: expected end_time >= start_time, got note 64 on \[400, 399\) in row 1",
        ),
        (
            set_label("start_time", -1),
            r"id_1001: expected start_time >= 0, got note 64 on \[-1, 900\)",
        ),
        (set_sample(np.nan), r"id_1001: expected finite samples, got nan at sample 77"),
        (set_sample(-np.inf), r"id_1001: expected finite samples, got -inf at sample 77"),
    ],
)
def test_a_fault_names_file_recording_and_value(tmp_path, edit, text):
    with pytest.raises(recordings.RecordingError, match=text):
        list(recordings.recordings(changed(tmp_path / "a.h5", edit)))


def test_missing_file_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.h5.*get_datasets.*make demo.*--data"):
        list(recordings.recordings(tmp_path / "gone.h5"))
    with pytest.raises(
        FileNotFoundError, match=rf"extra\.corpora\.demo --size reference --data {tmp_path}`$"
    ):
        list(recordings.recordings(tmp_path / "reference" / "gone.h5"))


def test_not_hdf5_is_named(tmp_path):
    (tmp_path / "a.h5").write_text("<html>404</html>")
    with pytest.raises(recordings.RecordingError, match=r"a\.h5: expected an HDF5 file"):
        recordings.rate_hz(tmp_path / "a.h5")


def test_nothing_is_written_for_a_bad_recording(tmp_path):
    path = tmp_path / "a.h5"
    hdf5.write(path, [recording()], rate_hz=11000)
    before = path.read_bytes()
    bad = dataclasses.replace(recording(), data=np.full(9, np.nan, np.float32))
    with pytest.raises(recordings.RecordingError, match="got nan at sample 0"):
        hdf5.write(path, [recording("id_1000"), bad], rate_hz=11000)
    with pytest.raises(recordings.RecordingError, match="at least one recording"):
        hdf5.write(path, [], rate_hz=11000)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def elsewhere(how):
    """Edits that put the samples, or the recording, outside the file."""

    def edit(file):
        group = file["id_1001"]
        if how in ("external link", "dangling link"):
            target = "there.h5" if how == "external link" else "nowhere.h5"
            file["id_1002"] = h5py.ExternalLink(target, "/id_1001")
            return
        if how == "soft link":
            file["id_1002"] = h5py.SoftLink("/nothing/there")
            return
        del group["data"]
        if how.startswith("/"):
            group.create_dataset("data", (1000,), "f4", external=[(how, 0, 4000)])
        elif how == "missing virtual source":
            layout = h5py.VirtualLayout((1000,), "f4")
            layout[:] = h5py.VirtualSource("nowhere.h5", "data", (1000,))
            group.create_virtual_dataset("data", layout)
        elif how == "a linked dataset":
            group["data"] = h5py.ExternalLink("there.h5", "/id_1001/data")

    return edit


@pytest.mark.parametrize(
    "how",
    [
        "/etc/passwd",
        "/dev/zero",
        "missing virtual source",
        "a linked dataset",
        "external link",
        "dangling link",
        "soft link",
    ],
)
def test_values_outside_the_file_are_refused_by_name_before_any_is_read(tmp_path, how):
    hdf5.write(tmp_path / "there.h5", [recording()], rate_hz=11000)
    path = changed(tmp_path / "a.h5", elsewhere(how))
    for read in (recordings.lengths, lambda path: list(recordings.recordings(path))):
        with pytest.raises(
            recordings.RecordingError,
            match=r"a\.h5, recording id_100[12]: expected .* in the file itself, got",
        ):
            read(path)


@pytest.mark.parametrize("chunks", [None, (1 << 16,)])
@pytest.mark.parametrize("name", ["data", "labels"])
def test_a_claim_of_2_to_the_40_values_is_refused_before_it_is_allocated(tmp_path, name, chunks):
    def claim(file):
        dtype = file["id_1001"][name].dtype
        del file["id_1001"][name]
        file["id_1001"].create_dataset(name, (2**40,), dtype, chunks=chunks)

    path = changed(tmp_path / "a.h5", claim)
    with pytest.raises(recordings.RecordingError, match=rf"id_1001: expected {name} to be written"):
        list(recordings.recordings(path))


def test_packed_values_are_read(tmp_path):
    def pack(file):
        samples = np.zeros(300_000, np.float32)  # which deflate packs best
        del file["id_1001/data"]
        file["id_1001"].create_dataset("data", data=samples, compression="gzip", chunks=(1 << 16,))

    (read,) = recordings.recordings(changed(tmp_path / "a.h5", pack))
    assert len(read) == 300_000


def test_a_sample_that_float32_cannot_hold_is_named(tmp_path):
    def widen(file):
        samples = file["id_1001/data"][()].astype(np.float64)
        samples[77] = 1e39
        del file["id_1001/data"]
        file["id_1001/data"] = samples

    with pytest.raises(recordings.RecordingError, match=r"finite samples, got 1e\+39 at sample 77"):
        list(recordings.recordings(changed(tmp_path / "a.h5", widen)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(60.5, "whole numbers in column `note` of `labels`, got 60.5"), (b"60", "numbers in column")],
)
def test_notes_that_are_no_whole_numbers_are_refused(tmp_path, value, text):
    def retype(file):
        labels = file["id_1001/labels"][()]
        columns = [
            (name, np.asarray(value).dtype if name == "note" else labels.dtype[name])
            for name in labels.dtype.names
        ]
        labels = labels.astype(columns)
        labels["note"][1] = value
        del file["id_1001/labels"]
        file["id_1001/labels"] = labels

    with pytest.raises(recordings.RecordingError, match=f"id_1001: expected {text}"):
        list(recordings.recordings(changed(tmp_path / "a.h5", retype)))


@pytest.mark.parametrize("rate_hz", [0, -1, "abc", np.nan, np.inf, 0.5, [11000, 11000]])
def test_a_rate_that_is_none_is_named(tmp_path, rate_hz):
    path = changed(tmp_path / "a.h5", lambda file: file.attrs.__setitem__("rate_hz", rate_hz))
    with pytest.raises(recordings.RecordingError, match=r"a\.h5: expected rate_hz as a whole numb"):
        recordings.rate_hz(path)


def test_a_file_that_is_being_written_is_not_to_be_built_again(tmp_path):
    hdf5.write(tmp_path / "a.h5", [recording()], rate_hz=11000)
    with open(tmp_path / "a.h5", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as HDF5 does in a process that writes
        with pytest.raises(recordings.RecordingError, match="another process has open") as caught:
            list(recordings.recordings(tmp_path / "a.h5"))
    assert "build" not in str(caught.value) and "wait until it has ended" in str(caught.value)
