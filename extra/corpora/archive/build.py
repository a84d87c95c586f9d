"""From a source to `musicnet.h5` and the three 11 kHz files: every recording, then the files, then
their names.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired

from cplxnet.files import move, write_json
from cplxnet.musicnet.recordings import Recording
from cplxnet.musicnet.resample import SOURCE_HZ, TARGET_HZ
from cplxnet.progress import bar, show
from extra.corpora import FULL, SPLITS, file_11khz, hdf5, jobs, rescale

from . import staging
from .download import md5_of
from .errors import ArchiveError, full_disk_named
from .labels import clip
from .published import EXPECTED, TEXTS, read_metadata, split_of
from .sources import Source, open_source
from .staging import Staged

RECORD = "musicnet.build.json"  # what was built, from what
RATE_HZ = {"full": SOURCE_HZ, "low": TARGET_HZ}
_STAGING = ".musicnet-build"
_PRELOAD = ("extra.corpora.archive.build",)
_MOST_ALIKE = 3  # notices that differ in the recording alone; more become one


@dataclasses.dataclass(frozen=True)
class Entry:
    """A recording to be written.

    Attributes:
        number: of the recording.
        audio, labels: file names of its staged pieces.
        member: where the labels are from, for errors.
        texts: composer, composition, movement, ensemble.
    """

    number: int
    audio: str
    labels: str
    member: str
    texts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Written:
    """What a file holds.

    Attributes:
        name: of the file.
        recordings, hours, notes: how much music.
        size: in bytes.
        md5: hexadecimal.
        notices: of labels that were clipped.
    """

    name: str
    recordings: int
    hours: float
    notes: int
    size: int
    md5: str
    notices: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Built:
    """What a build made: the folder, its files by name, and everything that was put right on the
    way.
    """

    folder: Path
    files: Mapping[str, Written]
    notices: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row a file: its recordings, what MusicNet has, hours, notes, seconds, bytes, md5."""
        expected = {file_11khz(split): count for split, count in EXPECTED.items()}
        expected[FULL] = sum(EXPECTED.values())
        return [
            {
                "file": name,
                "recordings": file.recordings,
                "expected for MusicNet": expected[name],
                "hours": file.hours,
                "notes": file.notes,
                "seconds": file.hours * 3600,
                "bytes": file.size,
                "md5": file.md5,
            }
            for name, file in self.files.items()
        ]


def build(
    source: str | os.PathLike[str],
    data: str | os.PathLike[str] = "data",
    *,
    metadata_csv: str | os.PathLike[str] | None = None,
    full: bool = True,
    n_workers: int = 2,
    force: bool = False,
) -> Built:
    """Build `musicnet.h5` (44.1 kHz) and `musicnet_11khz_{train,valid,test}.h5` in `data`; the same
    bytes each time.

    Killed at any moment and run again, it goes on with the next recording. Recordings in work lie
    in `data`/.musicnet-build, as large as the result, until all is done.

    Args:
        source: .tar.gz, unpacked folder, musicnet.h5 or musicnet.npz (`open_source`).
        data: the folder to build in.
        metadata_csv: musicnet_metadata.csv; None: composers and the like stay empty.
        full: False: no 44.1 kHz file, which nothing but looking and listening needs.
        n_workers: processes; 0: in this one.
        force: build again what is built.

    Raises:
        ArchiveError: with every fault of the source; nothing is written under a final name then.
        FileNotFoundError, DiskFullError.
        RuntimeError: another build is at work there, or a process was killed.
    """
    data = Path(data)
    opened = open_source(source)
    texts = read_metadata(Path(metadata_csv)) if metadata_csv is not None else {}
    key: dict[str, Any] = {
        "recipe": staging.recipe(),
        "source": opened.identity,
        "metadata": md5_of(Path(metadata_csv)) if metadata_csv is not None else None,
        "full": full,
    }

    folder = data / _STAGING
    earlier = None if force else _earlier(data, key)
    if earlier is not None:
        jobs.remove_left(folder)
        return _told(earlier)

    with jobs.locked(folder):
        for part in folder.glob("*.part"):  # of processes that were killed; hidden ones too
            part.unlink()
        pieces = _stage(opened, folder, key["recipe"], n_workers)
        entries = _entries(pieces, texts)
        _refuse_stale(entries, data)
        files = _assemble(entries, folder, full, n_workers)

        notices = [notice for piece in pieces for notice in piece.notices]
        # the full file has every recording, so the others' notices would only repeat its own
        clipped = [files[FULL]] if full else list(files.values())
        notices += [notice for file in clipped for notice in file.notices]
        notices = _condensed(notices) + _gaps(entries, texts)

        built = Built(data, files, tuple(sorted(notices)))
        with full_disk_named(data):
            _publish(built, folder, key)
        # a dying process of a killed build may still write there
        shutil.rmtree(folder, ignore_errors=True)
    return _told(built)


def _all(
    work: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    n_workers: int,
    tick: Callable[[], None],
) -> list[Any]:
    """What `work` returns for each of the arguments; the first exception ends all.

    Raises:
        RuntimeError: a process was killed. Whatever `work` raises.
    """
    results: dict[int, Any] = {}
    try:
        for k, future in jobs.run(
            work, arguments, n_workers=n_workers, preload=_PRELOAD, tick=tick
        ):
            results[k] = future.result()
    except ProcessExpired:
        raise RuntimeError(
            "a process of the build was killed, by hand or for want of memory; what is done is "
            "kept: run it again, with fewer --workers if memory was short"
        ) from None
    return [results[k] for k in range(len(arguments))]


def _stage(source: Source, folder: Path, recipe: str, n_workers: int) -> list[Staged]:
    """Every piece of the source in `folder`. Raises ArchiveError with every fault."""
    shards = source.shards(max(1, n_workers))
    arguments = [(shard, folder, recipe) for shard in shards]

    with bar(total=source.n_recordings, desc="recordings", unit="recording") as shown:

        def tick() -> None:
            shown.update(len(list(folder.glob("id_*.audio.*.json"))) - shown.n)

        by_shard = _all(staging.stage, arguments, n_workers, tick)
        tick()

    pieces = [piece for pieces in by_shard for piece in pieces]
    staging.check(str(source.path), pieces)
    return pieces


def _entries(pieces: Sequence[Staged], texts: Mapping[int, Mapping[str, str]]) -> list[Entry]:
    """The recordings to be written, by their numbers."""
    by_kind = {(piece.number, piece.kind): piece for piece in pieces}
    empty = dict.fromkeys(TEXTS, "")

    entries = []
    for number in sorted({piece.number for piece in pieces}):
        audio = by_kind[number, "audio"]
        labels = by_kind[number, "labels"]
        entries.append(
            Entry(number, audio.file, labels.file, labels.member, texts.get(number, empty))
        )
    return entries


def _refuse_stale(entries: Sequence[Entry], data: Path) -> None:
    """Raise ArchiveError where a file of another build would stand beside the new ones as one of
    theirs.
    """
    splits = {split_of(entry.number) for entry in entries}
    for split in SPLITS:
        stale = data / file_11khz(split)
        if split not in splits and stale.exists():
            raise ArchiveError(
                f"{stale}: expected no file of another build, got one, and this source has no "
                f"{split} recordings; build in another folder (--data)"
            )


def _assemble(
    entries: Sequence[Entry], folder: Path, full: bool, n_workers: int
) -> dict[str, Written]:
    """The final files, in `folder` still; the largest first, as it takes longest."""
    arguments: list[tuple[Any, ...]] = [(FULL, entries, folder, "full")] if full else []
    for split in SPLITS:
        chosen = [entry for entry in entries if split_of(entry.number) == split]
        if chosen:
            arguments.append((file_11khz(split), chosen, folder, "low"))

    with bar(total=len(arguments), desc="files", unit="file") as shown:

        def tick() -> None:
            shown.update(sum((folder / name).exists() for name, *_ in arguments) - shown.n)

        files = _all(assemble, arguments, n_workers, tick)
        tick()
    return {file.name: file for file in files}


def assemble(name: str, entries: Sequence[Entry], folder: Path, form: str) -> Written:
    """Write the file `name` in `folder` of `entries` at the rate of `form`, "full" or "low"; the
    same bytes each time.

    Raises:
        ArchiveError: labels that cannot be the recording's. DiskFullError.
    """
    notices: list[str] = []
    samples: list[int] = []
    notes: list[int] = []

    def counted() -> Iterator[Recording]:
        for entry in entries:
            recording = _recording(entry, folder, form, notices)
            samples.append(len(recording.data))
            notes.append(len(recording.labels))
            yield recording

    path = folder / name
    with full_disk_named(folder):
        hdf5.write(path, counted(), rate_hz=RATE_HZ[form])
    return Written(
        name=name,
        recordings=len(entries),
        hours=sum(samples) / RATE_HZ[form] / 3600,
        notes=sum(notes),
        size=path.stat().st_size,
        md5=md5_of(path),
        notices=tuple(notices),
    )


def _recording(entry: Entry, folder: Path, form: str, notices: list[str]) -> Recording:
    """The recording of `entry`; its samples stay on disk until they are written, slice by slice."""
    n_samples = len(staging.values(folder / entry.audio, "full"))
    labels, told = clip(
        np.array(staging.values(folder / entry.labels, "rows")), n_samples, entry.member
    )
    notices += told

    if form == "low":
        labels = labels.copy()
        for column in ("start_time", "end_time"):
            labels[column] = rescale(labels[column])
    data = staging.values(folder / entry.audio, form)
    return Recording(f"id_{entry.number:04d}", data, labels, **entry.texts)


def _gaps(entries: Sequence[Entry], texts: Mapping[int, Mapping[str, str]]) -> list[str]:
    """Notices of recordings without metadata and of splits unlike MusicNet's."""
    notices = []
    unknown = [str(entry.number) for entry in entries if entry.number not in texts]
    if unknown:
        more = ", ..." * (len(unknown) > 10)
        notices.append(
            f"{len(unknown)} recordings without metadata: {', '.join(unknown[:10])}{more}"
        )

    for split in SPLITS:
        count = sum(split_of(entry.number) == split for entry in entries)
        if count != EXPECTED[split]:
            notices.append(f"{split}: {count} recordings, MusicNet has {EXPECTED[split]}")
    return notices


def _condensed(notices: Sequence[str]) -> list[str]:
    """The same notices; where many members ("MEMBER: TEXT") have one text, one line that counts
    them.
    """
    members: dict[str, list[str]] = {}
    for notice in notices:
        member, _, text = notice.partition(": ")
        members.setdefault(text, []).append(member)

    lines = []
    for text, names in members.items():
        if len(names) > _MOST_ALIKE:
            lines.append(f"{names[0]} and {len(names) - 1} more: {text}")
        else:
            lines += [f"{name}: {text}" for name in names]
    return lines


def _earlier(data: Path, key: Mapping[str, Any]) -> Built | None:
    """What an earlier build from the same source left, if all of it is still there."""
    try:
        record = json.loads((data / RECORD).read_text())
        files = {
            file["name"]: Written(**file | {"notices": tuple(file["notices"])})
            for file in record["files"]
        }
        if any((data / name).stat().st_size != file.size for name, file in files.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None

    if record.get("key") != dict(key):
        return None
    return Built(data, files, tuple(record["notices"]))


def _publish(built: Built, folder: Path, key: Mapping[str, Any]) -> None:
    """Give the files their final names; their record last."""
    (built.folder / RECORD).unlink(missing_ok=True)
    for name in built.files:
        move(folder / name, built.folder / name)

    files = [dataclasses.asdict(file) for file in built.files.values()]
    record = {"key": dict(key), "files": files, "notices": built.notices}
    write_json(folder / RECORD, record)  # there, where nothing of a killed build stays
    move(folder / RECORD, built.folder / RECORD)


def _told(built: Built) -> Built:
    for notice in built.notices:
        show(f"notice: {notice}")
    return built
