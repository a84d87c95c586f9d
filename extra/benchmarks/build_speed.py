"""How fast MusicNet's files are built, and opened: `python -m extra.benchmarks.build_speed [--hours
3] [--open-gb 5]`.

Makes an archive of noise with MusicNet's density of notes (float WAV files of 4 to 18 minutes, the
first of --longest), builds it from the unpacked folder with two processes, and samples the memory
of all its processes ten times a second: compare --longest 4 and --longest 40, which must not
matter. Then writes one 11 kHz file of --open-gb GB with 1.1 million notes and opens it, twice, so
that the second time is from a warm disk. Everything lies in a temporary folder (--folder) and is
deleted.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from scipy.io import wavfile

from cplxnet.musicnet import MusicNet, recordings
from extra.corpora import archive, hdf5

SOURCE_HZ, TARGET_HZ, NOTES_PER_SECOND = 44_100, 11_000, 9.0
MINUTES = (18, 4, 7, 12, 5, 9)  # of the recordings, in turn
IDS = (2303, 2131)  # so that test and valid have one each


def _labels(rng: np.random.Generator, samples: int, notes: int, rate_hz: int) -> np.ndarray:
    labels = np.zeros(notes, recordings.LABELS)
    labels["start_time"] = np.sort(rng.integers(0, samples - rate_hz, notes))
    labels["end_time"] = (
        labels["start_time"] + 1 + np.minimum(rng.exponential(0.4, notes), 0.9) * rate_hz
    )
    labels["instrument"], labels["note"], labels["note_value"] = (
        1,
        rng.integers(21, 105, notes),
        b"Quarter",
    )
    return labels


def write_archive(folder: Path, hours: float, longest: int) -> float:
    """An unpacked archive of about `hours`; returns its seconds of sound."""
    rng, seconds, number = np.random.default_rng(0), 0.0, 0
    for name in ("train_data", "train_labels"):
        (folder / name).mkdir(parents=True)
    while seconds < hours * 3600:
        key = IDS[number] if number < len(IDS) else 1000 + number
        length = 60 * (MINUTES[number % len(MINUTES)] if number else longest)
        samples = length * SOURCE_HZ
        noise = rng.standard_normal(samples, dtype=np.float32)
        wavfile.write(folder / "train_data" / f"{key}.wav", SOURCE_HZ, noise * np.float32(0.1))
        labels = _labels(rng, samples, int(length * NOTES_PER_SECOND), SOURCE_HZ)
        rows = [",".join(recordings.LABELS.names or ())]
        rows += [",".join(map(str, (*row[:6], row[6].decode()))) for row in labels.tolist()]
        (folder / "train_labels" / f"{key}.csv").write_text("\n".join(rows) + "\n")
        seconds, number = seconds + length, number + 1
    return seconds


class Memory:
    """The most memory of this process and its children together, by sampling: `rss` counts shared
    pages for each.
    """

    def __init__(self) -> None:
        self.rss = self.pss = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            rss = pss = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    found = process.memory_full_info()
                except psutil.Error:  # ended meanwhile
                    continue
                rss, pss = rss + found.rss, pss + found.pss
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def _recordings(gigabytes: float, notes: int) -> Iterator[recordings.Recording]:
    rng, count = np.random.default_rng(1), 321
    samples = int(gigabytes * 1e9 / 4 / count)
    noise = rng.standard_normal(samples, dtype=np.float32)
    for number in range(count):
        labels = _labels(rng, samples, notes // count, TARGET_HZ)
        yield recordings.Recording(f"id_{1000 + number}", np.roll(noise, number), labels)


def time_build(folder: Path, hours: float, longest: int) -> None:
    seconds = write_archive(folder / "archive", hours, longest)
    with Memory() as memory:
        start = time.perf_counter()
        archive.build(folder / "archive", folder / "data", n_workers=2)
        taken = time.perf_counter() - start
    print(
        f"build: {seconds / 3600:.2f} hours of WAV, one of {longest} minutes, in {taken:.1f} s, "
        f"{seconds / taken:.0f} times real time; "
        f"memory at most {memory.pss / 1e9:.2f} GB (shared pages once), "
        f"{memory.rss / 1e9:.2f} GB (counted for each process)"
    )


def time_opening(folder: Path, gigabytes: float, notes: int = 1_100_000) -> None:
    path = folder / "train.h5"
    hdf5.write(path, _recordings(gigabytes, notes), rate_hz=TARGET_HZ)
    for samples in ("float32", "float32", "int16"):
        start = time.perf_counter()
        data = MusicNet(path, samples=samples)
        taken = time.perf_counter() - start
        print(
            f"open: {path.stat().st_size / 1e9:.2f} GB as {samples} in {taken:.1f} s; samples "
            f"{data._flat.nbytes / 1e9:.2f} GB, labels {data.notes.nbytes / 1e6:.0f} MB"
        )
        del data


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m extra.benchmarks.build_speed", description=__doc__
    )
    parser.add_argument(
        "--hours", type=float, default=3.0, help="of sound in the archive; 0: no build"
    )
    parser.add_argument(
        "--longest", type=int, default=MINUTES[0], help="minutes of the first recording"
    )
    parser.add_argument(
        "--open-gb", type=float, default=5.0, help="size of the train file; 0: not opened"
    )
    parser.add_argument("--folder", help="where the temporary folder lies (default: the system's)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        if options.hours:
            time_build(folder, options.hours, options.longest)
            shutil.rmtree(folder / "archive")
            shutil.rmtree(folder / "data")
        if options.open_gb:
            time_opening(folder, options.open_gb)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
