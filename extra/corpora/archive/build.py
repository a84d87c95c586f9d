"""From a source to `musicnet.h5` and the three 11 kHz files: every recording, then the files, then their names."""

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cplxnet.files import written

from . import faults, files, metadata, pool, staging
from .download import md5_of
from .faults import ArchiveError, Seen
from .files import Entry, Written
from .published import EXPECTED, SPLITS, split_of
from .sources import Source, open_source

FULL = "musicnet.h5"
RECORD = "musicnet.build.json"  # what was built, from what
_STAGING = ".musicnet-build"


def file_11khz(split: str) -> str:
    """The name of a split's file at 11 kHz."""
    return f"musicnet_11khz_{split}.h5"


@dataclasses.dataclass(frozen=True)
class Built:
    """What a build made: the folder, its files by name, and everything that was put right on the way."""

    folder: Path
    files: Mapping[str, Written]
    notices: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row a file: recordings, what MusicNet has, hours, notes, seconds of sound, bytes, md5."""
        expected = {file_11khz(split): count for split, count in EXPECTED.items()} | {
            FULL: sum(EXPECTED.values())
        }
        return [
            {
                "file": name,
                "recordings": made.recordings,
                "expected for MusicNet": expected[name],
                "hours": made.hours,
                "notes": made.notes,
                "seconds": made.hours * 3600,
                "bytes": made.size,
                "md5": made.md5,
            }
            for name, made in self.files.items()
        ]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder for this build alone; free again when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = folder.exists() and os.path.samestat(
                os.fstat(handle), folder.stat()
            )  # or removed by its owner
        except BlockingIOError:
            mine = False
        if not mine:
            raise RuntimeError(
                f"{folder}: expected no other build here, got one at work; wait for its end"
            )
        for left in folder.glob("*.part"):  # of processes that were killed; hidden ones too
            left.unlink()
        yield
    finally:
        os.close(handle)


def _stage(source: Source, folder: Path, recipe: str, n_workers: int) -> list[Seen]:
    jobs = [(shard, folder, recipe) for shard in source.shards(max(1, n_workers))]
    seen: list[Seen] = []
    with tqdm(total=source.n_recordings, desc="recordings", unit="recording") as bar:

        def tick() -> None:
            bar.update(len(list(folder.glob("id_*.audio.*.json"))) - bar.n)

        for _, found in pool.run(staging.stage, jobs, n_workers=n_workers, tick=tick):
            seen += found
        tick()
    faults.check(str(source.path), seen)
    return seen


def _entries(seen: Sequence[Seen], texts: Mapping[int, Mapping[str, str]]) -> list[Entry]:
    by_kind = {(one.number, one.kind): one for one in seen}
    empty = dict.fromkeys(metadata.TEXTS, "")
    return [
        Entry(
            number,
            by_kind[number, "audio"].staged,
            by_kind[number, "labels"].staged,
            by_kind[number, "labels"].member,
            texts.get(number, empty),
        )
        for number in sorted({one.number for one in seen})
    ]


def _gaps(entries: Sequence[Entry], texts: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Notices of recordings without metadata and of splits unlike MusicNet's."""
    found = []
    unknown = [str(entry.number) for entry in entries if entry.number not in texts]
    if unknown:
        found.append(
            f"{len(unknown)} recordings without metadata: {', '.join(unknown[:10])}{', ...' * (len(unknown) > 10)}"
        )
    for split in SPLITS:
        count = sum(split_of(entry.number) == split for entry in entries)
        if count != EXPECTED[split]:
            found.append(f"{split}: {count} recordings, MusicNet has {EXPECTED[split]}")
    return found


def _assemble(
    entries: Sequence[Entry], folder: Path, full: bool, n_workers: int
) -> dict[str, Written]:
    jobs: list[tuple[Any, ...]] = (
        [(FULL, entries, folder, "full")] if full else []
    )  # the longest first
    for split in SPLITS:
        some = [entry for entry in entries if split_of(entry.number) == split]
        if some:
            jobs.append((file_11khz(split), some, folder, "low"))
    made = {}
    with tqdm(total=len(jobs), desc="files", unit="file") as bar:
        for _, written in pool.run(files.assemble, jobs, n_workers=n_workers):
            made[written.name] = written
            bar.update()
    return {name: made[name] for name in (FULL, *map(file_11khz, SPLITS)) if name in made}


def _found(data: Path, key: Mapping[str, Any]) -> Built | None:
    """What an earlier build from the same source left, if all of it is still there."""
    try:
        record = json.loads((data / RECORD).read_text())
        made = {
            one["name"]: Written(**one | {"notices": tuple(one["notices"])})
            for one in record["files"]
        }
        whole = all((data / name).stat().st_size == one.size for name, one in made.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (
        Built(data, made, tuple(record["notices"]))
        if whole and record.get("key") == dict(key)
        else None
    )


def _refuse_stale(entries: Sequence[Entry], data: Path) -> None:
    there = {split_of(entry.number) for entry in entries}
    for split in SPLITS:
        stale = data / file_11khz(split)
        if split not in there and stale.exists():
            raise ArchiveError(
                f"{stale}: expected no file of another build, got one and no {split} recordings; remove it"
            )


def _publish(built: Built, folder: Path, key: Mapping[str, Any]) -> None:
    """Give the files their final names; their record last."""
    (built.folder / RECORD).unlink(missing_ok=True)
    for name in built.files:
        os.replace(folder / name, built.folder / name)
    record = {"key": dict(key), "files": [dataclasses.asdict(one) for one in built.files.values()]}
    with written(folder / RECORD) as place:
        place.write_text(json.dumps(record | {"notices": built.notices}, indent=2) + "\n")
    os.replace(folder / RECORD, built.folder / RECORD)


def _told(built: Built) -> Built:
    for notice in built.notices:
        tqdm.write(f"notice: {notice}")
    return built


def build(
    source: str | os.PathLike[str],
    data: str | os.PathLike[str] = "data",
    *,
    metadata_csv: str | os.PathLike[str] | None = None,
    full: bool = True,
    n_workers: int = 2,
    force: bool = False,
) -> Built:
    """Build `musicnet.h5` (44.1 kHz) and `musicnet_11khz_{train,valid,test}.h5` in `data`; the same bytes each time.

    Killed at any moment and run again, it goes on with the next recording. Recordings in work lie in
    `data`/.musicnet-build, as large as the result, until all is done.

    Parameters
    ----------
    source: .tar.gz, unpacked folder, musicnet.h5 or musicnet.npz (`open_source`).
    metadata_csv: musicnet_metadata.csv; None: composers and the like stay empty.
    full: False: no 44.1 kHz file, which nothing but looking and listening needs.
    n_workers: processes; 0: in this one. force: build again what is built.

    Raises
    ------
    ArchiveError: with every fault found; nothing is written under a final name then.
    FileNotFoundError, DiskFullError; RuntimeError: another build is at work there, or a process was killed.
    """
    data, opened = Path(data), open_source(source)
    texts = metadata.read(Path(metadata_csv)) if metadata_csv is not None else {}
    key: dict[str, Any] = {
        "recipe": staging.recipe(),
        "source": opened.identity,
        "metadata": md5_of(Path(metadata_csv)) if metadata_csv is not None else None,
        "full": full,
    }
    folder = data / _STAGING
    if not force and (found := _found(data, key)) is not None:
        if folder.exists():  # killed at its very end
            with _locked(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return _told(found)
    with _locked(folder):
        seen = _stage(opened, folder, key["recipe"], n_workers)
        entries = _entries(seen, texts)
        _refuse_stale(entries, data)
        made = _assemble(entries, folder, full, n_workers)
        clipped = (
            next(iter(made.values())).notices
            if full
            else [n for one in made.values() for n in one.notices]
        )
        told = (
            *(notice for one in seen for notice in one.notices),
            *clipped,
            *_gaps(entries, texts),
        )
        built = Built(data, made, tuple(sorted(told)))
        with staging.telling_full(data):
            _publish(built, folder, key)
        shutil.rmtree(
            folder, ignore_errors=True
        )  # the dying process of a killed build may still write there
    return _told(built)
