"""One of the final files from staged recordings, and what is in it."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from cplxnet.musicnet import recordings as layout
from cplxnet.musicnet.recordings import Recording
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
    samples = len(staging.values(folder / entry.audio, "full"))
    labels, told = clip(staging.values(folder / entry.labels, "rows")[:], samples, entry.member)
    notices += told
    if form == "low":
        labels = labels.copy()
        for column in ("start_time", "end_time"):
            labels[column] = rescale(labels[column])
    data = cast(
        np.ndarray, staging.values(folder / entry.audio, form)
    )  # read in slices by layout.write
    return Recording(f"id_{entry.number:04d}", data, labels, **entry.texts)


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
    with staging.telling_full(folder):
        layout.write(path, recordings(), rate_hz=RATE_HZ[form])
    hours = samples / RATE_HZ[form] / 3600
    return Written(
        name, len(entries), hours, notes, path.stat().st_size, md5_of(path), tuple(notices)
    )
