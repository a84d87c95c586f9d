"""One of the final files from staged recordings, and what is in it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cplxnet.musicnet import layout
from cplxnet.musicnet.layout import Recording
from cplxnet.musicnet.resample import SOURCE_HZ, TARGET_HZ, rescale

from . import staging
from .download import md5_of
from .labels import clip

RATE_HZ = {"full": SOURCE_HZ, "low": TARGET_HZ}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A recording to be written: its staged audio and labels (file names), where the labels are from, its texts."""

    number: int
    audio: str
    labels: str
    member: str
    texts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Written:
    """What a file holds: recordings, hours, notes; its size in bytes and md5; notices of labels that were clipped."""

    name: str
    recordings: int
    hours: float
    notes: int
    size: int
    md5: str
    notices: tuple[str, ...] = ()


def _recording(entry: Entry, folder: Path, form: str, notices: list[str]) -> Recording:
    audio = staging.load(folder / entry.audio)
    labels, told = clip(staging.load(folder / entry.labels)["labels"], len(audio["full"]), entry.member)
    notices += told
    if form == "low":
        labels = labels.copy()
        for column in ("start_time", "end_time"):
            labels[column] = rescale(labels[column])
    return Recording(f"id_{entry.number:04d}", audio[form], labels, **entry.texts)


def assemble(name: str, entries: Sequence[Entry], folder: Path, form: str) -> Written:
    """Write the file `name` in `folder` of `entries` at the rate of `form`, "full" or "low"; the same bytes each time.

    Raises
    ------
    ArchiveError: labels that cannot be the recording's; DiskFullError.
    """
    notices: list[str] = []
    samples, notes = 0, 0

    def recordings() -> Iterator[Recording]:
        nonlocal samples, notes
        for entry in entries:
            recording = _recording(entry, folder, form, notices)
            samples, notes = samples + len(recording.data), notes + len(recording.labels)
            yield recording

    path = folder / name
    try:
        layout.write(path, recordings(), rate_hz=RATE_HZ[form])
    except OSError as error:
        if staging.is_full(error):
            raise staging.disk_full(folder) from None
        raise
    hours = samples / RATE_HZ[form] / 3600
    return Written(name, len(entries), hours, notes, path.stat().st_size, md5_of(path), tuple(notices))
