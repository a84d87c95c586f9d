"""A tiny MusicNet in each form that people hold it in, made here with libraries other than the
package's own code.
"""

import csv
import io
import tarfile
import wave
from pathlib import Path

import h5py
import numpy as np
from intervaltree import Interval, IntervalTree
from scipy.io import wavfile

SOURCE_HZ = 44_100
HEADER = ["start_time", "end_time", "instrument", "note", "start_beat", "end_beat", "note_value"]
NUMBERS = {
    1727: "train",
    2303: "test",
    1759: "test",
    2131: "train",
}  # 1759 is of the archive's test, and trains here
METADATA = """id,composer,composition,movement,ensemble,source,transcriber,catalog_name,seconds
1727,Schubert,"Piano Quintet in A major",2. Andante,Piano Quintet,European Archive,http://,OP114,2
1759,Schubert,Piano Sonata,1. Molto,Solo Piano,Museopen,http://,D958,2
2131,Bach,Cello Suite 1,"1. Prélude, slow",Solo Cello,,,BWV1007,2
2303,Bach,WTK I,Fugue,Solo Piano,,,BWV846,2
"""


def audio(number: int, seconds: float = 2.0) -> np.ndarray:
    """A recording's samples, float32, whose values int16 holds exactly."""
    rng = np.random.default_rng(number)
    t = np.arange(int(seconds * SOURCE_HZ) + number % 7)
    tone = 0.5 * np.sin(
        2 * np.pi * (300 + number / 10) * t / SOURCE_HZ
    ) + 0.01 * rng.standard_normal(len(t))
    return (np.rint(tone * 32768) / 32768 + 0.0).astype(np.float32)  # + 0.0: int16 has no -0.0


def notes(number: int, count: int = 12, seconds: float = 2.0) -> list[tuple]:
    """A recording's notes as the CSV has them, in order of start."""
    rng = np.random.default_rng(number + 1)
    starts = np.sort(rng.integers(0, int((seconds - 0.5) * SOURCE_HZ), count))
    return [
        (int(s), int(s + rng.integers(100, 20000)), int(rng.choice([1, 41, 43])),
         int(rng.integers(21, 105)), k / 2, float(rng.choice([0.5, 1.5])), "Dotted Quarter")
        for k, s in enumerate(starts)
    ]  # fmt: skip


def csv_bytes(rows: list[tuple], header: list[str] = HEADER) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode()


def folder(path: Path, numbers: dict[int, str] = NUMBERS, *, width: str = "float32") -> Path:
    """The unpacked archive; WAV files of float32 by scipy or int16 by Python's own wave module."""
    for number, part in numbers.items():
        for kind in ("data", "labels"):
            (path / f"{part}_{kind}").mkdir(parents=True, exist_ok=True)
        name = path / f"{part}_data" / f"{number}.wav"
        if width == "float32":
            wavfile.write(name, SOURCE_HZ, audio(number))
        else:
            with wave.open(str(name), "wb") as file:
                file.setparams((1, 2, SOURCE_HZ, 0, "NONE", ""))
                file.writeframes((audio(number) * 32768).astype("<i2").tobytes())
        (path / f"{part}_labels" / f"{number}.csv").write_bytes(csv_bytes(notes(number)))
    return path


def tar(path: Path, unpacked: Path, *, labels_first: bool = False) -> Path:
    members = sorted(p for p in unpacked.rglob("*") if p.is_file())
    members.sort(key=lambda p: (p.suffix == ".csv") != labels_first)
    with tarfile.open(path, "w:gz", compresslevel=1) as file:
        for member in members:
            file.add(member, f"musicnet/{member.relative_to(unpacked)}")
    return path


def hdf5(path: Path, numbers: dict[int, str] = NUMBERS, *, note: str = "note_id") -> Path:
    kind = [
        ("start_time", "<i8"), ("end_time", "<i8"), ("instrument", "<i4"), (note, "<i4"),
        ("start_beat", "<f8"), ("end_beat", "<f8"), ("note_value", "S20"),
    ]  # fmt: skip
    with h5py.File(path, "w") as file:
        for number in numbers:
            file[f"id_{number}/data"] = audio(number)
            file[f"id_{number}/labels"] = np.array(notes(number)[::-1], kind)
    return path


def npz(path: Path, numbers: dict[int, str] = NUMBERS) -> Path:
    """As MusicNet's authors made it: an object array of samples and interval tree per recording."""
    entries = {}
    for number in numbers:
        entry = np.empty(2, object)
        entry[0] = audio(number)
        entry[1] = IntervalTree(
            Interval(start, end, tuple(rest)) for start, end, *rest in notes(number)
        )
        entries[str(number)] = entry
    np.savez(path, **entries)
    return path


def metadata(path: Path) -> Path:
    path.write_text(METADATA, encoding="utf-8")
    return path
