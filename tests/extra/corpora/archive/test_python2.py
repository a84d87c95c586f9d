"""musicnet.npz as Python 2 made it: opcode by opcode, read by numpy's own unpickler and by ours."""

import io
import pickletools
import zipfile

import numpy as np
import pytest
import python2
import tiny

from extra.corpora import archive
from extra.corpora.archive import labels, stores, unpickle


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    """The tiny MusicNet, and one recording more with over a thousand notes and numpy's numbers
    among them.
    """
    recordings = {number: (tiny.audio(number), tiny.notes(number)) for number in tiny.NUMBERS}
    many = [
        (s, e, np.int64(i), n, np.float64(b), c, v)
        for s, e, i, n, b, c, v in tiny.notes(1788, 1500, 60.0)
    ]
    recordings[1788] = tiny.audio(1788, 61.0), many
    return python2.npz(tmp_path_factory.mktemp("python2") / "musicnet.npz", recordings)


def test_the_opcodes_are_python_2s(npz):
    with zipfile.ZipFile(npz) as file:
        content = file.read("1788.npy")
    names = {
        opcode.name for opcode, _, _ in pickletools.genops(content[content.index(b"\x80\x02") :])
    }
    assert {
        "BINSTRING",
        "SHORT_BINSTRING",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINGET",
        "LONG_BINPUT",
        "APPENDS",
    } <= names
    assert not {
        name
        for name in names
        if "UNICODE" in name or "BYTES" in name or name in ("FRAME", "STACK_GLOBAL")
    }


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated")
def test_read_as_numpy_and_intervaltree_read_it(npz):
    members = sorted([*map(str, tiny.NUMBERS), "1788"])
    with np.load(npz, allow_pickle=True, encoding="latin1") as file:
        assert sorted(file.files) == members
        for name in members:
            samples, tree = file[name]
            want = [(i.begin, i.end, *i.data[:-1], i.data[-1].encode()) for i in sorted(tree)]
            told: list[str] = []
            read = [
                list(stores._read_npz(str(npz), f"{name}.npy", k, name, told.append))
                for k in ("audio", "labels")
            ]
            assert np.array_equal(np.concatenate(read[0]), samples) and told == []
            assert read[0][0].dtype == np.float32
            assert (
                np.concatenate(read[1]).tolist()
                == np.unique(np.array(want, labels.LABELS)).tolist()
            )


def test_it_gives_the_same_bytes_as_the_folder(unpacked, metadata_csv, tmp_path):
    source = python2.npz(
        tmp_path / "old.npz", {n: (tiny.audio(n), tiny.notes(n)) for n in tiny.NUMBERS}
    )
    for name, given in (("npz", source), ("folder", unpacked)):
        archive.build(given, tmp_path / name, metadata_csv=metadata_csv, n_workers=0)
    for path in (tmp_path / "folder").glob("*.h5"):
        assert path.read_bytes() == (tmp_path / "npz" / path.name).read_bytes()


def test_a_class_of_its_own_in_place_of_a_number_is_refused(tmp_path):
    evil = python2.Array(python2.Dtype("O8", "|", 63), 2, [python2.Class("os", "system"), 3])
    with pytest.raises(
        archive.ArchiveError, match=r"got os\.system; it was refused, nothing in it was run"
    ):
        unpickle.load(io.BytesIO(python2.dumps(evil)), "1.npy")


@pytest.mark.parametrize(
    ("length", "text"),
    [(9, "cannot reshape array of size 20000"), (30_000, "cannot reshape array of size 20000")],
)
def test_samples_of_another_number_than_told_are_refused(length, text):
    samples = np.arange(20_000, dtype="<f4").tobytes()
    wrong = python2.dumps(python2.Array(python2.Dtype("f4", "<", 0), length, samples))
    with pytest.raises(archive.ArchiveError, match=text):
        unpickle.load(io.BytesIO(wrong), "1.npy")


def test_a_flipped_bit_in_the_samples_is_refused(npz, tmp_path):
    content = bytearray(npz.read_bytes())
    content[content.index(tiny.audio(1727)[1000:1100].tobytes())] ^= 1
    (tmp_path / "musicnet.npz").write_bytes(content)
    with pytest.raises(
        archive.ArchiveError, match=r"1727\.npy: expected a pickle .* got Bad CRC-32"
    ):
        archive.build(tmp_path / "musicnet.npz", tmp_path / "data", n_workers=0)
