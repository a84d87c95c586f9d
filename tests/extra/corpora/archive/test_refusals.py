"""What would poison an experiment is refused, or put right with a notice; each text names member,
line and value.
"""

import contextlib
import gzip
import io
import pickle
import shutil
import struct
import tarfile
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import soxr
import tiny
from scipy.io import wavfile

from cplxnet.musicnet import recordings
from extra.corpora import archive, hdf5
from extra.corpora.archive import labels, published, stores, unpickle, wav


def samples(content: bytes, where: str) -> tuple[np.ndarray, list[str]]:
    """What wav.blocks gives, as one array, and the notices."""
    told: list[str] = []
    blocks = list(wav.blocks(io.BytesIO(content), where, told.append))
    return np.concatenate(blocks), told


def wav_bytes(data: np.ndarray, rate_hz: int = 44100) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate_hz, data)
    return file.getvalue()


SIGNAL = tiny.audio(1727)


def test_wav_widths_and_channels():
    whole = (SIGNAL * 2**31).astype(np.int64).clip(-(2**31), 2**31 - 1)
    exact, told = samples(wav_bytes(SIGNAL), "a.wav")
    assert np.array_equal(exact, SIGNAL) and told == []
    for width, data in {"32": whole.astype(np.int32), "64": SIGNAL.astype(np.float64)}.items():
        got, told = samples(wav_bytes(data), "a.wav")
        assert np.array_equal(got, SIGNAL) and told == [
            f"a.wav: samples of {width} bits converted to float32"
        ]
    packed = (whole >> 8).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(packed), b"WAVE",
        b"fmt ", 16, 1, 1, 44100, 132300, 3, 24, b"data", len(packed),
    )  # fmt: skip
    got, told = samples(header + packed, "a.wav")
    assert np.array_equal(got, SIGNAL) and told == [
        "a.wav: samples of 24 bits converted to float32"
    ]
    got, told = samples(wav_bytes(np.stack([SIGNAL, -SIGNAL / 2], 1)), "a.wav")
    np.testing.assert_allclose(got, SIGNAL / 4, atol=1e-7)
    assert told == ["a.wav: stereo, its two channels averaged"]


def test_wav_of_another_rate_is_resampled():
    got, told = samples(wav_bytes(SIGNAL, 48000), "a.wav")
    assert np.array_equal(got, soxr.resample(SIGNAL, 48000, 44100, quality="VHQ"))
    assert "48000 Hz resampled to 44100 Hz" in told[0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (wav_bytes(SIGNAL, 11025), r"a\.wav: expected a rate of 22050 to 192000 Hz, got 11025 Hz"),
        (
            wav_bytes((SIGNAL * 100 + 128).astype(np.uint8)),
            r"a\.wav: expected samples of 16.* got Unsigned 8 bit PCM",
        ),
        (
            wav_bytes(np.zeros((9, 3), np.int16)),
            r"a\.wav: expected one channel, or two to average, got 3",
        ),
        (
            wav_bytes(SIGNAL)[:-100],
            r"a\.wav: expected 352820 bytes of samples, got 352720: it was cut short; fetch it",
        ),
        (wav_bytes(SIGNAL)[:30], r"a\.wav: expected an audio file"),
        (
            wav_bytes(SIGNAL)[:38],
            r"a\.wav: expected an audio file",
        ),
        (wav_bytes(SIGNAL[:0]), r"a\.wav: expected samples, got none"),
        (b"<html>gone</html>", r"a\.wav: expected an audio file .*, got 'Format not recognised'"),
    ],
)
def test_wav_refused(content, text):
    with pytest.raises(archive.ArchiveError, match=text):
        samples(content, "a.wav")


def test_wav_of_a_stream_is_read_to_its_end():
    content = bytearray(wav_bytes(SIGNAL))
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)

    got, told = samples(bytes(content), "a.wav")
    assert np.array_equal(got, SIGNAL)
    assert told == ["a.wav: a stream's header without its size; read to the file's end"]


def test_wav_that_cannot_be_sought_is_read_the_same():
    class Forwards:
        """A member of the packed archive: to be read and nothing else."""

        def __init__(self, content: bytes) -> None:
            self.read = io.BytesIO(content).read

    got = np.concatenate(list(wav.blocks(Forwards(wav_bytes(SIGNAL)), "a.wav", print)))
    assert np.array_equal(got, SIGNAL)


ROW = (100, 200, 1, 60, 0.0, 1.0, "Quarter")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({3: 20}, r"1\.csv, line 3: expected a note in 21\.\.104, got note 20"),
        ({3: 105}, r"1\.csv, line 3: expected a note in 21\.\.104, got note 105"),
        ({0: "abc"}, r"1\.csv, line 3: expected a whole number in start_time, got 'abc'"),
        ({1: "200.5"}, r"1\.csv, line 3: expected a whole number in end_time, got '200\.5'"),
        ({4: "nan"}, r"1\.csv, line 3: expected a finite number in start_beat, got 'nan'"),
        ({0: -1}, r"line 3: expected 0 <= start_time <= end_time, got start_time -1, end_time 200"),
        ({1: 99}, r"line 3: expected 0 <= start_time <= end_time, got start_time 100, end_time 99"),
        ({2: 0}, r"line 3: expected an instrument in 1\.\.128, got instrument 0"),
        ({6: "x" * 40}, r"line 3: expected a note_value of 32 bytes"),
    ],
)
def test_csv_values_refused(change, text):
    bad = tuple(change.get(k, value) for k, value in enumerate(ROW))
    with pytest.raises(archive.ArchiveError, match=text):
        labels.from_csv(tiny.csv_bytes([ROW, bad]), "1.csv")


def test_csv_shapes_refused():
    for content, text in (
        (
            tiny.csv_bytes([], ["start_time", "note"]),
            r"1\.csv, line 1: expected columns .* got no end_time, inst",
        ),
        (tiny.csv_bytes([]), r"1\.csv: expected notes, got none"),
        (tiny.csv_bytes([ROW[:5]]), r"1\.csv, line 2: expected 7 fields, got 5"),
        (b"\xff\xfe\x00", r"1\.csv: expected CSV text"),
    ):
        with pytest.raises(archive.ArchiveError, match=text):
            labels.from_csv(content, "1.csv")


def test_labels_are_brought_into_one_order_and_clipped_with_a_count():
    late, long, empty = (
        (500, 600, 1, 60, 0, 0, ""),
        (150, 900, 1, 61, 0, 0, ""),
        (7, 7, 1, 60, 0, 0, ""),
    )
    table, told = labels.from_csv(tiny.csv_bytes([late, long, ROW, ROW, empty]), "1.csv")
    assert table["start_time"].tolist() == [100, 150, 500]
    assert told == [
        "1.csv: 1 notes of no length left out",
        "1.csv: 1 exact copies of notes left out",
    ]
    cut, told = labels.clip(table, 400, "1.csv")
    assert cut["end_time"].tolist() == [200, 400]
    assert told == ["1.csv: 1 notes clipped at the recording's end, 1 past it left out"]
    with pytest.raises(
        archive.ArchiveError,
        match=r"1\.csv: expected notes within 50 samples, got 3 of 3 that begin",
    ):
        labels.clip(table, 50, "1.csv")


def test_all_faults_at_once_and_nothing_under_a_final_name(unpacked, tmp_path):
    folder = shutil.copytree(unpacked, tmp_path / "bad")
    path = folder / "train_data" / "2131.wav"
    path.write_bytes(path.read_bytes()[:-9])
    (folder / "train_labels" / "1727.csv").write_bytes(tiny.csv_bytes([(*ROW[:3], 10, *ROW[4:])]))
    shutil.copy(folder / "test_data" / "2303.wav", folder / "train_data" / "2303.wav")
    (folder / "test_labels" / "1759.csv").unlink()
    for n_workers in (0, 2):
        with pytest.raises(archive.ArchiveError) as caught:
            archive.build(folder, tmp_path / "data", n_workers=n_workers)
        text = str(caught.value)
        for part in (
            "4 faults",
            "train_data/2131.wav: expected 352812 bytes of samples, got 352803: it was cut short",
            "train_labels/1727.csv, line 2: expected a note in 21..104, got note 10",
            "expected one audio of recording 2303, got 2",
            "test_data/1759.wav: expected labels of recording 1759 too, got none",
        ):
            assert part in text
        assert [p.name for p in (tmp_path / "data").iterdir()] == [".musicnet-build"]


def test_not_finite_samples_are_refused(unpacked, tmp_path):
    folder = shutil.copytree(unpacked, tmp_path / "bad")
    wavfile.write(folder / "train_data" / "1727.wav", 44100, np.array([0, np.nan], np.float32))
    with pytest.raises(
        archive.ArchiveError, match=r"1727\.wav: expected finite samples, got nan at sample 1"
    ):
        archive.build(folder, tmp_path / "data", n_workers=0)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (
            _member("musicnet/../../etc/1.wav"),
            r"inside the archive's folder, got 'musicnet/\.\./\.\./etc/1\.wav'",
        ),
        (_member("/etc/passwd"), "inside the archive's folder, got '/etc/passwd'"),
        (_member("a/train_data/1.wav", tarfile.SYMTYPE, "/etc/passwd"), "a link to '/etc/passwd'"),
        (_member("a/train_data/1.wav", tarfile.LNKTYPE, "b"), "a link to 'b'"),
        (_member("a/dev", tarfile.CHRTYPE), r"expected files, got 'a/dev'"),
    ],
)
def test_tar_members_refused(member, text, tmp_path):
    with tarfile.open(tmp_path / "musicnet.tar.gz", "w:gz") as file:
        file.addfile(member)
    with pytest.raises(archive.ArchiveError, match=text):
        archive.build(tmp_path / "musicnet.tar.gz", tmp_path / "data", n_workers=0)


@pytest.mark.parametrize("end", [-1000, -6])
def test_truncated_tar(end, unpacked, tmp_path):
    path = tiny.tar(tmp_path / "musicnet.tar.gz", unpacked)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(
        archive.ArchiveError, match=r"expected a whole archive, got .*; fetch it again"
    ):
        archive.build(path, tmp_path / "data", n_workers=0)


def test_sources_told_apart(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(
        archive.ArchiveError, match=r"a\.txt: expected a \.tar\.gz, an unpacked folder"
    ):
        archive.open_source(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(archive.ArchiveError, match=r"expected recordings .* got none"):
        archive.build(tmp_path / "empty", tmp_path / "data", n_workers=0)
    hdf5.write(
        tmp_path / "low.h5",
        [recordings.Recording("id_1", SIGNAL, np.zeros(0, recordings.LABELS))],
        rate_hz=11000,
    )
    with pytest.raises(archive.ArchiveError, match="expected recordings at 44100 Hz, got 11000 Hz"):
        archive.open_source(tmp_path / "low.h5")


def test_old_hdf5_refused(tmp_path):
    path = tiny.hdf5(tmp_path / "old.h5", {1727: "", 2131: ""})
    with h5py.File(path, "r+") as file:
        del file["id_1727/data"]
        file["id_2131/labels"][3] = (1, 2, 1, 7, 0, 0, b"")
    with pytest.raises(archive.ArchiveError) as caught:
        archive.build(path, tmp_path / "data", n_workers=0)
    assert "old.h5, id_1727: expected datasets `data` and `labels`, got no `data`" in str(
        caught.value
    )
    assert "old.h5, id_2131, row 3: expected a note in 21..104, got note 7" in str(caught.value)


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_runs_code_is_refused(protocol, tmp_path):
    flag = tmp_path / "ran"
    for evil in (
        Evil(exec, f"open({str(flag)!r}, 'w')"),
        Evil(getattr, 3, "real"),
        Evil(np.memmap, str(flag)),
    ):
        with pytest.raises(
            archive.ArchiveError,
            match=r"1\.npy: expected a pickle of arrays .* nothing in it was run",
        ):
            unpickle.load(io.BytesIO(pickle.dumps(evil, protocol)), "1.npy")
    assert not flag.exists()


@pytest.mark.parametrize("opcode", [pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.BINUNICODE8])
def test_no_room_is_made_for_what_a_pickle_claims(opcode):
    evil = pickle.PROTO + b"\5" + opcode + struct.pack("<Q", 1 << 28) + b"x" + pickle.STOP
    tracemalloc.start()
    with contextlib.suppress(archive.ArchiveError):
        unpickle.load(io.BytesIO(evil), "1.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_bytearrays_are_read():
    for content in (bytearray(), bytearray(range(256)) * 1000):
        assert unpickle.load(io.BytesIO(pickle.dumps(content, 5)), "1.npy") == content


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_trees_of_every_protocol(protocol):
    from intervaltree import Interval, IntervalTree

    pair = [
        SIGNAL,
        IntervalTree([Interval(1, 2, (np.int64(3), 60, np.float64(0.5), 1.0, "Quarter"))]),
    ]
    file = io.BytesIO(pickle.dumps(pair, protocol))
    data, tree = unpickle.load(file, "x")
    found = unpickle.content_of(data)
    assert np.array_equal(found, SIGNAL)
    assert tree.intervals == ((1, 2, (3, 60, 0.5, 1.0, "Quarter")),)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", r"posix\.system"),
        (b"(S'true'\nios\nsystem\n.", r"os\.system"),
        (b"(cos\nsystem\nS'true'\no.", r"os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"os\.system"),
        (b"\x80\x02\x82\x01.", "unregistered extension"),
        (b"P0 4 0\n.", "unsupported persistent id"),
        (b"U\x050 4 0Q.", "unsupported persistent id"),
        # an attribute of a class that is admitted: (class, BUILD with slots {"__new__": 3})
        (b"cintervaltree.interval\nInterval\n(N(S'__new__'\nI3\ndtb.", "__new__ of a class set"),
        (b"\x80\x02T\x00\x00\x02\x00abc", "EOFError|truncated"),
        (b"\x80\x02K", "EOFError|index out of range"),
        (b"", "EOFError"),
    ],
)
def test_pickles_written_by_hand_are_refused(content, got):
    with pytest.raises(
        archive.ArchiveError,
        match=rf"1\.npy: expected a pickle .* got .*{got}.*nothing in it was run",
    ):
        unpickle.load(io.BytesIO(content), "1.npy")


def test_npz_members_refused(tmp_path):
    path = tmp_path / "old.npz"
    np.savez(path, **{"1727": SIGNAL})
    with pytest.raises(
        archive.ArchiveError, match=r"1727\.npy: expected a pair of samples and interval tree"
    ):
        archive.build(path, tmp_path / "data", n_workers=0)
    entry = np.empty(2, object)
    entry[:] = [Evil(exec, "1/0"), 3]
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, entry)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("2303.npy", buffer.getvalue())
    with pytest.raises(
        archive.ArchiveError, match=r"2303\.npy: expected a pickle .* got builtins\.exec"
    ):
        archive.build(path, tmp_path / "data", n_workers=0)
    assert stores.npz(path).n_recordings == 1


def test_metadata(tmp_path):
    found = published.read_metadata(tiny.metadata(tmp_path / "m.csv"))
    assert (
        found[1727]["composition"] == "Piano Quintet in A major"
        and found[2131]["ensemble"] == "Solo Cello"
    )
    for text, match in (
        (
            "id,composer\n",
            r"m\.csv, line 1: expected columns .* got no composition, movement, ensemble",
        ),
        (tiny.METADATA.replace("1759", "x"), r"m\.csv, line 3: expected a number in id, got 'x'"),
        (
            tiny.METADATA.replace("1759", "1727"),
            r"m\.csv, line 3: expected each recording once, got 1727 again",
        ),
    ):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(archive.ArchiveError, match=match):
            published.read_metadata(tmp_path / "m.csv")


def test_a_changed_byte_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.h5"
    hdf5.write(
        path, [recordings.Recording("id_1", SIGNAL, np.zeros(0, recordings.LABELS))], rate_hz=44100
    )
    content = bytearray(path.read_bytes())
    where = content.find(SIGNAL[:50].tobytes())
    content[where + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        recordings.RecordingError, match=r"id_1: expected the values that were written, got "
    ):
        list(recordings.recordings(path))


def test_a_tar_that_claims_more_than_a_wav_file_can_hold_ends_at_once(tmp_path):
    info = tarfile.TarInfo("musicnet/train_data/1727.wav")
    info.size = 2**62
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))

    with pytest.raises(archive.ArchiveError, match=r"at most 4294967296 bytes, got .*1727\.wav"):
        archive.build(tmp_path / "a.tar", tmp_path / "data", n_workers=0)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"S"])
def test_a_header_that_claims_2_to_the_62_bytes_ends_at_once(tmp_path, kind):
    """A long name, a pax header or a sparse file: tarfile alone reads on, some of them for ever."""
    info = tarfile.TarInfo("musicnet/train_data/1727.wav")
    info.type = kind
    info.size = 2**62
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))

    with pytest.raises(archive.ArchiveError, match=r"a\.tar: expected"):
        archive.build(tmp_path / "a.tar", tmp_path / "data", n_workers=0)


def test_a_name_of_gigabytes_is_not_unpacked(tmp_path):
    info = tarfile.TarInfo("name")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1 << 26
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 26) + bytes(1024))

    with pytest.raises(archive.ArchiveError, match="headers that claim more than is there"):
        archive.build(tmp_path / "a.tar.gz", tmp_path / "data", n_workers=0)


def test_errors_of_long_lines_are_short():
    lines = b",".join(tiny.HEADER[k].encode() for k in range(7)) + b"\n" + b"9," * 1_000_000
    with pytest.raises(archive.ArchiveError, match=r"line 2: expected 7 fields") as caught:
        labels.from_csv(lines, "1.csv")
    assert len(str(caught.value)) < 500

    bad = (*ROW[:6], "x" * 100_000)
    with pytest.raises(archive.ArchiveError, match="expected a note_value") as caught:
        labels.from_csv(tiny.csv_bytes([bad]), "1.csv")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("where", ["external storage", "external link", "virtual"])
def test_samples_of_another_file_are_not_read_into_a_corpus(where, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(SIGNAL.tobytes())
    path = tiny.hdf5(tmp_path / "old.h5", {1727: ""})
    tiny.hdf5(tmp_path / "other.h5", {1727: ""})
    with h5py.File(path, "r+") as file:
        group = file["id_1727"]
        del group["data"]
        if where == "external storage":
            size = (str(secret), 0, SIGNAL.nbytes)
            group.create_dataset("data", SIGNAL.shape, "f4", external=[size])
        elif where == "external link":
            group["data"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/id_1727/data")
        else:
            layout = h5py.VirtualLayout(SIGNAL.shape, "f4")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "id_1727/data", SIGNAL.shape)
            group.create_virtual_dataset("data", layout)

    with pytest.raises(archive.ArchiveError, match="expected data in the file itself, got them in"):
        archive.build(path, tmp_path / "data", n_workers=0)


def test_a_store_that_claims_2_to_the_40_samples_is_not_read(tmp_path):
    path = tiny.hdf5(tmp_path / "old.h5", {1727: ""})
    with h5py.File(path, "r+") as file:
        del file["id_1727/data"]
        file["id_1727"].create_dataset("data", (2**40,), "f4", chunks=(1 << 16,))

    with pytest.raises(archive.ArchiveError, match=r"id_1727: expected data to be written"):
        archive.build(path, tmp_path / "data", n_workers=0)


def test_a_sample_that_float32_cannot_hold_is_named(tmp_path):
    path = tiny.hdf5(tmp_path / "old.h5", {1727: ""})
    with h5py.File(path, "r+") as file:
        del file["id_1727/data"]
        file["id_1727/data"] = np.array([0.0, 1e39, 0.5])

    with pytest.raises(archive.ArchiveError, match=r"expected finite samples, got inf at sample 1"):
        archive.build(path, tmp_path / "data", n_workers=0)


def test_a_table_of_more_notes_than_a_recording_has_is_not_read():
    lines = tiny.csv_bytes([]) + b"100,200,1,60,0,1,\n" * 500_000
    with pytest.raises(archive.ArchiveError, match=r"1\.csv: expected at most 100000 notes, got 5"):
        labels.from_csv(lines, "1.csv")


def test_lines_that_end_with_a_carriage_return_count(monkeypatch):
    lines = tiny.csv_bytes([]).strip() + b"\r100,200,1,60,0,1," * 50
    monkeypatch.setattr(labels, "_MOST_NOTES", 40)
    with pytest.raises(archive.ArchiveError, match=r"1\.csv: expected at most 40 notes, got 50"):
        labels.from_csv(lines, "1.csv")


def test_metadata_with_giant_values_gets_a_short_error(tmp_path):
    for text in ("id,composer,composition,movement,ensemble\n" + "x" * 200_000, "y" * 200_000):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(archive.ArchiveError, match=r"m\.csv.*: expected") as caught:
            published.read_metadata(tmp_path / "m.csv")
        assert len(str(caught.value)) < 500


def test_a_pickle_that_unpacks_to_gigabytes_is_not_read(tmp_path, monkeypatch):
    path = tiny.npz(tmp_path / "old.npz", {1727: ""})
    monkeypatch.setattr(stores, "_LARGEST_PICKLE", 100_000)
    with pytest.raises(archive.ArchiveError, match=r"1727\.npy: expected at most 100000 bytes"):
        archive.build(path, tmp_path / "data", n_workers=0)
